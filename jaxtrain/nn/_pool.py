"""Pooling and reshaping."""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.nn._conv import check_padding, per_axis
from jaxtrain.nn._layer import Layer, constructor, param_dtype


def _stateless(f) -> Layer:
    return Layer(lambda key, x: ({}, {}), lambda params, state, x, ctx: (f(x), state))


def _windows(where, x, window, strides, padding):
    window = per_axis(where, "window", window, x.ndim - 2)
    strides = window if strides is None else per_axis(where, "strides", strides, x.ndim - 2)
    check_padding(where, padding, x.ndim - 2)
    if padding == "VALID" and any(w > n for w, n in zip(window, x.shape[1:-1], strict=True)):
        _check.fail(where, "window", f"at most the image's size {x.shape[1:-1]}", window)
    if not isinstance(padding, str) and any(
        not 0 <= n < w for w, pair in zip(window, padding, strict=True) for n in pair
    ):
        _check.fail(where, "padding", f">= 0 and less than the window {window}", padding)
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
def fractional_max_pool(
    ratio: float, *, sequence: str = "pseudorandom", overlapping: bool = True
) -> Layer:
    """Takes the maximum over regions of one to three elements a side, the output n / ratio long.

    Along an axis of n elements a sequence starts at `a_0 = 0` and makes m = floor(n / ratio) steps,
    each, in train mode, drawn for each example and axis:

    - "pseudorandom": `a_i = floor((N i + t) / m)`, t uniform in 0, ..., m - 1,
    - "random": the floor and the ceiling of N / m, in a random order.

    Disjoint regions are [a_{i-1}, a_i) and end at N = n; overlapping ones are [a_{i-1}, a_i] and
    end at N = n - 1. Eval mode needs no key: all steps are those of t = floor(m / 2). To average
    over several regions at test time, apply the net in train mode with several keys, as
    `predict_mc` does.

    Args:
        ratio: the input's size to the output's, in (1, 2): for example sqrt(2).
        sequence: "pseudorandom" or "random".
        overlapping: whether a region shares its last row and column with the next.

    Returns:
        A layer from (batch, *spatial, channels) to (batch, *spatial', channels). Where several
        elements are the maximum, the gradient goes to the first.

    Raises:
        ConfigError: an argument is out of range, or an axis is a single element long.

    Example:
        >>> from jaxtrain import nn
        >>> pool = nn.fractional_max_pool(1.5, overlapping=False)
        >>> y, _ = pool.apply({}, {}, jnp.arange(6.0).reshape(1, 6, 1), nn.EVAL)
        >>> y.ravel().tolist()  # of 2, 1, 2 and 1 elements
        [1.0, 2.0, 4.0, 5.0]

    References:
        B. Graham, "Fractional max-pooling", 2014. There `a_i = ceil(N / m (i + u))`, and the last
        row and column are in no disjoint region.
    """
    where = "fractional_max_pool"
    _check.positive(where, "ratio", ratio)
    if not 1 < ratio < 2:
        _check.fail(where, "ratio", "a number in (1, 2)", ratio, "use max_pool for whole ratios")
    _check.choice(where, "sequence", sequence, ("pseudorandom", "random"))
    shared = int(overlapping)

    def ends(key, N, m):
        if key is not None and sequence == "random":
            longer = jax.random.permutation(key, (np.arange(m) < N % m).astype(np.int32))
            return jnp.cumsum(N // m + longer)
        t = m // 2 if key is None else jax.random.randint(key, (), 0, m, np.int32)
        return (N * np.arange(1, m + 1, dtype=np.int32) + t) // m

    def pool(key, x):  # one example
        for axis in reversed(range(x.ndim - 1)):  # so that ties go to the first in reading order
            n = x.shape[axis]
            m = math.floor(n / ratio + 1e-9)  # 33 / 1.1 is 30, not 29.999999999999996
            N = n - shared
            a = ends(None if key is None else jax.random.fold_in(key, axis), N, m)
            first = jnp.concatenate([jnp.zeros(1, a.dtype), a[:-1]])
            last = a - 1 + shared
            places = (jnp.minimum(first + i, last) for i in range(-(-N // m) + shared))
            x = functools.reduce(_first_max, [jnp.take(x, place, axis) for place in places])
        return x

    def apply(params, state, x, ctx):
        if x.ndim < 3 or min(x.shape[1:-1]) < 2:
            rule = "(batch, *spatial, channels), of at least 2 elements along each spatial axis"
            _check.fail(where, "x", rule, x.shape)
        if not ctx.train:
            return jax.vmap(functools.partial(pool, None))(x), state
        return jax.vmap(pool)(ctx.keys(len(x)), x), state

    return Layer(lambda key, x: ({}, {}), apply)


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
        dtype = param_dtype("avg_pool", x)  # a long sum in bfloat16 would be far off

        def total(z):
            return lax.reduce_window(z, np.zeros((), dtype), lax.add, window_, strides_, pads)

        ones = jnp.ones((1, *x.shape[1:-1], 1), dtype)
        count = np.prod(size).astype(dtype) if count_padding else total(ones)
        return (total(x.astype(dtype)) / count).astype(x.dtype)

    return _stateless(pool)


@constructor
def global_avg_pool() -> Layer:
    """Takes the mean over all spatial axes: (batch, *spatial, channels) to (batch, channels)."""
    return _stateless(lambda x: jnp.mean(x, tuple(range(1, x.ndim - 1))))


@constructor
def flatten() -> Layer:
    """Joins all axes but the first: (batch, ...) to (batch, n)."""
    return _stateless(lambda x: lax.reshape(x, (x.shape[0], math.prod(x.shape[1:]))))
