"""Evaluation and prediction: every example once, on any batch size and device count."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxtrain import nn, optim
from jaxtrain.data import ArrayDataset, Order
from jaxtrain.train._load import Model
from jaxtrain.train._parallel import Run, fetched, take
from jaxtrain.train._step import EvalStep, TrainState


def evaluator(run: Run, step: EvalStep, dataset: ArrayDataset, *, batch_size: int) -> Callable:
    """Compiles an evaluation step for a data set: `f(ts) -> metrics`.

    The data set is placed on the devices once. The last batch is filled up with masked examples, so
    that there is one program; counts and sums are those of the real examples.

    Args:
        run: where to run, from `parallelize`.
        step: from `make_eval_step`.
        dataset: the examples.
        batch_size: examples per call over all devices, a multiple of their number.

    Returns:
        A function from a TrainState to a dict of records as in `jaxtrain.metrics`.
    """
    data = run.put({"image": dataset.image, "label": dataset.label})

    def one(ts, data, index, axis_name=None):
        return step.apply(ts, take(data, index), axis_name)

    one = run.spread(one, (None, None, 0))
    order = Order(len(dataset), min(batch_size, len(dataset)), shuffle=False)

    def evaluate(ts: TrainState) -> dict[str, Any]:
        batches = (_padded(order.indices(i), batch_size) for i in range(order.steps_per_epoch))
        records = fetched(one(ts, data, index) for index in batches)
        return functools.reduce(lambda a, b: jax.tree.map(np.add, a, b), records)

    return evaluate


def evaluate(
    run: Run, step: EvalStep, ts: TrainState, dataset: ArrayDataset, *, batch_size: int = 1024
) -> dict[str, Any]:
    """Evaluates a state once; `evaluator` is for doing it again and again.

    Args:
        run: where to run, from `parallelize`.
        step: from `make_eval_step`.
        ts: the state.
        dataset: the examples, each counted once.
        batch_size: examples per call over all devices, rounded up to a multiple of their number.

    Returns:
        A dict of records as in `jaxtrain.metrics`, on the host.
    """
    n = run.mesh.size
    return evaluator(run, step, dataset, batch_size=-(-batch_size // n) * n)(ts)


def predict(
    net: nn.Layer,
    ts: TrainState | Model,
    x: Any,
    *,
    batch_size: int = 1024,
    run: Run | None = None,
) -> Any:
    """Computes a net's outputs in eval mode, in batches.

    Args:
        net: the layer.
        ts: a TrainState, or the Model that `load` returned.
        x: the inputs, a pytree of host arrays with a leading axis of any length.
        batch_size: examples per call over all devices; the last call is filled up.
        run: where to run, from `parallelize`; None means the default device.

    Returns:
        The outputs, NumPy arrays with the leading axis of x.
    """
    n = len(jax.tree.leaves(x)[0])
    devices = 1 if run is None else run.mesh.size
    size = -(-min(batch_size, n) // devices) * devices
    f = _forward(net, run)
    weights = (ts.params, ts.state, getattr(ts, "opt_state", ()))

    def batches() -> Iterator[Any]:
        for start in range(0, n, size):
            index = np.minimum(np.arange(start, start + size), n - 1)
            yield f(weights, jax.tree.map(lambda leaf, i=index: np.asarray(leaf)[i], x))

    outputs = list(fetched(batches()))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *outputs)


@functools.lru_cache(maxsize=8)
def _forward(net: nn.Layer, run: Run | None) -> Callable:
    """Compiles the forward pass once for all calls of `predict` on a net."""

    def forward(weights, x, axis_name=None):
        params, state, opt_state = weights
        params = optim.eval_params(params, opt_state)
        y = net.apply(params, state, x, nn.Context(train=False, axis_name=axis_name))[0]
        if axis_name is None:
            return y
        return jax.tree.map(lambda y: jax.lax.all_gather(y, axis_name, tiled=True), y)

    return jax.jit(forward) if run is None else run.spread(forward, (None, 0))


def _padded(index: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([index, np.full(size - len(index), -1, np.int32)])
