"""The mean over the noise of a stochastic net."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._combine import identity
from jaxtrain.nn._layer import Context, Layer
from jaxtrain.nn._look import rewrite


def predict_mc(
    net: Layer,
    params: Any,
    state: Any,
    x: Any,
    key: jax.Array,
    *,
    samples: int = 100,
    transform: Callable = identity,
    index: Any = None,
) -> tuple[Any, Any]:
    """Estimates mean and standard deviation of a net's outputs over the noise of its layers.

    Each sample is a pass in train mode with a key of its own, so that dropout and the like draw;
    BatchNorm alone uses its running statistics. Where the net's noise is that of dropout this is
    Monte-Carlo dropout, which `dropout` in eval mode approximates by one pass.

    Args:
        net: any layer.
        params: its params.
        state: its state, which stays as it is.
        x: a batch of inputs.
        key: sample s is drawn with `fold_in(key, s)`.
        samples: how many; the error of the mean is std / sqrt(samples).
        transform: a function of the outputs to average instead, such as `nn.softmax` for the
            probabilities of a classifier. There is a compilation for each net and function.
        index: (batch,) int32, each example's number, so that any split of a data set into batches
            draws the same; None means its position in x.

    Returns:
        mean and std (that of all samples, 0 for one), each of the shape of the outputs.

    Example:
        >>> from jaxtrain import nn
        >>> net, x = nn.dropout(0.5), jnp.ones((1, 2))
        >>> mean, std = predict_mc(net, {}, {}, x, jax.random.key(0), samples=10_000)
        >>> mean.round(1).tolist(), std.round(1).tolist()
        ([[1.0, 1.0]], [[1.0, 1.0]])

    References:
        Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
        in deep learning", 2016.
    """
    _check.integer("predict_mc", "samples", samples)
    _check.function("predict_mc", "transform", transform)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(samples, dtype=jnp.int32))
    return _sampled(net, transform)(params, state, x, keys, index)


@functools.lru_cache(maxsize=8)
def _sampled(net: Layer, transform: Callable) -> Callable:
    """Compiles the passes once for all calls of `predict_mc` on a net."""

    def still(path, layer):
        return layer.replace(frozen=True) if "frozen" in layer.options else layer

    apply = rewrite(net, still).apply

    def run(params, state, x, keys, index):
        def sample(key):
            y = transform(apply(params, state, x, Context(train=True, key=key, index=index))[0])
            return jax.tree.map(lambda y: y.astype(np.promote_types(y.dtype, np.float32)), y)

        # In a loop: XLA takes what comes before the first noise out of it, and memory stays small.
        ys = jax.lax.map(sample, keys)
        return jax.tree.map(lambda y: y.mean(0), ys), jax.tree.map(lambda y: y.std(0), ys)

    return jax.jit(run)
