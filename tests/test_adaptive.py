"""AdaGrad, RMSProp and Adadelta against NumPy, optax and the lectures' numbers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import close, equals_numpy, float32_steps_equal_float64, one_weight, train

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError

ADAGRAD = {
    "adagrad": ({}, {}),
    "adagrad inside": ({"eps": 0.1, "eps_in_sqrt": True}, {"eps": 0.1, "inside": True}),
    "adagrad accumulator": ({"eps": 0.1, "initial_accumulator": 0.1}, {"eps": 0.1, "start": 0.1}),
    "adagrad decay": ({"lr_decay": 0.1}, {"lr_decay": 0.1}),
}
RMSPROP = {
    "rmsprop": ({"eps": 0.1}, {"eps": 0.1}),
    "rmsprop inside": ({"eps": 0.1, "eps_in_sqrt": True}, {"eps": 0.1, "inside": True}),
    "rmsprop scale": ({"initial_scale": 1.0}, {"start": 1.0}),
    "rmsprop centered": ({"centered": True}, {"centered": True}),
    "rmsprop corrected": ({"bias_correction": True}, {"correct": True}),
    "rmsprop outside": ({"momentum": 0.9}, {"mu": 0.9}),
    "rmsprop within": ({"momentum": 0.9, "form": "velocity"}, {"mu": 0.9, "form": "velocity"}),
    "rmsprop shifted": (
        {"momentum": 0.9, "form": "velocity", "nesterov": "shifted"},
        {"mu": 0.9, "form": "velocity", "nesterov": "shifted"},
    ),
}
GOODFELLOW = {"mu": 0.9, "form": "velocity", "nesterov": "lookahead"}
CASES = [(name, optim.adagrad, a, oracles.adagrad, b, 0.05) for name, (a, b) in ADAGRAD.items()]
CASES += [(name, optim.rmsprop, a, oracles.rmsprop, b, 0.01) for name, (a, b) in RMSPROP.items()]
CASES += [
    ("rmsprop_nesterov", optim.rmsprop_nesterov, {}, oracles.rmsprop, GOODFELLOW, 0.01),
    ("adadelta", optim.adadelta, {}, oracles.adadelta, {}, 1.0),
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
    float32_steps_equal_float64(make(rate, **ours))


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (
            optim.adagrad(0.05, eps=0.1, eps_in_sqrt=True, initial_accumulator=0.1),
            optax.adagrad(0.05, eps=0.1),
        ),
        (
            optim.rmsprop(0.01, eps=0.1, eps_in_sqrt=True, initial_scale=1.0),
            optax.rmsprop(0.01, eps=0.1, initial_scale=1.0),
        ),
        (
            optim.rmsprop(0.01, eps=0.1, bias_correction=True),
            optax.rmsprop(0.01, eps=0.1, eps_in_sqrt=False, bias_correction=True),
        ),
        (
            optim.rmsprop(0.01, eps=0.1, eps_in_sqrt=True, centered=True),
            optax.rmsprop(0.01, eps=0.1, centered=True),
        ),
        (
            optim.rmsprop(
                schedules.step_decay(0.01, every=20, factor=0.1),
                eps=0.1,
                eps_in_sqrt=True,
                momentum=0.9,
                form="velocity",
                nesterov="shifted",
            ),
            optax.rmsprop(
                schedules.step_decay(0.01, every=20, factor=0.1),
                eps=0.1,
                momentum=0.9,
                nesterov=True,
            ),
        ),
        (optim.adadelta(1.0), optax.adadelta(1.0)),
    ],
    ids=["adagrad", "rmsprop", "corrected", "centered", "momentum", "adadelta"],
)
def test_equals_optax(x64, ours, theirs):
    with jax.numpy_dtype_promotion("standard"):  # optax raises 0.9 to an int32 count
        expected, _ = train(theirs)
    close(train(ours)[0], expected)


@pytest.mark.fast
def test_adagrad_steps_fall_as_the_root_of_time(x64):
    tx = optim.scale_by_adagrad(eps=0.0)
    for t, step in ((1, 1.0), (100, 0.1), (10_000, 0.01)):
        state = optim.AdaGradState(jnp.asarray(t - 1.0))
        assert float(tx.update(jnp.ones(()), state)[0]) == pytest.approx(step, rel=1e-15)


@pytest.mark.fast
def test_the_place_of_eps_tells_on_tiny_gradients(x64):
    outside, _ = one_weight(optim.adagrad(1.0, eps=1e-7), [1e-6])
    inside, _ = one_weight(optim.adagrad(1.0, eps=1e-7, eps_in_sqrt=True), [1e-6])
    assert round(-outside[0], 3) == 0.909
    assert round(-inside[0], 5) == 0.00316


def test_rmsprop_with_nesterov_on_a_constant_gradient(x64):
    ours, _ = one_weight(optim.rmsprop_nesterov(0.01), [1] * 3)
    shifted = optim.rmsprop(0.01, momentum=0.9, form="velocity", nesterov="shifted")
    optax_s, _ = one_weight(shifted, [1] * 3)
    # eps of 1e-8 moves the steps by 1e-8 of themselves.
    np.testing.assert_allclose(ours, [-0.03162, -0.08302, -0.14850], atol=5e-6)
    np.testing.assert_allclose(optax_s, [-0.06008, -0.12929, -0.20742], atol=5e-6)


@pytest.mark.fast
def test_the_gradient_of_rmsprop_nesterov_is_taken_ahead(x64):
    tx = optim.rmsprop_nesterov(0.01, momentum=0.5)
    positions, state = one_weight(tx, [1])
    ahead = optim.grad_params(jnp.asarray(positions[0]), state)
    assert float(ahead) == pytest.approx(1.5 * positions[0], rel=1e-15)


def test_hintons_gradients_do_not_carry_rmsprop_away(x64):
    positions, _ = one_weight(optim.rmsprop(0.01, decay=0.99), ([0.1] * 9 + [-0.9]) * 100)
    assert positions[-1] == pytest.approx(-0.512, abs=5e-4)


@pytest.mark.fast
@pytest.mark.parametrize("make", [optim.adagrad, optim.rmsprop, optim.adadelta])
def test_eps_may_be_zero(make):
    tx = make(0.1, eps=0.0)
    updates, _ = tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))
    assert updates.tolist() == [0, 0]


@pytest.mark.fast
def test_the_centered_variance_is_never_negative():
    # In float32 the mean of squares less the square of the mean is -6e-8 of it here, or 0.
    positions, state = one_weight(optim.rmsprop(0.1, centered=True), [0.1] * 200, dtype=jnp.float32)
    assert np.isfinite(positions).all() and float(state[0].r) > 0


@pytest.mark.fast
def test_the_decayed_rate_is_in_the_state(x64):
    tx = optim.adagrad(0.5, lr_decay=0.25)
    _, state = one_weight(tx, [1.0] * 5)
    assert float(optim.learning_rate(state)) == 0.25


@pytest.mark.parametrize(
    "make",
    [
        optim.adagrad,
        optim.rmsprop,
        optim.rmsprop_nesterov,
        optim.adadelta,
        optim.adamw,
        optim.adamax,
        optim.nadam,
        optim.radam,
        optim.rprop,
    ],
)
def test_every_number_may_be_an_array_of_another_type(x64, make):
    """As float32 arrays beside float64 params, traced, all arguments give the same update."""
    arguments = {
        name: p.default
        for name, p in inspect.signature(make).parameters.items()
        if isinstance(p.default, float)
    }
    params, g = jnp.ones(2), jnp.array([1.0, -0.5])

    def two_updates(learning_rate, arguments):
        tx = make(learning_rate, **arguments)
        first, state = tx.update(g, tx.init(params), params)
        return first + tx.update(g, state, params)[0]

    narrow = jax.tree.map(jnp.float32, arguments)
    traced = jax.jit(two_updates)(jnp.float32(0.1), narrow)
    # The arguments are rounded by 2^-24, and 1 - b2 = 1e-3 by a thousand times as much; a root.
    np.testing.assert_allclose(traced, two_updates(0.1, arguments), rtol=1000 * 2**-24)


BAD = [
    (optim.adagrad, {"learning_rate": 0}, "adagrad: learning_rate must be a finite number > 0"),
    (optim.adagrad, {"lr_decay": -1}, "lr_decay must be a finite number >= 0, got -1"),
    (optim.adagrad, {"initial_accumulator": -1}, "initial_accumulator must be"),
    (optim.adagrad, {"eps_in_sqrt": 1}, "eps_in_sqrt must be one of"),
    (optim.rmsprop, {"decay": 1}, "decay must be a number in \\[0, 1\\), got 1"),
    (optim.rmsprop, {"initial_scale": -1}, "initial_scale must be"),
    (optim.rmsprop, {"momentum": 1}, "momentum must be"),
    (optim.rmsprop, {"centered": True, "bias_correction": True}, "bias_correction must be False"),
    (optim.rmsprop, {"form": "velocity"}, "momentum must be a number where form"),
    (optim.rmsprop_nesterov, {"eps": -1}, "eps must be"),
    (optim.adadelta, {"decay": -0.1}, "decay must be"),
]


@pytest.mark.fast
@pytest.mark.parametrize("make, arguments, message", BAD)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(**{"learning_rate": 0.1, **arguments})
