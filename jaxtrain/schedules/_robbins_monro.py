"""The conditions on rates under which stochastic approximation converges."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from jaxtrain import _check

from ._base import LAST, Schedule

FIRST, OCTAVES, SAMPLES = 22, 9, 1024


class RobbinsMonro(NamedTuple):
    """Whether both conditions hold, and the growth of both sums from octave to octave.

    The growth is what the counts from 2^(j+1) to 2^(j+2) add, relative to those from 2^j to
    2^(j+1): a sum that grows by 1 or more is infinite, by less finite.
    """

    sum_diverges: bool
    squares_converge: bool
    sum_growth: float
    squares_growth: float

    @property
    def satisfied(self) -> bool:
        """Whether both conditions hold."""
        return self.sum_diverges and self.squares_converge

    def __str__(self):
        def line(condition, holds, growth):
            verdict = "holds" if holds else "violated"
            return f"{condition}: {verdict}, grows by {growth:.3g} from octave to octave"

        return "\n".join(
            (
                line("sum = inf", self.sum_diverges, self.sum_growth),
                line("sum of squares < inf", self.squares_converge, self.squares_growth),
            )
        )


def check_robbins_monro(schedule: Schedule) -> RobbinsMonro:
    """Tests whether the rates sum to infinity, and their squares do not.

    `sum(rate(k)) = inf` lets the params go anywhere, `sum(rate(k)**2) < inf` lets the noise die
    away. What an octave of counts, 2^j to 2^(j+1), adds is compared from octave to octave, as in
    Cauchy's condensation test: rates that fall as `count**-p` add `2**(1 - p)` times as much with
    each, their squares `2**(1 - 2 * p)` times. This is evidence, not proof: it samples 9 octaves,
    counts 2^22 to 2^31, at 1024 counts each and sees neither what comes later nor logarithms; a
    growth above 0.99 counts as 1.

    Args:
      schedule: the schedule, periodic ones included.

    Returns:
      Both verdicts with their evidence; `print` shows a line for each.

    Example:
      >>> from jaxtrain.schedules import inverse_sqrt
      >>> print(check_robbins_monro(inverse_sqrt(0.1)))
      sum = inf: holds, grows by 1.41 from octave to octave
      sum of squares < inf: violated, grows by 1 from octave to octave

    References:
      Robbins and Monro, A Stochastic Approximation Method, 1951.
    """
    # At random within equal parts: equal distances might all fall on one phase of a cycle.
    places = (np.arange(SAMPLES) + np.random.default_rng(0).random(SAMPLES)) / SAMPLES
    octaves = 2.0 ** (FIRST + np.arange(OCTAVES))[:, None]
    counts = np.minimum(octaves * (1 + places), LAST).astype(np.int32)
    rates = np.asarray(jax.jit(jax.vmap(schedule))(counts.ravel()), float)
    if not (np.isfinite(rates) & (rates >= 0)).all():
        rule = "finite and >= 0 at all counts"
        _check.fail("check_robbins_monro", "schedule", rule, float(rates.min()))
    rates = rates.reshape(counts.shape)

    def growth(values):
        sums = (octaves * values).mean(1)
        if sums[-1] == 0:
            return 0.0
        return float((sums[-1] / max(sums[0], np.finfo(float).tiny)) ** (1 / (OCTAVES - 1)))

    of_sum, of_squares = growth(rates), growth(rates**2)
    return RobbinsMonro(of_sum > 0.99, of_squares <= 0.99, of_sum, of_squares)
