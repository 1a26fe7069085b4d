"""What feeds a step: a data set on the devices, or batches that are read ahead."""

import collections
import concurrent.futures
import functools
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

from jaxtrain.data import ArrayDataset, Order, Source
from jaxtrain.train._parallel import Run
from jaxtrain.train._step import TrainState

AHEAD = 2  # dispatches that are read while one computes
Dispatch = Callable[[TrainState], tuple[TrainState, Any]]


def dispatches(
    run: Run, dataset: ArrayDataset | Source, order: Order, *, at: int, total: int, k: int
) -> Generator[tuple[int, Dispatch], None, None]:
    """Yields the steps from `at` to `total`, k together and the remainder one by one.

    An ArrayDataset is placed on the devices once; of a Source two dispatches are read ahead.

    Args:
        run: from `parallelize`.
        dataset: the examples.
        order: which of them form the batch of each step.
        at: the first step.
        total: the step after the last.
        k: steps per dispatch.

    Yields:
        The number of steps and a function `f(ts) -> ts, metrics` that dispatches them.
    """
    groups = []
    while at < total:
        rows = k if total - at >= k else 1
        groups.append((at, rows))
        at += rows
    if isinstance(dataset, ArrayDataset):
        data = run.put({"image": dataset.image, "label": dataset.label})
        for at, rows in groups:
            index = np.stack([order.indices(at + i) for i in range(rows)])
            yield rows, functools.partial(_resident, run, data, index)
        return

    def load(at, rows):
        def read(mine):
            batches = [batch(dataset, order.indices(at + i)[mine]) for i in range(rows)]
            return jax.tree.map(lambda *xs: np.stack(xs), *batches)

        return run.share(order.batch_size, read)

    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        waiting: collections.deque = collections.deque()
        try:
            for i in range(len(groups) + AHEAD):
                if i < len(groups):
                    waiting.append((groups[i][1], reader.submit(load, *groups[i])))
                if i >= AHEAD:
                    rows, batches = waiting.popleft()
                    yield rows, functools.partial(_streamed, run, batches.result())
        finally:
            reader.shutdown(wait=True, cancel_futures=True)


def _resident(run, data, index, ts):
    return run.steps(ts, data, index)


def _streamed(run, batches, ts):
    return run.stream(ts, batches)


def batch(dataset: ArrayDataset | Source, index: np.ndarray) -> dict[str, Any]:
    """Returns the batch of the examples `index` (batch,) on the host; -1 pads."""
    real = np.maximum(index, 0)
    part = dataset[real]
    mask = (index >= 0).astype(np.float32)
    return {"image": part.image, "label": part.label, "index": real, "mask": mask}
