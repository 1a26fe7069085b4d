"""BatchNorm's statistics computed anew, for params that are averages."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._decorrelated import comoments, decorrelated_batch_norm, products
from jaxtrain.nn._decorrelated import statistics as whitening_statistics
from jaxtrain.nn._layer import EVAL, Context, Layer
from jaxtrain.nn._look import Path, at, put, rewrite, split_taps, walk
from jaxtrain.nn._norm import batch_norm, combine, moments, statistics

_KINDS = (batch_norm, decorrelated_batch_norm)


def recompute_batch_stats(
    net: Layer, params: Any, state: Any, batches: Iterable[Any], *, ctx: Context = EVAL
) -> Any:
    """Returns the state in which BatchNorm's statistics are those of the given batches.

    For params that are averages (`optim.eval_params`): no training step has seen their activations.
    Counts, means and squared distances of all batches are added up by Chan's formula. Meanwhile
    each `batch_norm` normalizes by the statistics of the batch, as in training; with the default
    context all else is as in evaluation, dropout off. `decorrelated_batch_norm` likewise, its
    whitening matrix being that of the covariance of all batches.

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
        if layer.make in _KINDS and not layer.options["frozen"]
        if not any(path[:i] in frozen for i in range(len(path) + 1))
    }


def with_totals(net: Layer, state: Any) -> Any:
    """Puts count, mean and m2 of no examples as a tap beside the statistics of each BatchNorm."""
    for path in map("/".join, batch_norms(net)):
        zeros = {name: np.zeros(s.shape, s.dtype) for name, s in at(state, path).items()}
        mean = zeros.pop("mean")
        state = put(state, path, {"tap": (mean[..., 0], mean, *zeros.values())})
    return state


def adding_up(net: Layer) -> Layer:
    """Rewrites a net so that each pass adds its batch to the totals and sets the statistics."""
    paths = batch_norms(net)

    def replaced(path, layer):
        if path not in paths or layer.make not in _KINDS:
            return layer
        measure, add, of_batch, of_all = _functions(layer)

        def apply(params, state, x, ctx):
            z = x.astype(np.promote_types(x.dtype, jnp.float32))
            batch = measure(z, ctx)
            y, _ = layer.apply(params, of_batch(*batch), x, dataclasses.replace(ctx, train=False))
            totals = add(*map(jnp.stack, zip(state["tap"], batch, strict=True)))
            new = of_all(*totals)
            new = {name: jnp.where(totals[0] > 0, new[name], state[name]) for name in new}
            return y, {**new, "tap": totals}

        return Layer(layer.init, apply)

    return rewrite(net, replaced)


def _functions(layer: Layer):
    """Returns what measures a layer's batch, adds up batches, and makes a state of either."""
    options = layer.options
    if layer.make is batch_norm:
        of_all = {name: options[name] for name in ("unbiased", "running")}
        of_batch = functools.partial(statistics, unbiased=False, running="var")
        return moments, combine, of_batch, functools.partial(statistics, **of_all)
    measure = functools.partial(comoments, groups=options["groups"])
    add = functools.partial(combine, product=products(options["groups"]))
    whitening = functools.partial(whitening_statistics, eps=options["eps"])
    return measure, add, whitening, whitening


@functools.lru_cache(maxsize=8)
def _step(net: Layer):
    """Compiles `adding_up` once for all calls of `recompute_batch_stats` on a net."""
    apply = adding_up(net).apply
    return jax.jit(lambda *args: apply(*args)[1])
