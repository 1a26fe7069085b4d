"""Min-max scaling: the range of the training set becomes [low, high].

The functions are those of `standardize`.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check

from ._blocks import axes, blocks, first, promote, stats_dtype


class Stats(NamedTuple):
    """Least value and range, of the rank of x with 1 for every axis that shares them."""

    min: Any
    range: Any
    low: Any
    high: Any


def fit(x: Any, *, per: str = "feature", low: float = 0.0, high: float = 1.0) -> Stats:
    """Finds the range of a training set.

        min = min_i x_i,   range = max_i x_i - min, 1 where that is 0

    Args:
        x: Examples, (n, ...), or a function that returns an iterator over such arrays, as for
            `standardize.fit`.
        per: What has its own range: each "feature" (every entry of an example), each "channel"
            (the last axis), or "all" (one for the whole).
        low: What the least value becomes; so does every value of a constant feature.
        high: What the largest value becomes, > low.

    Returns:
        NumPy arrays, float64 if x is, else float32.

    Raises:
        DataError: If x has no examples, or one that is not finite.

    Example:
        >>> stats = fit(np.array([[1.0, 10.0], [3.0, 50.0]]))
        >>> apply(stats, np.array([[2.0, 60.0]]))
        array([[0.5 , 1.25]])
    """
    where = "min_max.fit"
    _check.finite(where, "low", low)
    _check.finite(where, "high", high)
    if not high > low:
        _check.fail(where, "high", f"above low = {low}", high)
    block = first(where, x)
    over = axes(where, per, block.ndim)
    least = functools.reduce(np.minimum, (b.min(over, keepdims=True) for b in blocks(where, x)))
    most = functools.reduce(np.maximum, (b.max(over, keepdims=True) for b in blocks(where, x)))
    span = most.astype(np.float64) - least.astype(np.float64)
    span[span == 0] = 1
    dtype = stats_dtype(block)
    return Stats(least.astype(dtype), span.astype(dtype), dtype(low), dtype(high))


def apply(stats: Stats, x: Any) -> Any:
    """Scales examples: y = low + (high - low) (x - min) / range.

    Args:
        stats: What `fit` returned for the training set.
        x: Examples, (n, ...), NumPy or JAX, traced or not.

    Returns:
        y of the shape of x, outside [low, high] where x is outside the range of the training
        set; computed in float32 or better, of the dtype of x, float32 where that is an integer.
    """
    (least, span, low, high), x, dtype = promote("min_max.apply", stats, x, stats.min.shape[1:])
    return (low + (high - low) * ((x - least) / span)).astype(dtype)


def invert(stats: Stats, x: Any) -> Any:
    """Undoes `apply`: x = min + range (y - low) / (high - low).

    Args:
        stats: What `apply` had.
        x: What `apply` returned, or examples like it.

    Returns:
        As `apply` does; integers are not restored.
    """
    (least, span, low, high), y, dtype = promote("min_max.invert", stats, x, stats.min.shape[1:])
    return (least + span * ((y - low) / (high - low))).astype(dtype)
