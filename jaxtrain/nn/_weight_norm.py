"""Normalization of weights instead of activations."""

import jax.numpy as jnp

from jaxtrain import _check
from jaxtrain.nn._layer import Layer, constructor, on_last_axis


@constructor
def weight_norm(layer: Layer) -> Layer:
    """Separates the length of a kernel's column for each output from its direction.

        w = scale v / |v|

    with the norm over all axes but the last, the outputs. v is what stands as `kernel` in params,
    beside a trained `scale`, initially |v|: the layer starts as without.

    Args:
        layer: a layer with a kernel, such as `dense` or `conv`. Wrappers go around it, as in
            `remat(weight_norm(dense(8)))`.

    Returns:
        The layer, with the param scale (features,) more.

    Raises:
        ConfigError: the layer has no kernel of its own.

    Example:
        >>> import jax
        >>> from jaxtrain import nn
        >>> net = weight_norm(nn.dense(3))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
        >>> sorted(params)
        ['bias', 'kernel', 'scale']

    References:
        T. Salimans, D. Kingma, "Weight normalization: a simple reparameterization to accelerate
        training of deep neural networks", 2016.
    """

    def init(key, x):
        params, state = layer.init(key, x)
        if layer.children or "kernel" not in params:
            _check.fail("weight_norm", "layer", "one with a kernel, as dense and conv are", layer)
        return {**params, "scale": _norm(params["kernel"])}, state

    def apply(params, state, x, ctx):
        rest = {name: p for name, p in params.items() if name != "scale"}
        v = params["kernel"]
        factor = params["scale"] / _norm(v)
        return layer.apply({**rest, "kernel": v * on_last_axis(factor, v.ndim)}, state, x, ctx)

    return Layer(init, apply)


def _norm(v):
    """Returns |v| per output, 1 where it is 0: that has a gradient, and v / 1 = 0."""
    squares = (v * v).sum(tuple(range(v.ndim - 1)))
    return jnp.sqrt(jnp.where(squares > 0, squares, 1))
