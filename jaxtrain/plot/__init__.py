"""Figures, drawn with matplotlib (installed with the `experiments` extra)."""

from jaxtrain.plot._curves import curves as curves
