"""Layers that sample in train mode."""

import jax
import jax.numpy as jnp

from jaxtrain import _check
from jaxtrain.nn._layer import Layer, constructor


@constructor
def dropout(rate: float, *, form: str = "inverted") -> Layer:
    """Sets each element to zero with probability `rate` in train mode.

    Each example has a mask of its own that depends on the key, the layer's name and the example's
    index, never on the device or the batch that it is in.

    Args:
        rate: probability to drop, in [0, 1); the keep probability is 1 - rate.
        form: "inverted" divides by 1 - rate in train mode; "vanilla" multiplies by it in eval mode.

    Example:
        >>> from jaxtrain import nn
        >>> ctx = nn.Context(train=True, key=jax.random.key(0))
        >>> y, _ = nn.dropout(0.5).apply({}, {}, jnp.ones((4, 100)), ctx)
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]

    References:
        N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
        2014.
    """
    _check.fraction("dropout", "rate", rate)
    _check.choice("dropout", "form", form, ("inverted", "vanilla"))
    keep = 1 - rate

    def apply(params, state, x, ctx):
        if not ctx.train:
            return (x * keep if form == "vanilla" else x), state
        if rate == 0:
            return x, state
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, x.shape[1:]))(
            ctx.keys(x.shape[0])
        )
        return jnp.where(kept, x / keep if form == "inverted" else x, 0), state

    return Layer(lambda key, x: ({}, {}), apply)
