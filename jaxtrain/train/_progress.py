"""A progress bar in a terminal or a notebook."""

import math
from typing import Any, Self


class Progress:
    """Shows steps, the latest metrics, examples per second and the time left.

    Args:
        total: number of steps.
        steps_per_epoch: for showing epochs.
        shown: False shows nothing.
    """

    def __init__(self, total: int, steps_per_epoch: int, *, shown: bool = True):
        from rich import progress

        columns = (
            progress.TextColumn("epoch {task.fields[epoch]}"),
            progress.BarColumn(bar_width=8),
            progress.TextColumn("{task.fields[numbers]} {task.fields[speed]} ETA"),
            progress.TimeRemainingColumn(compact=True),
        )
        self.total, self.steps_per_epoch = total, steps_per_epoch
        self._bar = progress.Progress(*columns, disable=not shown)
        self._numbers: dict[str, str] = {}
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()

    def start(self, at: int) -> None:
        """Starts at step `at`."""
        self._task = self._bar.add_task(
            "", total=self.total, completed=at, epoch="", numbers="", speed=""
        )

    def advance(self, at: int, examples_per_second: float) -> None:
        """Moves to step `at`."""
        epoch = f"{at / self.steps_per_epoch:.0f}/{self.total // self.steps_per_epoch}"
        known = not math.isnan(examples_per_second)
        speed = f"{examples_per_second:,.0f} images/s" if known else ""
        self._bar.update(self._task, completed=at, epoch=epoch, speed=speed)

    def show(self, row: dict[str, Any]) -> None:
        """Shows the latest metrics."""
        short = {"learning_rate": "lr", "accuracy": "acc", "test_accuracy": "test"}
        for name in ("loss", "accuracy", "learning_rate", "test_accuracy"):
            if isinstance(row.get(name), float):
                self._numbers[short.get(name, name)] = f"{row[name]:.3g}"
        text = " ".join(f"{name} {value}" for name, value in self._numbers.items())
        self._bar.update(self._task, numbers=text)
