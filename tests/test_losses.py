import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import losses
from jaxtrain.errors import ConfigError

CE = losses.softmax_cross_entropy


def oracle(z, q, a=0.0):
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -(((1 - a) * q + a / z.shape[-1]) * log_p).sum(-1)


@pytest.mark.fast
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_equals_the_definition(dtype, smoothing):
    rng = np.random.default_rng(0)
    z = jnp.asarray(3 * rng.normal(size=(2, 5, 7)), dtype)
    y = rng.integers(0, 7, (2, 5))
    expected = oracle(z.astype(jnp.float32), np.eye(7)[y], smoothing)
    # log_p is below 32 in size, and the sums of 7 terms lose at most 8 half-units of 32 in the
    # last place: 8 * 32 * 6e-8. bfloat16 logits are exact in float32, so the same holds there.
    for labels in (jnp.asarray(y, jnp.int32), jnp.asarray(np.eye(7)[y], dtype)):
        loss = CE(z, labels, smoothing=smoothing)
        assert loss.shape == (2, 5) and loss.dtype == jnp.float32
        np.testing.assert_allclose(loss, expected, atol=1.6e-5, rtol=0)


def test_cross_entropy_in_float64(x64):
    z, y = np.random.default_rng(1).normal(size=(4, 3)), np.array([0, 1, 2, 1])
    loss = CE(jnp.asarray(z), jnp.asarray(y))
    assert loss.dtype == jnp.float64
    # The bound above with 1.1e-16 and log_p below 8.
    np.testing.assert_allclose(loss, oracle(z, np.eye(3)[y]), atol=8e-15, rtol=0)


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_stable_at_huge_logits(soft):
    z = jnp.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [1e4, 1e4, -1e4]])
    y = jnp.array([0, 1, 0])
    labels = jax.nn.one_hot(y, 3) if soft else y
    loss, gradient = CE(z, labels), jax.grad(lambda z: CE(z, labels).sum())(z)
    # Exact but for log 2, rounded once.
    np.testing.assert_allclose(loss, [0, 2e4, np.log(2)], rtol=1.2e-7)
    np.testing.assert_array_equal(gradient, [[0, 0, 0], [1, -1, 0], [-0.5, 0.5, 0]])


def test_cross_entropy_keeps_small_losses():
    # With the log-sum-exp unshifted, 1e4 swallows the loss: its unit in the last place is 1e-3.
    # exp(-9) is below one; 1 + it rounds by 6e-8, which is 5e-4 of the loss.
    loss = CE(jnp.array([1e4, 1e4 - 9]), jnp.int32(0))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-9)), rtol=5e-4)


def test_gradient_is_p_minus_q_under_jit_and_vmap():
    z = jax.random.normal(jax.random.key(0), (6, 4))
    y = jnp.array([0, 1, 2, 3, 0, 1])
    gradient = jax.jit(jax.vmap(jax.grad(lambda z, y: CE(z, y, smoothing=0.2))))(z, y)
    q = 0.8 * jax.nn.one_hot(y, 4) + 0.05
    # Numbers below 1, some ten roundings of 6e-8.
    np.testing.assert_allclose(gradient, jax.nn.softmax(z) - q, atol=6e-7, rtol=0)


def test_batch_as_large_as_classes_takes_classes():
    np.testing.assert_allclose(
        CE(jnp.zeros((4, 4)), jnp.arange(4)), np.full(4, np.log(4)), rtol=2e-7
    )


def test_labels_that_are_no_class_give_nan():
    loss = CE(jnp.zeros((3, 2)), jnp.array([-1, 2, 1]))
    np.testing.assert_array_equal(jnp.isnan(loss), [True, True, False])


def test_excluded_classes_may_have_logits_of_minus_infinity():
    assert CE(jnp.array([0.0, -jnp.inf]), jnp.int32(0)) == 0


def test_smoothing_may_be_traced():
    z, y = jnp.arange(8.0).reshape(2, 4), jnp.array([3, 0])
    traced = jax.vmap(lambda a: CE(z, y, smoothing=a))(jnp.array([0.0, 0.1]))
    np.testing.assert_array_equal(traced[0], CE(z, y))
    # The same operations, compiled or not: one rounding of numbers below 4 may differ.
    np.testing.assert_allclose(traced[1], CE(z, y, smoothing=0.1), atol=5e-7, rtol=0)


@pytest.mark.fast
@pytest.mark.parametrize(
    "labels, message",
    [
        (jnp.arange(4.0), r"shape \(4, 4\) for float32 labels"),
        (jnp.eye(4, dtype=jnp.int32), r"shape \(4,\) for int32 labels"),
        (jnp.arange(3), "got"),
        (jnp.zeros((4, 3)), "got"),
        (jnp.zeros((4, 1), jnp.int32), "got"),
    ],
)
def test_labels_of_the_wrong_shape_are_refused(labels, message):
    with pytest.raises(ConfigError, match=message):
        CE(jnp.zeros((4, 4)), labels)


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="logits must be floating, got 'int32'"):
        CE(jnp.zeros((4, 4), jnp.int32), jnp.arange(4))
    with pytest.raises(TypeError, match="labels must be integer or floating, got 'bool'"):
        CE(jnp.zeros((4, 4)), jnp.zeros(4, bool))
    with pytest.raises(TypeError, match="outputs must be floating"):
        losses.squared_error(jnp.arange(3), jnp.arange(3.0))
    for smoothing in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="smoothing"):
            CE(jnp.zeros((4, 4)), jnp.arange(4), smoothing=smoothing)


@pytest.mark.fast
def test_squared_error_is_the_mean_per_example():
    rng = np.random.default_rng(2)
    y, v = rng.normal(size=(2, 5, 3, 2))
    expected = ((y - v) ** 2).reshape(5, 6).mean(1)
    # Rounding of the inputs, the difference, the square and six sums: below 20 half-units.
    np.testing.assert_allclose(
        losses.squared_error(jnp.float32(y), jnp.float32(v)), expected, rtol=1.2e-6
    )
    assert losses.squared_error(jnp.ones(3, jnp.bfloat16), jnp.zeros(3)).dtype == jnp.float32


def test_squared_error_refuses_to_broadcast():
    with pytest.raises(ConfigError, match=r"targets must be of the shape of the outputs, \(4, 1\)"):
        losses.squared_error(jnp.zeros((4, 1)), jnp.zeros(4))
