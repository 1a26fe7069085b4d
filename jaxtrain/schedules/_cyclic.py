"""Schedules that rise: periodic ones, warm restarts, and one rise and fall."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check

from ._base import LAST, Schedule, as_count, as_float, half_cosine, mix


def cyclic(
    value: ArrayLike,
    *,
    peak: ArrayLike,
    steps: int,
    down: int | None = None,
    mode: str = "triangular",
    rate: ArrayLike = 0.0,
) -> Schedule:
    """Goes up and down for ever: `value + (peak - value) * h * s`.

    Here h is a triangle's height, from 0 to 1 in `steps` updates and back in `down`, and s its
    scale: 1 for "triangular", `0.5**cycle`, cycles from 0, for "triangular2", and
    `exp(-rate * count)` for "exp_range".

    Args:
      value: the first and lowest value, >= 0.
      peak: the highest value, > 0.
      steps: updates from `value` to `peak`, >= 1: half a cycle.
      down: updates back, >= 1; `steps` unless given.
      mode: "triangular", "triangular2" or "exp_range".
      rate: >= 0, per update, for "exp_range"; a factor f per update is `-log(f)`.

    Returns:
      The schedule.

    Raises:
      ConfigError: an argument is out of range or without meaning beside the others.

    Example:
      >>> schedule = cyclic(0.0, peak=1.0, steps=2, mode="triangular2")
      >>> [float(schedule(count)) for count in range(8)]
      [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]

    References:
      Smith, Cyclical Learning Rates for Training Neural Networks, 2017.
    """
    down = steps if down is None else down
    _check.nonnegative("cyclic", "value", value)
    _check.positive("cyclic", "peak", peak)
    _check.integer("cyclic", "steps", steps)
    _check.integer("cyclic", "down", down)
    _check.choice("cyclic", "mode", mode, ("triangular", "triangular2", "exp_range"))
    _check.nonnegative("cyclic", "rate", rate)
    if mode != "exp_range" and not isinstance(rate, jax.core.Tracer) and rate != 0:
        _check.fail("cyclic", "rate", "0 but for mode='exp_range'", rate)

    def schedule(count):
        count = as_count(count)
        cycle, t = jnp.divmod(count, steps + down)
        h = jnp.minimum(as_float(t) / steps, as_float(steps + down - t) / down)
        s = {
            "triangular": as_float(1),
            "triangular2": jnp.exp2(-as_float(cycle)),
            "exp_range": jnp.exp(-as_float(rate) * as_float(count)),
        }[mode]
        return mix(value, peak, h * s)

    return schedule


def triangular(value: ArrayLike, *, peak: ArrayLike, steps: int) -> Schedule:
    """Goes straight up and down for ever, `cyclic` with peaks of one height.

    Args:
      value: the first and lowest value, >= 0.
      peak: the highest value, > 0.
      steps: updates from one to the other, >= 1: half a cycle.

    Returns:
      The schedule.

    Example:
      >>> [float(triangular(0.0, peak=1.0, steps=2)(count)) for count in range(6)]
      [0.0, 0.5, 1.0, 0.5, 0.0, 0.5]
    """
    _check.nonnegative("triangular", "value", value)
    _check.positive("triangular", "peak", peak)
    _check.integer("triangular", "steps", steps)
    return cyclic(value, peak=peak, steps=steps)


def sgdr(
    value: ArrayLike,
    *,
    first_cycle: int,
    mult: int = 1,
    decay: ArrayLike = 1.0,
    end: ArrayLike = 0.0,
) -> Schedule:
    """Falls along half a cosine again and again, each time from a warm restart.

    Cycle i, from 0, has `T = first_cycle * mult**i` updates and starts at its peak,
    `peak = value * decay**i`, but not below `end`. After t updates of it::

        end + (peak - end) * (1 + cos(pi * t / T)) / 2

    `end` itself is not reached: the count at which it would be is the restart.

    Args:
      value: the first value and the first peak, > 0.
      first_cycle: the length of the first cycle in updates, >= 1.
      mult: what each cycle's length is multiplied by for the next, >= 1.
      decay: what each peak is multiplied by for the next, > 0.
      end: the value at the bottom, >= 0.

    Returns:
      The schedule.

    Example:
      >>> schedule = sgdr(1.0, first_cycle=2, mult=2)
      >>> [round(float(schedule(count)), 2) for count in range(6)]
      [1.0, 0.5, 1.0, 0.85, 0.5, 0.15]

    References:
      Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017.
    """
    _check.positive("sgdr", "value", value)
    _check.integer("sgdr", "first_cycle", first_cycle)
    _check.integer("sgdr", "mult", mult)
    _check.positive("sgdr", "decay", decay)
    _check.nonnegative("sgdr", "end", end)
    lengths, starts = [first_cycle], [0]
    while mult > 1 and starts[-1] + lengths[-1] <= LAST:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * mult)

    def schedule(count):
        count = as_count(count)
        if mult == 1:
            (i, t), T = jnp.divmod(count, first_cycle), as_float(first_cycle)
        else:
            i = jnp.searchsorted(np.array(starts, np.int32), count, side="right") - 1
            t = count - jnp.array(starts, np.int32)[i]
            T = as_float(np.array(lengths, float))[i]
        peak = jnp.maximum(as_float(value) * as_float(decay) ** as_float(i), as_float(end))
        return mix(peak, end, half_cosine(as_float(t) / T))

    return schedule


def snapshot(value: ArrayLike, *, steps: int, cycles: int) -> Schedule:
    """Falls along half a cosine in each of several equal cycles, a snapshot at each end.

    `value / 2 * (cos(pi * (count % T) / T) + 1)` with `T = ceil(steps / cycles)`: `sgdr` with
    cycles of one length. The params after updates T, 2 T, ... are the members of the ensemble.

    Args:
      value: the value at the start of every cycle, > 0.
      steps: all updates, >= cycles.
      cycles: the number of snapshots, >= 1.

    Returns:
      The schedule.

    Example:
      >>> schedule = snapshot(1.0, steps=8, cycles=2)
      >>> [round(float(schedule(count)), 2) for count in range(6)]
      [1.0, 0.85, 0.5, 0.15, 1.0, 0.85]

    References:
      Huang et al., Snapshot Ensembles: Train 1, Get M for Free, 2017.
    """
    _check.positive("snapshot", "value", value)
    _check.integer("snapshot", "cycles", cycles)
    _check.integer("snapshot", "steps", steps, least=cycles)
    return sgdr(value, first_cycle=-(-steps // cycles))


def one_cycle(
    peak: ArrayLike,
    *,
    steps: int,
    rise: float = 0.3,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
    kind: str = "cosine",
    phases: int = 2,
    endpoint: bool = True,
) -> Schedule:
    """Rises once to a high peak, then falls far below the start.

    Two phases go from `start` to `peak` to `end`; three from `start` to `peak`, in as many
    updates back to `start`, and to `end`. The value stays there.

    Args:
      peak: the highest value, > 0.
      steps: the number of updates, >= 2.
      rise: the fraction of them up to the peak, in (0, 1), with three phases in (0, 0.5).
      start: the first value, >= 0; `peak / 25` unless given.
      end: the last value, >= 0; `start / 10**4` unless given.
      kind: "cosine", half a cosine in every phase, or "linear".
      phases: 2 or 3.
      endpoint: whether the last update, `steps - 1`, has the value `end`, and the peak comes
        at `rise * steps - 1`; if not, both come one later.

    Returns:
      The schedule.

    Raises:
      ConfigError: an argument is out of range, or there is no update before the peak.

    Example:
      >>> schedule = one_cycle(1.0, steps=10, rise=0.5)
      >>> [round(float(schedule(count)), 2) for count in (0, 2, 4, 6, 9)]
      [0.04, 0.52, 1.0, 0.65, 0.0]

    References:
      Smith and Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large
      Learning Rates, 2018: the three phases, linear.
    """
    where = "one_cycle"
    _check.positive(where, "peak", peak)
    _check.integer(where, "steps", steps, least=2)
    _check.choice(where, "kind", kind, ("cosine", "linear"))
    _check.choice(where, "phases", phases, (2, 3))
    _check.choice(where, "endpoint", endpoint, (False, True))
    _check.positive(where, "rise", rise)
    first, last = rise * steps - endpoint, steps - endpoint
    if not 0 < (phases - 1) * first < last:
        low, high = endpoint / steps, (last / (phases - 1) + endpoint) / steps
        _check.fail(where, "rise", f"a fraction of the {steps} steps in ({low:g}, {high:g})", rise)
    start = peak / 25 if start is None else start
    _check.nonnegative(where, "start", start)
    end = start / 1e4 if end is None else end
    _check.nonnegative(where, "end", end)
    fall = [(2 * first, start)] if phases == 3 else []

    def schedule(count):
        count = as_float(as_count(count))
        value, began = start, 0.0
        for reached, target in [(first, peak), *fall, (last, end)]:
            t = jnp.clip((count - began) / (reached - began), 0, 1)
            value = mix(value, target, half_cosine(t) if kind == "cosine" else t)
            began = reached
        return value

    return schedule
