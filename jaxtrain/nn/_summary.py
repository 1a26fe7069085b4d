"""A net as a table: shapes, params, multiply-adds and memory, without computing anything."""

import math

import jax

from jaxtrain.nn._layer import EVAL, Layer
from jaxtrain.nn._look import Path, at, split_taps, tap


def summary(net: Layer, x) -> str:
    """Returns a table of a net's layers, and what the whole takes.

    Args:
        net: any layer.
        x: an input, an array or a `jax.ShapeDtypeStruct`, with its batch axis; only its shape and
            dtype are read, nothing is computed.

    Returns:
        Text with a line per layer: path, kind, output shape, numbers of params and of state,
        multiply-adds of its matrix products and convolutions in one forward pass (two floating
        point operations each; what is elementwise is not counted), bytes of the output. Layers in
        a `repeat` appear once, for all n copies. Then the sums, and the memory of params and state.

    Example:
        >>> from jaxtrain import nn
        >>> import jax.numpy as jnp
        >>> print(nn.summary(nn.serial(nn.dense(8), jax.nn.relu), jnp.zeros((1, 4))))
        path    kind    output  params  state  multiply-adds  activations
        dense0  dense   1x8         40      0             32         32 B
        relu0   relu    1x8          0      0              0         32 B
        total   serial  1x8         40      0             32         64 B
        memory of params 160 B, of state 0 B
    """
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    tapped = tap(net, "*", lambda layer, params, x, y: (y, (x, y)))
    y, seen = jax.eval_shape(lambda p, s, x: tapped.apply(p, s, x, EVAL), params, state, x)
    records = split_taps(seen)[1]
    rows = []
    for name, layer, copies in _leaves(net, params):
        p, s, (inputs, outputs) = at(params, name), at(state, name), records[name]
        products = math.prod(copies) * _multiply_adds(layer, _one((p, s, inputs), len(copies)))
        rows.append((name, layer.kind, outputs, _size(p), _size(s), products, _bytes(outputs)))
    sums = (sum(row[5] for row in rows), sum(row[6] for row in rows))
    rows.append(("total", net.kind, y, _size(params), _size(state), *sums))
    header = ("path", "kind", "output", "params", "state", "multiply-adds", "activations")
    table = [
        header,
        *((a, b, _shapes(c), *map("{:,}".format, d), _unit(e)) for a, b, c, *d, e in rows),
    ]
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(w) if i > 2 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        )
        for row in table
    ]
    held = f"memory of params {_unit(_bytes(params))}, of state {_unit(_bytes(state))}"
    return "\n".join([*lines, held])


def _leaves(net: Layer, params, path: Path = (), copies: tuple[int, ...] = ()):
    """Yields name and layer of all that have params of their own, or none inside.

    With them the counts of the repeats around.
    """
    if not net.children or params.keys() - net.children.keys() and "layer" not in net.children:
        yield "/".join(path), net, copies
        return
    if net.kind == "repeat":
        copies = (*copies, net.options["n"])
    for name, child in net.children.items():
        if name == "layer":
            yield from _leaves(child, params, path, copies)
        else:
            yield from _leaves(child, params.get(name, {}), (*path, name), copies)


def _one(shapes, axes: int):
    """Drops the leading axes, those of the repeats."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[axes:], a.dtype), shapes)


def _multiply_adds(layer: Layer, shapes) -> int:
    """Counts those of one pass through a layer, from params, state and input."""
    return _products(jax.make_jaxpr(lambda p, s, x: layer.apply(p, s, x, EVAL))(*shapes).jaxpr)


def _products(jaxpr) -> int:
    """Counts the multiplications of all matrix products and convolutions."""
    total = 0
    for e in jaxpr.eqns:
        if e.primitive.name == "dot_general":
            ((contracted, _), _), a = e.params["dimension_numbers"], e.invars[0].aval.shape
            total += e.outvars[0].aval.size * math.prod(a[i] for i in contracted)
        elif e.primitive.name == "conv_general_dilated":
            kernel, outputs = e.invars[1].aval, e.params["dimension_numbers"].rhs_spec[0]
            each = kernel.size // kernel.shape[outputs]
            # Zeros between the inputs of a transposed convolution are not multiplied.
            total += e.outvars[0].aval.size * each // math.prod(e.params["lhs_dilation"])
        bodies = jax.tree.leaves(list(e.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr"))
        inner = sum(_products(b.jaxpr) for b in bodies if hasattr(b, "jaxpr"))
        total += inner * e.params.get("length", 1)
    return total


def _size(shapes) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _bytes(shapes) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(shapes))


def _unit(n: int) -> str:
    """Writes a number of bytes with three digits."""
    power = max(0, (len(str(n)) - 1) // 3)
    return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _shapes(y) -> str:
    return ", ".join("x".join(map(str, leaf.shape)) or "()" for leaf in jax.tree.leaves(y))
