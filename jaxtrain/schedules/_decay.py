"""Schedules that fall for ever: in steps, exponentially, or with a power of the count."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check

from ._base import Schedule, as_count, as_float


def check_boundaries(where: str, boundaries: Sequence[int]) -> None:
    """Checks that boundaries are counts >= 1 and increase."""
    if not isinstance(boundaries, Sequence):
        _check.fail(where, "boundaries", "a sequence of counts", boundaries, error=TypeError)
    for boundary in boundaries:
        _check.integer(where, "boundaries", boundary)
    if any(a >= b for a, b in pairwise(boundaries)):
        _check.fail(where, "boundaries", "increasing", boundaries)


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
    """
    _check.positive("step_decay", "value", value)
    _check.integer("step_decay", "every", every)
    _check.positive("step_decay", "factor", factor)
    return lambda count: as_float(value) * as_float(factor) ** as_float(as_count(count) // every)


def multi_step(value: ArrayLike, *, boundaries: Sequence[int], factor: ArrayLike) -> Schedule:
    """Multiplies by `factor` at every boundary: `value * factor**n`, n boundaries reached.

    Values of one's own between the boundaries are `join([0.1, 0.05, 0.001], boundaries)`.

    Args:
      value: the first value, > 0.
      boundaries: the counts at which the drops take effect, increasing, >= 1.
      factor: what remains after a drop, > 0.

    Returns:
      The schedule.

    Raises:
      ConfigError: the boundaries do not increase, or an argument is out of range.

    Example:
      >>> schedule = multi_step(1.0, boundaries=[30, 60, 90], factor=0.1)
      >>> [round(float(schedule(count)), 4) for count in (29, 30, 60, 90)]
      [1.0, 0.1, 0.01, 0.001]

    References:
      He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016.
    """
    _check.positive("multi_step", "value", value)
    check_boundaries("multi_step", boundaries)
    _check.positive("multi_step", "factor", factor)

    def schedule(count):
        n = jnp.searchsorted(np.array(boundaries, np.int32), as_count(count), side="right")
        return as_float(value) * as_float(factor) ** as_float(n)

    return schedule


def exponential(value: ArrayLike, *, rate: ArrayLike) -> Schedule:
    """Falls by the same share with every update: `value * exp(-rate * count)`.

    A factor f per update is `rate=-log(f)`, a factor f in n updates `rate=-log(f) / n`.

    Args:
      value: the first value, > 0.
      rate: >= 0, per update.

    Returns:
      The schedule.

    Example:
      >>> [round(float(exponential(1.0, rate=0.1)(count)), 4) for count in (0, 10, 20)]
      [1.0, 0.3679, 0.1353]
    """
    _check.positive("exponential", "value", value)
    _check.nonnegative("exponential", "rate", rate)
    return lambda count: as_float(value) * jnp.exp(-as_float(rate) * as_float(as_count(count)))


def inverse_power(value: ArrayLike, *, power: ArrayLike, rate: ArrayLike = 1.0) -> Schedule:
    """Falls with a power of the count: `value / (1 + rate * count)**power`.

    With 1/2 < power <= 1 the conditions of Robbins and Monro hold. Some texts call this
    polynomial decay; here `polynomial` is the curve that ends.

    Args:
      value: the first value, > 0.
      power: >= 0.
      rate: >= 0, per update; `1 / rate` updates bring the value to `value / 2**power`.

    Returns:
      The schedule.

    Example:
      >>> [float(inverse_power(1.0, power=2.0)(count)) for count in (0, 1, 3)]
      [1.0, 0.25, 0.0625]

    References:
      Robbins and Monro, A Stochastic Approximation Method, 1951.
    """
    _check.positive("inverse_power", "value", value)
    _check.nonnegative("inverse_power", "power", power)
    _check.nonnegative("inverse_power", "rate", rate)

    def schedule(count):
        return as_float(value) / (1 + as_float(rate) * as_float(as_count(count))) ** as_float(power)

    return schedule


def inverse_time(value: ArrayLike, *, rate: ArrayLike) -> Schedule:
    """Falls as one over the count: `value / (1 + rate * count)`.

    Args:
      value: the first value, > 0.
      rate: >= 0, per update; `1 / rate` updates halve the value.

    Returns:
      The schedule.

    Example:
      >>> [float(inverse_time(1.0, rate=0.5)(count)) for count in (0, 2, 6)]
      [1.0, 0.5, 0.25]
    """
    _check.positive("inverse_time", "value", value)
    _check.nonnegative("inverse_time", "rate", rate)
    return inverse_power(value, power=1, rate=rate)


def inverse_sqrt(value: ArrayLike, *, rate: ArrayLike = 1.0) -> Schedule:
    """Falls as one over the root of the count: `value / sqrt(1 + rate * count)`.

    Written `value / sqrt(t)`, it counts updates from t = 1. The transformer's
    `d**-0.5 * min(t**-0.5, t * w**-1.5)`, with a warm-up of w updates, is
    `warmup(inverse_sqrt(peak, rate=1 / w), steps=w - 1, start=peak / w)`, `peak = (d * w)**-0.5`.

    Args:
      value: the first value, > 0.
      rate: >= 0, per update; `3 / rate` updates halve the value.

    Returns:
      The schedule.

    Example:
      >>> [float(inverse_sqrt(1.0)(count)) for count in (0, 3, 15)]
      [1.0, 0.5, 0.25]

    References:
      Vaswani et al., Attention Is All You Need, 2017.
    """
    _check.positive("inverse_sqrt", "value", value)
    _check.nonnegative("inverse_sqrt", "rate", rate)
    return inverse_power(value, power=0.5, rate=rate)
