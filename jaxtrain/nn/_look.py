"""Looking inside a net and changing its parts: rewrite, tap, summary."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from jaxtrain import tree
from jaxtrain.nn._layer import EVAL, Layer

Path = tuple[str, ...]


def rewrite(net: Layer, f: Callable[[Path, Layer], Layer], path: Path = ()) -> Layer:
    """Rebuilds a net bottom-up through `f(path, layer) -> layer`.

    Args:
        net: any layer.
        f: gets the names on the way to a layer (wrappers of one layer add none) and the layer, its
            children already rewritten; returns what is to stand in its place.
        path: the names on the way to `net` itself.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.serial(nn.dense(8), nn.dropout(0.5), nn.dense(2))
        >>> quiet = nn.rewrite(net, lambda path, layer:
        ...     layer.replace(rate=0.0) if layer.kind == "dropout" else layer)
        >>> quiet.options["dropout0"]
        dropout(rate=0.0)
    """
    kids = {
        name: rewrite(child, f, path if name == "layer" else (*path, name))
        for name, child in net.children.items()
    }
    return f(path, net.replace(**kids) if kids else net)


def tap(net: Layer, at: Any, see: Callable) -> Layer:
    """Rewrites a net so that chosen layers report what passes through them.

    Args:
        net: any layer.
        at: which layers: a glob on the '/'-joined path, a tuple of globs, or `f(path, layer) ->
            bool`. Wrappers of one layer are passed over in favour of the layer inside.
        see: `see(layer, params, x, y) -> (y, record)`: may change y; the record, any pytree of
            arrays, leaves through the returned state under "tap".

    Returns:
        A net with the same params. An entry "probe" beside a tapped layer's params is added to its
        output, so that the gradient with respect to it is the output's gradient.

    Example:
        >>> from jaxtrain import nn
        >>> import jax.numpy as jnp
        >>> net = nn.serial(nn.dense(8), jax.nn.relu)
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> tapped = nn.tap(net, "relu0", lambda layer, params, x, y: (y, (y == 0).mean()))
        >>> _, seen = tapped.apply(params, state, jnp.ones((2, 4)), nn.EVAL)
        >>> list(nn.split_taps(seen)[1])
        ['relu0']
    """
    layers = {"/".join(path): layer for path, layer in walk(net) if "layer" not in layer.children}
    chosen = tree.select(at, layers)

    def wrap(path, layer):
        name = "/".join(path)
        return _tapped(layer, see) if "layer" not in layer.children and chosen[name] else layer

    return rewrite(net, wrap)


def _tapped(layer: Layer, see) -> Layer:
    def apply(params, state, x, ctx):
        own = {name: p for name, p in params.items() if name != "probe"}
        before = {name: s for name, s in state.items() if name != "tap"}
        y, after = layer.apply(own, before, x, ctx)
        y, record = see(layer, own, x, y)
        if "probe" in params:
            y = y + params["probe"]
        return y, {**after, "tap": record}

    make = layer.make
    if make is not None:
        remake = layer.replace
        make = functools.wraps(make)(lambda **options: _tapped(remake(**options), see))
    return Layer(layer.init, apply, make, layer.options)


def split_taps(state: dict) -> tuple[dict, dict[str, Any]]:
    """Separates a tapped net's state into the state proper and the records by '/'-joined path."""
    rest, records = {}, {}
    for name, value in state.items():
        if name == "tap":
            records[""] = value
        elif isinstance(value, dict):
            inner, below = split_taps(value)
            records |= {f"{name}/{k}" if k else name: r for k, r in below.items()}
            if inner:
                rest[name] = inner
        else:
            rest[name] = value
    return rest, records


def walk(net: Layer, path: Path = ()):
    """Yields (path, layer) of a net and all layers inside, a layer before its children."""
    yield path, net
    for name, child in net.children.items():
        yield from walk(child, path if name == "layer" else (*path, name))


def summary(net: Layer, x) -> str:
    """Returns a table of a net's layers: path, kind, output shape, parameters, state.

    Args:
        net: any layer.
        x: an input, an array or a `jax.ShapeDtypeStruct`, with its batch axis; only its shape and
            dtype are read, nothing is computed.

    Returns:
        Text with a line per layer and one for the whole net. Layers in a `repeat` appear once,
        their sizes with the leading axis n.

    Example:
        >>> from jaxtrain import nn
        >>> import jax.numpy as jnp
        >>> print(nn.summary(nn.serial(nn.dense(8), jax.nn.relu), jnp.zeros((1, 4))))
        path    kind    output  params  state
        dense0  dense   1x8         40      0
        relu0   relu    1x8          0      0
        total   serial  1x8         40      0
    """
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    tapped = tap(net, "*", lambda layer, params, x, y: (y, y))
    _, seen = jax.eval_shape(lambda p, s, x: tapped.apply(p, s, x, EVAL), params, state, x)
    outputs = split_taps(seen)[1]
    rows = [("path", "kind", "output", "params", "state")]
    kinds = {"/".join(path): layer for path, layer in walk(net)}
    for name, layer in kinds.items():
        if not layer.children:
            sizes = [f"{_size(_at(part, name)):,}" for part in (params, state)]
            rows.append((name, layer.kind, _shapes(outputs[name]), *sizes))
    total = [f"{_size(part):,}" for part in (params, state)]
    rows.append(("total", kinds[""].kind, _shapes(outputs[""]), *total))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i > 2 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    )


def _at(part: dict, name: str):
    for key in filter(None, name.split("/")):
        part = part.get(key, {})
    return part


def _size(part) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))


def _shapes(y) -> str:
    return ", ".join("x".join(map(str, leaf.shape)) or "()" for leaf in jax.tree.leaves(y))
