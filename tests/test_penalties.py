"""Penalties against their formulas, scikit-learn and the lecture notes; the limit of norms."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import losses, optim, penalties
from jaxtrain.errors import ConfigError

W = np.array([[0.5, -2.0, 0.0], [3.0, 1e-3, -0.25]])
PARAMS = {"dense": {"kernel": W, "bias": np.ones(3)}}
# By name: the penalty, and value and slope as functions of the kernel.
CASES = {
    "half": (penalties.l2(0.3), lambda w: 0.15 * w**2, lambda w: 0.3 * w),
    "sum": (penalties.l2(0.3, scale="sum"), lambda w: 0.3 * w**2, lambda w: 0.6 * w),
    "half_over_m": (
        penalties.l2(0.3, scale="half_over_m", examples=5),
        lambda w: 0.03 * w**2,
        lambda w: 0.06 * w,
    ),
    "l1": (penalties.l1(0.3), lambda w: 0.3 * np.abs(w), lambda w: 0.3 * np.sign(w)),
    "elastic_net": (
        penalties.elastic_net(l1=0.3, l2=0.2),
        lambda w: 0.3 * np.abs(w) + 0.2 * w**2,
        lambda w: 0.3 * np.sign(w) + 0.4 * w,
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(x64, name, dtype):
    f, value, slope = CASES[name]
    params = jax.tree.map(lambda w: jnp.asarray(w, dtype), PARAMS)
    w = np.asarray(params["dense"]["kernel"], np.float64)
    found, gradient = jax.value_and_grad(f)(params)
    eps = float(jnp.finfo(dtype).eps)
    # The terms, of one sign, in float32 or better: the strength, a square, a product, a sum of six
    # and one of two, 2^-24 each. The gradient: one sum less, and rounded to the dtype in the end.
    wide = min(eps, 2**-23) / 2
    np.testing.assert_allclose(found, value(w).sum(), rtol=9 * wide)
    expected = np.asarray(slope(w))
    rtol = eps / 2 + 4 * wide
    np.testing.assert_allclose(np.float64(gradient["dense"]["kernel"]), expected, rtol=rtol)
    assert not np.asarray(gradient["dense"]["bias"], np.float64).any()


@pytest.mark.fast
def test_l2_in_three_scales():
    """The same strength is a gradient of s w, 2 s w or s w / m."""
    w = jnp.array([1.0, -3.0])
    scales = {"half": 1.0, "sum": 2.0, "half_over_m": 0.25}
    for scale, factor in scales.items():
        examples = 4 if scale == "half_over_m" else None
        f = penalties.l2(0.5, scale=scale, examples=examples)
        np.testing.assert_array_equal(jax.grad(f)(w), factor * 0.5 * w)


def test_the_gradient_is_what_optim_l2_adds():
    params = jax.tree.map(np.float32, PARAMS)
    for scale in ("half", "sum"):
        tx = optim.l2(0.3, scale=scale)
        added, _ = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)
        gradient = jax.grad(penalties.l2(0.3, scale=scale))(params)
        jax.tree.map(np.testing.assert_array_equal, added, gradient)  # but for factors of 2


@pytest.mark.fast
def test_the_initial_loss_of_the_two_layer_net_of_cs231n():
    """With strength 1e3 it is ln 10 + 0.7705 = 3.073 for the half; 3.84 for the sum."""
    rng = np.random.default_rng(0)
    shapes = {"W1": (3072, 50), "W2": (50, 10)}
    params = {k: 1e-4 * rng.normal(size=n).astype(np.float32) for k, n in shapes.items()}
    x = rng.normal(size=(5, 3072)).astype(np.float32)
    logits = np.maximum(x @ params["W1"], 0) @ params["W2"]
    data_loss = losses.softmax_cross_entropy(jnp.asarray(logits), jnp.arange(5)).mean()
    # The logits are sums of 50 products of 1e-4 N(0, 1) and half normals of 1e-4 * sqrt(3072): of
    # deviation 1e-8 * sqrt(3072 * 50 / 2) = 2.8e-6, four times; that of a mean loss is less.
    np.testing.assert_allclose(data_loss, np.log(10), rtol=0, atol=1.1e-5)
    # 500 * 1e-8 times a chi-square of n = 154,100, of deviation sqrt(2 n) = 555: four of 2.8e-3.
    for scale, expected in (("half", 3.0731), ("sum", 3.8436)):
        loss = data_loss + penalties.l2(1e3, scale=scale, rule="*")(params)
        np.testing.assert_allclose(loss, expected, rtol=0, atol=0.011 * (1 + (scale == "sum")))


@pytest.mark.fast
def test_a_penalty_changes_which_weights_are_best():
    """Risks 100, 0.01 and 0.001 become 100, 19.04 and 44.763; some notes print 44.761."""
    points = [
        (100, [0, 0, 0, 0, 0, 0]),
        (0.01, [3.03, 2.97, 0.98, 0.21, 0.12, 0.09]),
        (0.001, [2.36, 4.43, 3.13, -2.1, 1.98, -1.2]),
    ]
    f = penalties.l2(1.0, scale="sum")
    found = [risk + f(jnp.array(w, jnp.float32)) for risk, w in points]
    # Printed to 4 decimals; a sum near 45 in float32 is off by less than 1e-5.
    np.testing.assert_allclose(found, [100, 19.0388, 44.7628], rtol=0, atol=6e-5)


def test_elastic_net_of_lecture_notes():
    """s sum(beta w^2 + |w|): beta weighs the squares only."""
    s, beta = 0.3, 0.7
    found = penalties.elastic_net(l1=s, l2=s * beta)({"kernel": jnp.asarray(W, np.float32)})
    # As above: nine roundings of 2^-24.
    np.testing.assert_allclose(found, s * (beta * W**2 + np.abs(W)).sum(), rtol=5.4e-7)


def test_elastic_net_is_what_sklearn_minimizes(x64):
    """Half the mean squared error, a r |w| and a (1 - r) w^2 / 2: its solution is stationary."""
    vectors = np.load(pathlib.Path(__file__).parent / "vectors" / "sklearn_losses.npz")
    x, t, w = (vectors[name] for name in ("x", "t", "elastic_net"))
    a, r = 0.3, 0.6
    f = penalties.elastic_net(l1=a * r, l2=a * (1 - r) / 2)
    slope = x.T @ (x @ w - t) / 30 + np.asarray(jax.grad(f)(w))
    # A curvature below 2 and a duality gap below 1e-12: a slope below sqrt(2 * 2 * 1e-12).
    np.testing.assert_allclose(slope[w != 0], 0, rtol=0, atol=2e-6)
    assert 0 < (w == 0).sum() < 6 and (np.abs(slope[w == 0]) < a * r).all()


@pytest.mark.fast
def test_rules_and_bad_arguments():
    params = jax.tree.map(jnp.asarray, {"a": {"kernel": W, "bias": W}, "b": {"kernel": W}})
    whole, part = penalties.l1(1.0)(params), penalties.l1(1.0, rule="b/*")(params)
    assert whole == 2 * part
    strengths = jnp.array([0.0, 1.0])
    for make in (
        penalties.l1,
        penalties.l2,
        lambda s, **rule: penalties.elastic_net(l1=s, l2=s, **rule),
    ):
        f = jax.jit(jax.vmap(lambda s: make(s)(params)))  # noqa: B023
        # The sums may be taken in another order: 24 terms of one sign.
        np.testing.assert_allclose(f(strengths), [0, make(1)(params)], rtol=24 * 2**-24)
        with pytest.raises(ConfigError, match="rule must be one that chooses a param"):
            make(1.0)({"bias": jnp.ones(2)})
        with pytest.raises(ConfigError, match="did you mean 'bias'"):
            make(1.0, rule="bia")({"bias": jnp.ones(2)})
        with pytest.raises(ConfigError, match="must be a finite number >= 0, got -1"):
            make(-1)
        with pytest.raises(ConfigError, match="^(l1|l2|elastic_net): params must be floating"):
            make(1.0)({"kernel": jnp.arange(2)})
    with pytest.raises(TypeError, match="l2: examples must be an int >= 1, got None; give the"):
        penalties.l2(1.0, scale="half_over_m")
    with pytest.raises(ConfigError, match="l2: examples must be None with scale='half', got 3"):
        penalties.l2(1.0, examples=3)
    with pytest.raises(ConfigError, match="l2: scale must be one of"):
        penalties.l2(1.0, scale="mean")


def project(z, c, axes):
    """As Keras's MaxNorm, without its eps."""
    norm = np.sqrt((z**2).sum(axes, keepdims=True))
    return z * np.clip(norm, 0, c) / norm


def max_normed(w, u, dtype=jnp.float32, **options):
    tx, w = optim.max_norm(2.0, **options), {"kernel": jnp.asarray(w, dtype)}
    updates, _ = tx.update({"kernel": jnp.asarray(u, dtype)}, tx.init(w), w)
    return optax.apply_updates(w, updates)["kernel"]


@pytest.mark.fast
@pytest.mark.parametrize(
    "shape, axis, axes",
    [
        ((5, 3), None, 0),
        ((3, 3, 4, 6), None, (0, 1, 2)),
        ((5, 3), -1, 1),
        ((3, 3, 4, 6), (0, 1), (0, 1)),
        ((7,), None, 0),
    ],
)
def test_max_norm_is_a_projection(shape, axis, axes):
    w, u = np.random.default_rng(0).normal(size=(2, *shape))
    found = max_normed(w, u, axis=axis)
    # Numbers below 4, 2^-23: w, u, their sum, the norm's four, the factor, update and the result.
    np.testing.assert_allclose(found, project(w + u, 2.0, axes), rtol=0, atol=10 * 2**-23)
    # Of them all but the first three count, twice 2^-24 for a norm of 2.
    assert np.sqrt((np.float64(found) ** 2).sum(axes)).max() < 2 + 7 * 2**-23


def test_max_norm_leaves_units_within_the_limit_alone():
    w = np.array([[3.0, 0.3, 0.0], [4.0, 0.4, 0.0]])
    u = np.full_like(w, 0.1)
    u[:, 2] = 0
    found = max_normed(w, u)
    np.testing.assert_array_equal(found[:, 1:], (np.float32(w) + np.float32(u))[:, 1:])
    tiny, huge = (max_normed(np.full((4, 1), size), np.zeros((4, 1))) for size in (1e-30, 1e30))
    assert (tiny == np.float32(1e-30)).all() and (huge <= 1).all()  # 1 - 1e30 is -1e30
    # 1 + 1, of norm 8, becomes 1/2: in bfloat16 all are exact.
    narrow = max_normed(np.ones((16, 1)), np.ones((16, 1)), jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(narrow, np.full((16, 1), 0.5))


def test_max_norm_stands_last_but_for_an_average():
    tx = optax.chain(optim.sgd(1.0), optim.max_norm(1.0), optim.ema(0.0))
    params = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([9.0])}
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    params = optax.apply_updates(params, updates)
    # An update and a difference of numbers below 4, 2^-23 each, and the quotient before.
    np.testing.assert_allclose(params["kernel"], [[0.6], [0.8]], rtol=0, atol=3 * 2**-23)
    np.testing.assert_array_equal(params["bias"], [9.0])
    averaged = optim.eval_params(params, state)
    jax.tree.map(np.testing.assert_array_equal, averaged, params)
    with pytest.raises(ConfigError, match="max_norm: limit must be a finite number > 0"):
        optim.max_norm(0.0)
    with pytest.raises(ConfigError, match="max_norm: rule must be one that chooses a param"):
        optim.max_norm(1.0).init({"bias": jnp.ones(2)})
