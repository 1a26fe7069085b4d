"""What holds for every optimizer: everything that optax and JAX do with them."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import FULL_BATCH, OPTIMIZERS, TRANSFORMATIONS
from training import compiles
from trajectories import close, train

from jaxtrain import optim, schedules, tree
from jaxtrain.errors import ConfigError, StateError

every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
# Rprop's rate is the size of the first step only.
SCHEDULED = {name: make for name, make in OPTIMIZERS.items() if not name.startswith("rprop")}
every_scheduled = pytest.mark.parametrize("make", SCHEDULED.values(), ids=SCHEDULED)
PARAMS = {"kernel": np.ones((2, 3), np.float32), "bias": np.ones((), np.float32), "empty": {}}


@pytest.mark.fast
@every_scheduled
def test_the_state_is_the_same_for_every_kind_of_rate(make):
    params = {**PARAMS, "none": np.zeros((0, 3), np.float32)}
    seen = []

    def look(learning_rate):
        tx = make(learning_rate)
        state = tx.init(params)
        seen.append(jax.tree.map(jax.typeof, state))
        seen.append(jax.tree.map(jax.typeof, tx.update(params, state, params)[1]))

    look(0.1)
    look(schedules.cosine(0.1, steps=3))
    look(jnp.float32(0.1))
    jax.jit(look)(0.1)
    assert len(seen) == 8 and all(avals == seen[0] for avals in seen)


@pytest.mark.fast
@every_scheduled
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
def test_zero_gradients_move_nothing(make):
    params = {**PARAMS, "none": np.zeros((0, 3), np.float32)}
    grads = jax.tree.map(np.zeros_like, params)
    tx = make(0.1)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
        assert not any(np.asarray(u).any() for u in jax.tree.leaves(updates))
        assert tree.all_finite(state)


MADE = TRANSFORMATIONS | {name: make(0.1) for name, make in (OPTIMIZERS | FULL_BATCH).items()}


@pytest.mark.fast
@pytest.mark.parametrize("tx", MADE.values(), ids=MADE)
def test_a_step_may_donate_params_and_the_first_state(tx):
    """No array stands in them twice; a vector may be its own ravelled form."""
    names = {"freeze", "lr_multipliers", "weight_decay, scheduled"}  # their rules name an "a"
    trees = [{"a": jnp.ones(3), "kernel": jnp.ones((2, 3))}]
    trees += [jnp.ones(3)] if tx not in [MADE[name] for name in names] else []
    for params in trees:
        leaves = jax.tree.leaves((params, tx.init(params)))
        assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)


@every_optimizer
def test_huge_and_tiny_gradients_leave_it_finite(make):
    params = jnp.ones(3)
    tx = make(1e-3)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jnp.array([1e-30, 1e18, -1e-18]), state, params)
        assert tree.all_finite((updates, state))


@every_optimizer
def test_one_program_serves_every_step_and_a_sweep_of_rates(make):
    """Eight rates in one program are eight runs, and no second call compiles anything."""
    grads = [jax.tree.map(lambda p, k=k: np.sin(p + k), PARAMS) for k in range(3)]
    rates = np.linspace(0.01, 0.3, 8, dtype=np.float32)

    def run(learning_rate, update):
        params, state = PARAMS, make(learning_rate).init(PARAMS)
        for g in grads:
            params, state = update(learning_rate, params, state, g)
        return params

    def one(learning_rate, params, state, g):
        updates, state = make(learning_rate).update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(one)
    runs = [run(rates[0], step)]
    with compiles() as programs:
        runs += [run(rate, step) for rate in rates[1:]]
    assert "one" not in programs
    sweep = jax.jit(jax.vmap(lambda rate: run(rate, one)))(rates)
    # A program of another shape may round in another order: a few times 6e-8.
    runs = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-7), sweep, runs)


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
        # A program of another shape may round in another order: a few times 6e-8, of params of 1.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-7), found, expected)


@pytest.mark.fast
@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes(make, dtype):
    params = jnp.ones(3, dtype)
    updates, state = make(0.1).update(params, make(0.1).init(params), params)
    assert updates.dtype == dtype
    moments = [x for x in jax.tree.leaves(state) if x.shape == (3,) and x.dtype != bool]
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


@every_scheduled
def test_resume_in_the_middle(x64, make):
    schedule = schedules.cosine(1e-3, steps=50)
    whole, _ = train(make(schedule))
    half, state = train(make(schedule), steps=25)
    state = jax.tree.map(np.asarray, state)
    rest, _ = train(make(schedule), steps=35, w=half[-1], state=state, first=25)
    # The same operations on the same numbers; only their compilation may differ.
    close(rest, whole[25:])


@pytest.mark.fast
@every_scheduled
def test_counts_saturate(make):
    tx = make(lambda count: jnp.where(count < 2**31 - 5, 0.5, 0.25))
    state = tx.init(PARAMS)
    late = jnp.int32(2**31 - 10)
    is_count = lambda x: x.dtype == jnp.int32  # noqa: E731
    state = jax.tree.map(lambda x: late if is_count(x) else x, state)
    update = jax.jit(tx.update)
    for k in range(20):
        updates, state = update(PARAMS, state, PARAMS)
        expected = min(2**31 - 10 + k + 1, 2**31 - 1)
        assert all(int(x) == expected for x in jax.tree.leaves(state) if is_count(x))
        assert float(optim.learning_rate(state)) == (0.5 if k < 5 else 0.25)
        assert np.isfinite(updates["kernel"]).all()


@every_scheduled
def test_counts_pass_what_float32_can_count(make):
    """A rate that falls at 2^24 + 1 falls there, and updates stay as they are."""
    tx = make(lambda count: jnp.where(count < 2**24 + 1, 0.5, 0.25))
    state = tx.init(PARAMS)
    is_count = lambda x: x.dtype == jnp.int32  # noqa: E731
    state = jax.tree.map(lambda x: jnp.int32(2**24 - 2) if is_count(x) else x, state)
    update = jax.jit(tx.update)
    for k in range(5):
        updates, state = update(PARAMS, state, PARAMS)
        assert all(int(x) == 2**24 - 1 + k for x in jax.tree.leaves(state) if is_count(x))
        assert float(optim.learning_rate(state)) == (0.5 if k < 3 else 0.25)
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
    (optim.adam, {"learning_rate": 0.1, "eps": math.inf}, "eps must be a finite number >= 0"),
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
    (optim.adamw, {"learning_rate": 0.1, "weight_decay": -1}, "adamw: weight_decay must be"),
    (optim.rprop, {"learning_rate": 0.1, "min_step": 1, "max_step": 0.5}, "min_step must be at mo"),
]


@pytest.mark.fast
@pytest.mark.parametrize("make, arguments, message", BAD)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


@pytest.mark.parametrize("make", [optim.sgd, optim.momentum, optim.adam])
@pytest.mark.parametrize("value", ["0.1", None, True, np.True_, 1j, jnp.array(1j), jnp.ones(2)])
def test_a_rate_of_another_kind(make, value):
    with pytest.raises(TypeError, match="learning_rate must be"):
        make(value)


WRONG_KINDS = {
    "guard: tx must be an optax transformation, .*; call it": lambda: optim.guard(optim.adam),
    "freeze: tx must be": lambda: optim.freeze(None, "a"),
    "accumulate: tx must be": lambda: optim.accumulate(0.1, 2),
    "proximal_l1: tx must be": lambda: optim.proximal_l1(optim.adam, 0.1),
    "minimize: tx must be": lambda: optim.minimize(jnp.sum, jnp.ones(1), optim.lbfgs),
    "minimize: fun must be": lambda: optim.minimize(3, jnp.ones(1), optim.lbfgs()),
    "rule must be a glob, a tuple": lambda: optim.l2(0.1, rule=3.0).init({"kernel": 1.0}),
    "multipliers must be a mapping": lambda: optim.lr_multipliers(0.1),
    "report: value must be a number": lambda: optim.report(
        optim.reduce_on_plateau().init(1.0), None
    ),
    "start must be an int": lambda: optim.swa(start=jnp.array(1.5), every=1),
    "patience must be an int": lambda: optim.reduce_on_plateau(patience=np.True_),
    "boundaries must be a sequence": lambda: schedules.multi_step(1, boundaries=3.0, factor=0.1),
    "params and gradients must be of a floating": lambda: optim.adam(0.1).init(jnp.ones(2, int)),
}


@pytest.mark.fast
@pytest.mark.parametrize("message", WRONG_KINDS)
def test_what_is_of_another_kind(message):
    with pytest.raises((TypeError, ConfigError), match=message):
        WRONG_KINDS[message]()


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
