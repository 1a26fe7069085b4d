"""What a check returns: scores, the threshold that parts them, and how to look at them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What a check found; the data are as they were.

    `print(report)` shows what was found, the first ten lines of it.

    Attributes:
        meaning: What a score is.
        scores: One number per example, or per feature where `of` says so.
        threshold: Scores beyond it are reported: greater ones, or for side="below" this and less.
        names: Those of the examples, in a frame its index, else their numbers; or of the features.
        table: Columns with the details of what was found, the most conspicuous first.
        side: "above" or "below".
        of: What is scored, "examples" or "features".
    """

    meaning: str
    scores: np.ndarray
    threshold: float
    names: np.ndarray
    table: Mapping[str, Any]
    _: dataclasses.KW_ONLY
    side: str = "above"
    of: str = "examples"

    @property
    def indices(self) -> np.ndarray:
        """The numbers of what is reported, ascending: positions, for `iloc` in a frame."""
        above = self.side == "above"
        found = self.scores > self.threshold if above else self.scores <= self.threshold
        return np.flatnonzero(found)

    def __str__(self) -> str:
        """Returns what was found as a text table."""
        beyond = "above" if self.side == "above" else "at most"
        count = f"{len(self.indices)} of {len(self.scores)} {self.of}"
        lines = [f"{count}: {self.meaning} {beyond} {self.threshold:.4g}"]
        rows = list(zip(*self.table.values(), strict=True))
        if rows:
            cells = [list(self.table), *([_text(value) for value in row] for row in rows[:10])]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            for row in cells:
                lines.append("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))
        if len(rows) > 10:
            lines.append(f"... and {len(rows) - 10} more")
        return "\n".join(lines)

    def figure(self) -> Any:
        """Draws the scores and the threshold, what is reported in red.

        Returns:
            A matplotlib Figure.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        number, found = np.arange(len(self.scores)), self.indices
        finite = self.scores[np.isfinite(self.scores)]
        # What is infinite, or 0 on a logarithmic axis, is drawn at the edge.
        top = finite.max(initial=1.2 * self.threshold)
        scores = np.clip(self.scores, finite.min(initial=0), top)
        ratio = scores[found] / (self.threshold or np.inf)
        if ratio.max(initial=1) > 30 or self.threshold and ratio.min(initial=1) < 1 / 30:
            scores = np.maximum(scores, 1e-12 * self.threshold)
            axes.set_yscale("log")
        axes.plot(number, scores, ".", color="0.6", markersize=3)
        axes.plot(found, scores[found], "o", color="C3", markersize=4)
        axes.axhline(self.threshold, color="C3", linewidth=1, linestyle="--")
        for k, i in enumerate(found if len(found) <= 12 else ()):
            side, dx = (("right", -4), ("left", 4))[k % 2]  # neighbours point away from each other
            name, at = str(self.names[i]), (i, scores[i])
            axes.annotate(name, at, (dx, 3), textcoords="offset points", ha=side, fontsize=8)
        axes.margins(y=0.1)
        axes.set(xlabel=self.of.removesuffix("s"), ylabel=self.meaning)
        axes.set_title(f"{len(found)} of {len(scores)} {self.of} reported")
        axes.grid(alpha=0.3)
        return figure


def ranked(scores: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Returns where `found` is True, the largest scores first."""
    (found,) = np.nonzero(found)
    return found[np.argsort(-scores[found], kind="stable")]


def _text(value):
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
