"""Looking inside a net and changing its parts: rewrite and tap."""

import functools
from collections.abc import Callable
from typing import Any

from jaxtrain import tree
from jaxtrain.nn._layer import Layer

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
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxtrain import nn
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


def at(tree: dict, name: str) -> dict:
    """Returns what stands at the '/'-joined path of a tree of params or state; {} for nothing."""
    for key in filter(None, name.split("/")):
        tree = tree.get(key, {})
    return tree


def put(tree: dict, name: str, entries: dict) -> dict:
    """Returns a tree of params or state with entries added to the dict at the '/'-joined path."""
    if not name:
        return {**tree, **entries}
    first, _, rest = name.partition("/")
    return {**tree, first: put(tree.get(first, {}), rest, entries)}


def with_probes(params: dict, probes: dict[str, Any]) -> dict:
    """Puts the probe of each '/'-joined path beside the params of its layer."""
    for name, probe in probes.items():
        params = put(params, name, {"probe": probe})
    return params


def walk(net: Layer, path: Path = ()):
    """Yields (path, layer) of a net and all layers inside, a layer before its children."""
    yield path, net
    for name, child in net.children.items():
        yield from walk(child, path if name == "layer" else (*path, name))
