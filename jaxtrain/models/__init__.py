"""Whole networks, made of the layers of `jaxtrain.nn`."""

from jaxtrain.models._models import mlp as mlp
from jaxtrain.models._models import resnet as resnet
