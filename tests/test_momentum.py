"""Gradient descent and momentum against NumPy, optax and the lectures' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import (
    STREAM,
    close,
    equals_numpy,
    float32_steps_equal_float64,
    joined,
    one_weight,
    split,
    train,
)

from jaxtrain import optim, schedules

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
CASES = [("sgd", optim.sgd, {}, {"mu": 0.0}, 5e-4)]
for name, ours in MOMENTUM.items():
    rate = 5e-3 if ours.get("form") == "ema" or ours.get("dampening") == 0.9 else 5e-4
    CASES += [(name, optim.momentum, ours, ours, rate)]
each_case = pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@each_case
def test_equals_numpy(x64, case, changing):
    _, make, ours, theirs, rate = case
    equals_numpy(make, ours, oracles.momentum, theirs, rate, changing=changing)


@each_case
def test_float32_steps(x64, case):
    _, make, ours, _, rate = case
    float32_steps_equal_float64(make(rate, **ours))


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
    ],
    ids=["sgd", "momentum", "nesterov", "ema", "velocity"],
)
def test_equals_optax(x64, ours, theirs):
    with jax.numpy_dtype_promotion("standard"):  # optax raises 0.9 to an int32 count
        expected, _ = train(theirs)
    close(train(ours)[0], expected)


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
