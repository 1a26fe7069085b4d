"""Kernels rescaled layer by layer, so that a batch of data has unit variance behind each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._layer import EVAL, Context, Layer, on_last_axis
from jaxtrain.nn._look import at, put, split_taps, tap
from jaxtrain.nn._norm import moments
from jaxtrain.nn.initializers import orthonormal

AFFINE = ("dense", "conv", "depthwise_conv", "conv_transpose", "maxout")


def lsuv(net: Layer, params: Any, state: Any, x: Any, *, ctx: Context = EVAL) -> Any:
    """Makes the kernels orthonormal and scales each so that its outputs have variance 1.

    Layer-sequential unit variance, over all examples, positions and features, in one forward pass:
    each layer sees what the rescaled ones before it give. The variance is quadratic in the scale,
    so the first division is exact, and there is no tolerance and no number of iterations.

    Args:
        net: any net; its dense, convolution and maxout layers are rescaled, also those in a
            `repeat`, each copy by itself.
        params: the params to begin with. Biases are kept; normal kernels become uniform among the
            orthonormal ones, and kernels of zeros stay zeros.
        state: the net's state.
        x: a batch of inputs, hundreds of examples rather than a few.
        ctx: how the net is applied; its `mask` leaves examples out. With the default, `batch_norm`
            uses its running statistics.

    Returns:
        The new params.

    Raises:
        ConfigError: there are no such layers, or their params are a wrapper's, as in
            `weight_norm`.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.serial(nn.dense(64), jax.nn.relu, nn.dense(64))
        >>> x = 5 * jax.random.normal(jax.random.key(1), (256, 20))
        >>> params = nn.lsuv(net, *net.init(jax.random.key(0), x), x)
        >>> round(net.apply(params, {}, x, nn.EVAL)[0].std().item(), 4)
        1.0

    References:
        D. Mishkin, J. Matas, "All you need is a good init", 2016.
    """
    return _layer_by_layer("lsuv", _unit_variance, net, params, state, x, ctx)


def data_dependent(net: Layer, params: Any, state: Any, x: Any, *, ctx: Context = EVAL) -> Any:
    """Scales and shifts each layer so that every channel has mean 0 and variance 1 over the data.

    As `lsuv`, but channel by channel, with the kernels that are there: the outputs `y = W x + b` of
    mean m and standard deviation s become `(y - m) / s`. A channel that is constant is only
    shifted; a layer without a bias only scaled.

    Args:
        net: any net; the layers rescaled are those of `lsuv`.
        params: the params to begin with, as from `net.init`.
        state: the net's state.
        x: a batch of inputs.
        ctx: as in `lsuv`.

    Returns:
        The new params.

    Raises:
        ConfigError: there are no such layers, or their params are a wrapper's, as in
            `weight_norm`.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.serial(nn.dense(8), jax.nn.relu, nn.dense(2))
        >>> x = 3 + jax.random.normal(jax.random.key(1), (64, 5))
        >>> params = nn.data_dependent(net, *net.init(jax.random.key(0), x), x)
        >>> net.apply(params, {}, x, nn.EVAL)[0].std(0).round(3).tolist()
        [1.0, 1.0]

    References:
        P. Kraehenbuehl, C. Doersch, J. Donahue, T. Darrell, "Data-dependent initializations of
        convolutional neural networks", 2016, algorithm 1. Algorithm 2, which makes layers learn at
        equal rates by moving scale between neighbours, needs a chain of ReLUs and is not done.
    """
    return _layer_by_layer("data_dependent", _standard_channels, net, params, state, x, ctx)


def _layer_by_layer(where, rescaled, net, params, state, x, ctx):
    """Applies the net once, each affine layer with its `rescaled` params; returns them all."""

    @jax.jit
    def measure(params, state, x, ctx):
        def see(layer, own, x, y):
            new = rescaled(layer, own, x, ctx)
            return layer.apply(new, {}, x, EVAL)[0], new

        tapped = tap(net, lambda path, layer: layer.kind in AFFINE, see)
        with jax.default_matmul_precision("highest"):
            return split_taps(tapped.apply(params, state, x, ctx)[1])[1]

    found = measure(params, state, x, ctx)
    if not found:
        _check.fail(where, "net", f"made of any of {AFFINE}", net)
    for path, new in found.items():
        held = at(params, path)
        if set(held) != set(new):
            fix = "rescale the bare layer, and wrap it then"
            _check.fail(where, f"params of {path!r}", "the layer's own", sorted(held), fix)
        params = put(params, path, new)
    return params


def _unit_variance(layer, own, x, ctx):
    kernel = orthonormal(own["kernel"])
    y, _ = layer.apply({"kernel": kernel}, {}, x, EVAL)
    _, s = _mean_and_std(y[..., None], ctx)  # all features as one
    return {**own, "kernel": kernel / on_last_axis(s.astype(kernel.dtype), kernel.ndim)}


def _standard_channels(layer, own, x, ctx):
    kernel = own["kernel"]
    mean, s = _mean_and_std(layer.apply(own, {}, x, EVAL)[0], ctx)
    # The pieces of a maxout stand side by side.
    mean, s = (jnp.tile(v, kernel.shape[-1] // v.size).astype(kernel.dtype) for v in (mean, s))
    new = {"kernel": kernel / on_last_axis(s, kernel.ndim)}
    return new | ({"bias": (own["bias"] - mean) / s} if "bias" in own else {})


def _mean_and_std(y, ctx):
    """Returns both over all axes but the last; where only rounding varies, 1 for the second."""
    count, mean, m2 = moments(y.astype(np.promote_types(y.dtype, jnp.float32)), ctx)
    std = jnp.sqrt(m2 / jnp.maximum(count, 1))
    return mean, jnp.where(std > float(jnp.finfo(y.dtype).eps) * jnp.abs(mean), std, 1)
