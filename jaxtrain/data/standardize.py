"""Standardization: mean 0 and standard deviation 1, with the statistics of the training set.

A preprocessing is a pair of functions, `fit(x) -> stats` and `apply(stats, x) -> x`, here with
the inverse. `functools.partial(standardize.apply, stats)` is a function of one array and thus a
layer.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError


class Stats(NamedTuple):
    """Mean and standard deviation, of the rank of x with 1 for every axis averaged over."""

    mean: Any
    std: Any


def fit(x: Any, *, per: str = "feature", scale: bool = True, eps: float = 1e-8) -> Stats:
    """Computes the statistics of a training set, in float64 and a few examples at a time.

        mean = (1/n) sum_i x_i,   std = max(sqrt((1/n) sum_i (x_i - mean)^2), eps)

    Args:
        x: Examples, (n, ...), of an integer or float type.
        per: What has its own statistics: each "feature" (every entry of an example), each
            "channel" (the last axis), or "all" (one number for the whole).
        scale: Whether to scale; without it std is 1, so that `apply` only centres, as AlexNet
            (per="feature") and VGG (per="channel") do.
        eps: Least standard deviation, > 0, in the unit of x. It is that of a feature which is
            constant in x; raise it where later data may differ there.

    Returns:
        NumPy arrays, float64 if x is, else float32.

    Raises:
        DataError: If x has no examples.

    Example:
        >>> stats = fit(np.array([[1.0, 10.0], [3.0, 50.0]]))
        >>> apply(stats, np.array([[2.0, 50.0]]))
        array([[0., 1.]])

    References:
        Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, Efficient BackProp, 1998.
    """
    _check.choice("standardize.fit", "per", per, ("feature", "channel", "all"))
    _check.positive("standardize.fit", "eps", eps)
    x = np.asarray(x)
    if x.size == 0 or x.ndim == 0:
        rule = "an array with at least one example"
        _check.fail("standardize.fit", "x", rule, x.shape, error=DataError)
    axes = {"feature": (0,), "channel": tuple(range(x.ndim - 1)), "all": tuple(range(x.ndim))}[per]
    n = math.prod(x.shape[axis] for axis in axes)

    def average(f):
        blocks = (x[i : i + 1024].astype(np.float64) for i in range(0, len(x), 1024))
        return sum(f(block).sum(axes, keepdims=True) for block in blocks) / n

    mean = average(lambda x: x)
    std = np.ones_like(mean)
    if scale:
        std = np.maximum(np.sqrt(average(lambda x: (x - mean) ** 2)), eps)
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    return Stats(mean.astype(dtype), std.astype(dtype))


def apply(stats: Stats, x: Any) -> Any:
    """Standardizes examples: y = (x - mean) / std.

    Args:
        stats: What `fit` returned for the training set.
        x: Examples, (n, ...), NumPy or JAX, traced or not.

    Returns:
        y of the shape of x, computed in float32 or better; of the dtype of x, float32 where
        that is an integer.
    """
    x, mean, std, dtype = _promote(stats, x)
    return ((x - mean) / std).astype(dtype)


def invert(stats: Stats, x: Any) -> Any:
    """Undoes `apply`: x = y * std + mean.

    Args:
        stats: What `apply` had.
        x: What `apply` returned, or examples like it.

    Returns:
        As `apply` does; integers are not restored.
    """
    y, mean, std, dtype = _promote(stats, x)
    return (y * std + mean).astype(dtype)


def _promote(stats, x):
    """Returns x, mean and std in the type to compute in, and the type of the result."""
    wide = np.float64 if x.dtype == np.float64 else np.float32
    dtype = x.dtype if jnp.issubdtype(x.dtype, np.floating) else np.float32
    return x.astype(wide), stats.mean.astype(wide), stats.std.astype(wide), dtype
