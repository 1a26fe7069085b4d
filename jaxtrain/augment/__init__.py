"""Augmentations: `f(key, image, *, ...) -> image` for one image, applied inside the step."""

from jaxtrain.augment._geometry import random_affine as random_affine
from jaxtrain.augment._geometry import random_crop as random_crop
from jaxtrain.augment._policy import OPERATIONS as OPERATIONS
from jaxtrain.augment._policy import WIDE as WIDE
from jaxtrain.augment._policy import Ranges as Ranges
from jaxtrain.augment._policy import auto_augment as auto_augment
from jaxtrain.augment._policy import rand_augment as rand_augment
from jaxtrain.augment._policy import trivial_augment as trivial_augment
from jaxtrain.augment._tables import autocontrast as autocontrast
from jaxtrain.augment._tables import equalize as equalize
from jaxtrain.augment._tables import invert as invert
from jaxtrain.augment._tables import posterize as posterize
from jaxtrain.augment._tables import solarize as solarize
