"""Argument checks. Each lets traced values and arrays of traced values pass."""

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jaxtrain.errors import ConfigError


def fail(where: str, argument: str, rule: str, value: Any, fix: str = "", error=ConfigError):
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
    if isinstance(value, jax.core.Tracer) or getattr(value, "ndim", 0) > 0:
        return
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        fail(where, argument, rule, value, fix, TypeError)
    if not holds(float(value)):
        fail(where, argument, rule, value, fix)


def positive(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks 0 < value < inf."""
    _number(where, argument, value, "a finite number > 0", lambda v: 0 < v < math.inf, fix)


def nonnegative(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks 0 <= value < inf."""
    _number(where, argument, value, "a finite number >= 0", lambda v: 0 <= v < math.inf, fix)


def at_least(where: str, argument: str, value: Any, least: float, fix: str = "") -> None:
    """Checks least <= value < inf."""
    _number(
        where, argument, value, f"a finite number >= {least}", lambda v: least <= v < math.inf, fix
    )


def fraction(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Checks 0 <= value < 1."""
    _number(where, argument, value, "a number in [0, 1)", lambda v: 0 <= v < 1, fix)


def integer(where: str, argument: str, value: Any, *, least: int = 1, fix: str = "") -> None:
    """Checks that value is a whole number >= least."""
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        fail(where, argument, f"an int >= {least}", value, fix, TypeError)
    if value < least:
        fail(where, argument, f"an int >= {least}", value, fix)
