"""Schedules made of schedules."""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check

from ._base import Schedule, as_count, as_float, as_schedule, constant


def join(schedules: Sequence[Schedule | ArrayLike], boundaries: Sequence[int]) -> Schedule:
    """Runs schedules one after the other; each counts from 0 at its own start.

    Args:
      schedules: the schedules, or numbers for constant ones.
      boundaries: the counts at which the second, third, ... take over, increasing, >= 1.

    Returns:
      The schedule.

    Raises:
      ConfigError: there is not one boundary between each two schedules, or they do not increase.

    Example:
      >>> [float(join([1.0, 0.5], [10])(count)) for count in (9, 10)]
      [1.0, 0.5]
    """
    if not schedules:
        _check.fail("join", "schedules", "at least one schedule", schedules)
    if len(boundaries) != len(schedules) - 1:
        rule = f"{len(schedules) - 1} counts, one between each two schedules"
        _check.fail("join", "boundaries", rule, boundaries)
    for boundary in boundaries:
        _check.integer("join", "boundaries", boundary)
    if any(a >= b for a, b in pairwise(boundaries)):
        _check.fail("join", "boundaries", "increasing", boundaries)
    first, *later = map(as_schedule, schedules)

    def schedule(count):
        count = as_count(count)
        value = as_float(first(count))
        for boundary, after in zip(boundaries, later, strict=True):
            since = jnp.maximum(count - boundary, 0)
            value = jnp.where(count < boundary, value, as_float(after(since)))
        return value

    return schedule


def warmup(
    schedule_or_value: Schedule | ArrayLike,
    *,
    steps: int,
    kind: str = "linear",
    start: ArrayLike = 0.0,
) -> Schedule:
    """Puts a warm-up before a schedule, which then counts from 0 at the warm-up's end.

    Args:
      schedule_or_value: what follows, a schedule or a number.
      steps: the length of the warm-up in updates, >= 1.
      kind: "linear" rises from `start` to what follows; "constant" holds `start`.
      start: the value at count 0, >= 0; > 0 for "constant". With 0 the first update moves nothing.

    Returns:
      The schedule.

    Example:
      >>> [float(warmup(1.0, steps=4)(count)) for count in (0, 2, 4, 100)]
      [0.0, 0.5, 1.0, 1.0]

    References:
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017: there
      "linear" from the rate of one worker to that of all, or "constant" at a smaller rate.
    """
    _check.integer("warmup", "steps", steps)
    _check.choice("warmup", "kind", kind, ("linear", "constant"))
    (_check.positive if kind == "constant" else _check.nonnegative)("warmup", "start", start)
    schedule = as_schedule(schedule_or_value)

    def rise(count):
        a, b = as_float(start), as_float(schedule(as_count(0)))
        return a + (b - a) * as_float(count) / steps

    return join([rise if kind == "linear" else constant(start), schedule], [steps])
