"""The training loop: K steps per dispatch, late metrics, evaluation, checkpoints, resume."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxtrain import _check, metrics, nn, optim, tree
from jaxtrain.data import ArrayDataset, Order, Source
from jaxtrain.errors import DataError, NonFinite
from jaxtrain.optim._base import _having
from jaxtrain.train._checkpoint import Checkpoints
from jaxtrain.train._describe import describe
from jaxtrain.train._evaluate import averages, evaluation_state, evaluator, shared
from jaxtrain.train._feed import batch, dispatches
from jaxtrain.train._files import MetricsFile, check_config, locked, read_config
from jaxtrain.train._load import Model
from jaxtrain.train._nonfinite import first_nonfinite
from jaxtrain.train._parallel import AXIS, IN_FLIGHT, Run, complete, parallelize
from jaxtrain.train._processes import barrier
from jaxtrain.train._progress import Progress
from jaxtrain.train._step import Step, TrainState, make_eval_step


@dataclasses.dataclass(frozen=True)
class Fit:
    """What `fit` returns.

    Attributes:
        ts: the last state.
        model: the network as it is to be evaluated: its params and state are those of `ts`, or what
            `evaluation_state` made of them.
        history: rows of numbers by step, those of `metrics.jsonl`.
        run: the compiled step and its devices.
        seconds: wall-clock time of the loop, with compilation.
        images_per_second: examples trained per second, without the first dispatch and evaluations.
    """

    ts: TrainState
    model: Model
    history: list[dict[str, Any]]
    run: Run
    seconds: float
    images_per_second: float

    def last(self, name: str) -> float:
        """Returns the last value of a metric in the history."""
        return next(row[name] for row in reversed(self.history) if name in row)


def fit(
    step: Step,
    dataset: ArrayDataset | Source,
    *,
    epochs: int,
    batch_size: int = 128,
    seed: int = 0,
    weights: Any = None,
    test: ArrayDataset | None = None,
    validation: ArrayDataset | None = None,
    measures: Mapping[str, Callable] | None = None,
    how: str | None = None,
    devices: int | Sequence[jax.Device] | None = None,
    steps_per_call: int | None = None,
    log_every: int | None = None,
    eval_every: int | None = None,
    save_every: int | None = None,
    directory: str | os.PathLike | None = None,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Fit:
    """Trains on a data set: on the devices if it fits there, else read ahead batch by batch.

    The order of the examples is arithmetic on (seed, epoch, position), every example comes once per
    epoch, and all randomness is a function of (seed, step, layer, example): a run that was killed
    at any instant and is resumed ends with the bytes of one that was not. SIGTERM and Ctrl-C save
    before they leave.

    Evaluations, checkpoints for `load` and the `model` that is returned are of the params that the
    optimizer asks to evaluate with, such as averages, and of BatchNorm statistics recomputed for
    them (`evaluation_state`).

    Args:
        step: from `make_step`.
        dataset: the training examples, an ArrayDataset where they fit on the devices, or a Source.
        epochs: passes over the data, at least 1.
        batch_size: examples per step over all devices; a multiple of their number.
        seed: of the initial params, the order and all sampling, in [0, 2**32).
        weights: how often each example is drawn, relative to others, (len(dataset),); an epoch is
            then as many draws with replacement as there are examples. None means each one once.
        test: examples to evaluate on, every `eval_every` steps and at the end.
        validation: further examples, evaluated together with `test`; their mean loss is reported to
            the optimizer's `reduce_on_plateau`, where it has one.
        measures: metrics for `test` and `validation` by name, `f(outputs, targets, mask) ->
            record`; None means the mean loss, and accuracy where targets are class numbers.
        how: as in `parallelize`; None means "shard_map", or "single" for dense nets on CPU.
        devices: as in `parallelize`.
        steps_per_call: training steps per dispatch; None chooses by backend and network, and 1 for
            a Source.
        log_every: steps between rows of training metrics; None means a quarter of an epoch.
        eval_every: steps between evaluations; None means an epoch.
        save_every: steps between checkpoints; None means an epoch, but at least 200 steps.
        directory: the run folder for `config.json`, `metrics.jsonl` and checkpoints; None keeps
            nothing on disk.
        resume: continue from the newest good checkpoint in `directory`, if there is one. The
            arguments must be those of the run; of another loss, optimizer, augmentation or the like
            in `step` a warning says what is new.
        config: what else defines the run: JSON values, kept in `config.json`; a resumed run must
            have the same.
        progress: show a progress bar with loss, learning rate, images/s and the time left.

    Returns:
        A Fit.

    Raises:
        ConfigError: an argument is outside its range.
        DataError: the data do not fit the network.
        RunError: the folder cannot be used, or holds a run of another configuration.
        NonFinite: too many steps in a row had a non-finite loss, gradient or state.

    Example:
        >>> from jaxtrain import losses, models, optim, train
        >>> points = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
        >>> dataset = ArrayDataset(points, (points[:, 0] > 0).astype(np.int32), classes=2)
        >>> tx = optim.adam(1e-2)
        >>> step = train.make_step(models.mlp([16, 2]), losses.softmax_cross_entropy, tx)
        >>> fit(step, dataset, epochs=50, batch_size=32, progress=False).last("accuracy") > 0.9
        True
    """
    if not isinstance(dataset, ArrayDataset | Source):
        rule, fix = "an ArrayDataset or a Source", "data.Source(dataset) reads what has len and [i]"
        _check.fail("fit", "dataset", rule, type(dataset).__name__, fix, TypeError)
    _check.integer("fit", "epochs", epochs)
    if resume and directory is None:
        _check.fail("fit", "directory", "the folder of the run that is resumed", None)
    order = Order(len(dataset), batch_size, seed=seed, weights=weights)
    total = epochs * order.steps_per_epoch
    key = jax.eval_shape(lambda: jax.random.key(0))
    abstract = jax.eval_shape(step.init, key, _examples(dataset, 1))
    dense = _is_dense(abstract.params)
    on_cpu = jax.default_backend() == "cpu"
    if how is None:
        alone = devices is None and jax.process_count() == 1
        how = "single" if on_cpu and dense and alone else "shard_map"
    folder = None if directory is None else pathlib.Path(directory)
    given = {
        "steps_per_call": steps_per_call,
        "log_every": log_every,
        "eval_every": eval_every,
        "save_every": save_every,
    }
    for name, value in given.items():
        if value is not None:
            _check.integer("fit", name, value)
    k = steps_per_call or _stored_k(folder, resume)
    if k is None:
        k = 1 if isinstance(dataset, Source) else _steps_per_call(abstract.params, on_cpu)
    every = {
        "log": log_every or max(order.steps_per_epoch // 4, 1),
        "eval": eval_every or order.steps_per_epoch,
        "save": save_every or max(order.steps_per_epoch, 200),
    }
    run = parallelize(step, how=how, devices=devices, unroll=on_cpu and not dense)
    n = run.mesh.size
    if batch_size % n:
        fix = f"{batch_size // n * n or n} and {-(-batch_size // n) * n} are"
        _check.fail("fit", "batch_size", f"a multiple of the {n} devices", batch_size, fix)
    parts = {"test": test, "validation": validation}
    held_out = {name: part for name, part in parts.items() if part is not None}
    for name, part in held_out.items():
        if not isinstance(part, ArrayDataset):
            fix = "of a Source take a part, source[:10_000]"
            _check.fail("fit", name, "an ArrayDataset", type(part).__name__, fix, TypeError)
    mapped = n if how in ("pmap", "shard_map") else None
    _check_fits(step, abstract, {"dataset": dataset, **held_out}, batch_size // n, mapped)
    report = _reporter(run, abstract.opt_state, validation, measures)
    evaluators = {
        name: evaluator(
            run,
            make_eval_step(step.net, _measures(step, part, measures), precision=step.precision),
            part,
            batch_size=shared(min(1024, len(part)), run),
        )
        for name, part in held_out.items()
    }
    settings = {
        "batch_size": batch_size,
        "epochs": epochs,
        "seed": seed,
        "steps_per_call": k,
        **{f"{name}_every": value for name, value in every.items()},
        "precision": step.precision,
        "net": _described(step.net),
        "make_step": describe(step.options),
        "data": fingerprint(dataset),
        **({} if weights is None else {"weights": fingerprint(order.weights)}),
        **({} if validation is None else {"validation": fingerprint(validation)}),
        **(config or {}),
    }
    writes = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if folder is not None:
            if writes:
                stack.enter_context(locked(folder))
                check_config(folder, settings, resume=resume)
            barrier("config.json is written")
            if not writes:
                check_config(folder, settings, resume=True)
            checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints"))
        # JAX has a handler of its own for SIGTERM where there are several processes.
        catch = folder is not None and not jax.distributed.is_initialized()
        stop = stack.enter_context(_signals(catch=catch))
        bar = stack.enter_context(Progress(total, order.steps_per_epoch, shown=progress and writes))

        began = time.monotonic()
        at, offset, sums = 0, 0, {}
        if checkpoints is not None and checkpoints.latest() is not None:
            at, kept, host = checkpoints.restore(_kept(abstract, abstract))
            ts = kept["ts"]
            offset, sums = host["metrics_bytes"], host["sums"]
        else:
            # On CPU, optimizing random numbers takes longer than the one call can gain.
            cpu = run.mesh.devices.flat[0].platform == "cpu"
            quick = {"xla_backend_optimization_level": 1} if cpu else None

            @functools.partial(jax.jit, compiler_options=quick)
            def init(seed, batch):  # the key is made in it: outside it would be two programs more
                return run.init(jax.random.key(seed), batch)

            ts = init(np.uint32(seed), batch(dataset, order.indices(0)))
        ts = run.place(ts)
        log = stack.enter_context(MetricsFile(folder if writes else None, offset=offset))
        record = _Recorder(log, bar, sums, every["log"], total)
        waiting: collections.deque = collections.deque()
        clock = _Stopwatch()

        def fetch(behind: int) -> None:
            while len(waiting) > behind:
                before, at, seen = waiting.popleft()
                in_a_row = record.add(before, at, jax.device_get(seen))
                bar.advance(at, clock.rate)
                if in_a_row >= step.guard:
                    blame = first_nonfinite(step, ts, batch(dataset, order.indices(at - 1)))
                    raise NonFinite(
                        f"fit: the loss, gradient or new state must be finite, got {in_a_row} steps"
                        f" in a row, up to step {at}, that were not; first not finite: {blame}; the"
                        " state is that before them; try a lower learning rate or clipping"
                    )

        to_evaluate = evaluation_state(run, step, dataset)

        @functools.lru_cache(maxsize=1)  # evaluations and saves often fall on one step
        def evaluated(at: int) -> TrainState:
            return to_evaluate(ts)

        def save(checkpoints: Checkpoints) -> None:
            host = {"metrics_bytes": log.sync(), "sums": record.sums}
            checkpoints.save(at, _kept(ts, evaluated(at)), host)

        bar.start(at)
        feed = dispatches(run, dataset, order, at=at, total=total, k=k)
        stack.enter_context(contextlib.closing(feed))
        saved, calls, compiled = at, 0, set()
        while at < total and not stop:
            calls += 1
            if multihost_utils.reached_preemption_sync_point(calls):
                stop.append(signal.SIGTERM)
                break
            rows, dispatch = next(feed)
            ts, seen = dispatch(ts)
            before, at = at, at + rows
            waiting.append((before, at, seen))
            if rows in compiled:
                fetch(IN_FLIGHT)
                clock.lap(rows * batch_size)
            else:
                compiled.add(rows)
                fetch(0)
                clock.skip()
            due = {name: at == total or at // n > before // n for name, n in every.items()}
            if due["eval"] and evaluators:
                fetch(0)
                clock.lap(0)
                values = {
                    f"{part}_{name}": _number(record)
                    for part, evaluate in evaluators.items()
                    for name, record in evaluate(evaluated(at)).items()
                }
                log.write({"step": at, **values})
                bar.show(values)
                if report is not None:
                    loss = np.array(values["validation_loss"], float)  # None is NaN
                    ts = ts._replace(opt_state=report(ts.opt_state, loss))
                clock.skip()
            if due["save"] and checkpoints is not None:
                fetch(0)
                save(checkpoints)
                saved = at
        fetch(0)
        clock.lap(0)
        if checkpoints is not None:
            if at > saved:
                save(checkpoints)
            checkpoints.wait()
        if stop:
            raise KeyboardInterrupt if stop == [signal.SIGINT] else SystemExit(128 + stop[0])
        shown = evaluated(at)
        model = Model(step.net, shown.params, shown.state)
        return Fit(ts, model, log.rows, run, time.monotonic() - began, clock.rate)


def fingerprint(data: Any) -> str:
    """Returns the SHA-256 of arrays, by which a resumed run knows its data.

    Of a Source it is that of its length and of sixteen examples.
    """
    digest = hashlib.sha256()
    if isinstance(data, Source):
        digest.update(str(len(data)).encode())
        data = data[np.linspace(0, len(data) - 1, min(len(data), 16)).astype(np.int32)]
    if isinstance(data, ArrayDataset):
        data = data.image, data.label
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        digest.update(f"{path} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


class _Recorder:
    """Adds up fetched metrics and writes a row every `log_every` steps."""

    def __init__(self, log, bar, sums, log_every, total):
        self.log, self.bar, self.sums = log, bar, sums
        self.log_every, self.total = log_every, total

    def add(self, before: int, at: int, seen: dict[str, Any]) -> int:
        """Adds the metrics of steps before..at; returns the largest count of skips in a row."""
        for name, record in seen.items():
            if isinstance(record, metrics.Mean):
                sums = self.sums.setdefault(name, [0.0, 0.0])
                sums[0] += float(np.sum(record.total, dtype=np.float64))
                sums[1] += float(np.sum(record.count, dtype=np.float64))
        skipped = seen["skipped_in_a_row"]
        sums = self.sums.setdefault("skipped", [0.0, 1.0])
        sums[0] += float((skipped > 0).sum())
        if at == self.total or at // self.log_every > before // self.log_every:
            row: dict[str, Any] = {"step": at}
            row |= {name: t / n if n else None for name, (t, n) in sorted(self.sums.items())}
            if "learning_rate" in seen:
                row["learning_rate"] = float(seen["learning_rate"][-1])
            self.log.write(row)
            self.bar.show(row)
            self.sums.clear()
        return int(skipped.max())


class _Stopwatch:
    """Measures the examples per second of training alone."""

    def __init__(self):
        self.examples, self.seconds, self._mark = 0, 0.0, time.monotonic()

    @property
    def rate(self) -> float:
        return self.examples / self.seconds if self.seconds else math.nan

    def lap(self, examples: int) -> None:
        """Counts the time since the last lap."""
        self.examples += examples
        self.seconds += time.monotonic() - self._mark
        self.skip()

    def skip(self) -> None:
        """Leaves out the time since the last lap."""
        self._mark = time.monotonic()


@contextlib.contextmanager
def _signals(*, catch: bool) -> Iterator[list[int]]:
    """Yields a list that SIGTERM and Ctrl-C append to; a second Ctrl-C interrupts at once."""
    caught: list[int] = []
    if not catch or threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number, frame):
        if number in caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {n: signal.signal(n, note) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _examples(dataset: ArrayDataset | Source, n: int) -> dict[str, Any]:
    """Returns a batch of the first n examples on the host."""
    part = dataset[:n]
    return complete({"image": part.image, "label": part.label})


def _check_fits(step: Step, ts: TrainState, parts, batch_size: int, devices: int | None) -> None:
    """Traces the step on one device's batch, or under an axis of devices, and checks labels."""
    batch = _examples(parts["dataset"], batch_size)
    image = batch["image"]
    outputs, _ = jax.eval_shape(lambda ts: step.net.apply(ts.params, ts.state, image, nn.EVAL), ts)
    classes = getattr(outputs, "shape", (0,))[-1]
    for name, part in parts.items():
        got, rule = (jax.tree.map(lambda x: x.shape[1:], x) for x in (part[:1].image, image))
        if got != rule:
            rule = f"of the training images' shape {rule}"
            _check.fail("fit", f"{name}.image", rule, got, error=DataError)
        if isinstance(part, Source):
            if part.classes is not None and part.classes > classes:
                rule = f"at most the network's number of outputs, {classes}"
                _check.fail("fit", f"{name}.classes", rule, part.classes, error=DataError)
        elif part.classes is not None and part.label.max() >= classes:
            rule = f"below the network's number of outputs, {classes}"
            fix = f"the first is example {int(np.argmax(part.label >= classes))}"
            _check.fail("fit", f"{name}.label", rule, int(part.label.max()), fix, DataError)
    apply = functools.partial(step.apply, axis_name=AXIS if devices else None)
    if devices:
        apply = jax.vmap(apply, (None, None), axis_name=AXIS, axis_size=devices)
    jax.eval_shape(apply, ts, batch)


def _is_dense(params) -> bool:
    return all(leaf.ndim < 3 for leaf in jax.tree.leaves(params))


def _steps_per_call(params, on_cpu: bool) -> int:
    """Chooses K: many steps where dispatch dominates; XLA on CPU runs loops on one thread."""
    return 32 if not on_cpu or (_is_dense(params) and tree.count(params) < 200_000) else 1


def _stored_k(folder: pathlib.Path | None, resume: bool) -> int | None:
    """Returns the K of the run that is resumed: it decides where rows and checkpoints fall."""
    if folder is None or not resume or not (folder / "config.json").exists():
        return None
    return read_config(folder).get("steps_per_call")


def _measures(step: Step, part: ArrayDataset, measures):
    if measures is not None:
        return measures
    chosen: dict[str, Callable] = {"loss": functools.partial(metrics.mean_loss, loss=step.loss)}
    if part.classes is not None:
        chosen["accuracy"] = metrics.accuracy
    return chosen


def _reporter(run: Run, opt_state, validation, measures) -> Callable | None:
    """Compiles `f(opt_state, loss) -> opt_state` for an optimizer that waits for a plateau."""
    if not _having("learning_rate_scale", opt_state):
        return None
    if validation is None or "loss" not in (measures or ["loss"]):
        fix = 'pass validation=, and a measure "loss" if measures= are given'
        rule = "given where the optimizer has a reduce_on_plateau"
        _check.fail("fit", "validation and its loss", rule, validation and list(measures), fix)

    def report(opt_state, loss, axis_name=None):
        return optim.report(opt_state, loss)

    return run.spread(report, (None, None), donate=(0,))


def _kept(ts: TrainState, evaluated: TrainState) -> dict[str, Any]:
    """Returns what a checkpoint keeps: for `load`, also averages and the state that fits them."""
    if not averages(ts):
        return {"ts": ts}
    return {"ts": ts, "eval_params": evaluated.params, "eval_state": evaluated.state}


def _described(net: nn.Layer) -> Any:
    """Returns the net as JSON, None where it has layers of other people's."""
    try:
        return nn.describe(net)
    except TypeError:
        return None


def _number(record) -> Any:
    """Returns the value of a record as JSON, None where it is not finite."""
    value = float(record.value)
    return value if math.isfinite(value) else None
