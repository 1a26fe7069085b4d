"""Averages of params against NumPy, torch, optax and the lectures' numbers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from training import compiles
from trajectories import START, STEPS, close, joined, split, update

from jaxtrain import _compat, optim, schedules
from jaxtrain.errors import ConfigError, StateError
from jaxtrain.optim._average import check_averages_stand_last

RATE = 5e-4
VECTORS = pathlib.Path(__file__).parent / "vectors" / "torch_averages.npz"


def momentum_then(average):
    return optax.chain(optim.momentum(RATE), average)


def averages(tx):
    """All iterates and, after each update, the params to evaluate with."""
    params = split(jnp.asarray(START))

    def step(carry, k):
        params, state, _ = update(tx, *carry, k)
        return (params, state), (joined(params), joined(optim.eval_params(params, state)))

    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(STEPS, dtype=jnp.int32)))
    return map(np.asarray, scan((params, tx.init(params)))[1])


def rising(count):
    """A schedule of decays that reaches 0.99."""
    t = jnp.asarray(count, float)
    return jnp.minimum(0.99, (1 + t) / (10 + t))


RISING = np.minimum(0.99, (1 + np.arange(STEPS)) / (10 + np.arange(STEPS)))
FIXED = np.full(STEPS, 0.9)
CASES = {
    "ema": (optim.ema(0.9), lambda w: oracles.ema(w, FIXED, START)),
    "ema debiased": (optim.ema(0.9, debias=True), lambda w: oracles.ema(w, FIXED)),
    "ema rising": (optim.ema(rising), lambda w: oracles.ema(w, RISING, START)),
    "ema rising debiased": (optim.ema(rising, debias=True), lambda w: oracles.ema(w, RISING)),
    "polyak": (optim.polyak(), lambda w: oracles.swa(w, 0)),
    "polyak late": (optim.polyak(start=17), lambda w: oracles.swa(w, 17)),
    "swa": (optim.swa(start=20, every=7), lambda w: oracles.swa(w, 20, 7)),
}
each_case = pytest.mark.parametrize("average, oracle", CASES.values(), ids=CASES)


@each_case
def test_equals_numpy(x64, average, oracle):
    iterates, found = averages(momentum_then(average))
    expected = oracle(iterates)
    close(found, expected)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-14)


@each_case
def test_float32_steps(average, oracle):
    """Every average in float32, each from float64's own state."""
    updates = np.random.default_rng(0).normal(size=(STEPS, START.size))

    def step(state, updates):
        new = average.update(updates, state, jnp.asarray(START))[1]
        return new, (state, new.average)

    with _compat.enable_x64(True):
        state = average.init(jnp.asarray(START))
        states, wide = jax.device_get(jax.lax.scan(step, state, jnp.asarray(updates))[1])
    start, *narrow = jax.tree.map(
        lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, (START, updates, states)
    )
    _, thin = jax.vmap(lambda u, s: average.update(u, s, start))(*narrow)
    # Rounding params, updates and average, their sum, its distance to the average, the sum: six
    # roundings of numbers up to |params| + |updates|. The weight is off by another six of itself,
    # since 1 - decay and the sum of weights are of decays rounded by 2^-24; the distance is at most
    # twice as large.
    largest = np.abs(START).max() + np.abs(updates).max()
    assert np.abs(thin.average - wide).max() <= 18 * 2.0**-24 * largest


@pytest.mark.parametrize("debias", [False, True])
def test_a_decay_near_1_is_exact_in_float32(debias):
    """`1 - decay` is taken of the number, not of its nearest float32."""
    decay, steps = 0.99999, 2000
    tx = optim.ema(decay, debias=debias)

    def step(state, _):
        return tx.update(jnp.ones(()), state, jnp.zeros(()))[1], None  # params are 1 from then on

    state, _ = jax.lax.scan(step, tx.init(jnp.zeros(())), length=steps)
    sum_of_weights = -np.expm1(steps * np.log1p(decay - 1))
    expected = 1 if debias else sum_of_weights
    # Each step rounds the average by 2^-25 of itself, half of that on average.
    np.testing.assert_allclose(state.average, expected, rtol=steps * 2.0**-25)


def test_equals_torch(x64):
    """Its first call copies the params, which is a first decay of 0."""
    theirs = np.load(VECTORS)
    for name, average in {
        "ema": optim.ema(schedules.join([0.0, 0.9], [1])),
        "mean": optim.polyak(),
        "swa": optim.swa(start=20, every=7),
    }.items():
        iterates, found = averages(momentum_then(average))
        close(iterates, theirs["iterates"])
        first = 26 if name == "swa" else 0  # before, torch has the initial params
        close(found[first:], theirs[name][first:])


def test_equals_optax(x64):
    iterates, found = averages(momentum_then(optim.ema(0.9)))
    expected = START
    for w, average in zip(iterates, found, strict=True):
        expected = optax.incremental_update(w, expected, 0.1)
        close(average, expected)
    _, found = averages(momentum_then(optim.ema(0.9, debias=True)))
    theirs = optax.ema(0.9, debias=True)
    state = theirs.init(jnp.asarray(START))
    for w, average in zip(iterates, found, strict=True):
        with jax.numpy_dtype_promotion("standard"):
            expected, state = theirs.update(jnp.asarray(w), state)
        close(average, np.asarray(expected))


def test_swa_of_its_paper_counts_the_params_it_starts_from(x64):
    """Algorithm 1 of the paper, which starts from the params after 20 updates."""
    iterates, found = averages(momentum_then(optim.swa(start=20 - 5, every=5)))
    mean, n = iterates[19], 1
    for i in range(1, STEPS - 20 + 1):
        if i % 5 == 0:
            mean, n = (mean * n + iterates[19 + i]) / (n + 1), n + 1
        close(found[19 + i], mean)


# The lectures' numbers.


@pytest.mark.parametrize("decay, ratio", [(0.5, 0.3333), (0.9, 0.05263), (0.99, 0.005025)])
def test_the_variance_of_an_average_of_noise(x64, decay, ratio):
    """Of independent params the variance falls to the sum of the squared weights."""
    steps, tx = 4000, optim.ema(decay, debias=True)
    params = jnp.zeros(steps)

    def step(state, k):  # params that are 1 in place k: the average is the weights themselves
        return tx.update(jax.nn.one_hot(k, steps), state, params)[1], None

    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps)))(tx.init(params))
    weights = state.eval_params(params)
    # Four thousand roundings, and decay**4000 = 4e-18 of the start is missing.
    assert float((weights**2).sum()) == pytest.approx((1 - decay) / (1 + decay), rel=1e-12)
    assert float(f"{(weights**2).sum():.4g}") == ratio


@pytest.mark.fast
@pytest.mark.parametrize("decay", [0.9, 0.995, 0.9999])
@pytest.mark.parametrize("debias", [False, True])
def test_params_that_stay_are_their_own_average(decay, debias):
    """Exactly, in float32: weights of the past and of the present that sum to 1 + 1e-5 drift."""
    tx = optim.ema(decay, debias=debias)
    params = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)
    state = tx.init(params)

    def step(state, _):
        return tx.update(jnp.zeros_like(params), state, params)[1], None

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, length=1000))(state)
    np.testing.assert_array_equal(state.eval_params(params), params)


def test_the_average_goes_to_the_params_and_not_to_itself(x64):
    """The recursion with the average on both sides, a misprint, would stay where it is."""
    tx = optim.ema(0.995)
    state = tx.init(jnp.zeros(()))
    for t in range(1, 6):
        _, state = tx.update(jnp.ones(()), state, jnp.zeros(()))
        # Each of t updates has a few roundings of 1.1e-16.
        assert float(state.average) == pytest.approx(1 - 0.995**t, rel=0, abs=1e-15 * t)


@pytest.mark.fast
def test_averages_start_from_the_params_or_without_them():
    """The first update goes from 0 to 4: never a value between 0 and what was not initialized."""
    for average, first in (
        (optim.ema(0.995), 0.02),
        (optim.ema(0.995, debias=True), 4.0),
        (optim.ema(lambda count: jnp.where(count == 0, 1.0, 0.5), debias=True), 4.0),
        (optim.polyak(), 4.0),
        (optim.polyak(start=3), 4.0),
        (optim.swa(start=0, every=2), 4.0),
    ):
        w = jnp.zeros(())
        state = average.init(w)
        assert float(optim.eval_params(w, state)) == 0
        updates, state = average.update(jnp.full((), 4.0), state, w)
        assert float(updates) == 4
        assert float(optim.eval_params(w + updates, state)) == pytest.approx(first, rel=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("average", [optim.polyak(start=1), optim.ema(0.9, debias=True)])
def test_an_average_of_one_is_that_one(average):
    """Exactly, however far the first was: 1e8 + (1 - 1e8) is 0 in float32."""
    state = average.init(jnp.full((), 1e8))
    _, state = average.update(jnp.zeros(()), state, jnp.ones(()))
    assert float(state.average) == 1


# What holds for every average.


@pytest.mark.fast
@pytest.mark.parametrize("average", [case[0] for case in CASES.values()], ids=CASES)
def test_low_precision_params_are_averaged_in_float32(average):
    params = {"kernel": jnp.ones(3, jnp.bfloat16), "bias": jnp.ones((), jnp.float16), "empty": {}}
    state = average.init(params)
    updates, state = average.update(params, state, params)
    assert {x.dtype for x in jax.tree.leaves(state.average)} == {jnp.dtype(jnp.float32)}
    found = optim.eval_params(params, state)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, params)
    assert updates is params


@pytest.mark.fast
def test_the_average_is_of_the_params_as_they_are_stored():
    """1 + 2^-9 is 1 in bfloat16."""
    params = jnp.ones((), jnp.bfloat16)
    _, state = optim.polyak().update(jnp.bfloat16(2**-9), optim.polyak().init(params), params)
    assert float(state.average) == 1


@pytest.mark.fast
def test_masked_and_frozen_params_are_left_alone():
    params = {"a": jnp.zeros(2), "b": {"c": jnp.ones(3)}}
    tx = optax.chain(optax.sgd(1.0), optax.masked(optim.ema(0.5), {"a": True, "b": False}))
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(grads, tx.init(params), params)
    found = optim.eval_params(optax.apply_updates(params, updates), state)
    assert found["a"].tolist() == [-0.5, -0.5] and found["b"]["c"].tolist() == [0, 0, 0]
    # A hole where params are frozen, as `make_step` makes it.
    state = optim.ema(0.5).init({"a": params["a"], "b": {"c": None}})
    assert optim.eval_params(params, state)["b"]["c"] is params["b"]["c"]
    with pytest.raises(StateError, match="params must be the tree"):
        optim.eval_params({"a": params["a"]}, state)


@pytest.mark.fast
def test_params_and_state_may_both_be_donated():
    tx = momentum_then(optim.ema(0.5))
    params = jnp.zeros(3)
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update(jnp.ones(3), state, params)
        return optax.apply_updates(params, updates), state

    params, state = jax.jit(step, donate_argnums=(0, 1))(params, state)
    np.testing.assert_allclose(optim.eval_params(params, state), -RATE / 2, rtol=1e-6)


def test_traced_arguments_and_sweeps():
    """inject_hyperparams, and three decays and starts in one program."""
    params = jnp.zeros(())

    def two_steps(tx):
        state = tx.init(params)
        for updates in (1.0, 2.0):
            _, state = tx.update(jnp.full((), updates), state, params)
        return optim.eval_params(params, state)

    for make, values, expected in (
        (optim.ema, jnp.array([0.0, 0.5, 0.75]), [2, 1.25, 0.6875]),
        (lambda start: optim.polyak(start=start), jnp.arange(3), [1.5, 2, 2]),
        (lambda every: optim.swa(start=0, every=every), jnp.arange(1, 4), [1.5, 2, 2]),
    ):
        assert jax.vmap(lambda v, make=make: two_steps(make(v)))(values).tolist() == expected
    assert float(two_steps(optax.inject_hyperparams(optim.ema)(0.5))) == 1.25


@pytest.mark.fast
@pytest.mark.parametrize("average", [case[0] for case in CASES.values()], ids=CASES)
def test_one_program_and_one_structure(average):
    params = jnp.ones(2)
    state = average.init(params)
    update = jax.jit(average.update)
    _, after = update(params, state, params)
    with compiles() as names:
        _, later = update(params, after, params)
    assert not names
    assert jax.tree.map(jax.typeof, later) == jax.tree.map(jax.typeof, state)


@pytest.mark.fast
def test_counts_saturate():
    for average in (optim.ema(0.5), optim.polyak(), optim.swa(start=5, every=3)):
        late = jnp.int32(2**31 - 2)
        state = average.init(jnp.zeros(()))._replace(count=late)
        for _ in range(3):
            _, state = average.update(jnp.ones(()), state, jnp.zeros(()))
        assert int(state.count) == 2**31 - 1 and 0 <= float(state.average) <= 1


@pytest.mark.fast
def test_nothing_may_follow_an_average():
    sgd = optim.sgd(0.1)
    params = {"a": (jnp.zeros(1), jnp.zeros(1))}
    for tx in (
        sgd,
        optim.ema(0.9),
        optax.chain(sgd, optim.ema(0.9)),
        optax.chain(optax.clip(1.0), optax.chain(sgd, optim.polyak())),
        optax.inject_hyperparams(lambda d: optax.chain(sgd, optim.ema(d)))(0.5),
        optax.masked(optax.chain(sgd, optim.ema(0.9)), {"a": (True, False)}),
    ):
        check_averages_stand_last(jax.eval_shape(tx.init, params))
    for tx in (
        optax.chain(optim.ema(0.9), sgd),
        optax.chain(optax.masked(optim.swa(start=0, every=2), {"a": (True, False)}), sgd),
        optax.chain(optax.chain(sgd, optim.polyak()), optax.clip(1.0)),
        optax.chain(optax.chain(optim.polyak(), sgd), optim.polyak()),
        optax.inject_hyperparams(lambda d: optax.chain(optim.ema(d), sgd))(0.5),
    ):
        with pytest.raises(ConfigError, match="chain: ema, polyak or swa must be the last .* 1 of"):
            check_averages_stand_last(jax.eval_shape(tx.init, params))


@pytest.mark.fast
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: optim.ema(1.0), r"ema: decay must be a number in \[0, 1\), got 1.0"),
        (lambda: optim.ema(-0.1), "ema: decay must be"),
        (lambda: optim.ema(0.9, debias=1), "ema: debias must be one of"),
        (lambda: optim.polyak(start=-1), "polyak: start must be an int >= 0, got -1"),
        (lambda: optim.swa(start=-1, every=1), "swa: start must be"),
        (lambda: optim.swa(start=0, every=0), "swa: every must be an int >= 1"),
        (
            lambda: optim.ema(0.9).update(jnp.ones(()), optim.ema(0.9).init(jnp.ones(()))),
            r"ema: params must be given to update, got None; call update\(updates, state, params\)",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
