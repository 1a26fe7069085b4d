"""The training step: its guard, loss scale, frozen parts, precisions, and what it accepts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training import images, same_bytes, small_net

from jaxtrain import losses, models, nn, optim, train, tree
from jaxtrain.errors import ConfigError
from jaxtrain.train import _step
from jaxtrain.train._step import Guard

NAN, INF = np.float32(np.nan), np.float32(np.inf)


def batch(n=8, **changes):
    part = images(n)
    index, mask = np.arange(n, dtype=np.int32), np.ones(n, np.float32)
    return {"image": part.image, "label": part.label, "index": index, "mask": mask, **changes}


def start(step, like=None):
    return jax.jit(step.init)(jax.random.key(0), batch() if like is None else like)


def poison(x, value, at=0):
    x = np.array(x, np.float32)
    x.flat[at] = value
    return x


@jax.custom_vjp
def trap(bias, x):
    return bias


# The forward pass is finite; the gradient is NaN where the input is large.
trap.defvjp(
    lambda bias, x: (bias, x.max()), lambda largest, g: (jnp.where(largest > 1e3, jnp.nan, g), None)
)


def with_trap(net):
    """A net with one param in front, `trap/bias`, whose gradient alone can be NaN."""
    trapped = nn.Layer(
        lambda key, x: ({"bias": jnp.zeros(())}, {}),
        lambda params, state, x, ctx: (x + trap(params["bias"].astype(x.dtype), x), state),
    )
    return nn.serial(trap=trapped, net=net)


@pytest.fixture(scope="module")
def two_devices():
    step = train.make_step(with_trap(small_net()), losses.softmax_cross_entropy, optim.adam(1e-2))
    return step, train.parallelize(step, how="shard_map", devices=2)


def counted(guard):
    return int(guard.skipped), int(guard.in_a_row)


BAD = {
    "NaN in an image of the first device": lambda b: {"image": poison(b["image"], NAN)},
    "NaN in an image of the second device": lambda b: {"image": poison(b["image"], NAN, -1)},
    "inf in an image": lambda b: {"image": poison(b["image"], INF)},
    "an image whose squares overflow": lambda b: {"image": poison(b["image"], 3e38)},
    "NaN in one gradient, of the second device": lambda b: {"image": poison(b["image"], 1e4, -1)},
    "NaN in the mask": lambda b: {"mask": poison(b["mask"], NAN, 5)},
    "inf in the mask": lambda b: {"mask": poison(b["mask"], INF, 5)},
    "a label that is no class": lambda b: {"label": np.full(8, 7, np.int32)},
}


@pytest.mark.parametrize("name", BAD)
def test_a_step_that_is_not_finite_changes_only_the_counters(name, two_devices):
    step, run = two_devices
    good = batch()
    ts, _ = run.step(run.place(start(step)), good)
    before = jax.device_get(ts._replace(key=jax.random.key_data(ts.key)))
    ts, seen = run.step(ts, good | BAD[name](good))
    after = jax.device_get(ts._replace(key=jax.random.key_data(ts.key)))
    assert same_bytes(
        (before.params, before.state, before.opt_state, before.key),
        (after.params, after.state, after.opt_state, after.key),
    )
    assert after.step == before.step + 1 and counted(after.guard) == (1, 1)
    assert seen["loss"].count == seen["accuracy"].count == seen["grad_norm"].count == 0
    assert seen["skipped_in_a_row"] == 1
    ts, seen = run.step(ts, good)
    assert counted(ts.guard) == (1, 0) and seen["loss"].count == 8
    assert not same_bytes(after.params, jax.device_get(ts.params))
    assert int(optim_count(ts.opt_state)) == 2  # the skipped step is not one of the optimizer's


def optim_count(opt_state):
    return min(int(x) for x in jax.tree.leaves(opt_state) if x.dtype == jnp.int32)


def hoarder():
    """A layer that keeps the fourth power of its input in its state: inf where x > 1e10."""
    return nn.Layer(
        lambda key, x: ({}, {"kept": jnp.zeros(())}),
        lambda params, state, x, ctx: (
            jnp.where(x > 1e9, 0.0, x),
            {"kept": x.max() ** 4} if ctx.train else state,
        ),
    )


def huge_loss(outputs, labels):
    return 1e25 * losses.softmax_cross_entropy(outputs, labels)


ONLY = {  # what alone is not finite
    "the state": (hoarder(), losses.softmax_cross_entropy, optim.sgd(0.1), 1e10),
    "the params": (jnp.asarray, huge_loss, optim.sgd(1e20), 1.0),
    "the optimizer": (jnp.asarray, huge_loss, optim.adam(0.1), 1.0),
    "the norm of the gradient": (jnp.asarray, huge_loss, optim.sgd(1e-30), 1.0),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", ONLY)
def test_the_guard_looks_at_the_whole_state(name):
    layer, loss, tx, value = ONLY[name]
    step = train.make_step(nn.serial(nn.flatten(), layer, nn.dense(3)), loss, tx)
    before = start(step)
    ts, seen = jax.jit(step.apply)(before, batch(image=poison(batch()["image"], value)))
    assert counted(ts.guard) == (1, 1)
    assert same_bytes(ts[1:4], before[1:4])


@pytest.mark.fast
def test_the_loss_scale_follows_the_overflows(monkeypatch):
    monkeypatch.setattr(_step, "SCALE_GROWTH_STEPS", 2)
    step = train.make_step(
        with_trap(nn.serial(nn.flatten(), nn.dense(3))),
        losses.softmax_cross_entropy,
        optim.sgd(1e-3),
        precision="float16",
    )
    apply, ts = jax.jit(step.apply), start(step)
    bad = batch(image=poison(batch()["image"], 1e4))
    scales = [float(ts.guard.scale)]
    for overflows in (1, 0, 0, 0, 1, 1, 0, 0):
        ts, _ = apply(ts, bad if overflows else batch())
        scales.append(float(ts.guard.scale))
    # Halved by an overflow, doubled after two clean steps, which are counted anew each time.
    assert [s / 2**15 for s in scales] == [1, 1 / 2, 1 / 2, 1, 1, 1 / 2, 1 / 4, 1 / 4, 1 / 2]
    assert counted(ts.guard) == (3, 0)
    lowest, highest = (Guard(0, 0, jnp.float32(scale), np.int32(1)) for scale in (1, 2**24))
    assert _step._count(lowest, jnp.array(False), scaled=True).scale == 1
    assert _step._count(highest, jnp.array(True), scaled=True).scale == 2**24


@pytest.mark.fast
def test_the_gradient_does_not_depend_on_the_loss_scale():
    step = train.make_step(
        nn.serial(nn.flatten(), nn.dense(3)),
        losses.softmax_cross_entropy,
        optim.sgd(1e-2),
        precision="float16",
    )
    ts = start(step)
    small = ts._replace(guard=ts.guard._replace(scale=jnp.float32(2.0**10)))
    (one, _), (other, _) = jax.jit(step.apply)(ts, batch()), jax.jit(step.apply)(small, batch())
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        # A power of two moves only float16's subnormals, 2^-25 of which is less than 3e-11 here,
        # so that a param below 1 is rounded to the next float32 at most, 2^-24.
        np.testing.assert_allclose(a, b, rtol=0, atol=2**-24)


@pytest.fixture(scope="module")
def frozen_and_free():
    made = {}
    for name, rule in {"free": None, "frozen": ("conv/*", "norm/*")}.items():
        net = small_net(dropout=0.0)
        step = train.make_step(net, losses.softmax_cross_entropy, optim.adam(1e-2), freeze=rule)
        ts = start(step)
        compiled = jax.jit(step.apply).lower(ts, batch()).compile()
        made[name] = ts, compiled(ts, batch())[0], compiled.cost_analysis()
    return made


def test_frozen_params_stay_and_cost_nothing(frozen_and_free):
    before, after, cost = frozen_and_free["frozen"]
    for name in ("conv", "norm"):
        assert same_bytes(before.params[name], after.params[name])
    assert not same_bytes(before.params["head"], after.params["head"])
    moments = jax.tree_util.tree_leaves_with_path(after.opt_state)
    names = {tree.path_name(path) for path, leaf in moments if leaf.ndim}
    assert names and all("head/" in name for name in names)
    # No backward convolution: of forward, input and kernel passes the first alone is left.
    assert cost["flops"] < 0.75 * frozen_and_free["free"][2]["flops"]


def test_frozen_params_leave_the_statistics_in_training(frozen_and_free):
    before, after, _ = frozen_and_free["frozen"]
    assert not same_bytes(before.state["norm"], after.state["norm"])
    assert same_bytes(after.state, frozen_and_free["free"][1].state)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_keeps_params_and_statistics_in_float32(precision):
    step = train.make_step(
        small_net(), losses.softmax_cross_entropy, optim.adam(1e-2), precision=precision
    )
    ts = start(step)
    jaxpr = str(jax.make_jaxpr(step.apply)(ts, batch()))
    assert {"bfloat16": "bf16[", "float16": "f16["}[precision] in jaxpr
    exact = train.make_step(small_net(), losses.softmax_cross_entropy, optim.adam(1e-2))
    ts, seen = jax.jit(step.apply)(ts, batch())
    _, seen_exact = jax.jit(exact.apply)(start(exact), batch())
    floats = [x for x in jax.tree.leaves(ts) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
    # bfloat16 has 8 bits; three layers of it.
    assert abs(float(seen["loss"].value) / float(seen_exact["loss"].value) - 1) < 3 * 2**-8


@pytest.mark.fast
@pytest.mark.parametrize(
    "loss, shape",
    [(lambda y, q: losses.softmax_cross_entropy(y, q).mean(), ()), (lambda y, q: y, (8, 3))],
)
def test_a_loss_that_is_not_per_example_is_refused(loss, shape):
    step = train.make_step(models.mlp([3]), loss, optim.sgd(0.1))
    message = rf"make_step: loss must be of shape \(8,\), got \({', '.join(map(str, shape))}"
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(step.apply, start(step), batch())


@pytest.mark.fast
def test_the_learning_rate_is_the_one_of_the_update():
    tx = optim.sgd(lambda count: 0.5 / (1 + count.astype(jnp.float32)))
    step = train.make_step(models.mlp([3]), losses.softmax_cross_entropy, tx)
    apply, ts = jax.jit(step.apply), start(step)
    for expected in (0.5, 0.25):
        ts, seen = apply(ts, batch())
        assert seen["learning_rate"] == expected
    ts, seen = apply(ts, batch(image=poison(batch()["image"], NAN)))
    assert seen["learning_rate"] == 0.25  # skipped: still that of the last update
    ts, seen = apply(ts, batch())
    assert seen["learning_rate"] == np.float32(0.5) / np.float32(3)


@pytest.mark.fast
def test_an_optax_optimizer_does():
    step = train.make_step(models.mlp([3]), losses.softmax_cross_entropy, optax.adam(1e-2))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and int32
        ts, seen = jax.jit(step.apply)(start(step), batch())
    assert "learning_rate" not in seen and optim_count(ts.opt_state) == 1


@pytest.mark.fast
def test_inputs_are_trees_and_targets_numbers():
    net = nn.Layer(
        lambda key, x: ({"kernel": jnp.zeros((2, 1))}, {}),
        lambda params, state, x, ctx: (x["a"] @ params["kernel"] + x["b"][:, None], state),
    )
    step = train.make_step(net, losses.squared_error, optim.sgd(0.1))
    image = {"a": np.ones((8, 2), np.float32), "b": np.arange(8, dtype=np.float32)}
    like = batch(image=image, label=np.full((8, 1), 3, np.float32))
    ts, seen = jax.jit(step.apply)(start(step, like), like)
    assert float(seen["loss"].value) == np.mean((np.arange(8) - 3.0) ** 2)
    assert "accuracy" not in seen
    # d/dw mean (w.x + b - 3)^2 = 2 mean (b - 3) = 1
    np.testing.assert_allclose(ts.params["kernel"], np.full((2, 1), -0.1), rtol=2**-24)  # of 0.1


@pytest.mark.fast
@pytest.mark.parametrize("at", [2**24 - 2, 2**31 - 10])
def test_the_counters_do_not_stall_or_wrap(at):
    step = train.make_step(small_net(), losses.softmax_cross_entropy, optim.adam(1e-2))
    apply, ts = jax.jit(step.apply), start(step)
    counts = Guard(np.int32(at), np.int32(at), jnp.float32(1), np.int32(at))
    ts = ts._replace(step=jnp.int32(at), guard=counts)
    for i in range(1, 5):
        ts, seen = apply(ts, batch())
        assert int(ts.step) == int(ts.guard.clean_steps) == at + i
        assert np.isfinite(seen["loss"].value)
    ts, _ = apply(ts, batch(image=poison(batch()["image"], NAN)))
    assert counted(ts.guard) == (at + 1, 1)


@pytest.mark.fast
@pytest.mark.parametrize(
    "options, message",
    [
        ({"precision": "float61"}, "precision must be one of .* 'float61'; did you mean 'float16'"),
        ({"accumulate": 0}, "accumulate must be an int >= 1, got 0"),
        ({"guard": 0}, "guard must be an int >= 1, got 0"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"make_step: {message}"):
        train.make_step(models.mlp([3]), losses.softmax_cross_entropy, optim.sgd(0.1), **options)


@pytest.mark.fast
@pytest.mark.fast
@pytest.mark.parametrize("name", ["augment", "mix", "penalty", "observe"])
def test_what_is_no_function_is_refused(name):
    with pytest.raises(TypeError, match=f"make_step: {name} must be a function, got 'mixup'"):
        train.make_step(nn.dense(1), losses.squared_error, optim.sgd(0.1), **{name: "mixup"})
    with pytest.raises(TypeError, match="make_step: loss must be a function, got 3"):
        train.make_step(nn.dense(1), 3, optim.sgd(0.1))


def test_accumulate_must_divide_the_batch():
    step = train.make_step(
        models.mlp([3]), losses.softmax_cross_entropy, optim.sgd(0.1), accumulate=3
    )
    with pytest.raises(ConfigError, match="accumulate must be a divisor of 8, got 3; choose"):
        jax.eval_shape(step.apply, start(step), batch())


@pytest.mark.fast
def test_an_average_that_does_not_stand_last_is_refused():
    late = optax.chain(optim.ema(0.9), optim.sgd(0.1))
    step = train.make_step(small_net(), losses.softmax_cross_entropy, late)
    with pytest.raises(ConfigError, match="ema, polyak or swa must be the last .* 'number 1 of 2'"):
        jax.eval_shape(step.init, jax.random.key(0), batch())


def test_the_optimizer_is_told_the_loss_and_what_observe_sees():
    told = {}

    def update(grads, state, params=None, *, value, grad, value_fn, seen):
        told.update(value=value, again=value_fn(params), grad=grad, seen=seen)
        return jax.tree.map(jnp.zeros_like, grads), state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    def observe(params, state, batch, ctx):
        told["params"] = params
        return {"seen": jax.lax.psum(batch["mask"].sum(), ctx.axis_name)}

    options = {"observe": observe, "freeze": "conv/*", "precision": "float16"}
    step = train.make_step(small_net(), losses.softmax_cross_entropy, tx, **options)
    whole = batch(mask=np.array([1] * 7 + [0], np.float32))
    parts = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), whole)

    def run(ts, part):
        step.apply(ts, part, "data")
        return {k: told[k] for k in ("value", "again", "grad", "seen")}, told["params"]

    ts = start(step)
    every = jax.vmap(run, (None, 0), axis_name="data", out_axes=(0, None))
    seen, params = jax.jit(every)(ts, parts)
    assert seen["seen"].tolist() == [7, 7]
    # The same numbers but for the scale of float16 and the order of a sum of 8 losses of one sign.
    np.testing.assert_allclose(seen["value"], seen["again"], rtol=8 * 2**-24)
    assert seen["grad"]["conv"]["kernel"] is None
    assert jax.tree.structure(params) == jax.tree.structure(ts.params)


def test_mixed_labels_reach_the_loss_and_the_accuracy():
    """Against pairs written out; classes become one-hot, as many as there are outputs."""

    def mix(key, images, labels):
        assert labels.shape == (4, 3) and labels.dtype == jnp.float32
        return 0.75 * images + 0.25 * images[::-1], 0.75 * labels + 0.25 * labels[::-1]

    net = nn.dense(3)
    step = train.make_step(net, losses.softmax_cross_entropy, optim.sgd(0.1), mix=mix)
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    y = np.array([0, 1, 2, 1])
    batch = {"image": x, "label": y, "index": np.arange(4), "mask": np.ones(4, np.float32)}
    ts = step.init(jax.random.key(0), batch)
    _, seen = step.apply(ts, batch)
    z = (0.75 * x + 0.25 * x[::-1]) @ np.asarray(ts.params["kernel"])
    q = 0.75 * np.eye(3)[y] + 0.25 * np.eye(3)[y[::-1]]
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    # Sums of a dozen numbers of order 1 in float32, 2^-24 each.
    np.testing.assert_allclose(seen["loss"].value, -(q * log_p).sum(1).mean(), rtol=12 * 2**-24)
    assert seen["accuracy"].value == (z.argmax(1) == y).mean()
    with pytest.raises(ConfigError, match="label must be an array of classes or of probabilities"):
        step.apply(ts, {**batch, "label": {"a": y}})
    for wrong in (lambda key, x, q: x, lambda key, x, q: (x[:2], q[:2])):
        step = train.make_step(net, losses.softmax_cross_entropy, optim.sgd(0.1), mix=wrong)
        with pytest.raises(ConfigError, match="mix must be a function to images and labels of the"):
            step.apply(ts, batch)


def test_a_penalty_is_added_once_and_shown_beside_the_loss():
    def penalty(params):
        return 0.5 * (params["kernel"] ** 2).sum()

    x, y = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    batch = {"image": x, "label": y, "index": np.arange(2), "mask": np.ones(2, np.float32)}
    told = []

    def update(grads, state, params=None, *, value, value_fn, **extra):
        told.append((float(value), float(value_fn(params))))
        return jax.tree.map(lambda g: -g, grads), state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    net = nn.dense(1, bias=False)
    step = train.make_step(net, losses.squared_error, tx, penalty=penalty)
    ts = step.init(jax.random.key(0), batch)
    ts = ts._replace(params={"kernel": jnp.array([[3.0]])})
    after, seen = step.apply(ts, batch)
    # w^2 + w^2 / 2 at w = 3 has the slope 2 w + w.
    assert after.params["kernel"] == 3 - 9
    assert seen["loss"].value == 9 and seen["penalty"].value == 4.5
    assert told == [(13.5, 13.5)]
    step = train.make_step(net, losses.squared_error, tx, penalty=lambda params: params["kernel"])
    with pytest.raises(ConfigError, match=r"penalty must be a function to a scalar, got \(1, 1\)"):
        step.apply(ts, batch)
