"""What a function is, in words that another process finds again: names and numbers."""

import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax


def describe(value: Any, around: tuple[int, ...] = ()) -> Any:
    """Returns JSON for a function or a value: no addresses, nothing that depends on the process.

    A function is its name with what it closes over, and so an optimizer, its `update`, is its
    hyper-parameters. What is nothing of the kinds below is the name of its type.

    Args:
        value: Anything.
        around: The ids of what it stands in; what contains itself ends there.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value if value == value else "NaN"  # which is no other NaN
    if id(value) in around:
        return _name(value)
    inner = functools.partial(describe, around=(*around, id(value)))
    if isinstance(value, optax.GradientTransformation):
        return inner(value.update)
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [inner(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return inner(_digest(value))
    if isinstance(value, functools.partial):
        return {"partial": inner(value.func), "args": inner(value.args), **inner(value.keywords)}
    if isinstance(value, types.MethodType):
        return {_name(value): inner(value.__self__)}
    if isinstance(value, types.FunctionType) and value.__closure__:
        cells = zip(value.__code__.co_freevars, value.__closure__, strict=True)
        return {_name(value): {name: inner(_content(cell)) for name, cell in cells}}
    if hasattr(value, "__wrapped__"):  # jax.jit's
        return inner(value.__wrapped__)
    return _name(value)


def _name(value):
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _digest(x):
    if isinstance(x, jax.Array) and (x.is_deleted() or not x.is_fully_addressable):
        return str(jax.typeof(x))
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = np.asarray(x)
    digest = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:16]
    return x.item() if x.ndim == 0 and x.dtype.kind in "biuf" else f"{x.dtype}{x.shape} {digest}"
