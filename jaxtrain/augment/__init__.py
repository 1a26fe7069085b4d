"""Augmentations: `f(key, image, *, ...) -> image` for one image, applied inside the step."""

from jaxtrain.augment._geometry import random_affine as random_affine
from jaxtrain.augment._geometry import random_crop as random_crop
from jaxtrain.augment._tables import autocontrast as autocontrast
from jaxtrain.augment._tables import equalize as equalize
from jaxtrain.augment._tables import invert as invert
from jaxtrain.augment._tables import posterize as posterize
from jaxtrain.augment._tables import solarize as solarize
