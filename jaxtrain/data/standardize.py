"""Standardization: mean 0 and standard deviation 1, with the statistics of the training set.

A preprocessing is a pair of functions, `fit(x) -> stats` and `apply(stats, x) -> x`, here with
the inverse. `functools.partial(standardize.apply, stats)` is a function of one array and thus a
layer.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check

from ._blocks import average, axes, first, promote, stats_dtype


class Stats(NamedTuple):
    """Mean and standard deviation, of the rank of x with 1 for every axis averaged over."""

    mean: Any
    std: Any


def fit(x: Any, *, per: str = "feature", scale: bool = True, eps: float = 1e-8) -> Stats:
    """Computes the statistics of a training set, in float64 and a few examples at a time.

        mean = (1/n) sum_i x_i,   std = max(sqrt((1/n) sum_i (x_i - mean)^2), eps)

    Args:
        x: Examples, (n, ...), of a bool, integer or float type, read a block at a time; or a
            function without arguments that returns an iterator over such arrays, anew at each
            call, for data larger than memory.
        per: What has its own statistics: each "feature" (every entry of an example), each
            "channel" (the last axis), or "all" (one number for the whole).
        scale: Whether to scale; without it std is 1, so that `apply` only centres, as AlexNet
            (per="feature") and VGG (per="channel") do.
        eps: Least standard deviation, > 0, in the unit of x. It is that of a feature which is
            constant in x; raise it where later data may differ there.

    Returns:
        NumPy arrays, float64 if x is, else float32.

    Raises:
        DataError: If x has no examples, or one that is not finite.

    Example:
        >>> stats = fit(np.array([[1.0, 10.0], [3.0, 50.0]]))
        >>> apply(stats, np.array([[2.0, 50.0]]))
        array([[0., 1.]])

    References:
        Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, Efficient BackProp, 1998.
    """
    where = "standardize.fit"
    _check.flag(where, "scale", scale)
    _check.positive(where, "eps", eps)
    block = first(where, x)
    over = axes(where, per, block.ndim)
    mean = average(where, x, lambda x: x, over)
    std = np.ones_like(mean)
    if scale:
        std = np.maximum(np.sqrt(average(where, x, lambda x: (x - mean) ** 2, over)), eps)
    return Stats(mean.astype(stats_dtype(block)), std.astype(stats_dtype(block)))


def apply(stats: Stats, x: Any) -> Any:
    """Standardizes examples: y = (x - mean) / std.

    Args:
        stats: What `fit` returned for the training set.
        x: Examples, (n, ...), NumPy or JAX, traced or not.

    Returns:
        y of the shape of x, computed in float32 or better; of the dtype of x, float32 where
        that is an integer.
    """
    (mean, std), x, dtype = promote("standardize.apply", stats, x, stats.mean.shape[1:])
    return ((x - mean) / std).astype(dtype)


def invert(stats: Stats, x: Any) -> Any:
    """Undoes `apply`: x = y * std + mean.

    Args:
        stats: What `apply` had.
        x: What `apply` returned, or examples like it.

    Returns:
        As `apply` does; integers are not restored.
    """
    (mean, std), y, dtype = promote("standardize.invert", stats, x, stats.mean.shape[1:])
    return (y * std + mean).astype(dtype)
