"""check_gradients: right, wrong and bent functions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import optim
from jaxtrain.errors import ConfigError


def cube(w):
    return w**3


def sines(factor):
    """sum(sin(x)), its derivative in x[1] multiplied by a factor."""

    @jax.custom_vjp
    def f(x):
        return jnp.sin(x).sum()

    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * jnp.cos(x).at[1].multiply(factor),))
    return f


CENTRAL, FORWARD = (3.01, 3.0001, 3.000001), (3.31, 3.0301, 3.003001)


@pytest.mark.fast
@pytest.mark.parametrize("method, numbers", [("central", CENTRAL), ("forward", FORWARD)])
def test_numbers_of_the_lectures(method, numbers):
    """theta**3 at 1: 3 + eps**2, and 3 + 3 * eps + eps**2."""
    for eps, number in zip((0.1, 0.01, 0.001), numbers, strict=True):
        report = optim.check_gradients(cube, 1.0, method=method, eps=eps)
        # Cubes near 1, off by 2e-16, divided by eps.
        assert report.worst.numeric == pytest.approx(number, abs=1e-15 / eps)
        assert report.worst.analytic == 3 and not report.kinks
        assert report.error == pytest.approx((number - 3) / (number + 3), rel=1e-6)


FACTORS = {"great": 1.0, "good": 1 + 3e-6, "look": 1 + 3e-4, "wrong": 1.1}
# A forward difference is itself off by 1e-8 and more.
VERDICTS = [("central", v) for v in FACTORS] + [("forward", v) for v in FACTORS if v != "good"]


@pytest.mark.parametrize("directions", [None, 3])
@pytest.mark.parametrize("method, verdict", VERDICTS)
def test_verdict_on_a_planted_bug(method, directions, verdict):
    factor = FACTORS[verdict]
    params = {"a": {"right": jnp.linspace(0.5, 1, 3)}, "wrong": jnp.array([0.3, 0.2, 0.1])}

    def fun(params):
        return jnp.exp(params["a"]["right"]).sum() + sines(factor)(params["wrong"])

    report = optim.check_gradients(fun, params, method=method, directions=directions)
    assert report.verdict == verdict and f"gradients: {verdict}" in str(report)
    assert list(report.errors) == ["a/right", "wrong"]
    assert report.errors["a/right"] <= 1e-7 and not report.kinks
    if factor != 1:
        assert report.worst.path == "wrong" and "worst: wrong[" in str(report)
    if factor != 1 and directions is None:
        assert report.worst.index == (1,)
        assert report.worst.numeric == pytest.approx(math.cos(0.2), rel=1e-6)
        # One of three slopes off by the factor: |c_1| (factor - 1) / (2 |c|).
        c = np.cos([0.3, 0.2, 0.1])
        error = abs(c[1]) * (factor - 1) / (2 * np.linalg.norm(c))
        assert report.error == pytest.approx(error, rel=0.06)


@pytest.mark.parametrize("method", ["central", "forward"])
def test_kinks_are_reported_apart(method):
    def fun(w):
        return jax.nn.relu(w["a"]).sum() + (jnp.abs(w["b"]) ** 3).sum() + jnp.sin(w["b"]).sum()

    params = {"a": jnp.array([[1.0, 0.0], [0.0, -2.0]]), "b": jnp.array([0.0, 1.0])}
    report = optim.check_gradients(fun, params, method=method)
    assert report.verdict == "great"
    assert [(kink.path, kink.index) for kink in report.kinks] == [("a", (0, 1)), ("a", (1, 0))]
    # A difference quotient of numbers near 3, over 1.5e-8 or more.
    assert report.kinks[0][2:] == pytest.approx(
        ({"central": 0.5, "forward": 1}[method], 0, 0, 1), abs=1e-7
    )
    assert "kink: a[0, 1]" in str(report)


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.9])
def test_a_kink_anywhere_within_the_step_is_found(distance):
    eps = 1e-4
    for at in (-distance * eps, distance * eps):
        report = optim.check_gradients(lambda w, at=at: jax.nn.relu(w - at) + w**2, 0.0, eps=eps)
        assert report.verdict == "great" and len(report.kinks) == 1


def test_what_bends_but_has_no_kink():
    """Where the slope is zero, and where the curvature is a thousand times the slope."""
    for fun, w in ((lambda w: w**2, 0.0), (lambda w: w + 1e3 * w**2, 0.0), (jnp.cosh, 1e-3)):
        report = optim.check_gradients(fun, w)
        assert report.verdict == "great" and not report.kinks


def test_a_wrong_gradient_at_a_kink_is_wrong():
    @jax.custom_vjp
    def relu(x):
        return jax.nn.relu(x)

    relu.defvjp(lambda x: (relu(x), x), lambda x, g: (g * 1.5,))
    report = optim.check_gradients(relu, 0.0)
    assert report.verdict == "wrong" and not report.kinks


def test_a_gradient_of_zero_is_not_wrong():
    """A bias before a normalization: what the differences show is the rounding of the loss."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4)).astype(np.float32)
    params = {"kernel": rng.normal(size=(4, 5)), "bias": np.ones((1, 5), np.float32)}

    def fun(params):
        y = x @ params["kernel"] + params["bias"]
        y = (y - y.mean(0, keepdims=True)) / y.std(0, keepdims=True)
        return jnp.tanh(jnp.exp(y) - 1).mean()

    report = optim.check_gradients(fun, params)
    assert report.verdict == "great" and report.errors["bias"] > 1e-10 > report.errors["kernel"]
    assert jnp.result_type(float) == jnp.float32  # float64 was for the inside only


@pytest.mark.fast
def test_scales_with_the_params():
    """h is eps * |w| for large params: 1e8 + 6e-6 would be half rounding."""
    report = optim.check_gradients(lambda w: jnp.log(w / 1e8), 1e8)
    assert report.verdict == "great" and not report.kinks
    params = {
        "bfloat16": jnp.ones(2, jnp.bfloat16),
        "none": jnp.zeros((0, 3)),
        "one": np.float32(2),
    }
    report = optim.check_gradients(
        lambda p: (p["bfloat16"] ** 2).sum() * p["one"] + p["none"].sum(), params
    )
    assert report.verdict == "great" and report.errors["none"] == 0


@pytest.mark.fast
def test_not_a_number_is_wrong():
    assert (
        optim.check_gradients(lambda w: jnp.log(w).sum(), jnp.array([1.0, -1.0])).verdict == "wrong"
    )


@pytest.mark.fast
def test_bad_arguments():
    for arguments, message in (
        ({"method": "backward"}, "method must be one of"),
        ({"directions": 0}, "directions must be an int >= 1"),
        ({"eps": 0.0}, "eps must be a finite number > 0"),
    ):
        with pytest.raises(ConfigError, match=f"check_gradients: {message}"):
            optim.check_gradients(cube, 1.0, **arguments)
    with pytest.raises(ConfigError, match="params must be a tree with numbers in it"):
        optim.check_gradients(cube, {})
    with pytest.raises(
        TypeError, match="params must be of a floating-point type at 'a', got 'int32'"
    ):
        optim.check_gradients(lambda p: p["a"] ** 2, {"a": np.int32(1)})
    with pytest.raises(ConfigError, match=r"fun must be a function .* got 'float64\[2\]'"):
        optim.check_gradients(cube, jnp.ones(2))
    with pytest.raises(ConfigError, match=r"fun must be .* got 'float32\[\]'"):
        optim.check_gradients(lambda w: jnp.float32(w), 1.0)
