"""Evaluation and prediction: every example once, on any batch size and device count."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxtrain import _check, nn, optim
from jaxtrain.data import ArrayDataset, Order, Source
from jaxtrain.data._order import permutation
from jaxtrain.nn._batch_stats import adding_up, batch_norms, with_totals
from jaxtrain.train._load import Model
from jaxtrain.train._parallel import Run, fetched, take
from jaxtrain.train._step import EvalStep, Step, TrainState


@jax.jit
def _averaged(ts: TrainState) -> Any:
    """Returns the params to evaluate with, None where they are those that are trained."""
    params = optim.eval_params(ts.params, ts.opt_state)
    return None if params is ts.params else params


def averages(ts: TrainState) -> bool:
    """Tells whether the params to evaluate with are others than those that are trained."""
    return jax.eval_shape(_averaged, ts) is not None


def evaluation_state(
    run: Run,
    step: Step,
    dataset: ArrayDataset | Source,
    *,
    examples: int = 8192,
    batch_size: int = 1024,
) -> Callable[[TrainState], TrainState]:
    """Compiles what a state has to go through before it is evaluated: `f(ts) -> ts`.

    Where the optimizer asks for other params than it trains (`optim.eval_params`), they take the
    place of those, and BatchNorm's statistics that of the running ones, which are of other
    activations: see `nn.recompute_batch_stats`. The result has no optimizer state. Else f returns
    ts itself, at no cost.

    Args:
        run: where to run, from `parallelize`.
        step: from `make_step`.
        dataset: the training examples, of which the statistics are; they are not augmented.
        examples: how many at most, always the same ones, chosen at random.
        batch_size: examples per call over all devices, rounded up to a multiple of their number.

    Returns:
        A function from a TrainState to the one to give to `evaluate` and `predict`.
    """
    _check.integer("evaluation_state", "examples", examples)
    _check.integer("evaluation_state", "batch_size", batch_size)
    net, size = step.compute, shared(min(batch_size, examples, len(dataset)), run)
    apply = adding_up(net).apply

    def add_up(params, state, data, index, axis_name=None):
        batch = take(data, index)
        ctx = nn.Context(False, None, batch["index"], batch["mask"], axis_name)
        return apply(params, state, batch["image"], ctx)[1]

    add_up = run.spread(add_up, (None, None, None, 0))

    @functools.cache
    def images():
        chosen = permutation(len(dataset), 0, 0)[:examples]
        return len(chosen), run.put({"image": dataset[chosen].image})

    def to_evaluate(ts: TrainState) -> TrainState:
        if not averages(ts):
            return ts
        ts = ts._replace(params=_averaged(ts), opt_state=())
        if not batch_norms(net):
            return ts
        n, data = images()
        state = run.put(with_totals(net, ts.state))
        for index in _batches(n, size):
            # One at a time: XLA on CPU aborts when too many collectives wait for each other.
            state = jax.block_until_ready(add_up(ts.params, state, data, index))
        return ts._replace(state=nn.split_taps(state)[0])

    return to_evaluate


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
        A function from a TrainState to a dict of records as in `jaxtrain.metrics`. It refuses one
        whose BatchNorm statistics are of other params than those to evaluate with.
    """
    data = run.put({"image": dataset.image, "label": dataset.label})

    def one(ts, data, index, axis_name=None):
        return step.apply(ts, take(data, index), axis_name)

    one = run.spread(one, (None, None, 0))

    def evaluate(ts: TrainState) -> dict[str, Any]:
        _check_statistics("evaluate", step.net, ts)
        records = fetched(one(ts, data, index) for index in _batches(len(dataset), batch_size))
        return functools.reduce(lambda a, b: jax.tree.map(np.add, a, b), records)

    return evaluate


def evaluate(
    run: Run, step: EvalStep, ts: TrainState, dataset: ArrayDataset, *, batch_size: int = 1024
) -> dict[str, Any]:
    """Evaluates a state once; `evaluator` is for doing it again and again.

    Args:
        run: where to run, from `parallelize`.
        step: from `make_eval_step`.
        ts: the state, if need be from `evaluation_state`.
        dataset: the examples, each counted once.
        batch_size: examples per call over all devices, rounded up to a multiple of their number.

    Returns:
        A dict of records as in `jaxtrain.metrics`, on the host.

    Raises:
        ConfigError: BatchNorm's statistics are of other params than those to evaluate with.
    """
    return evaluator(run, step, dataset, batch_size=shared(batch_size, run))(ts)


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
        ts: a TrainState, or a Model as `load` returns it. Where the optimizer averages params and
            the net has BatchNorm, the one that `evaluation_state` made, or the `model` of a Fit.
        x: the inputs, a pytree of host arrays with a leading axis of any length.
        batch_size: examples per call over all devices; the last call is filled up.
        run: where to run, from `parallelize`; None means the default device.

    Returns:
        The outputs, NumPy arrays with the leading axis of x.

    Raises:
        ConfigError: BatchNorm's statistics are of other params than those to evaluate with.
    """
    if isinstance(ts, TrainState):
        _check_statistics("predict", net, ts)
    n = len(jax.tree.leaves(x)[0])
    size = shared(min(batch_size, n), run)
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


def _check_statistics(where: str, net: nn.Layer, ts: TrainState) -> None:
    if batch_norms(net) and averages(ts):
        fix = "pass the model of a Fit, or evaluation_state(run, step, dataset)(ts)"
        got = "one whose optimizer evaluates other params than it trains"
        _check.fail(where, "ts", "a state with the statistics of its params", got, fix)


def shared(size: int, run: Run | None) -> int:
    """Returns the batch size rounded up to a multiple of the number of devices."""
    devices = 1 if run is None else run.mesh.size
    return -(-size // devices) * devices


def _batches(n: int, size: int) -> Iterator[np.ndarray]:
    """Yields 0..n-1 in batches of one size, the last filled up with -1."""
    order = Order(n, min(size, n), shuffle=False)
    for i in range(order.steps_per_epoch):
        index = order.indices(i)
        yield np.concatenate([index, np.full(size - len(index), -1, np.int32)])
