"""BatchNorm's statistics computed anew, for params that are averages."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._layer import EVAL, Context, Layer
from jaxtrain.nn._look import Path, rewrite, split_taps, walk
from jaxtrain.nn._norm import batch_norm, combine, moments, statistics


def recompute_batch_stats(
    net: Layer, params: Any, state: Any, batches: Iterable[Any], *, ctx: Context = EVAL
) -> Any:
    """Returns the state in which BatchNorm's statistics are those of the given batches.

    For params that are averages (`optim.eval_params`): no training step has seen their activations.
    Counts, means and squared distances of all batches are added up by Chan's formula. Meanwhile
    each `batch_norm` normalizes by the statistics of the batch, as in training; with the default
    context all else is as in evaluation, dropout off.

    Args:
        net: any layer; a `batch_norm` that is frozen keeps its statistics.
        params: the params to evaluate with.
        state: the net's state.
        batches: inputs of the net, large enough for good statistics each; of one shape, or there is
            a compilation for each.
        ctx: its `mask` leaves examples of each batch out, its `axis_name` joins devices; in train
            mode dropout and the like are on.

    Returns:
        The new state; the same object for a net without BatchNorm, which reads no batch.

    Raises:
        ConfigError: there are no batches.

    Example:
        >>> net = batch_norm()
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 1)))
        >>> batches = [jnp.array([[1.0], [2.0]]), jnp.array([[6.0]])]
        >>> state = recompute_batch_stats(net, params, state, batches)
        >>> state["mean"].item(), state["var"].item()
        (3.0, 7.0)

    References:
        P. Izmailov et al., "Averaging weights leads to wider optima and better generalization",
        2018, section 3.2.
    """
    if not batch_norms(net):
        return state
    totals = start = with_totals(net, state)
    for x in batches:
        totals = _step(net)(params, totals, x, ctx)
    if totals is start:
        _check.fail("recompute_batch_stats", "batches", "at least one", 0)
    return split_taps(totals)[0]


def batch_norms(net: Layer) -> set[Path]:
    """Finds the paths of the BatchNorms whose statistics training would change."""
    frozen = {path for path, layer in walk(net) if layer.kind == "frozen"}
    return {
        path
        for path, layer in walk(net)
        if layer.make is batch_norm and not layer.options["frozen"]
        if not any(path[:i] in frozen for i in range(len(path) + 1))
    }


def with_totals(net: Layer, state: Any) -> Any:
    """Puts count, mean and m2 of no examples as a tap beside the statistics of each BatchNorm."""

    def put(state, path):
        if path:
            return {**state, path[0]: put(state[path[0]], path[1:])}
        return {**state, "tap": (np.zeros(state["mean"].shape, state["mean"].dtype),) * 3}

    return functools.reduce(put, batch_norms(net), state)


def adding_up(net: Layer) -> Layer:
    """Rewrites a net so that each pass adds its batch to the totals and sets the statistics."""
    paths = batch_norms(net)

    def replaced(path, layer):
        if path not in paths or layer.make is not batch_norm:
            return layer

        def apply(params, state, x, ctx):
            z = x.astype(np.promote_types(x.dtype, jnp.float32))
            count, mean, m2 = moments(z, ctx)
            batch = {"mean": mean, "var": m2 / jnp.maximum(count, 1)}
            y, _ = layer.apply(params, batch, x, dataclasses.replace(ctx, train=False))
            both = zip(state["tap"], (jnp.broadcast_to(count, mean.shape), mean, m2), strict=True)
            totals = combine(*map(jnp.stack, both))
            options = {name: layer.options[name] for name in ("unbiased", "running")}
            new = statistics(*totals, **options)
            new = {name: jnp.where(totals[0] > 0, new[name], state[name]) for name in new}
            return y, {**new, "tap": totals}

        return Layer(layer.init, apply)

    return rewrite(net, replaced)


@functools.lru_cache(maxsize=8)
def _step(net: Layer):
    """Compiles `adding_up` once for all calls of `recompute_batch_stats` on a net."""
    apply = adding_up(net).apply
    return jax.jit(lambda *args: apply(*args)[1])
