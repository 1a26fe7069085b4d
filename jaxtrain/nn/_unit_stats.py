"""What the units of a net do on a batch: the numbers behind the histograms."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._layer import EVAL, Context, Layer
from jaxtrain.nn._look import split_taps, tap, walk, with_probes
from jaxtrain.nn._norm import moments

SATURATED = 0.05  # slope of an activation


class UnitStats(NamedTuple):
    """Statistics of a layer's output over a batch, each of shape (), or (n,) in a `repeat`.

    A unit is an entry of the last axis: a feature, or a channel at all positions.

    Attributes:
        mean: over all elements.
        std: their standard deviation.
        dead: the fraction of units that are 0 for every example.
        constant: the fraction of units that are the same number for every example, 0 or not.
        saturated: the fraction of elements at which the slope of an activation function is below
            0.05: for tanh those beyond 0.975, for ReLU those not above 0; None for other layers.
        gradient: the same of the gradient of the loss with respect to the output; None without a
            loss.
    """

    mean: jax.Array
    std: jax.Array
    dead: jax.Array
    constant: jax.Array
    saturated: jax.Array | None = None
    gradient: "UnitStats | None" = None


def unit_stats(
    net: Layer,
    params: Any,
    state: Any,
    x: Any,
    *,
    loss: Callable[[Any], jax.Array] | None = None,
    ctx: Context = EVAL,
) -> dict[str, UnitStats]:
    """Measures the outputs of all layers on a batch, and the gradients that come back to them.

    Each call compiles; where there are many, put it into a `jax.jit` of your own.

    Args:
        net: any net.
        params: its params.
        state: its state.
        x: a batch of inputs.
        loss: the loss, shape (), as a function of the net's output.
        ctx: how the net is applied; its `mask` leaves examples out.

    Returns:
        Statistics by '/'-joined path, of every layer that is not made of others, and of the sum of
        each `residual`, before those of its parts.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.serial(nn.dense(4), jax.nn.relu)
        >>> params = {"dense0": {"kernel": jnp.eye(4), "bias": jnp.array([0.0, 0.0, -1.0, -9.0])}}
        >>> found = nn.unit_stats(net, params, {}, jnp.eye(4), loss=jnp.sum)
        >>> found["relu0"].dead.item(), found["dense0"].gradient.mean.item()
        (0.5, 0.125)
    """
    if loss is not None:
        _check.function("unit_stats", "loss", loss)

    @jax.jit
    def measure(params, state, x, ctx):
        def see(layer, params, x, y):
            stats = _stats(y, ctx)._replace(saturated=_saturated(layer, params, x, ctx))
            return y, (stats, y)

        def forward(probes):
            y, seen = tap(net, _at, see).apply(with_probes(params, probes), state, x, ctx)
            return 0.0 if loss is None else loss(y), split_taps(seen)[1]

        if loss is None:
            return {path: stats for path, (stats, _) in forward({})[1].items()}
        _, seen = jax.eval_shape(forward, {})
        probes = {path: jnp.zeros(y.shape, y.dtype) for path, (_, y) in seen.items()}
        gradients, seen = jax.grad(forward, has_aux=True)(probes)
        found = {}
        for path, (stats, _) in seen.items():
            of_gradient = functools.partial(_stats, ctx=ctx)
            for _ in range(stats.mean.ndim):  # the repeats around
                of_gradient = jax.vmap(of_gradient)
            found[path] = stats._replace(gradient=of_gradient(gradients[path]))
        return found

    found = measure(params, state, x, ctx)
    names = ("/".join(path) for path, layer in walk(net) if _at("", layer))
    return {name: found[name] for name in names}


def _at(path, layer):
    return not layer.children or layer.kind == "residual"


def _stats(y, ctx) -> UnitStats:
    y = y.astype(np.promote_types(y.dtype, jnp.float32))
    count, mean, m2 = moments(y[..., None], ctx)  # all units as one
    if ctx.mask is not None:
        real = ctx.mask.reshape(ctx.mask.shape + (1,) * (y.ndim - 1)) > 0
        y = jnp.where(real, y, y[:1])  # padding stands last
    axes = tuple(range(y.ndim - 1))
    return UnitStats(
        mean=mean[0],
        std=jnp.sqrt(m2[0] / jnp.maximum(count, 1)),
        dead=(y == 0).all(axes).mean(dtype=y.dtype),
        constant=(y.max(axes) == y.min(axes)).mean(dtype=y.dtype),
    )


def _saturated(layer, params, x, ctx):
    """Returns the mean of slope < 0.05, for an activation function of one array."""
    elementwise = hasattr(layer.make, "function") and layer.kind != "softmax"
    if not elementwise or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    slope = jax.jvp(layer.make.function, (x,), (jnp.ones_like(x),))[1]
    flat = (jnp.abs(slope) < SATURATED).astype(jnp.result_type(float))
    return moments(flat[..., None], ctx)[1][0]
