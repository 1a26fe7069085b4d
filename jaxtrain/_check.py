"""Argument checks. Each lets traced values pass."""

import difflib
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.errors import ConfigError


def fail(
    where: str, argument: str, rule: str, value: Any, fix: str = "", error=ConfigError
) -> NoReturn:
    """Raises `error` in the one form that all our messages have."""
    raise error(f"{where}: {argument} must be {rule}, got {value!r}" + (f"; {fix}" if fix else ""))


def nearest(value: str, choices: Iterable[str]) -> str:
    """Returns "did you mean ...?" for the closest choices, or the sorted list of all of them."""
    choices = sorted(choices)
    close = difflib.get_close_matches(str(value), choices, n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"choose from {choices}"


def choice(where: str, argument: str, value: Any, choices: Iterable[Any]) -> None:
    """Checks that `value` is one of `choices`."""
    choices = list(choices)
    if not any(value is c or (type(value) is type(c) and value == c) for c in choices):
        fail(where, argument, f"one of {choices}", value, nearest(value, map(str, choices)))


def _number(where, argument, value, rule, holds: Callable[[float], bool], fix):
    if isinstance(value, jax.core.Tracer):
        return
    try:
        number = None if _is_bool(value) or np.ndim(value) else float(value)
    except (TypeError, ValueError):  # None, a complex number
        number = None
    if number is None or isinstance(value, str):
        fail(where, argument, rule, value, fix, TypeError)
    if not holds(number):
        fail(where, argument, rule, value, fix)


def _is_bool(value):
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"


def positive(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks 0 < value < inf."""
    _number(where, argument, value, "a finite number > 0", lambda v: 0 < v < math.inf, fix)


def nonnegative(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks 0 <= value < inf."""
    at_least(where, argument, value, 0, fix)


def at_least(where: str, argument: str, value: Any, least: float, fix: str = "") -> None:
    """Checks least <= value < inf."""
    _number(
        where, argument, value, f"a finite number >= {least}", lambda v: least <= v < math.inf, fix
    )


def at_most(where: str, argument: str, value: Any, other: str, limit: Any) -> None:
    """Checks value <= limit, the value of the argument `other`; both are checked numbers."""
    if not any(isinstance(v, jax.core.Tracer) for v in (value, limit)) and value > limit:
        fail(where, argument, f"at most {other} = {limit}", value)


def finite(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks -inf < value < inf."""
    _number(where, argument, value, "a finite number", math.isfinite, fix)


def fraction(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks 0 <= value < 1."""
    _number(where, argument, value, "a number in [0, 1)", lambda v: 0 <= v < 1, fix)


def within(where: str, argument: str, value: Any, low: float, high: float) -> None:
    """Checks low <= value <= high."""
    rule = f"a number in [{low}, {high}]"
    _number(where, argument, value, rule, lambda v: low <= v <= high, "")


def whole(value: Any) -> int | None:
    """Returns a whole number as an int, and None for all else, True and 2.0 among it."""
    try:
        return None if _is_bool(value) else operator.index(value)
    except TypeError:
        return None


def flag(where: str, argument: str, value: Any) -> None:
    """Checks that value is True or False."""
    if not isinstance(value, bool | np.bool_):
        fail(where, argument, "True or False", value, error=TypeError)


def function(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks that value can be called."""
    if not callable(value):
        fail(where, argument, "a function", value, fix, TypeError)


def array(where: str, argument: str, x: Any, make: Callable = jnp.asarray) -> Any:
    """Returns what `make` makes of x, an array unless x is something else than numbers."""
    try:
        if not isinstance(x, str):  # of which some are a deprecated dtype
            return make(x)
    except (TypeError, ValueError, OverflowError):
        pass
    fail(where, argument, "an array of numbers", x, error=TypeError)


def is_real(dtype: Any) -> bool:
    """Returns whether it is a bool, integer or float type, bfloat16 and the like among them."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))


def integer(
    where: str, argument: str, value: Any, *, least: int = 1, bits: int = 31, fix: str = ""
) -> None:
    """Checks that value is a whole number, least <= value < 2**bits."""
    if isinstance(value, jax.core.Tracer):
        return
    rule = f"an int >= {least}"
    number = whole(value)
    if number is None:
        fail(where, argument, rule, value, fix, TypeError)
    if number < least:
        fail(where, argument, rule, value, fix)
    if number >= 2**bits:
        fail(where, argument, f"{rule} and below 2**{bits}", value, fix)
