"""Adam and its kin against NumPy, optax and the lectures' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import close, equals_numpy, float32_steps_equal_float64, one_weight, train

from jaxtrain import optim

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
    ],
    ids=["adam", "inside", "amsgrad"],
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
