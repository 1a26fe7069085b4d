"""Adam and its kin against NumPy, optax and the lectures' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import close, equals_numpy, float32_steps_equal_float64, one_weight, train

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError

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
CASES = [
    (name, optim.adam, ours, oracles.adam, theirs, 0.05) for name, (ours, theirs) in ADAM.items()
]
CASES += [
    ("adamw", optim.adamw, {"weight_decay": 0.5, "rule": "*"}, oracles.adam, {"decay": 0.5}, 0.05),
    ("adamax", optim.adamax, {"eps": 0.1}, oracles.adamax, {"eps": 0.1}, 0.05),
    (
        "adamax eps outside",
        optim.adamax,
        {"eps": 0.1, "eps_in_max": False},
        oracles.adamax,
        {"eps": 0.1, "place": "outside"},
        0.05,
    ),
    ("nadam", optim.nadam, {}, oracles.nadam, {}, 0.05),
]
CASES += [
    (f"nadam {decay}", optim.nadam, {"momentum_decay": decay}, oracles.nadam, {"psi": decay}, 0.05)
    for decay in (None, 1.0)
]
# Its first updates are the gradients' mean itself, which Rosenbrock's function bears at no rate
# above this.
CASES += [
    ("radam", optim.radam, {"eps": 0.1}, oracles.radam, {"eps": 0.1}, 2e-4),
    (
        "radam eps outside",
        optim.radam,
        {"eps": 0.1, "eps_mode": "outside"},
        oracles.radam,
        {"eps": 0.1, "place": "outside"},
        2e-4,
    ),
    ("radam 4", optim.radam, {"threshold": 4}, oracles.radam, {"threshold": 4}, 2e-4),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@each_case
def test_equals_numpy(x64, case, changing):
    _, make, ours, oracle, theirs, rate = case
    equals_numpy(make, ours, oracle, theirs, rate, changing=changing)


@each_case
def test_float32_steps(x64, case):
    _, make, ours, _, _, rate = case
    # A mean m of gradients g is off by roundings of g, and g is up to 1 / (1 - b2)**0.5 = 32 times
    # the root that divides it.
    float32_steps_equal_float64(make(rate, **ours), roundings=60)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (optim.adam(0.05), optax.adam(0.05)),
        (
            optim.adam(0.05, eps=0.1, eps_mode="inside"),
            optax.adam(0.05, eps=0.0, eps_root=0.1),
        ),
        (optim.adam(0.05, amsgrad="corrected"), optax.amsgrad(0.05)),
        (
            optim.adamw(0.05, weight_decay=1e-4, rule="*"),
            optax.adamw(0.05, weight_decay=1e-4),
        ),
        (optim.adamax(0.05, eps=0.1), optax.adamax(0.05, eps=0.1)),
        (optim.nadam(0.05, momentum_decay=None), optax.nadam(0.05)),
        (optim.radam(2e-4, eps=0.1, eps_mode="outside"), optax.radam(2e-4, eps=0.1)),
    ],
    ids=["adam", "inside", "amsgrad", "adamw", "adamax", "nadam", "radam"],
)
def test_equals_optax(x64, ours, theirs):
    with jax.numpy_dtype_promotion("standard"):  # optax raises b1 to an int32 count
        expected, _ = train(theirs)
    close(train(ours)[0], expected)


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


@pytest.mark.fast
def test_adamw_decays_kernels_only_and_whatever_their_gradients():
    params = {"kernel": jnp.array([2.0, 2.0]), "bias": jnp.array([2.0, 2.0])}
    tx = optim.adamw(0.1, weight_decay=0.5)
    grads = jax.tree.map(lambda p: jnp.array([100.0, 1e-3]), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.5 * 2), rtol=1e-4)
    np.testing.assert_allclose(updates["bias"], -0.1, rtol=1e-4)


def test_adamw_with_the_papers_scheduling(x64):
    """The paper's decay is eta_t * lambda, beside steps of eta_t * alpha."""
    alpha, decay, eta = 0.05, 0.01, schedules.cosine(1.0, steps=50)
    ours = optim.adamw(lambda k: alpha * eta(k), weight_decay=decay / alpha, rule="*")
    theirs = optax.chain(
        optim.scale_by_adam(),
        optax.scale(alpha),
        optim.weight_decay(decay, rule="*"),
        optim.scale_by_learning_rate(eta),
    )
    close(train(ours)[0], train(theirs)[0])


@pytest.mark.fast
@pytest.mark.parametrize("b2", [0.0, 0.5, 0.999, 0.9999])
def test_radam_knows_the_length_of_its_mean_in_float32(b2):
    t = np.arange(1, 201)
    expected = 2 / (1 - b2) - 1 - 2 * t * b2**t / (1 - b2**t)
    tx = optim.scale_by_radam(b2=b2)
    step = lambda state, _: (tx.update(jnp.zeros(()), state)[1],) * 2  # noqa: E731
    _, states = jax.lax.scan(step, tx.init(jnp.zeros(())), None, length=200)
    # About 6 roundings of 6e-8 in each of the factors, whose errors mostly cancel from step to
    # step; formed as the difference that defines it, the first length loses three digits.
    np.testing.assert_allclose(states.rho, expected, rtol=5e-6)


@pytest.mark.fast
def test_radam_starts_with_the_mean_and_ends_as_adam(x64):
    gradients = [1.0, 0.5, -0.25]
    radam, _ = one_weight(optim.radam(0.1), gradients)
    mean, _ = one_weight(optim.momentum(0.1, form="ema", debias=True), gradients)
    np.testing.assert_allclose(radam, mean, rtol=1e-14)
    tx, g = optim.scale_by_radam(), jnp.ones(())
    late = tx.init(g)._replace(count=jnp.int32(10**6), rho=jnp.asarray(1999.0), m=g, v=g)
    assert float(tx.update(g, late)[0]) == pytest.approx(1, rel=1e-7)


@pytest.mark.fast
@pytest.mark.parametrize("make", [optim.adam, optim.adamw, optim.adamax, optim.nadam, optim.radam])
def test_eps_may_be_zero(make):
    tx, params = make(0.1, eps=0.0), jnp.zeros(2)
    for g in (jnp.zeros(2), jnp.array([0.0, 1.0])):
        updates, _ = tx.update(g, tx.init(params), params)
        assert np.isfinite(updates).all() and updates[0] == 0


BAD = [
    (optim.adamw, {"weight_decay": -1}, "adamw: weight_decay must be a finite number >= 0"),
    (optim.adamw, {"b1": 1}, "b1 must be a number in \\[0, 1\\), got 1"),
    (optim.adamax, {"b2": 1}, "b2 must be"),
    (optim.adamax, {"eps_in_max": 0}, "eps_in_max must be one of"),
    (optim.nadam, {"eps": -1}, "eps must be"),
    (optim.nadam, {"momentum_decay": -1}, "momentum_decay must be"),
    (optim.radam, {"b1": -0.1}, "b1 must be"),
    (optim.radam, {"threshold": 3}, "threshold must be a finite number >= 4, got 3"),
    (optim.radam, {"eps_mode": "inside"}, "eps_mode must be one of"),
]


@pytest.mark.fast
@pytest.mark.parametrize("make, arguments, message", BAD)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(**{"learning_rate": 0.1, **arguments})
