"""Figures, drawn with matplotlib (installed with the `experiments` extra)."""

from jaxtrain.plot._augmentations import augmentations as augmentations
from jaxtrain.plot._curves import curves as curves
from jaxtrain.plot._schedule import schedule as schedule
