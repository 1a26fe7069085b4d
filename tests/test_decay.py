"""Weight decay, L2 and soft thresholds against NumPy, optax and each other."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import STREAM, close, equals_numpy, float32_steps_equal_float64, train

from jaxtrain import optim, schedules, tree
from jaxtrain.errors import ConfigError

NETS = np.repeat([0.0, 1.0, 0.0], [3, 2, 4])  # "nets/0", the only leaf that `kernels` chooses


def sgd_decay(lr, **options):
    return optax.chain(optim.weight_decay(**options), optim.sgd(lr))


def adam_decay(lr, **options):
    rate = optim.scale_by_learning_rate(lr)
    return optax.chain(optim.scale_by_adam(), optim.weight_decay(**options), rate)


def sgd_l2(lr, strength, **options):
    return optax.chain(optim.l2(strength, **options), optim.sgd(lr))


def adam_l2(lr, strength, **options):
    return optax.chain(optim.l2(strength, **options), optim.adam(lr))


def sgd_l1(lr, **options):
    return optim.proximal_l1(optim.sgd(lr), **options)


def adam_l1(lr, **options):
    return optim.proximal_l1(optim.adam(lr), **options)


SGD = {"b1": None}
ALL = {"rule": "*"}
FALLING = schedules.step_decay(0.5, every=30, factor=0.1)
CASES = [
    ("decay of sgd", sgd_decay, {"decay": 0.5, **ALL}, {"decays": [0.5] * 60, **SGD}, 5e-4),
    ("decay of adam", adam_decay, {"decay": 0.5, **ALL}, {"decays": [0.5] * 60}, 0.05),
    ("decay of kernels", adam_decay, {"decay": 0.5}, {"decays": [0.5] * 60, "chosen": NETS}, 0.05),
    (
        "falling decay",
        adam_decay,
        {"decay": FALLING, **ALL},
        {"decays": [0.5] * 30 + [0.05] * 30},
        0.05,
    ),
    ("l2 of sgd", sgd_l2, {"strength": 0.5, **ALL}, {"l2": 0.5, **SGD}, 5e-4),
    ("l2 of adam", adam_l2, {"strength": 0.5, **ALL}, {"l2": 0.5}, 0.05),
    ("l2 sum", adam_l2, {"strength": 0.5, "scale": "sum", **ALL}, {"l2": 1.0}, 0.05),
    ("l2 of kernels", adam_l2, {"strength": 0.5}, {"l2": 0.5, "chosen": NETS}, 0.05),
    ("l1 of sgd", sgd_l1, {"strength": 2.0, **ALL}, {"l1": 2.0, **SGD}, 5e-4),
    ("l1 of adam", adam_l1, {"strength": 0.5, **ALL}, {"l1": 0.5}, 0.05),
    ("l1 of kernels", adam_l1, {"strength": 0.5}, {"l1": 0.5, "chosen": NETS}, 0.05),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@each_case
def test_equals_numpy(x64, case, changing):
    _, make, ours, theirs, rate = case
    equals_numpy(make, ours, oracles.penalized_adam, theirs, rate, changing=changing)


@each_case
def test_float32_steps(x64, case):
    _, make, ours, _, rate = case
    # As many as for Adam itself, see test_adam.py.
    float32_steps_equal_float64(make(rate, **ours), roundings=60)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (adam_decay(0.05, decay=0.5, rule="*"), optax.adamw(0.05, weight_decay=0.5)),
        (
            adam_l2(0.05, 0.5, rule="*"),
            optax.chain(optax.add_decayed_weights(0.5), optax.adam(0.05)),
        ),
    ],
    ids=["adamw", "l2"],
)
def test_equals_optax(x64, ours, theirs):
    with jax.numpy_dtype_promotion("standard"):  # optax raises b1 to an int32 count
        expected, _ = train(theirs)
    close(train(ours)[0], expected)


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@pytest.mark.parametrize(
    "name, make, rate",
    [
        ("l2", lambda lr: optax.chain(optim.l2(0.5, rule="*"), optim.momentum(lr)), 5e-4),
        ("adam l2", lambda lr: adam_l2(lr, 0.5, rule="*"), 0.05),
        ("adamw", lambda lr: adam_decay(lr, decay=0.5, rule="*"), 0.05),
    ],
)
def test_equals_torch(x64, name, make, rate, changing):
    vectors = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_optimizers.npz")
    schedule = schedules.step_decay(rate, every=20, factor=0.1) if changing else rate
    close(train(make(schedule))[0], vectors[f"{name}, {'changing' if changing else 'constant'}"])


def test_l2_is_decay_for_gradient_descent_only(x64):
    close(train(sgd_l2(5e-4, 0.5))[0], train(sgd_decay(5e-4, decay=0.5))[0])
    for k in (0, -1):
        apart = train(adam_l2(0.05, 0.5))[0][k] - train(adam_decay(0.05, decay=0.5))[0][k]
        assert np.abs(apart).max() > 1e-3


@pytest.mark.fast
def test_l2_is_the_gradient_of_its_penalty(x64):
    w = {"dense0": {"kernel": jnp.asarray(STREAM[:3]), "bias": jnp.ones(4)}}
    penalties = {
        "half": lambda w: 0.3 / 2 * (w["dense0"]["kernel"] ** 2).sum(),
        "sum": lambda w: 0.3 * (w["dense0"]["kernel"] ** 2).sum(),
    }
    for scale, penalty in penalties.items():
        tx = optim.l2(0.3, scale=scale)
        added, _ = tx.update(jax.tree.map(jnp.zeros_like, w), tx.init(w), w)
        # Three roundings.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=4e-16), added, jax.grad(penalty)(w)
        )


@pytest.mark.fast
def test_kernels():
    chosen = ["kernel", "a/kernel", "embedding", "a/0/weight", "linear/w", "", "0", "a/1"]
    chosen += ["linear/kernel/value"]  # as in flax nnx
    rest = ["bias", "a/scale", "kernel/bias", "norm/value", "kernels", "w/b"]
    assert all(optim.kernels(path, None) for path in chosen)
    assert not any(optim.kernels(path, None) for path in rest)


@pytest.mark.fast
@pytest.mark.parametrize(
    "make, name",
    [
        (optim.weight_decay, "weight_decay"),
        (optim.l2, "l2"),
        (lambda s, **rule: optim.proximal_l1(optim.sgd(0.1), s, **rule), "proximal_l1"),
    ],
    ids=["weight_decay", "l2", "proximal_l1"],
)
def test_bad_arguments(make, name):
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="must be a finite number >= 0, got"):
            make(bad)
    for rule in (None, lambda path, leaf: False):
        with pytest.raises(ConfigError, match=f"{name}: rule must be .*; pass rule='.'"):
            make(0.1, rule=rule).init({"bias": jnp.ones(2)})
    with pytest.raises(ConfigError, match="did you mean 'bias'"):
        make(0.1, rule="*bia").init({"bias": jnp.ones(2)})
    make(0.1).init({})
    params = {"kernel": jnp.ones(2)}
    with pytest.raises(ConfigError, match=f"{name}: params must be given to update"):
        make(0.1).update(params, make(0.1).init(params))


@pytest.mark.fast
def test_one_state_for_every_kind_of_decay():
    params, seen = {"kernel": jnp.ones(2)}, []

    def look(decay):
        tx = optim.weight_decay(decay)
        seen.append(jax.tree.map(jax.typeof, tx.update(params, tx.init(params), params)))

    look(0.1)
    look(schedules.constant(0.1))
    jax.jit(look)(0.1)
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2]


def test_inside_optax():
    """Under inject_hyperparams, masked and vmap over the strength: the same numbers."""
    params = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.cos, params)

    def one(tx):
        return tx.update(grads, tx.init(params), params)[0]

    expected = one(optim.weight_decay(0.5))
    np.testing.assert_array_equal(expected["bias"], grads["bias"])
    mask = {"kernel": True, "bias": False}
    for found in (
        one(optax.inject_hyperparams(optim.weight_decay)(0.5)),
        jax.jit(lambda c: one(optax.inject_hyperparams(optim.weight_decay)(c)))(0.5),
        one(optax.masked(optim.weight_decay(0.5, rule="*"), mask)),
        jax.tree.map(lambda x: x[1], jax.vmap(lambda c: one(optim.l2(c)))(jnp.array([0.1, 0.5]))),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-7), found, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_proximal_l1_makes_exact_zeros(dtype):
    """Lasso with 3 of 20 true weights: the others become 0 and stay so; by L2 none does."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 20))
    y = x[:, :3] @ [1.0, -2.0, 3.0] + 0.1 * rng.normal(size=100)

    def run(tx):
        def step(carry, _):
            w, state = carry
            residual = jnp.asarray(x, jnp.float32) @ w.astype(jnp.float32) - jnp.float32(y)
            g = jnp.asarray(x.T, jnp.float32) @ residual / 100
            updates, state = tx.update(g.astype(dtype), state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), w == 0

        w = jnp.asarray(rng.normal(size=20), dtype)
        (w, _), zero = jax.jit(
            lambda w: jax.lax.scan(step, (w, tx.init(w)), length=200),
        )(w)
        return np.asarray(w, np.float32), np.asarray(zero)

    w, zero = run(optim.proximal_l1(optim.sgd(0.1), 0.3))
    # The thresholds of the true weights are unmoved by correlations of 0.1 between columns.
    assert (w[3:] == 0).all() and (np.abs(w[:3]) > 0.5).all()
    assert zero[-50:, 3:].all()
    assert (run(optax.chain(optim.l2(0.3), optim.sgd(0.1)))[0] != 0).all()


@pytest.mark.fast
def test_proximal_l1_threshold_is_the_rate_of_this_update():
    schedule = schedules.join([0.5, 0.25], [1])
    tx = optim.proximal_l1(optax.chain(optim.sgd(schedule), optim.reduce_on_plateau()), 1.0)
    w, zero = jnp.array([4.0]), jnp.zeros(1)
    state = tx.init(w)
    for expected in (3.5, 3.25):
        updates, state = tx.update(zero, state, w)
        w = optax.apply_updates(w, updates)
        assert w == expected
    assert optim.learning_rate(state) == 0.25


def test_rules_take_whole_trees():
    params = {"head": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}, "body": {"kernel": jnp.ones(1)}}
    for rule in ("head/*", ("head/kernel", "*/bias"), lambda path, leaf: path.startswith("head")):
        tx = optim.weight_decay(1.0, rule=rule)
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(zero, tx.init(params), params)
        assert tree.select(lambda path, u: u[0] == 1, updates) == tree.select("head/*", params)
