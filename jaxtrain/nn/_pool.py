"""Pooling and reshaping."""

import functools
import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.nn._layer import Layer, constructor, param_dtype
from jaxtrain.nn._linear import check_padding, per_axis


def _stateless(f) -> Layer:
    return Layer(lambda key, x: ({}, {}), lambda params, state, x, ctx: (f(x), state))


def _windows(where, x, window, strides, padding):
    window = per_axis(where, "window", window, x.ndim - 2)
    strides = window if strides is None else per_axis(where, "strides", strides, x.ndim - 2)
    check_padding(where, padding, x.ndim - 2)
    if padding == "VALID" and any(w > n for w, n in zip(window, x.shape[1:-1], strict=True)):
        _check.fail(where, "window", f"at most the image's size {x.shape[1:-1]}", window)
    return window, strides


def _first_max(a, b):
    """Returns the larger; the gradient of a tie goes to a, and NaN wins."""
    return jnp.where((b > a) | (b != b), b, a)


def _parts(x, size):
    """Yields, for each place in the window, the elements at that place of all windows.

    The gradient of a running maximum over them is several times faster than reduce_window's.
    """
    counts = [n // w for n, w in zip(x.shape[1:-1], size, strict=True)]
    whole = (slice(n * w) for n, w in zip(counts, size, strict=True))
    split = itertools.chain(*zip(counts, size, strict=True))
    x = x[(slice(None), *whole)].reshape(x.shape[0], *split, x.shape[-1])
    for place in itertools.product(*map(range, size)):
        yield x[(slice(None), *(i for p in place for i in (slice(None), p)))]


@constructor
def max_pool(
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> Layer:
    """Takes the maximum over windows of the spatial axes.

    Args:
        window: size of the window, one int for all spatial axes or one for each.
        strides: step between windows; None means the window's size, without overlap.
        padding: "VALID", "SAME" or (before, after) pairs; padding never wins.

    Returns:
        A layer from (batch, *spatial, channels) to (batch, *spatial', channels). Where several
        elements are the maximum, the gradient goes to the first, as in torch.

    Example:
        >>> y, _ = max_pool(2).apply({}, {}, jnp.arange(16.0).reshape(1, 4, 4, 1), ctx=None)
        >>> y[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """

    def pool(x):
        size, step = _windows("max_pool", x, window, strides, padding)
        if size == step and padding == "VALID":
            return functools.reduce(_first_max, _parts(x, size))
        param_dtype("max_pool", x)
        window_, strides_ = (1, *size, 1), (1, *step, 1)
        pads = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
        return lax.reduce_window(x, np.array(-jnp.inf, x.dtype), lax.max, window_, strides_, pads)

    return _stateless(pool)


@constructor
def avg_pool(
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    count_padding: bool = False,
) -> Layer:
    """Takes the mean over windows of the spatial axes.

    Args:
        window: size of the window, one int for all spatial axes or one for each.
        strides: step between windows; None means the window's size, without overlap.
        padding: "VALID", "SAME" or (before, after) pairs.
        count_padding: divide by the window's size even where it reaches into the padding (the
            default of flax and torch) rather than by the number of real elements (TensorFlow).

    Example:
        >>> y, _ = avg_pool(2).apply({}, {}, jnp.arange(16.0).reshape(1, 4, 4, 1), ctx=None)
        >>> y[0, :, :, 0].tolist()
        [[2.5, 4.5], [10.5, 12.5]]
    """

    def pool(x):
        size, step = _windows("avg_pool", x, window, strides, padding)
        pads = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
        window_, strides_ = (1, *size, 1), (1, *step, 1)
        zero = np.zeros((), x.dtype)
        total = lax.reduce_window(x, zero, lax.add, window_, strides_, pads)
        if count_padding:
            return total / np.prod(size).astype(x.dtype)
        ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
        return total / lax.reduce_window(ones, zero, lax.add, window_, strides_, pads)

    return _stateless(pool)


@constructor
def global_avg_pool() -> Layer:
    """Takes the mean over all spatial axes: (batch, *spatial, channels) to (batch, channels)."""
    return _stateless(lambda x: x.mean(tuple(range(1, x.ndim - 1))))


@constructor
def flatten() -> Layer:
    """Joins all axes but the first: (batch, ...) to (batch, n)."""
    return _stateless(lambda x: lax.reshape(x, (x.shape[0], math.prod(x.shape[1:]))))
