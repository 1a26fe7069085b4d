"""Figures of a training run."""

from collections.abc import Mapping, Sequence
from typing import Any


def curves(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Any:
    """Draws loss, accuracy and learning rate against the step.

    Args:
        history: rows of numbers by step, `Fit.history` or the lines of `metrics.jsonl`.
        title: shown above the panels.

    Returns:
        A matplotlib Figure with a panel for each of the three that the history has.
    """
    from matplotlib.figure import Figure

    def series(name):
        rows = [row for row in history if row.get(name) is not None]
        return [row["step"] for row in rows], [row[name] for row in rows]

    names = {name for row in history for name in row}
    panels = [p for p in ("loss", "accuracy", "learning_rate") if p in names]
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    figure.suptitle(title)
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for name, label in ((panel, "training"), (f"test_{panel}", "test")):
            if name in names:
                axes.plot(*series(name), label=label)
        axes.set_xlabel("step")
        axes.set_title(panel.replace("_", " "))
        axes.grid(alpha=0.3)
        if f"test_{panel}" in names:
            axes.legend()
        if panel == "loss":
            axes.set_yscale("log")
    return figure
