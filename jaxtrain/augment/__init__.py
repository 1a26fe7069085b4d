"""Augmentations: `f(key, image, *, ...) -> image` for one image, applied inside the step."""

from jaxtrain.augment._geometry import random_affine as random_affine
from jaxtrain.augment._geometry import random_crop as random_crop
