"""What all schedules share: the types of counts and values, and the constant schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check

Schedule = Callable[[ArrayLike], jax.Array]

LAST = 2**31 - 1  # the largest count


def as_float(x: Any) -> jax.Array:
    """Casts to the default float type: float64 under x64, else float32."""
    return jnp.asarray(x, jnp.result_type(float))


def as_count(count: Any) -> jax.Array:
    """Casts to int32; Python and NumPy counts past 2^31 - 1 stay there, as an optimizer's do.

    In int32 because float32 cannot tell counts above 2^24 apart.
    """
    if not isinstance(count, jax.Array):
        count = np.asarray(count)
        if np.issubdtype(count.dtype, np.integer):
            count = np.minimum(count, min(LAST, np.iinfo(count.dtype).max)).astype(np.int32)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        _check.fail("schedule", "count", "an integer", count, error=TypeError)
    return jnp.asarray(count, jnp.int32)


def progress(count: Any, steps: int) -> jax.Array:
    """Computes `t = min(count, steps) / steps`."""
    return as_float(jnp.minimum(as_count(count), steps)) / steps


def mix(a: Any, b: Any, t: jax.Array) -> jax.Array:
    """Computes `(1 - t) * a + t * b`: exactly a at t = 0, exactly b at t = 1."""
    return (1 - t) * as_float(a) + t * as_float(b)


def half_cosine(t: jax.Array) -> jax.Array:
    """Rises from 0 to 1 with t, level at both ends."""
    return (1 - jnp.cos(jnp.pi * t)) / 2


def constant(value: ArrayLike) -> Schedule:
    """Keeps one value.

    Args:
      value: the value, >= 0.

    Returns:
      The schedule.

    Example:
      >>> float(constant(0.5)(1000))
      0.5
    """
    _check.nonnegative("constant", "value", value)
    return lambda count: jnp.broadcast_to(as_float(value), as_count(count).shape)


def as_schedule(
    schedule_or_value: Schedule | ArrayLike,
    *,
    where: str = "as_schedule",
    argument: str = "schedule_or_value",
) -> Schedule:
    """Makes a schedule of a number and leaves a schedule alone.

    Args:
      schedule_or_value: a schedule, or the value (>= 0) of a constant one.
      where: the function that an error names.
      argument: its argument.

    Returns:
      The schedule.

    Example:
      >>> float(as_schedule(0.5)(1000))
      0.5
    """
    if callable(schedule_or_value):
        return schedule_or_value
    _check.nonnegative(where, argument, schedule_or_value)
    return constant(schedule_or_value)
