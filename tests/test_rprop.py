"""Rprop in its four variants against NumPy and the lectures' numbers; what is special about it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import CURVATURE, START, STEPS, STREAM, close, gradient, joined, one_weight, train

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError

VARIANTS = ("rprop-", "rprop+", "irprop-", "irprop+")
each_variant = pytest.mark.parametrize("variant", VARIANTS)
LECTURE, HINTON = [0.1, 0.1, 0.1, -0.5], [0.1] * 9 + [-0.9]


def loss(w):
    return (CURVATURE * w[:3] ** 2).sum() / 2 + (1 - w[3]) ** 2 + 100 * (w[4] - w[3] ** 2) ** 2


def gradient_with_zeros(k, w, xp=np):
    """The tests' gradients, of which in turn one of the nine is exactly 0."""
    return xp.where(xp.arange(9, dtype=np.int32) == k % 9, 0.0, gradient(k, w, xp))


def with_loss(tx):
    """The optimizer told the loss at the params, which `train` does not pass on."""

    def update(grads, state, params):
        return tx.update(grads, state, params, value=loss(joined(params)))

    return optax.GradientTransformation(tx.init, update)


@each_variant
@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("gradient", [gradient, gradient_with_zeros], ids=["plain", "zeros"])
def test_equals_numpy(x64, variant, rate, gradient):
    iterates, _ = train(with_loss(optim.rprop(rate, variant=variant)), gradient=gradient)
    expected = oracles.rprop(gradient, START, rate, STEPS, variant, loss)
    close(iterates, expected)
    close(iterates[:2], expected[:2])


def test_the_limits_of_the_step_size(x64):
    tx = optim.rprop(0.5, eta_plus=2.0, min_step=0.25, max_step=1.5)
    positions, _ = one_weight(tx, [1, 1, 1, 1, -1, 1, -1, 1])
    steps = np.abs(np.diff(positions, prepend=0))
    assert steps.tolist() == [0.5, 1, 1.5, 1.5, 0.75, 0.375, 0.25, 0.25]


@pytest.mark.parametrize(
    "variant, end", [("rprop-", -0.0292), ("irprop-", -0.0364), ("rprop+", -0.022)]
)
def test_the_lectures_mini_batches(x64, variant, end):
    positions, _ = one_weight(optim.rprop(0.01, variant=variant), LECTURE)
    np.testing.assert_allclose(positions, [-0.01, -0.022, -0.0364, end], rtol=1e-14)
    sgd, _ = one_weight(optim.sgd(0.01), LECTURE)
    assert sgd[-1] == pytest.approx(0.002, rel=1e-14)


def test_mini_batches_whose_gradients_cancel(x64):
    """What the signs of a few examples' gradients say, where gradient descent returns to 0."""
    positions, _ = one_weight(optim.rprop(0.01), HINTON)
    assert round(positions[-1], 4) == -0.1865
    sgd, _ = one_weight(optim.sgd(0.01), HINTON)
    # Ten roundings of numbers of at most 0.009.
    assert sgd[-1] == pytest.approx(0, abs=10 * 0.009 * 2**-53)


@pytest.mark.parametrize("gradients, end", [(LECTURE, -0.0459), (HINTON, -3415.7)])
def test_a_hundred_epochs_stall_or_diverge(x64, gradients, end):
    positions, _ = one_weight(optim.rprop(0.01), gradients * 100)
    assert positions[-1] == pytest.approx(end, abs=5e-5 if end > -1 else 0.05)


@pytest.mark.fast
def test_the_first_update_moves_by_the_first_step(x64):
    for variant in VARIANTS:
        tx = with_value(optim.rprop(0.5, variant=variant), 1.0)
        assert one_weight(tx, [3.0])[0] == [-0.5]


def with_value(tx, value):
    return optax.GradientTransformation(
        tx.init, functools.partial(tx.update, value=jnp.asarray(value))
    )


@pytest.mark.fast
def test_irprop_plus_goes_back_only_if_the_loss_rose(x64):
    tx = optim.rprop(0.5, variant="irprop+")
    w, value = jnp.zeros(()), jnp.asarray(1.0)
    first, state = tx.update(jnp.ones(()), tx.init(w), w, value=value)
    for now, back in ((2.0, 0.5), (1.0, 0.0), (0.5, 0.0)):
        update, after = tx.update(-jnp.ones(()), state, w, value=jnp.asarray(now))
        assert float(first) == -0.5 and float(update) == back
        # In both cases the step size is halved and used in the next update.
        assert float(tx.update(-jnp.ones(()), after, w, value=value)[0]) == 0.25
    with pytest.raises(ConfigError, match="value must be the loss, for variant='irprop\\+'"):
        tx.update(jnp.ones(()), state, w)


@each_variant
def test_float32_equals_float64(x64, variant):
    """No sign depends on rounding here, so that whole runs may be compared."""
    tx = with_value(optim.rprop(0.01, variant=variant), 0.0)
    wide, _ = one_weight(tx, STREAM[:, 0])
    narrow, _ = one_weight(tx, STREAM[:, 0], dtype=jnp.float32)
    # 60 sums of steps and in each step up to 60 products, of which each rounds by 2^-24.
    np.testing.assert_allclose(narrow, wide, rtol=0, atol=120 * 2.0**-24 * np.abs(wide).max())


@pytest.mark.fast
@each_variant
def test_the_first_step_in_the_state(variant):
    """A number, an array and a traced rate give one state, which shows it; no schedule does."""
    params = {"kernel": jnp.ones((2, 3), jnp.bfloat16), "empty": {}}
    seen = []

    def look(learning_rate):
        state = optim.rprop(learning_rate, variant=variant).init(params)
        seen.append(jax.tree.map(jax.typeof, state))
        return optim.learning_rate(state)

    assert {float(f(0.5)) for f in (look, jax.jit(look), lambda r: look(jnp.float32(r)))} == {0.5}
    assert all(avals == seen[0] for avals in seen)
    with pytest.raises(TypeError, match="learning_rate must be a number, the first step size"):
        optim.rprop(schedules.cosine(0.1, steps=3), variant=variant)


@pytest.mark.fast
def test_a_nan_is_not_hidden():
    tx = optim.rprop(0.5)
    _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    assert np.isnan(tx.update(jnp.array([1.0, np.nan]), state)[0]).tolist() == [False, True]


def test_resume_in_the_middle(x64):
    tx = optim.rprop(0.01, variant="irprop-")
    whole, _ = train(tx)
    half, state = train(tx, steps=25)
    state = jax.tree.map(np.asarray, state)
    rest, _ = train(tx, steps=35, w=half[-1], state=state, first=25)
    close(rest, whole[25:])


def test_the_path_does_not_depend_on_the_scale_of_the_loss(x64):
    """Halving a loss, or one coordinate's gradient, changes no sign, so no step."""
    scale = 2.0 ** np.arange(-4, 5)

    def scaled(k, w, xp=np):
        return xp.asarray(scale) * gradient(k, w, xp)

    np.testing.assert_array_equal(
        train(optim.rprop(0.01))[0], train(optim.rprop(0.01), gradient=scaled)[0]
    )


BAD = [
    ({"learning_rate": 0}, "rprop: learning_rate must be a finite number > 0, got 0"),
    ({"variant": "rprop"}, "did you mean 'rprop"),
    ({"eta_minus": 1.0}, "eta_minus must be a number in \\[0, 1\\)"),
    ({"eta_plus": 0.9}, "eta_plus must be a finite number >= 1, got 0.9"),
    ({"min_step": -1.0}, "min_step must be"),
    ({"max_step": 0}, "max_step must be"),
]


@pytest.mark.fast
@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        optim.rprop(**{"learning_rate": 0.1, **arguments})
