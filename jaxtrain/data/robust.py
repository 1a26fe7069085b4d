"""Robust scaling: median 0 and interquartile range 1, which outliers do not move.

The functions are those of `standardize`, and so `nn.standardize(*stats)` is a layer that applies.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check

from ._blocks import axes, blocks, promote, stats_dtype


class Stats(NamedTuple):
    """Median and range between two quantiles, of the rank of x with 1 for every shared axis."""

    median: Any
    range: Any


def fit(x: Any, *, per: str = "feature", quantiles: tuple[float, float] = (0.25, 0.75)) -> Stats:
    """Finds median and interquartile range of a training set, by sorting.

        median = q(1/2),   range = q(b) - q(a), 1 where that is 0

    q(p) is interpolated linearly between the two values beside position p (n - 1).

    Args:
        x: Examples, (n, ...), an array: quantiles need all values of a feature at once.
        per: What has its own statistics: each "feature" (every entry of an example), each
            "channel" (the last axis), or "all" (one number for the whole).
        quantiles: (a, b) with 0 <= a < b <= 1.

    Returns:
        NumPy arrays, float64 if x is, else float32.

    Raises:
        TypeError: If x is a function, as for other preprocessings: fit on a sample of the data.
        DataError: If x has no examples, or one that is not finite.

    Example:
        >>> stats = fit(np.array([[1.0], [2.0], [3.0], [4.0], [1000.0]]))
        >>> apply(stats, np.array([[3.0], [4.0]]))
        array([[0. ], [0.5]])

    References:
        P. Huber, Robust Statistics, 1981.
    """
    where = "robust.fit"
    if callable(x):
        fix = "a quantile needs all values at once; fit on a sample"
        _check.fail(where, "x", "an array", x, fix, TypeError)
    if np.shape(quantiles) != (2,) or not 0 <= quantiles[0] < quantiles[1] <= 1:
        _check.fail(where, "quantiles", "(a, b) with 0 <= a < b <= 1", quantiles)
    for _ in blocks(where, x):
        pass  # it checks them
    x = np.asarray(x)
    shared = len(axes(where, per, x.ndim))
    shape = (1,) * shared + x.shape[shared:]
    # A column at a time: float64 copies of large sets do not fit in memory.
    columns = x.reshape(-1, math.prod(shape)).T
    p = [quantiles[0], 0.5, quantiles[1]]
    q = np.stack([np.quantile(column.astype(np.float64), p) for column in columns], 1)
    low, median, high = q.reshape(3, *shape)
    span = high - low
    span[span == 0] = 1
    return Stats(median.astype(stats_dtype(x)), span.astype(stats_dtype(x)))


def apply(stats: Stats, x: Any) -> Any:
    """Scales examples: y = (x - median) / range.

    Args:
        stats: What `fit` returned for the training set.
        x: Examples, (n, ...), NumPy or JAX, traced or not.

    Returns:
        y of the shape of x, computed in float32 or better; of the dtype of x, float32 where
        that is an integer.
    """
    (median, span), x, dtype = promote("robust.apply", stats, x, stats.median.shape[1:])
    return ((x - median) / span).astype(dtype)


def invert(stats: Stats, x: Any) -> Any:
    """Undoes `apply`: x = y * range + median.

    Args:
        stats: What `apply` had.
        x: What `apply` returned, or examples like it.

    Returns:
        As `apply` does; integers are not restored.
    """
    (median, span), y, dtype = promote("robust.invert", stats, x, stats.median.shape[1:])
    return (y * span + median).astype(dtype)
