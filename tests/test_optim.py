"""Optimizers against NumPy, the lectures' numbers, and everything optax does with them."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError, StateError

STEPS = 60
CURVATURE = np.array([1.0, 10.0, 100.0])
STREAM = np.random.default_rng(0).normal(size=(STEPS, 4))
START = np.concatenate([np.ones(3), [-1.2, 1.0], np.ones(4)])


def gradient(k, w, xp=np):
    """An ill-conditioned quadratic, Rosenbrock's function and fixed random gradients, in one."""
    x, y = w[3], w[4]
    rosenbrock = [2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)]
    return xp.concatenate([CURVATURE * w[:3], xp.stack(rosenbrock), xp.asarray(STREAM)[k]])


def split(w):
    return {"quadratic": w[:3], "nets": [w[3:5], {"stream": w[5:]}]}


def joined(tree):
    return jnp.concatenate([tree["quadratic"], tree["nets"][0], tree["nets"][1]["stream"]])


def train(tx, steps=STEPS, w=START, state=None, first=0, gradient=gradient):
    """Runs the optimizer under jit and scan and returns all iterates and the last state."""
    params = split(jnp.asarray(w))

    def step(carry, k):
        params, state = carry
        at = joined(optim.grad_params(params, state))
        updates, state = tx.update(split(gradient(k, at, jnp)), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), joined(params)

    carry = (params, tx.init(params) if state is None else state)
    (_, state), iterates = jax.jit(
        lambda carry: jax.lax.scan(step, carry, first + jnp.arange(steps, dtype=jnp.int32))
    )(carry)
    return np.asarray(iterates), state


MOMENTUM = {
    "accumulator": {},
    "velocity": {"form": "velocity"},
    "ema": {"form": "ema"},
    "ema debiased": {"form": "ema", "debias": True},
    "dampening": {"dampening": 0.9},
    "velocity dampening": {"form": "velocity", "dampening": 0.3},
    "shifted": {"nesterov": "shifted"},
    "shifted velocity": {"form": "velocity", "nesterov": "shifted"},
    "shifted ema": {"form": "ema", "nesterov": "shifted"},
    "lookahead": {"nesterov": "lookahead"},
    "lookahead velocity": {"form": "velocity", "nesterov": "lookahead"},
    "lookahead ema": {"form": "ema", "nesterov": "lookahead"},
}
ADAM = {
    "adam": ({}, {}),
    "inside": ({"eps_mode": "inside", "eps": 0.1}, {"place": "inside", "eps": 0.1}),
    "eps hat": ({"eps_mode": "uncorrected", "eps": 0.1}, {"place": "uncorrected", "eps": 0.1}),
    "no correction": ({"bias_correction": False}, {"correct": False}),
    "ams biased": ({"amsgrad": "biased", "b2": 0.9}, {"ams": "biased", "b2": 0.9}),
    "ams corrected": ({"amsgrad": "corrected", "b2": 0.9}, {"ams": "corrected", "b2": 0.9}),
    "ams uncorrected": (
        {"amsgrad": "uncorrected", "b2": 0.9},
        {"ams": "biased", "correct": False, "b2": 0.9},
    ),
}
CASES = [("sgd", optim.sgd, {}, oracles.momentum, {"mu": 0.0}, 5e-4)]
for name, ours in MOMENTUM.items():
    rate = 5e-3 if ours.get("form") == "ema" or ours.get("dampening") == 0.9 else 5e-4
    CASES += [(name, optim.momentum, ours, oracles.momentum, ours, rate)]
for name, (ours, theirs) in ADAM.items():
    CASES += [(name, optim.adam, ours, oracles.adam, theirs, 0.05)]


def close(ours, theirs):
    # A step has about 10 roundings of 1e-16; momentum multiplies the sum over 60 steps by at
    # most 1 / (1 - 0.9): 60 * 10 * 1.1e-16 * 10 = 7e-13 of the largest parameter.
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_equals_numpy(x64, case, changing):
    _, make, ours, oracle, theirs, rate = case
    schedule = schedules.step_decay(rate, every=20, factor=0.1) if changing else rate
    rates = [rate * 0.1 ** (k // 20) if changing else rate for k in range(STEPS)]
    iterates, _ = train(make(schedule, **ours))
    expected = oracle(gradient, START, rates, **theirs)
    close(iterates, expected)
    # The first step by itself: w - START cancels to about 1e-16 of START.
    np.testing.assert_allclose(iterates[0] - START, expected[0] - START, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (optim.sgd(5e-4), optax.sgd(5e-4)),
        (optim.momentum(5e-4), optax.sgd(5e-4, 0.9)),
        (optim.momentum(5e-4, nesterov="shifted"), optax.sgd(5e-4, 0.9, nesterov=True)),
        (
            optim.momentum(5e-3, form="ema", debias=True),
            optax.chain(optax.ema(0.9, debias=True), optax.scale_by_learning_rate(5e-3)),
        ),
        (
            optim.momentum(5e-4, form="velocity"),
            optax.chain(optax.scale_by_learning_rate(5e-4), optax.trace(0.9)),
        ),
        (optim.adam(0.05), optax.adam(0.05)),
        (
            optim.adam(0.05, eps=0.1, eps_mode="inside"),
            optax.adam(0.05, eps=0.0, eps_root=0.1),
        ),
        (optim.adam(0.05, amsgrad="corrected"), optax.amsgrad(0.05)),
    ],
    ids=["sgd", "momentum", "nesterov", "ema", "velocity", "adam", "inside", "amsgrad"],
)
def test_equals_optax(x64, ours, theirs):
    with jax.numpy_dtype_promotion("standard"):  # optax raises 0.9 to an int32 count
        expected, _ = train(theirs)
    close(train(ours)[0], expected)


def one_weight(tx, gradients, *, dtype=jnp.float64):
    """The positions of one weight from 0 under given gradients."""
    w = jnp.zeros((), dtype)
    state, positions = tx.init(w), []
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g, dtype), state, w)
        w = optax.apply_updates(w, updates)
        positions.append(float(w))
    return positions, state


def test_momentum_forms_differ_when_the_rate_changes(x64):
    def cut(count):
        return jnp.where(count < 2, 0.1, 0.01)

    accumulator, _ = one_weight(optim.momentum(cut), [1] * 4)
    velocity, _ = one_weight(optim.momentum(cut, form="velocity"), [1] * 4)
    assert round(accumulator[-1], 4) == -0.3515
    assert round(velocity[-1], 4) == -0.6439


def test_momentum_forms_agree_at_a_constant_rate(x64):
    accumulator, _ = train(optim.momentum(5e-4))
    close(train(optim.momentum(5e-4, form="velocity"))[0], accumulator)
    close(train(optim.momentum(5e-4 / (1 - 0.9), form="ema"))[0], accumulator)


def test_ema_equals_accumulator_at_the_larger_rate(x64):
    gradients = STREAM[:, 0]
    ema, _ = one_weight(optim.momentum(0.01 / (1 - 0.9), form="ema"), gradients)
    accumulator, _ = one_weight(optim.momentum(0.01), gradients)
    # Positions stay below 1: a few units in the last place, 1.1e-16 each.
    np.testing.assert_allclose(ema, accumulator, rtol=0, atol=1e-15)


@pytest.mark.parametrize("momentum, times", [(0.9, 10), (0.99, 100)])
def test_terminal_velocity(x64, momentum, times):
    state = optim.scale_by_momentum(momentum=momentum).init(jnp.zeros(()))
    tx = optim.scale_by_momentum(momentum=momentum)
    # At the fixed point b = g / (1 - mu) the buffer stays, but for one rounding.
    state = state._replace(count=state.count + 1, buffer=jnp.asarray(1 / (1 - momentum)))
    update, _ = tx.update(jnp.ones(()), state)
    assert float(update) == pytest.approx(times, rel=1e-15 * times)


@pytest.mark.parametrize("form, rate", [("accumulator", 5e-4), ("velocity", 5e-4), ("ema", 5e-3)])
def test_nesterov_is_one_method_in_two_variables(x64, form, rate):
    """Look-ahead's x + mu * v is the shifted iterate, and eval_params leads back to x."""
    lookahead, _ = train(optim.momentum(rate, form=form, nesterov="lookahead"))
    tx = optim.momentum(rate, form=form, nesterov="shifted")
    shifted, state = train(tx)
    back = joined(optim.eval_params(split(jnp.asarray(shifted[-1])), state))
    close(np.asarray(back), lookahead[-1])
    # Not the same by accident: the two iterates themselves are apart.
    assert np.abs(shifted[-1] - lookahead[-1]).max() > 1e-3


def test_nesterov_velocity_is_exact_when_the_rate_changes(x64):
    schedule = schedules.step_decay(5e-4, every=20, factor=0.1)
    lookahead, _ = train(optim.momentum(schedule, form="velocity", nesterov="lookahead"))
    shifted, state = train(optim.momentum(schedule, form="velocity", nesterov="shifted"))
    back = joined(optim.eval_params(split(jnp.asarray(shifted[-1])), state))
    close(np.asarray(back), lookahead[-1])


@pytest.mark.parametrize(
    "b2, first, peak, at",
    [(0.999, 3.1623, 6.5685, 12), (0.99, 1.0, 2.131, 13), (0.9, 0.3162, None, None)],
)
def test_adam_without_correction_on_a_constant_gradient(x64, b2, first, peak, at):
    positions, _ = one_weight(optim.adam(1.0, b2=b2, bias_correction=False), [1] * 40)
    steps = -np.diff(positions, prepend=0)
    assert steps[0] == pytest.approx(first, abs=5e-5)
    if peak:
        assert steps.max() == pytest.approx(peak, abs=5e-4) and steps.argmax() + 1 == at
    else:
        assert steps.max() < 1


def test_adam_first_step_is_the_rate(x64):
    positions, _ = one_weight(optim.adam(0.1), [1])
    assert positions[0] == pytest.approx(-0.1 / (1 + 1e-8), rel=1e-14)


@pytest.mark.fast
def test_adam_bias_correction_is_accurate_in_float32():
    # 1 - 0.999 formed in float32 is off by 1.3e-5; here each of about 6 roundings is 6e-8.
    positions, _ = one_weight(optim.adam(1.0), [1], dtype=jnp.float32)
    assert positions[0] == pytest.approx(-1, rel=4e-7)


OPTIMIZERS = {
    "sgd": optim.sgd,
    "accumulator": optim.momentum,
    "velocity": lambda lr: optim.momentum(lr, form="velocity"),
    "lookahead": lambda lr: optim.momentum(lr, nesterov="lookahead"),
    "shifted": lambda lr: optim.momentum(lr, nesterov="shifted"),
    "ema": lambda lr: optim.momentum(lr, form="ema", debias=True),
    "adam": optim.adam,
    "amsgrad": lambda lr: optim.adam(lr, amsgrad="corrected", eps_mode="uncorrected"),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
PARAMS = {"kernel": np.ones((2, 3), np.float32), "bias": np.ones((), np.float32), "empty": {}}


@pytest.mark.fast
@every_optimizer
def test_the_state_is_the_same_for_every_kind_of_rate(make):
    params = {**PARAMS, "none": np.zeros((0, 3), np.float32)}
    seen = []

    def look(learning_rate):
        tx = make(learning_rate)
        state = tx.init(params)
        seen.append(jax.tree.map(jax.typeof, state))
        seen.append(jax.tree.map(jax.typeof, tx.update(params, state)[1]))

    look(0.1)
    look(schedules.cosine(0.1, steps=3))
    look(jnp.float32(0.1))
    jax.jit(look)(0.1)
    assert len(seen) == 8 and all(avals == seen[0] for avals in seen)


@pytest.mark.fast
@every_optimizer
def test_the_rate_is_in_the_state(make):
    schedule = schedules.join([0.5, 0.25, 0.125], [1, 2])
    tx = optax.chain(optax.clip(1.0), make(schedule))
    state = tx.init(PARAMS)
    shown = [float(optim.learning_rate(state))]
    for _ in range(3):
        _, state = tx.update(PARAMS, state, PARAMS)
        shown.append(float(optim.learning_rate(state)))
    assert shown == [0.5, 0.5, 0.25, 0.125]


@every_optimizer
def test_works_inside_and_around_optax(make):
    """Chains both ways, inject_hyperparams, cond, vmap over the rate: all the same numbers."""
    grads = jax.tree.map(np.sin, PARAMS)

    def two_steps(tx):
        state, params = tx.init(PARAMS), PARAMS
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    def cond(tx):
        def update(updates, state, params=None):
            yes = lambda: tx.update(updates, state, params)  # noqa: E731
            return jax.lax.cond(True, yes, lambda: (updates, state))

        return optax.GradientTransformation(tx.init, update)

    inject = optax.inject_hyperparams(make)
    rates = jnp.array([0.3, 0.1])
    expected = two_steps(make(0.1))
    for found in (
        two_steps(inject(0.1)),
        jax.jit(lambda lr: two_steps(inject(lr)))(0.1),
        two_steps(cond(make(0.1))),
        two_steps(optax.chain(optax.identity(), make(0.1), optax.clip(1e9))),
        jax.tree.map(lambda x: x[1], jax.vmap(lambda lr: two_steps(make(lr)))(rates)),
        two_steps(optax.masked(make(0.1), {"kernel": True, "bias": True, "empty": {}})),
        two_steps(optax.with_extra_args_support(make(0.1))),
    ):
        # A program of another shape may round in another order: a few times 6e-8.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 5e-7), found, expected)


@pytest.mark.fast
@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes(make, dtype):
    params = jnp.ones(3, dtype)
    updates, state = make(0.1).update(params, make(0.1).init(params), params)
    assert updates.dtype == dtype
    moments = [x for x in jax.tree.leaves(state) if x.shape == (3,)]
    assert all(x.dtype == jnp.float32 for x in moments)
    assert optim.grad_params(params, state).dtype == optim.eval_params(params, state).dtype == dtype


@every_optimizer
def test_float32_params_under_x64(x64, make):
    params = jnp.ones(3, jnp.float32)
    tx = make(jnp.float64(0.1))
    updates, state = tx.update(params, tx.init(params), params)
    assert updates.dtype == jnp.float32
    assert optim.learning_rate(state).dtype == jnp.float64


@every_optimizer
def test_empty_tree(make):
    updates, state = make(0.1).update({}, make(0.1).init({}), {})
    assert updates == {} and optim.learning_rate(state) == jnp.float32(0.1)


def test_bfloat16_moments_do_not_stand_still():
    """A gradient of 1e-3 beside a buffer of 1 is lost in bfloat16, not in float32."""
    tx = optim.scale_by_momentum(momentum=0.999, form="ema")
    w = jnp.zeros((), jnp.bfloat16)
    state = tx.init(w)._replace(buffer=jnp.float32(1))
    _, state = tx.update(w, state)
    assert float(state.buffer) == pytest.approx(0.999, rel=1e-6)


@pytest.mark.parametrize("make", [OPTIMIZERS["velocity"], optim.adam], ids=["velocity", "adam"])
def test_resume_in_the_middle(x64, make):
    schedule = schedules.cosine(1e-3, steps=50)
    whole, _ = train(make(schedule))
    half, state = train(make(schedule), steps=25)
    state = jax.tree.map(np.asarray, state)
    rest, _ = train(make(schedule), steps=35, w=half[-1], state=state, first=25)
    # The same operations on the same numbers; only their compilation may differ.
    close(rest, whole[25:])


@pytest.mark.fast
@every_optimizer
def test_counts_saturate(make):
    tx = make(lambda count: jnp.where(count < 2**31 - 5, 0.5, 0.25))
    state = tx.init(PARAMS)
    late = jnp.int32(2**31 - 10)
    is_count = lambda x: x.dtype == jnp.int32  # noqa: E731
    state = jax.tree.map(lambda x: late if is_count(x) else x, state)
    update = jax.jit(tx.update)
    for k in range(20):
        updates, state = update(PARAMS, state)
        expected = min(2**31 - 10 + k + 1, 2**31 - 1)
        assert all(int(x) == expected for x in jax.tree.leaves(state) if is_count(x))
        assert float(optim.learning_rate(state)) == (0.5 if k < 5 else 0.25)
        assert np.isfinite(updates["kernel"]).all()


@pytest.mark.fast
def test_grad_params_and_eval_params():
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(3), "d": jnp.ones(())}}
    for make in (optim.sgd, optim.momentum, optim.adam):
        state = optax.chain(optax.clip(1.0), make(0.1)).init(params)
        assert optim.grad_params(params, state) is params
        assert optim.eval_params(params, state) is params

    # b = g = 1 after one step: look-ahead goes 0.9 * 0.1 on, the shifted iterate as far back.
    one = jax.tree.map(jnp.ones_like, params)
    for nesterov, function, sign in (
        ("lookahead", optim.grad_params, -1),
        ("shifted", optim.eval_params, 1),
    ):
        other = {"lookahead": optim.eval_params, "shifted": optim.grad_params}[nesterov]
        tx = optax.masked(optim.momentum(0.1, nesterov=nesterov), {"a": True, "b": False})
        _, state = tx.update(one, tx.init(params), params)
        moved = function(params, state)
        np.testing.assert_allclose(moved["a"], 1 + sign * 0.09, rtol=2e-7)
        assert moved["b"] is params["b"] or moved["b"]["c"] is params["b"]["c"]
        assert other(params, state) is params


@pytest.mark.fast
def test_several_states_are_applied_in_order():
    tx = optax.chain(*[optim.momentum(0.1, form="velocity", nesterov="lookahead")] * 2)
    params = jnp.zeros(())
    _, state = tx.update(jnp.ones(()), tx.init(params))
    # Velocities -0.1 and 0.01, each looked ahead by 0.9 of itself.
    assert float(optim.grad_params(params, state)) == pytest.approx(-0.081, rel=1e-6)
    with pytest.raises(StateError, match="opt_state must be a state with one learning rate, got 2"):
        optim.learning_rate(state)
    with pytest.raises(StateError, match="got 0"):
        optim.learning_rate(optax.adam(0.1).init(params))


def test_a_state_of_other_params_is_refused():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = optim.momentum(0.1, nesterov="lookahead")
    with pytest.raises(StateError, match="params must be the tree"):
        optim.grad_params({"a": params["a"]}, tx.init(params))
    with pytest.raises(StateError, match="optax.flatten"):
        optim.grad_params(params, optax.flatten(tx).init(params))


BAD = [
    (optim.sgd, {"learning_rate": v}, "learning_rate must be a finite number > 0, got")
    for v in (0, -1.0, math.nan, math.inf, np.float32(-1), jnp.float32(0))
]
BAD += [
    (make, {"learning_rate": 0.1, name: v}, f"{name} must be a number in \\[0, 1\\), got {v}")
    for make, names in ((optim.momentum, ("momentum", "dampening")), (optim.adam, ("b1", "b2")))
    for name in names
    for v in (-0.1, 1, 1.5, math.nan)
]
BAD += [
    (optim.adam, {"learning_rate": 0.1, "eps": 0}, "eps must be a finite number > 0, got 0"),
    (optim.adam, {"learning_rate": 0.1, "eps": -1}, "eps must be"),
    (optim.adam, {"learning_rate": 0.1, "eps_mode": "outsid"}, "did you mean 'outside'"),
    (optim.adam, {"learning_rate": 0.1, "amsgrad": True}, "amsgrad must be one of"),
    (optim.adam, {"learning_rate": 0.1, "bias_correction": "no"}, "bias_correction must be"),
    (optim.momentum, {"learning_rate": 0.1, "form": "torch"}, "momentum: form must be one of"),
    (optim.momentum, {"learning_rate": 0.1, "nesterov": True}, "nesterov must be one of"),
    (optim.momentum, {"learning_rate": 0.1, "debias": True}, "debias must be False"),
    (
        optim.momentum,
        {"learning_rate": 0.1, "form": "ema", "debias": True, "nesterov": "shifted"},
        "debias must be False",
    ),
    (
        optim.momentum,
        {"learning_rate": 0.1, "dampening": 0.5, "nesterov": "shifted"},
        "dampening must be 0",
    ),
    (optim.momentum, {"learning_rate": 0.1, "dampening": 0.5, "form": "ema"}, "dampening must be"),
]


@pytest.mark.fast
@pytest.mark.parametrize("make, arguments, message", BAD)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


@pytest.mark.parametrize("make", [optim.sgd, optim.momentum, optim.adam])
@pytest.mark.parametrize("value", ["0.1", None, True])
def test_a_rate_of_another_kind(make, value):
    with pytest.raises(TypeError, match="learning_rate must be"):
        make(value)


@pytest.mark.fast
def test_import_is_light():
    """Adds nothing heavy to jax and optax, starts no backend and makes no array."""
    code = """if True:
        import sys, jax, optax
        before = set(sys.modules)
        import jaxtrain.optim, jaxtrain.schedules, jaxtrain.tree
        added = {name.split(".")[0] for name in set(sys.modules) - before}
        heavy = added & {"flax", "orbax", "rich", "matplotlib", "chex"}
        assert not heavy, heavy
        from jax._src import xla_bridge
        assert not xla_bridge._backends
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
