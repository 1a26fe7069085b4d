"""The training set in blocks, what is summed over them, and the types to compute in."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError


def blocks(where: str, x: Any) -> Iterator[np.ndarray]:
    """Yields every example once, in checked arrays (b, ...).

    Args:
        where: The function that error messages name.
        x: Examples, (n, ...), in memory or not (`np.memmap`); or a function without arguments that
            returns an iterator over such arrays, from the start at each call.

    Raises:
        DataError: If there are no examples, they differ in shape, or one is not finite.
        TypeError: If x is an iterator.
    """
    if isinstance(x, Iterator):
        fix = "it is read more than once: lambda: of what makes it"
        _check.fail(where, "x", "an array or a function", type(x).__name__, fix, TypeError)
    n, shape = 0, ()
    for block in x() if callable(x) else _cut(np.asarray(x)):
        block = np.asarray(block)
        if block.size == 0:
            continue
        if not _check.is_real(block.dtype):
            _fail(where, "of bool, integer or float type", str(block.dtype))
        if n and block.shape[1:] != shape:
            _fail(where, f"of examples of one shape, {shape}", block.shape[1:])
        finite = np.isfinite(block)
        if not finite.all():
            i, *entry = map(int, np.argwhere(~finite)[0])
            value = {(n + i, *entry): block[(i, *entry)].item()}
            _fail(where, "finite", value, "the first such value, as {index: value}")
        n, shape = n + len(block), block.shape[1:]
        yield block
    if n == 0:
        fix = "its function must return a new iterator at each call" if callable(x) else ""
        _fail(where, "an array with at least one example", np.shape(x), fix)


def _fail(where, rule, value, fix=""):
    _check.fail(where, "x", rule, value, fix, DataError)


def _cut(x):
    """Cuts x into blocks of at most 1024 examples and, in float64, 64 MB."""
    size = max(1, min(1024, 2**23 // max(1, math.prod(x.shape[1:]))))
    return (x[i : i + size] for i in range(0, len(x) if x.ndim else 0, size))


def first(where: str, x: Any) -> np.ndarray:
    """Returns the first block, which has the type and the rank of them all."""
    return next(blocks(where, x))


def average(where: str, x: Any, f: Callable, axes: Sequence[int]) -> np.ndarray:
    """Averages f(block) over axes, of which the first is one; in float64, the axes are kept."""
    total, n = np.zeros(()), 0
    for block in blocks(where, x):
        y = f(block.astype(np.float64))
        total = total + y.sum(tuple(axes), keepdims=True)
        n += math.prod(y.shape[axis] for axis in axes)
    return total / n


def axes(where: str, per: str, ndim: int) -> tuple[int, ...]:
    """Returns the axes that share a statistic, for `per` one of "feature", "channel", "all"."""
    _check.choice(where, "per", per, ("feature", "channel", "all"))
    return tuple({"feature": range(1), "channel": range(ndim - 1), "all": range(ndim)}[per])


def stats_dtype(x: np.ndarray) -> type:
    """Returns the type of statistics of x, and of what is computed with them."""
    return np.float64 if x.dtype == np.float64 else np.float32


def promote(where: str, stats: Any, x: Any, example: Sequence[int]) -> tuple[Any, Any, Any]:
    """Returns stats and x in the type to compute in, and the type of the result.

    Args:
        where: The function that error messages name.
        stats: What is computed with, any tree.
        x: Examples, (n, *example).
        example: The shape of one, 1 for an axis that shares its statistics.

    Raises:
        DataError: If x is of another shape: it would broadcast.
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    fits = x.ndim == 1 + len(example) and all(
        m in (1, n) for m, n in zip(example, x.shape[1:], strict=True)
    )
    if not fits:
        shape = ", ".join(["n", *("any" if m == 1 else str(m) for m in example)])
        _fail(where, f"of shape ({shape}), as what was fitted", x.shape)
    wide = stats_dtype(x)
    dtype = x.dtype if jnp.issubdtype(x.dtype, np.floating) else np.float32
    return jax.tree.map(lambda s: s.astype(wide), stats), x.astype(wide), dtype


def multiply(matrix: Any, x: Any) -> Any:
    """Multiplies every example by a matrix, whose last axes are those of an example.

    In NumPy where both are of NumPy, else in JAX at the full precision of the type.
    """
    axes = tuple(range(1, x.ndim)), tuple(range(matrix.ndim - x.ndim + 1, matrix.ndim))
    if isinstance(matrix, np.ndarray) and isinstance(x, np.ndarray):
        return np.tensordot(x, matrix, axes)
    return jnp.tensordot(x, matrix, axes, precision="highest")
