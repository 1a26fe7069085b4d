"""Schedules made of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check

from ._anneal import linear_to
from ._base import LAST, Schedule, as_count, as_float, as_schedule, constant, mix, progress
from ._decay import check_boundaries


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
    if not isinstance(schedules, Sequence) or not schedules:
        _check.fail("join", "schedules", "a sequence of at least one schedule", schedules)
    check_boundaries("join", boundaries)
    if len(boundaries) != len(schedules) - 1:
        rule = f"{len(schedules) - 1} counts, one between each two schedules"
        _check.fail("join", "boundaries", rule, boundaries)
    first, *later = (as_schedule(s, where="join", argument="schedules") for s in schedules)

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
    schedule = as_schedule(schedule_or_value, where="warmup")

    def rise(count):
        return mix(start, schedule(as_count(0)), progress(count, steps))

    return join([rise if kind == "linear" else constant(start), schedule], [steps])


def goyal_warmup(
    base: ArrayLike, k: ArrayLike, *, steps: int, after: Schedule | ArrayLike | None = None
) -> Schedule:
    """Rises from the rate of one worker to that of k: `base * (1 - t + k * t)`, then `after`.

    Here `t = min(count, steps) / steps`.

    Args:
      base: the rate for the batch of one worker, > 0.
      k: how many times as large the batch is, > 0.
      steps: the length of the warm-up in updates, >= 1; five epochs in the paper.
      after: what follows, a schedule that counts from 0 at the warm-up's end, or a number;
        `k * base` unless given.

    Returns:
      The schedule.

    Example:
      >>> schedule = goyal_warmup(1.0, 8, steps=7)
      >>> [round(float(schedule(count)), 3) for count in (0, 1, 7, 100)]
      [1.0, 2.0, 8.0, 8.0]

    References:
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017.
    """
    _check.positive("goyal_warmup", "base", base)
    _check.positive("goyal_warmup", "k", k)
    _check.integer("goyal_warmup", "steps", steps)
    peak = scale_with_batch(base, k, base_batch_size=1)
    rise = linear_to(base, steps=steps, end=peak)
    after = as_schedule(peak if after is None else after, where="goyal_warmup", argument="after")
    return join([rise, after], [steps])


def stretch(schedule: Schedule, factor: float) -> Schedule:
    """Runs through a schedule in `factor` times as many updates: `schedule(count // factor)`.

    A schedule in epochs becomes one in updates with `factor` the updates in an epoch: each value
    is held for one epoch.

    Args:
      schedule: the schedule.
      factor: > 0; below 1 the schedule is run through faster. Taken as the nearest fraction with
        a denominator of at most 1000.

    Returns:
      The schedule.

    Raises:
      ConfigError: the factor is out of range.

    Example:
      >>> schedule = stretch(lambda count: count, 1.5)
      >>> [int(schedule(count)) for count in range(7)]
      [0, 0, 1, 2, 2, 3, 4]
    """
    _check.positive("stretch", "factor", factor)
    schedule = as_schedule(schedule, where="stretch", argument="schedule")
    p, q = Fraction(factor).limit_denominator(1000).as_integer_ratio()
    if not 0 < p * q <= LAST:
        rule = "near a fraction p / q with q <= 1000 and 0 < p * q < 2^31"
        _check.fail("stretch", "factor", rule, factor)

    def stretched(count):
        # count * q // p, without the product, which may be too large for int32.
        whole, rest = jnp.divmod(as_count(count), p)
        return schedule(jnp.where(whole < LAST // q, whole * q + rest * q // p, LAST))

    return stretched


def scale_with_batch(
    value: Schedule | ArrayLike,
    batch_size: ArrayLike,
    *,
    base_batch_size: ArrayLike = 256,
    rule: str = "linear",
) -> Any:
    """Adapts a rate to the batch: `value * k` or `value * sqrt(k)`, k how many times as large.

    The linear rule is for gradient descent with a warm-up, and holds up to a batch of some
    thousands; the root is usual for Adam.

    Args:
      value: the rate for batches of `base_batch_size`, a number or a schedule.
      batch_size: > 0.
      base_batch_size: > 0.
      rule: "linear" or "sqrt".

    Returns:
      The rate for batches of `batch_size`, a schedule where `value` is one.

    Example:
      >>> scale_with_batch(0.1, 1024), scale_with_batch(0.1, 1024, rule="sqrt")
      (0.4, 0.2)

    References:
      Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks, 2014.
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017.
    """
    _check.positive("scale_with_batch", "batch_size", batch_size)
    _check.positive("scale_with_batch", "base_batch_size", base_batch_size)
    _check.choice("scale_with_batch", "rule", rule, ("linear", "sqrt"))
    k = (batch_size / base_batch_size) ** (1 if rule == "linear" else 0.5)
    if callable(value):
        return lambda count: as_float(k) * value(count)
    _check.positive("scale_with_batch", "value", value)
    return value * k
