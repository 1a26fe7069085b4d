"""Schedules that reach their last value at a given count, and stay there."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check

from ._base import Schedule, as_count, as_float, half_cosine, mix, progress


def linear_to(value: ArrayLike, *, steps: int, end: ArrayLike) -> Schedule:
    """Goes straight to another value and stays: `(1 - t) * value + t * end`.

    Here `t = min(count, steps) / steps`. `end` may be the larger.

    Args:
      value: the first value, >= 0.
      steps: the count at which `end` is reached, >= 1.
      end: the last value, >= 0; a hundredth of the first is usual.

    Returns:
      The schedule.

    Example:
      >>> [float(linear_to(1.0, steps=4, end=0.5)(count)) for count in (0, 2, 4, 100)]
      [1.0, 0.75, 0.5, 0.5]

    References:
      Goodfellow, Bengio and Courville, Deep Learning, 2016, section 8.3.1.
    """
    _check.nonnegative("linear_to", "value", value)
    _check.integer("linear_to", "steps", steps)
    _check.nonnegative("linear_to", "end", end)
    return lambda count: mix(value, end, progress(count, steps))


def linear(value: ArrayLike, *, steps: int) -> Schedule:
    """Falls straight to 0 and stays: `value * (1 - t)`, `t = min(count, steps) / steps`.

    Args:
      value: the first value, > 0.
      steps: the count at which 0 is reached, >= 1.

    Returns:
      The schedule.

    Example:
      >>> [float(linear(1.0, steps=4)(count)) for count in (0, 1, 2, 4, 100)]
      [1.0, 0.75, 0.5, 0.0, 0.0]
    """
    _check.positive("linear", "value", value)
    _check.integer("linear", "steps", steps)
    return polynomial(value, steps=steps, power=1)


def polynomial(value: ArrayLike, *, steps: int, power: ArrayLike, end: ArrayLike = 0.0) -> Schedule:
    """Falls with a power of what is left, then stays: `end + (value - end) * (1 - t)**power`.

    Here `t = min(count, steps) / steps`.

    Args:
      value: the first value, > 0.
      steps: the count at which `end` is reached, >= 1.
      power: > 0; 1 is a straight line, more falls faster at first.
      end: the last value, >= 0.

    Returns:
      The schedule.

    Example:
      >>> [float(polynomial(1.0, steps=4, power=2.0)(count)) for count in (0, 2, 3, 4)]
      [1.0, 0.25, 0.0625, 0.0]
    """
    _check.positive("polynomial", "value", value)
    _check.integer("polynomial", "steps", steps)
    _check.positive("polynomial", "power", power)
    _check.nonnegative("polynomial", "end", end)

    def schedule(count):
        # 1 - t from integers: a root of it would magnify the rounding of t.
        left = as_float(jnp.maximum(steps - as_count(count), 0)) / steps
        return mix(end, value, left ** as_float(power))

    return schedule


def cosine(value: ArrayLike, *, steps: int, end: ArrayLike = 0.0, after: str = "stay") -> Schedule:
    """Falls along half a cosine: `end + (value - end) * (1 + cos(pi * t)) / 2`.

    Here `t = min(count, steps) / steps`, or without the minimum if it rises again.

    Args:
      value: the first value, > 0.
      steps: the count at which `end` is reached, >= 1.
      end: the last value, >= 0.
      after: "stay" at `end`, or "rise" along the cosine, whose period is `2 * steps`.

    Returns:
      The schedule.

    Example:
      >>> [round(float(cosine(1.0, steps=100)(count)), 6) for count in (0, 50, 100, 200)]
      [1.0, 0.5, 0.0, 0.0]

    References:
      Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017.
    """
    _check.positive("cosine", "value", value)
    _check.integer("cosine", "steps", steps)
    _check.nonnegative("cosine", "end", end)
    _check.choice("cosine", "after", after, ("stay", "rise"))

    def schedule(count):
        count = as_count(count)
        if after == "rise":
            half, count = jnp.divmod(count, steps)
            count = jnp.where(half % 2 == 0, count, steps - count)
        return mix(value, end, half_cosine(progress(count, steps)))

    return schedule
