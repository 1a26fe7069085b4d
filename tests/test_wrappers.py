"""freeze, lr_multipliers, guard and accumulate: the optimizer inside makes the same updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import STEPS, close, equals_numpy, gradient, train

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError

PARAMS = {"body": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "head": {"bias": jnp.ones(1)}}
GRADS = jax.tree.map(jnp.cos, PARAMS)
EVERY = pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optim.freeze(tx, "body/bias"),
        optim.guard,
        lambda tx: optim.accumulate(tx, 2),
        lambda tx: optim.proximal_l1(tx, 0.1),
    ],
    ids=["freeze", "guard", "accumulate", "proximal_l1"],
)


def one(tx, params=PARAMS, grads=GRADS):
    return tx.update(grads, tx.init(params), params)[0]


@EVERY
def test_reads_through(wrap):
    """The rate, the look-ahead point, the point to evaluate at and extra arguments get through."""

    def needs_value(updates, state, params=None, *, value, **extra):
        return updates, state

    schedule = schedules.join([0.5, 0.25], [1])
    extra = optax.GradientTransformationExtraArgs(lambda params: (), needs_value)
    for nesterov, function in (("lookahead", optim.grad_params), ("shifted", optim.eval_params)):
        tx = wrap(optax.chain(extra, optim.momentum(schedule, nesterov=nesterov)))
        state = tx.init(PARAMS)
        assert optim.learning_rate(state) == 0.5
        for _ in range(2):
            _, state = jax.jit(tx.update)(GRADS, state, PARAMS, value=1.0, other=2.0)
        # accumulate has made one update, the others two.
        assert optim.learning_rate(state) == (0.5 if hasattr(state, "total") else 0.25)
        moved = function(PARAMS, state)
        assert (moved["body"]["kernel"] != 1).all() and moved["body"]["kernel"].shape == (2, 2)


@EVERY
def test_keeps_structure_and_dtype(wrap):
    tx = wrap(optim.adam(0.1))
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    state = tx.init(params)
    updates, after = tx.update(params, state, params)
    assert jax.tree.map(jax.typeof, updates) == jax.tree.map(jax.typeof, params)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)


def test_freeze():
    for rule in ("*bias", ("body/bias", "head/*"), lambda path, leaf: leaf.ndim == 1):
        tx = optim.freeze(optim.adam(0.1), rule)
        state = tx.init(PARAMS)
        updates, state = tx.update(GRADS, state, PARAMS)
        expected = one(optim.adam(0.1))
        np.testing.assert_array_equal(updates["body"]["kernel"], expected["body"]["kernel"])
        assert not updates["body"]["bias"].any() and not updates["head"]["bias"].any()
        shapes = [x.shape for x in jax.tree.leaves(state) if x.ndim]
        assert shapes == [(2, 2), (2, 2)]  # m and v
        assert optim.grad_params(PARAMS, state) is PARAMS
    # Not even a NaN of theirs gets through.
    bad = {**GRADS, "head": {"bias": jnp.array([jnp.nan])}}
    assert not one(optim.freeze(optim.adam(0.1), "head/*"), grads=bad)["head"]["bias"].any()
    with pytest.raises(ConfigError, match="did you mean 'head/bias'"):
        optim.freeze(optim.adam(0.1), "heads/bias").init(PARAMS)


FACTORS = {"quadratic": 0.5, ("nets/1*", "*/stream"): 4.0}
FACTOR = np.repeat([0.5, 1.0, 4.0], [3, 2, 4])


@pytest.mark.parametrize("before", [False, True])
def test_lr_multipliers_equal_numpy(x64, before):
    """After any optimizer, or before one that is linear in the gradients."""

    def make(lr):
        tx = [optim.momentum(lr, nesterov="lookahead"), optim.lr_multipliers(FACTORS)]
        return optax.chain(*(tx[::-1] if before else tx))

    def oracle(gradient, w, rates):
        # With the factors after it, the look-ahead does not know of them.
        iterates, b = [], 0 * w
        for k, lr in enumerate(rates):
            at = w - lr * 0.9 * b * (FACTOR if before else 1)
            b = 0.9 * b + gradient(k, at)
            w = w - lr * FACTOR * b
            iterates.append(w)
        return np.stack(iterates)

    equals_numpy(make, {}, oracle, {}, 5e-4, changing=False)


@pytest.mark.fast
def test_lr_multipliers():
    tx = optim.lr_multipliers({"head/*": 10.0, "*/bias": 2.0, lambda path, leaf: leaf.ndim == 2: 0})
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates = one(tx, grads=ones)
    assert jax.tree.map(lambda u: float(u.ravel()[0]), updates) == {
        "body": {"kernel": 0, "bias": 2},
        "head": {"bias": 10},
    }
    traced = jax.jit(jax.vmap(lambda f: one(optim.lr_multipliers({"head/*": f}))))(jnp.arange(3.0))
    np.testing.assert_allclose(traced["head"]["bias"][:, 0], np.arange(3) * np.cos(1), rtol=1e-6)
    with pytest.raises(ConfigError, match="got 'haed/bias'; did you mean 'head/bias'"):
        optim.lr_multipliers({"haed/bias": 1.0}).init(PARAMS)
    with pytest.raises(ConfigError, match="lr_multipliers: multipliers must be a finite number"):
        optim.lr_multipliers({"*": -1.0})


def test_guard_skips_what_is_not_finite(x64):
    """With NaN in some gradients the run is the run without these updates."""
    bad = np.isin(np.arange(STEPS), [0, 7, 8, 30])
    real = np.cumsum(~bad) - 1

    def poisoned(k, w, xp):
        g = gradient(jnp.asarray(real)[k], w, xp)
        return g.at[k % 9].set(jnp.where(jnp.asarray(bad)[k], jnp.nan, g[k % 9]))

    schedule = schedules.cosine(0.05, steps=60)
    iterates, state = train(optim.guard(optim.adam(schedule)), gradient=poisoned)
    rates = [float(schedule(k)) for k in range(STEPS - 4)]
    expected = oracles.adam(gradient, iterates[0], rates)
    close(iterates[~bad], expected)
    assert (iterates[8] == iterates[6]).all()
    assert (int(state.skipped), int(state.in_a_row), int(state.inner[1].count)) == (4, 0, 56)


@pytest.mark.fast
def test_guard_counts_and_sees_all():
    tx = optim.guard(optim.adam(0.1))
    state = tx.init(PARAMS)
    bad = {**GRADS, "head": {"bias": jnp.array([jnp.inf])}}
    huge = {**GRADS, "head": {"bias": jnp.array([1e30])}}  # its square is infinite
    seen = []
    for grads in (bad, huge, GRADS, bad):
        before = state
        updates, state = tx.update(grads, state, PARAMS)
        seen.append((int(state.skipped), int(state.in_a_row)))
        moved = any(u.any() for u in jax.tree.leaves(updates))
        assert moved == (grads is GRADS)
        if not moved:
            jax.tree.map(np.testing.assert_array_equal, state.inner, before.inner)
    assert seen == [(1, 1), (2, 2), (2, 0), (3, 1)]


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
def test_accumulate_equals_numpy(x64, changing):
    """Sixty calls in fours are fifteen updates with the means of the gradients."""
    rate = schedules.cosine(0.05, steps=15) if changing else 0.05
    iterates, state = train(optim.accumulate(optim.adam(rate), 4))
    rates = [float(rate(k)) if changing else rate for k in range(15)]

    def mean(k, w):
        return np.mean([gradient(4 * k + j, w) for j in range(4)], axis=0)

    close(iterates[3::4], oracles.adam(mean, iterates[0], rates))
    for j in range(3):
        np.testing.assert_array_equal(iterates[4 + j :: 4], iterates[3 + j : -1 : 4])
    assert int(state.count) == 0 and int(state.inner[1].count) == 15


def test_accumulate_in_low_precision_and_by_parts():
    """The sum is float32; the mean is that of one step over all examples."""
    tx = optim.accumulate(optim.sgd(1.0), 256)
    g = jnp.full(3, 1.0 + 2**-7, jnp.bfloat16)
    state, update = tx.init(g), jax.jit(tx.update)
    for _ in range(256):
        updates, state = update(g, state, g)
    np.testing.assert_array_equal(updates.astype(jnp.float32), -g.astype(jnp.float32))
    assert not state.total.any()

    single = optim.accumulate(optim.momentum(0.1), 1)
    jax.tree.map(np.testing.assert_array_equal, one(single), one(optim.momentum(0.1)))


@pytest.mark.fast
@pytest.mark.parametrize("steps", [0, -1])
def test_bad_steps(steps):
    with pytest.raises(ConfigError, match="accumulate: steps must be an int >= 1"):
        optim.accumulate(optim.sgd(0.1), steps)
    with pytest.raises(TypeError, match="accumulate: steps must be an int >= 1"):
        optim.accumulate(optim.sgd(0.1), 2.0)


def test_vmap_over_runs():
    """Some runs skip, some wait, in one program."""
    tx = optim.guard(optim.accumulate(optim.sgd(0.5), 2))
    w = jnp.zeros((2, 3))
    state = jax.vmap(tx.init)(w)
    update = jax.jit(jax.vmap(tx.update))
    grads = jnp.ones((2, 3)).at[1, 0].set(jnp.nan)
    _, state = update(grads, state, w)
    updates, state = update(jnp.ones((2, 3)), state, w)
    np.testing.assert_array_equal(updates, [[-0.5] * 3, [0] * 3])
    updates, state = update(jnp.ones((2, 3)), state, w)
    np.testing.assert_array_equal(updates, [[0] * 3, [-0.5] * 3])
    np.testing.assert_array_equal(state.skipped, [0, 1])
