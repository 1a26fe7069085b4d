"""Figures of learning-rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.schedules import Schedule


def schedule(
    schedules: Schedule | Mapping[str, Schedule],
    steps: int,
    *,
    log: bool = False,
    title: str = "",
) -> Any:
    """Draws one or several schedules against the number of updates made.

    Args:
      schedules: a schedule, or several by the names that the legend shows.
      steps: the number of updates to show, >= 1.
      log: whether the axis of the values is logarithmic.
      title: shown above.

    Returns:
      A matplotlib Figure.

    Example:
      >>> from jaxtrain.schedules import cosine, linear
      >>> curves = {"cosine": cosine(0.1, steps=90), "linear": linear(0.1, steps=90)}
      >>> figure = schedule(curves, 100)
      >>> [line.get_label() for line in figure.axes[0].lines]
      ['cosine', 'linear']
    """
    from matplotlib.figure import Figure

    _check.integer("schedule", "steps", steps)
    counts = np.unique(np.linspace(0, steps, 2000).astype(np.int32))
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, f in ({"": schedules} if callable(schedules) else schedules).items():
        axes.plot(counts, jax.vmap(f)(jnp.asarray(counts)), label=name)
    axes.set(xlabel="updates", ylabel="learning rate", title=title, xlim=(0, steps))
    axes.set_yscale("log" if log else "linear")
    axes.grid(alpha=0.3)
    if not callable(schedules):
        axes.legend()
    return figure
