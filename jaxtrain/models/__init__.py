"""Whole networks, made of the layers of `jaxtrain.nn`."""

from jaxtrain.models._cifar_speed import cifar_speed as cifar_speed
from jaxtrain.models._from_torch import from_torch as from_torch
from jaxtrain.models._lenet import lenet as lenet
from jaxtrain.models._mlp import mlp as mlp
from jaxtrain.models._resnet import resnet as resnet
from jaxtrain.models._resnet import resnet_imagenet as resnet_imagenet
from jaxtrain.models._vgg import vgg as vgg
