"""BatchNorm taken into the layer before it, for evaluation."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.nn._combine import serial
from jaxtrain.nn._conv import conv, conv_transpose, depthwise_conv
from jaxtrain.nn._layer import EVAL, Layer, on_last_axis
from jaxtrain.nn._linear import dense
from jaxtrain.nn._look import Path, at, put, rewrite, walk
from jaxtrain.nn._norm import batch_norm

_AFFINE = (dense, conv, depthwise_conv, conv_transpose)  # the kernel's last axis is the output's


def fold_batch_norm(net: Layer, params: Any, state: Any) -> tuple[Layer, Any, Any, list[str]]:
    """Takes each BatchNorm that directly follows a dense or conv layer into its weights.

    In eval mode BatchNorm is y = a x + b for each feature, so that with x = w h + c

        y = (a w) h + (a c + b):

    the same outputs, for less work. The net that is left is for evaluation; training it is training
    without these BatchNorms.

    Args:
        net: any layer. The two layers must be neighbours in one `serial`, which may be inside
            `repeat`, `remat` and whatever else.
        params: the net's params.
        state: the net's state.

    Returns:
        The net, its params and its state, and the paths of the BatchNorms that could not be folded.
        All other layers keep their names.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.serial(nn.dense(3, bias=False), nn.batch_norm(), jax.nn.relu, nn.batch_norm())
        >>> variables = net.init(jax.random.key(0), jnp.ones((1, 2)))
        >>> folded, params, state, left = nn.fold_batch_norm(net, *variables)
        >>> list(folded.children), left
        (['dense0', 'relu0', 'batch_norm1'], ['batch_norm1'])
    """
    layers = list(walk(net))
    repeats = [path for path, layer in layers if layer.kind == "repeat"]
    norms = {path: layer for path, layer in layers if layer.make is batch_norm}
    # The path of each BatchNorm with that of the layer it is folded into.
    into: dict[Path, Path] = {
        (*path, norm): (*path, before)
        for path, layer in layers
        if layer.make is serial
        for before, norm in itertools.pairwise(layer.children)
        if layer.children[before].make in _AFFINE and layer.children[norm].make is batch_norm
    }
    for path, before in into.items():
        folded = functools.partial(_folded, norms[path])
        for outer in repeats:
            if path[: len(outer)] == outer:
                folded = jax.vmap(folded)
        name, affine = "/".join(path), "/".join(before)
        entries = folded(at(params, affine), at(params, name), at(state, name))
        params, state = _without(put(params, affine, entries), path), _without(state, path)

    def without(path, layer):
        if path in into.values() and layer.make in _AFFINE:
            return layer.replace(bias=True)
        if layer.make is serial:
            kept = {name: x for name, x in layer.children.items() if (*path, name) not in into}
            return serial(**kept)
        return layer

    left = ["/".join(path) for path in norms if path not in into]
    return rewrite(net, without), params, state, left


def _folded(norm: Layer, affine, params, state):
    """Returns the kernel and bias of `affine` followed by `norm`."""
    zeros = jnp.zeros((1, state["mean"].shape[-1]), affine["kernel"].dtype)
    b, a = jax.jvp(
        lambda x: norm.apply(params, state, x, EVAL)[0], (zeros,), (jnp.ones_like(zeros),)
    )
    kernel = affine["kernel"] * on_last_axis(a[0], affine["kernel"].ndim)
    return {"kernel": kernel, "bias": affine.get("bias", 0) * a[0] + b[0]}


def _without(tree, path):
    """Returns a tree of dicts without the entry at a path and what is empty then."""
    first, *rest = path
    inner = _without(tree.get(first, {}), rest) if rest else {}
    kept = {name: part for name, part in tree.items() if name != first}
    return kept | {first: inner} if inner else kept
