"""Normalization of each example by itself: the same in training and evaluation, in any batch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.nn._layer import Layer, constructor
from jaxtrain.nn._norm import init_scale_and_bias, scale_and_bias


@constructor
def layer_norm(
    *,
    per: str = "position",
    params: str = "channel",
    eps: float = 1e-5,
    scale: bool = True,
    bias: bool = True,
) -> Layer:
    """Normalizes each position, or each whole example, over its own features.

        y = scale (x - mean) / sqrt(var + eps) + bias

    Args:
        per: what has its own mean and (biased) var: each "position", over the last axis, as for
            vectors and sequences; or each "example", over all axes but the first, as for images.
        params: with per="example", scale and bias have an entry for each "channel", (channels,), or
            for each "feature", (*spatial, channels).
        eps: added to the variance.
        scale: whether there is a trained scale, initially 1.
        bias: whether there is a trained bias, initially 0.

    Returns:
        A layer that keeps shape and dtype, without state; statistics in at least float32.

    Example:
        >>> y, _ = layer_norm().apply({}, {}, jnp.array([[1.0, 3], [20, 60]]), ctx=None)
        >>> y.round(3).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]

    References:
        J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.
    """
    _check.choice("layer_norm", "per", per, ("position", "example"))
    _check.choice("layer_norm", "params", params, ("channel", "feature"))

    def axes(x):
        return tuple(range(x.ndim - 1 if per == "position" else 1, x.ndim))

    def shape(x):
        return x.shape[-1:] if params == "channel" else x.shape[axes(x)[0] :]

    return _norm("layer_norm", lambda x: _standardized(x, axes(x), eps), eps, scale, bias, shape)


@constructor
def instance_norm(*, eps: float = 1e-5, scale: bool = True, bias: bool = True) -> Layer:
    """Normalizes each channel of each image over space: `group_norm` with a channel per group.

    Args:
        eps: added to the variance.
        scale: whether there is a trained (channels,) scale, initially 1.
        bias: whether there is a trained (channels,) bias, initially 0.

    Returns:
        A layer from (batch, *spatial, channels), with more than one position, to the same.

    Example:
        >>> y, _ = instance_norm().apply({}, {}, jnp.array([[[1.0, 5], [3, 5]]]), ctx=None)
        >>> y.round(3).tolist()
        [[[-1.0, 0.0], [1.0, 0.0]]]

    References:
        D. Ulyanov, A. Vedaldi, V. Lempitsky, "Improved texture networks: maximizing quality and
        diversity in feed-forward stylization and texture synthesis", 2017.
    """

    def normalize(x):
        if math.prod(x.shape[1:-1]) < 2:  # 1 also where there are no spatial axes
            rule = "(batch, *spatial, channels) with more than one position"
            _check.fail("instance_norm", "x", rule, x.shape)
        return _standardized(x, tuple(range(1, x.ndim - 1)), eps)

    return _norm("instance_norm", normalize, eps, scale, bias)


@constructor
def group_norm(
    groups: int = 32, *, eps: float = 1e-5, scale: bool = True, bias: bool = True
) -> Layer:
    """Normalizes groups of neighbouring channels of each example over space.

    One group is `layer_norm(per="example")`, a channel per group `instance_norm`.

    Args:
        groups: the number of groups, a divisor of the channels.
        eps: added to the variance.
        scale: whether there is a trained (channels,) scale, initially 1.
        bias: whether there is a trained (channels,) bias, initially 0.

    Returns:
        A layer from (batch, *spatial, channels) to the same.

    Example:
        >>> y, _ = group_norm(2).apply({}, {}, jnp.array([[1.0, 3, 20, 60]]), ctx=None)
        >>> y.round(3).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]

    References:
        Y. Wu, K. He, "Group normalization", 2018.
    """
    _check.integer("group_norm", "groups", groups)

    def normalize(x):
        grouped = split_channels("group_norm", x, groups)
        return _standardized(grouped, (*range(1, x.ndim - 1), x.ndim), eps).reshape(x.shape)

    return _norm("group_norm", normalize, eps, scale, bias)


@constructor
def rms_norm(*, eps: float = 1e-6, scale: bool = True, bias: bool = False) -> Layer:
    """Divides by the root mean square over the last axis: layer normalization without the mean.

        y = scale x / sqrt(mean(x^2) + eps) + bias

    Args:
        eps: added to the mean square.
        scale: whether there is a trained (features,) scale, initially 1.
        bias: whether there is a trained (features,) bias, initially 0.

    Returns:
        A layer that keeps shape and dtype, without state; statistics in at least float32.

    Example:
        >>> y, _ = rms_norm().apply({}, {}, jnp.array([[1.0, 7]]), ctx=None)
        >>> y.round(3).tolist()
        [[0.2..., 1.4...]]

    References:
        B. Zhang, R. Sennrich, "Root mean square layer normalization", 2019.
    """

    def normalize(x):
        return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + eps)

    return _norm("rms_norm", normalize, eps, scale, bias)


def split_channels(where: str, x: jax.Array, groups: int) -> jax.Array:
    """Splits the last axis in `groups` of neighbours: (..., groups, channels / groups)."""
    if x.shape[-1] % groups:
        _check.fail(where, "groups", f"a divisor of the {x.shape[-1]} channels", groups)
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _standardized(x, axes, eps):
    """Returns (x - mean) / sqrt(var + eps), with mean and var over `axes`.

    One pass over x for both, by the distances d from the mean of its first slice, so that a large
    common offset costs no digits.
    """
    first = lax.slice_in_dim(x, 0, 1, axis=axes[0])
    d = x - lax.stop_gradient(first.mean(axes, keepdims=True))
    mean = d.mean(axes, keepdims=True)
    var = jnp.maximum((d * d).mean(axes, keepdims=True) - mean * mean, 0)
    a = lax.rsqrt(var + eps)
    return d * a - mean * a  # (d - mean) * a takes twice the time


def _norm(where, normalize: Callable, eps, scale, bias, shape=lambda x: x.shape[-1:]) -> Layer:
    """The layer `scale normalize(x) + bias`, with params of the shape `shape(x)`."""
    _check.positive(where, "eps", eps)

    def init(key, x):
        return init_scale_and_bias(where, x, shape(x), scale=scale, bias=bias), {}

    def apply(params, state, x, ctx):
        y = normalize(x.astype(np.promote_types(x.dtype, jnp.float32)))
        return scale_and_bias(where, params, y).astype(x.dtype), state

    return Layer(init, apply)
