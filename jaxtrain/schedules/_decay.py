"""Schedules that only fall."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check

from ._base import Schedule, as_count, as_float


def step_decay(value: ArrayLike, *, every: int, factor: ArrayLike) -> Schedule:
    """Multiplies by `factor` after every `every` updates: `value * factor**(count // every)`.

    Args:
      value: the first value, > 0.
      every: updates between two drops, >= 1; the drop takes effect at count = every.
      factor: what remains after a drop, > 0; 0.5 halves.

    Returns:
      The schedule.

    Example:
      >>> schedule = step_decay(1.0, every=30, factor=0.5)
      >>> [float(schedule(count)) for count in (0, 29, 30, 60)]
      [1.0, 1.0, 0.5, 0.25]

    References:
      He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016.
    """
    _check.positive("step_decay", "value", value)
    _check.integer("step_decay", "every", every)
    _check.positive("step_decay", "factor", factor)
    return lambda count: as_float(value) * as_float(factor) ** as_float(as_count(count) // every)


def cosine(value: ArrayLike, *, steps: int, end: ArrayLike = 0.0) -> Schedule:
    """Falls along half a cosine, then stays: `end + (value - end) * (1 + cos(pi * t)) / 2`.

    Here `t = min(count, steps) / steps`.

    Args:
      value: the first value, > 0.
      steps: the count at which `end` is reached, >= 1.
      end: the last value, >= 0.

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

    def schedule(count):
        t = as_float(jnp.minimum(as_count(count), steps)) / steps
        return as_float(end) + (as_float(value) - as_float(end)) * (1 + jnp.cos(jnp.pi * t)) / 2

    return schedule
