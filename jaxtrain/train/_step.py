"""The training step and the evaluation step, each written once for "my part of the batch"."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtrain import _check, _compat, metrics, nn, optim, tree
from jaxtrain.errors import StateError
from jaxtrain.nn._layer import fold_name
from jaxtrain.optim._average import check_averages_stand_last
from jaxtrain.train._global import global_sum

PyTree = Any
Batch = Mapping[str, Any]
PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
FIRST_SCALE, LAST_SCALE, SCALE_GROWTH_STEPS = 2.0**15, 2.0**24, 2000


class Guard(NamedTuple):
    """What the guard against non-finite steps has seen, each ().

    Attributes:
        skipped: int32, steps skipped so far because something was not finite.
        in_a_row: int32, how many of the last steps were skipped without one that was not.
        scale: float32, the loss scale; 1 unless the precision is float16.
        clean_steps: int32, steps since the scale last changed.
    """

    skipped: jax.Array
    in_a_row: jax.Array
    scale: jax.Array
    clean_steps: jax.Array


class TrainState(NamedTuple):
    """Everything that training changes, and the key that it does not.

    Attributes:
        step: () int32, every attempted step, skipped ones too.
        params: the net's parameters.
        state: the net's state, such as BatchNorm's running statistics.
        opt_state: the optimizer's state.
        key: the run's random key; steps fold their number into it and leave it as it is.
        guard: the counters of skipped steps and the loss scale.
    """

    step: jax.Array
    params: PyTree
    state: PyTree
    opt_state: PyTree
    key: jax.Array
    guard: Guard


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A training step: `init(key, batch) -> ts` and `apply(ts, batch, axis_name) -> ts, metrics`.

    Both are pure. `parallelize` compiles them; under a `pmap` or `shard_map` of your own, pass its
    axis name.

    Attributes:
        init: makes the first TrainState.
        apply: one update from this device's part of the batch.
        net: the network.
        compute: the network in the precision of the step.
        loss: the per-example loss.
        precision: the dtype of the computation.
        guard: how many skipped steps in a row `fit` accepts.
        options: what `make_step` was given besides the net, by name.
    """

    init: Callable[[jax.Array, Batch], TrainState]
    apply: Callable[..., tuple[TrainState, dict[str, Any]]]
    net: nn.Layer
    compute: nn.Layer
    loss: Callable[[Any, Any], jax.Array]
    precision: str
    guard: int
    options: Mapping[str, Any]


def make_step(
    net: nn.Layer,
    loss: Callable[[Any, Any], jax.Array],
    tx: optax.GradientTransformation,
    *,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    mix: Callable[[jax.Array, Any, jax.Array], tuple[Any, jax.Array]] | None = None,
    penalty: Callable[[PyTree], jax.Array] | None = None,
    freeze: Any = None,
    accumulate: int = 1,
    precision: str = "float32",
    guard: int = 20,
    observe: Callable[..., dict[str, Any]] | None = None,
) -> Step:
    """Makes the training step of a network.

    A batch is a dict of arrays with one leading axis: `image` (any pytree, the net's input),
    `label` (any pytree, the loss's targets), `index` (int32, the example's number) and `mask`
    (float, 1 real and 0 padding). The loss is averaged over the real examples of all devices.

    A step whose loss, gradient or new state is not finite changes nothing but the counters.

    Args:
        net: a layer.
        loss: `f(outputs, targets) -> (batch,)`, one value per example.
        tx: an optax transformation, such as those of `jaxtrain.optim`.
        augment: `f(key, image) -> image` for one example; its key depends on (key, step, example).
        mix: `f(key, images, labels) -> images, labels` for the whole batch, of all devices, after
            `augment`, such as `augment.mixup`. Labels are probabilities, (batch, classes): classes
            are made one-hot before, as many as the network has outputs. Padding takes part: let it
            hold copies of real examples, as `fit` does.
        penalty: `f(params) -> scalar`, added to the loss, such as `penalties.l2(1e-4)`. In the
            metrics it stands beside the loss, which is without it.
        freeze: rule for the params that stay as they are: a glob on the '/'-joined path, a tuple of
            globs, or `f(path, leaf) -> bool`. Their gradients are not computed.
        accumulate: the number of parts that the batch is computed in, one after another, to save
            memory. BatchNorm normalizes each part by itself.
        precision: "float32", "bfloat16" or "float16" (with a dynamic loss scale): the dtype of the
            activations. Params and statistics are always at least float32.
        guard: the number of skipped steps in a row after which `fit` stops.
        observe: `f(params, state, batch, ctx) -> dict`, further arguments of `tx.update`, such as
            the `factors` of `optim.kfac`. It sees this device's part of the batch, in the context
            of the step, and sums over `ctx.axis_name` itself. `value`, `grad` and `value_fn`, which
            line searches ask for, are always passed.

    Returns:
        A Step; its metrics are sum-and-count records over all devices: `loss`, `accuracy` (where
        targets are class numbers, with `mix` those of the largest share), `grad_norm`, `penalty`
        where there is one, and `learning_rate` where the optimizer has one.

    Example:
        >>> from jaxtrain import losses, models
        >>> step = make_step(models.mlp([8, 2]), losses.softmax_cross_entropy, optim.adam(1e-3))
        >>> batch = dict(image=jnp.ones((4, 3)), label=jnp.array([0, 1, 1, 0]),
        ...              index=jnp.arange(4), mask=jnp.ones(4))
        >>> ts = step.init(jax.random.key(0), batch)
        >>> ts, seen = jax.jit(step.apply)(ts, batch)
        >>> int(ts.step), float(seen["loss"].count)
        (1, 4.0)
    """
    _check.choice("make_step", "precision", precision, PRECISIONS)
    _check.integer("make_step", "accumulate", accumulate)
    _check.integer("make_step", "guard", guard)
    _check.function("make_step", "loss", loss)
    functions = {"augment": augment, "mix": mix, "penalty": penalty, "observe": observe}
    for name, f in functions.items():
        if f is not None:
            fix = "augment.compose makes one of several" if isinstance(f, tuple | list) else ""
            _check.function("make_step", name, f, fix)
    options = {"loss": loss, "tx": tx, **functions, "freeze": freeze, "accumulate": accumulate}
    compute = _in_precision(net, precision)
    tx = optax.with_extra_args_support(tx)

    def split(params):
        return tree.partition(params, freeze) if freeze is not None else (None, params)

    def join(frozen, free):
        return tree.merge(frozen, free) if freeze is not None else free

    def init(key, batch):
        params, state = compute.init(fold_name(key, "init"), batch["image"])
        zero = jnp.zeros((), jnp.int32)
        scale = FIRST_SCALE if precision == "float16" else 1.0
        counters = Guard(zero, zero, jnp.asarray(scale, jnp.float32), zero)
        opt_state = tx.init(split(params)[1])
        check_averages_stand_last(opt_state)
        return TrainState(zero, params, state, opt_state, key, counters)

    def penalized(frozen, free):
        return _scalar(penalty, join(frozen, free))

    def apply(ts: TrainState, batch: Batch, axis_name: str | None = None):
        def psum(x):
            return x if axis_name is None else lax.psum(x, axis_name)

        if augment is not None:
            ctx = _context(ts, "augment", batch, axis_name)
            image = jax.vmap(augment)(ctx.keys(batch["mask"].shape[0]), batch["image"])
            batch = {**batch, "image": image}
        if mix is not None:
            batch = {**batch, **_mixed(mix, compute, ts, batch, axis_name)}
        count = psum(batch["mask"].sum())
        frozen, free = split(ts.params)

        def local_loss(free, state, part):
            ctx = net_context(ts, part, axis_name)
            outputs, state = compute.apply(join(frozen, free), state, part["image"], ctx)
            total = _masked_sum(loss(outputs, part["label"]), part["mask"])
            seen = {"loss": metrics.Mean(lax.stop_gradient(total), part["mask"].sum())}
            seen |= _accuracy(outputs, part, soft=mix is not None)
            return total / jnp.maximum(count, 1).astype(total.dtype), (state, seen)

        def scaled_loss(free, state, part):
            mean, seen = local_loss(free, state, part)
            return mean * ts.guard.scale.astype(mean.dtype), seen

        def gradient(carry, part):
            grads, (state, seen) = jax.grad(scaled_loss, has_aux=True)(at, carry, part)
            return state, (grads, seen)

        def value_fn(free):
            if accumulate > 1:
                rule = "1 with an optimizer that evaluates the loss"
                _check.fail("make_step", "accumulate", rule, accumulate)
            data_loss = global_sum(lambda free: local_loss(free, ts.state, batch)[0], axis_name)
            return data_loss(free) + (0 if penalty is None else penalized(frozen, free))

        # Differentiate the local sum over the global count, then sum: never through a collective.
        here = optim.grad_params(free, ts.opt_state)
        at = _compat.to_varying(here, axis_name)
        state, (grads, seen) = _accumulate(gradient, ts.state, batch, accumulate)
        grads, seen = psum((grads, seen))
        if precision == "float16":  # elsewhere the scale is 1: spare a pass over all gradients
            grads = jax.tree.map(lambda g: g / ts.guard.scale.astype(g.dtype), grads)
        value = seen["loss"].value
        if penalty is not None:  # once, not on each device
            added, slope = jax.value_and_grad(functools.partial(penalized, frozen))(here)
            grads = jax.tree.map(jnp.add, grads, slope)
            value = value + added
            seen["penalty"] = metrics.Mean(added, jnp.ones_like(added))
        extra = {"value": value, "grad": grads, "value_fn": value_fn}
        if observe is not None:
            ctx = net_context(ts, batch, axis_name)
            extra |= observe(join(frozen, at), ts.state, batch, ctx)
        updates, opt_state = tx.update(grads, ts.opt_state, free, **extra)
        params = join(frozen, optax.apply_updates(free, updates))

        # A norm that overflows counts as not finite: such a step is skipped, and counted.
        square = sum(((g * g).sum().astype(jnp.float32) for g in jax.tree.leaves(grads)), 0.0)
        new = (params, state, opt_state)
        ok = tree.all_finite((square, seen["loss"], new))
        params, state, opt_state = jax.tree.map(
            lambda new, old: jnp.where(ok, new, old), new, (ts.params, ts.state, ts.opt_state)
        )
        seen["grad_norm"] = metrics.Mean(jnp.sqrt(square), jnp.ones((), jnp.float32))
        seen = jax.tree.map(lambda x: jnp.where(ok, x, jnp.zeros_like(x)), seen)
        with contextlib.suppress(StateError):  # other people's optimizers keep no rate
            seen["learning_rate"] = optim.learning_rate(opt_state)
        seen["skipped_in_a_row"] = jnp.where(ok, 0, ts.guard.in_a_row + 1)
        counters = _count(ts.guard, ok, scaled=precision == "float16")
        return TrainState(ts.step + 1, params, state, opt_state, ts.key, counters), seen

    return Step(init, apply, net, compute, loss, precision, guard, options)


@dataclasses.dataclass(frozen=True, eq=False)
class EvalStep:
    """An evaluation step: `apply(ts, batch, axis_name) -> metrics`, sum-and-count records.

    Attributes:
        apply: the function.
        net: the network.
    """

    apply: Callable[..., dict[str, Any]]
    net: nn.Layer


def make_eval_step(
    net: nn.Layer,
    measures: Mapping[str, Callable[[Any, Any, jax.Array], Any]],
    *,
    precision: str = "float32",
) -> EvalStep:
    """Makes the evaluation step of a network: eval mode, every real example counted once.

    Args:
        net: a layer.
        measures: by name, functions `f(outputs, targets, mask) -> record` as in `jaxtrain.metrics`.
        precision: as in `make_step`.

    Returns:
        An EvalStep; records are summed over devices.
    """
    _check.choice("make_eval_step", "precision", precision, PRECISIONS)
    compute = _in_precision(net, precision)

    def apply(ts: TrainState, batch: Batch, axis_name: str | None = None):
        ctx = nn.Context(False, None, batch["index"], batch["mask"], axis_name)
        params = optim.eval_params(ts.params, ts.opt_state)
        outputs, _ = compute.apply(params, ts.state, batch["image"], ctx)
        seen = {k: f(outputs, batch["label"], batch["mask"] > 0) for k, f in measures.items()}
        return seen if axis_name is None else lax.psum(seen, axis_name)

    return EvalStep(apply, net)


def _in_precision(net: nn.Layer, precision: str) -> nn.Layer:
    dtype = PRECISIONS[precision]
    return net if dtype is None else nn.cast(net, dtype)


def _context(ts: TrainState, purpose: str, batch: Batch, axis_name: str | None):
    key = fold_name(jax.random.fold_in(ts.key, ts.step), purpose)
    return nn.Context(True, key, batch["index"], batch["mask"], axis_name)


def net_context(ts: TrainState, batch: Batch, axis_name: str | None = None) -> nn.Context:
    """Returns the context in which a training step applies the net."""
    return _context(ts, "net", batch, axis_name)


def _masked_sum(losses, mask):
    if losses.shape != mask.shape:
        fix = "return one value per example, not averaged over the batch"
        _check.fail("make_step", "loss", f"of shape {mask.shape}", losses.shape, fix)
    return jnp.where(mask > 0, losses, 0).sum()


def _mixed(mix, net, ts, batch, axis_name):
    """Mixes the batch of all devices together and returns this device's part."""
    image, label = batch["image"], batch["label"]
    if not hasattr(label, "dtype"):
        rule = "an array of classes or of probabilities where there is mix"
        _check.fail("make_step", "label", rule, jax.tree.structure(label))
    if jnp.issubdtype(label.dtype, jnp.integer):
        outputs, _ = jax.eval_shape(net.apply, ts.params, ts.state, image, nn.EVAL)
        label = jax.nn.one_hot(label, outputs.shape[-1])
    key, n, whole = _context(ts, "mix", batch, axis_name).key, len(label), (image, label)
    if axis_name is not None:
        whole = lax.all_gather(whole, axis_name, tiled=True)
    made = mix(key, *whole)
    shapes = [jax.tree.map(jnp.shape, x) for x in (made, whole)]
    if shapes[0] != shapes[1]:
        rule = f"a function to images and labels of the shapes {shapes[1]}"
        _check.fail("make_step", "mix", rule, shapes[0])
    if axis_name is not None:
        start = lax.axis_index(axis_name) * n
        part = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=n)
        made = jax.tree.map(part, made)
    return dict(zip(("image", "label"), made, strict=True))


def _scalar(penalty, params):
    value = penalty(params)
    if jnp.shape(value) != ():
        _check.fail("make_step", "penalty", "a function to a scalar", jnp.shape(value))
    return value


def _accuracy(outputs, part, *, soft):
    labels = part["label"]
    if not soft and not (hasattr(labels, "dtype") and jnp.issubdtype(labels.dtype, jnp.integer)):
        return {}
    return {"accuracy": metrics.accuracy(lax.stop_gradient(outputs), labels, part["mask"])}


def _accumulate(gradient, state, batch, k):
    """Runs `gradient` over k parts; example i goes to part i mod k, on any device count."""
    if k == 1:
        return gradient(state, batch)
    b = batch["mask"].shape[0]
    if b % k:
        fix = "choose a divisor of the batch on each device"
        _check.fail("make_step", "accumulate", f"a divisor of {b}", k, fix)
    parts = jax.tree.map(lambda x: x.reshape(b // k, k, *x.shape[1:]).swapaxes(0, 1), batch)
    first, rest = (jax.tree.map(lambda x, s=s: x[s], parts) for s in (0, slice(1, None)))
    carry = gradient(state, first)

    def add(carry, part):
        state, total = carry
        state, new = gradient(state, part)
        return (state, jax.tree.map(jnp.add, total, new)), None

    # XLA runs convolutions in a loop on one thread on CPU: write the loop out there.
    unroll = k - 1 if jax.default_backend() == "cpu" else 1
    return lax.scan(add, carry, rest, unroll=unroll)[0]


def _count(guard: Guard, ok, *, scaled: bool) -> Guard:
    skipped = jnp.where(ok, 0, 1)
    in_a_row = jnp.where(ok, 0, guard.in_a_row + 1)
    scale, clean = guard.scale, jnp.where(ok, guard.clean_steps + 1, 0)
    if scaled:
        grow = clean >= SCALE_GROWTH_STEPS
        scale = jnp.where(ok, jnp.where(grow, 2 * scale, scale), scale / 2)
        scale, clean = jnp.clip(scale, 1.0, LAST_SCALE), jnp.where(grow, 0, clean)
    return Guard(guard.skipped + skipped, in_a_row, scale, clean)
