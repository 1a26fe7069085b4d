"""Layers made of layers."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._layer import EVAL, Layer, as_layer, constructor, fold_name, naming


def _output(layer: Layer, params, state, x):
    """Returns the shape and dtype of the layer's output, without computing it."""
    return jax.eval_shape(lambda p, s, x: layer.apply(p, s, x, EVAL)[0], params, state, x)


def _init_children(layers, key, x, *, chain: bool):
    """Inits each child by its name; `chain` feeds each the output of the one before."""
    params, state, outputs = {}, {}, []
    for name, layer in layers.items():
        with naming(name):
            p, s = layer.init(fold_name(key, name), x)
            outputs.append(_output(layer, p, s, x))
        if chain:
            x = outputs[-1]
        if p:
            params[name] = p
        if s:
            state[name] = s
    return params, state, outputs


def _apply_child(layers, name, params, state, x, ctx):
    with naming(name):
        return layers[name].apply(params.get(name, {}), state.get(name, {}), x, ctx.child(name))


@constructor
def serial(*unnamed, **layers) -> Layer:
    """Applies layers one after another.

    Args:
        *unnamed: layers or bare functions of one array, named by kind and counter.
        **layers: further layers under names of your own.

    Returns:
        A layer whose params and state are dicts by child name; children without any are left out.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.serial(nn.dense(8), jax.nn.relu, head=nn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> sorted(params), params["head"]["kernel"].shape
        (['dense0', 'head'], (8, 2))
    """

    def init(key, x):
        return _init_children(layers, key, x, chain=True)[:2]

    def apply(params, state, x, ctx):
        new = {}
        for name in layers:
            x, s = _apply_child(layers, name, params, state, x, ctx)
            if s:
                new[name] = s
        return x, new

    return Layer(init, apply)


def concatenate(ys):
    """Joins the outputs of `parallel` on their last axis."""
    return jnp.concatenate(ys, axis=-1)


@constructor
def parallel(*unnamed, combine: Callable = concatenate, **layers) -> Layer:
    """Applies every layer to the same input and combines the outputs.

    Args:
        *unnamed: layers or bare functions of one array, named by kind and counter.
        combine: function of the list of outputs; the default joins them on the last axis.
        **layers: further layers under names of your own.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.parallel(nn.dense(8), nn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> net.apply(params, state, jnp.zeros((1, 4)), nn.EVAL)[0].shape
        (1, 10)
    """

    def init(key, x):
        return _init_children(layers, key, x, chain=False)[:2]

    def apply(params, state, x, ctx):
        ys, new = [], {}
        for name in layers:
            y, s = _apply_child(layers, name, params, state, x, ctx)
            ys.append(y)
            if s:
                new[name] = s
        return combine(ys), new

    return Layer(init, apply)


def identity(x):
    """Returns x."""
    return x


IDENTITY = as_layer(identity)


@constructor
def residual(body: Layer, *, shortcut: Layer = IDENTITY) -> Layer:
    """Adds a layer's output to its input: `y = body(x) + shortcut(x)`.

    Args:
        body: the residual branch.
        shortcut: the other branch, the identity by default.

    Raises:
        ValueError: the two outputs differ in shape.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
    """
    layers = {"body": body, "shortcut": shortcut}

    def init(key, x):
        params, state, (y, z) = _init_children(layers, key, x, chain=False)
        if y.shape != z.shape:
            fix = "give residual a shortcut=... that changes the shape as the body does"
            _check.fail(
                "residual", "body's output", f"of the shortcut's shape {z.shape}", y.shape, fix
            )
        return params, state

    def apply(params, state, x, ctx):
        y, s_body = _apply_child(layers, "body", params, state, x, ctx)
        z, s_shortcut = _apply_child(layers, "shortcut", params, state, x, ctx)
        states = {"body": s_body, "shortcut": s_shortcut}
        return y + z, {name: s for name, s in states.items() if s}

    return Layer(init, apply)


@constructor
def pad_shortcut(channels: int, *, strides: int = 2) -> Layer:
    """Takes every `strides`-th pixel and appends channels of zeros: a shortcut without params.

    Args:
        channels: the number of channels to append.
        strides: step along each spatial axis.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016, the
        shortcut (A).
    """
    _check.integer("pad_shortcut", "channels", channels, least=0)
    _check.integer("pad_shortcut", "strides", strides)

    def apply(params, state, x, ctx):
        x = x[(slice(None), *[slice(None, None, strides)] * (x.ndim - 2))]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, channels)]), state

    return Layer(lambda key, x: ({}, {}), apply)


@constructor
def repeat(layer: Layer, n: int, *, unroll: bool | None = None) -> Layer:
    """Applies n layers of one kind in a row, with their params stacked on a new leading axis.

    Args:
        layer: a layer whose output has the shape and dtype of its input.
        n: how many, at least 1.
        unroll: False runs one compiled body in a loop (fast compilation), True writes the bodies
            out. None loops, except on CPU with a convolution inside: XLA runs convolutions in a
            loop on one thread there.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.repeat(nn.serial(nn.dense(4), jax.nn.relu), 10)
        >>> net.init(jax.random.key(0), jnp.zeros((1, 4)))[0]["dense0"]["kernel"].shape
        (10, 4, 4)
    """
    _check.integer("repeat", "n", n)
    _check.choice("repeat", "unroll", unroll, (True, False, None))

    def init(key, x):
        keys = jax.vmap(fold_name, (None, 0))(key, jnp.arange(n))
        params, state = jax.vmap(lambda k: layer.init(k, x))(keys)
        p, s = jax.tree.map(lambda leaf: leaf[0], (params, state))
        y = _output(layer, p, s, x)
        if (y.shape, y.dtype) != (x.shape, x.dtype):
            rule = f"of its input's shape and dtype, {x.dtype}{x.shape}"
            _check.fail("repeat", "layer's output", rule, f"{y.dtype}{y.shape}")
        return params, state

    def apply(params, state, x, ctx):
        def body(x, step):
            p, s, i = step
            return layer.apply(p, s, x, ctx.child(i))

        has_conv = any(leaf.ndim > 3 for leaf in jax.tree.leaves(params))
        write_out = has_conv and jax.default_backend() == "cpu" if unroll is None else unroll
        return jax.lax.scan(body, x, (params, state, jnp.arange(n)), unroll=n if write_out else 1)

    return Layer(init, apply)


@constructor
def remat(layer: Layer) -> Layer:
    """Recomputes the layer's activations in the backward pass instead of keeping them."""
    return Layer(layer.init, lambda *args: jax.checkpoint(layer.apply)(*args))


@constructor
def frozen(layer: Layer) -> Layer:
    """Applies the layer in eval mode, whatever the context says, and stops its gradients.

    BatchNorm keeps and uses its running statistics, dropout is off. To also keep the optimizer
    (weight decay, momentum) off these params, use the `freeze` of `train.make_step`.
    """

    def apply(params, state, x, ctx):
        params = jax.lax.stop_gradient(params)
        return layer.apply(params, state, x, dataclasses.replace(ctx, train=False))

    return Layer(layer.init, apply)


@constructor
def cast(layer: Layer, dtype) -> Layer:
    """Computes a layer in another dtype: its input is cast there, its output back.

    Layers compute in the dtype of their input and hold params and statistics in at least float32,
    so this alone is mixed precision. Floating inputs and uint8 images are cast (uint8 is exact in
    bfloat16 and float16); other integers, such as tokens, are left alone. A floating output comes
    back in at least float32.
    """

    def casts(x):
        return jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == jnp.uint8

    def to_input(x):
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, dtype) if casts(x) else x
        return x.astype(dtype) if casts(x) else x

    def from_output(y):
        floating = jnp.issubdtype(y.dtype, jnp.floating)
        return y.astype(np.promote_types(y.dtype, jnp.float32)) if floating else y

    def apply(params, state, x, ctx):
        y, state = layer.apply(params, state, jax.tree.map(to_input, x), ctx)
        return jax.tree.map(from_output, y), state

    return Layer(lambda key, x: layer.init(key, jax.tree.map(to_input, x)), apply)
