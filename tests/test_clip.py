"""Gradient clipping against NumPy and optax, and where norms overflow."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from trajectories import close, equals_numpy, float32_steps_equal_float64, gradient, train

from jaxtrain import optim, tree
from jaxtrain.errors import ConfigError

LEAVES = slice(0, 3), slice(3, 5), slice(5, 9)


def by_leaf(g, w, clip):
    return np.concatenate([clip(g[leaf], w[leaf]) for leaf in LEAVES])


def norm(x):
    return np.sqrt((x * x).sum())


CASES = {
    "global": (optim.clip_by_global_norm(30.0), lambda g, w: oracles.clipped(g, 30)),
    "global eps": (
        optim.clip_by_global_norm(30.0, eps=1.0),
        lambda g, w: oracles.clipped(g, 30, 1.0),
    ),
    "per parameter": (
        optim.clip_per_parameter(3.0),
        lambda g, w: by_leaf(g, w, lambda g, w: oracles.clipped(g, 3)),
    ),
    "value": (optim.clip_by_value(2.0), lambda g, w: np.clip(g, -2, 2)),
    "adaptive": (
        optim.clip_adaptive(0.5, eps=0.1),
        lambda g, w: by_leaf(g, w, lambda g, w: oracles.clipped(g, 0.5 * max(norm(w), 0.1))),
    ),
}
RATE = 2e-3
each_case = pytest.mark.parametrize("case", CASES)


def clipped_sgd(lr, case):
    return optax.chain(CASES[case][0], optim.sgd(lr))


def numpy_sgd(gradient, w, rates, case):
    return oracles.momentum(lambda k, w: CASES[case][1](gradient(k, w), w), w, rates, mu=0.0)


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@each_case
def test_equals_numpy(x64, case, changing):
    options = {"case": case}
    equals_numpy(clipped_sgd, options, numpy_sgd, options, RATE, changing=changing)
    # Of the 60 gradients some are clipped and some are not.
    w = train(clipped_sgd(RATE, case))[0]
    kept = [np.isclose(CASES[case][1](gradient(k, x), x), gradient(k, x)) for k, x in enumerate(w)]
    assert 0.01 < np.mean(kept) < 0.99


@each_case
def test_float32_steps(x64, case):
    float32_steps_equal_float64(clipped_sgd(RATE, case))


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (optim.clip_by_global_norm(30.0), optax.clip_by_global_norm(30.0)),
        (optim.clip_by_value(2.0), optax.clip(2.0)),
        (optim.clip_adaptive(0.5), optax.adaptive_grad_clip(0.5)),
    ],
    ids=["global", "value", "adaptive"],
)
def test_equals_optax(x64, ours, theirs):
    expected, _ = train(optax.chain(theirs, optim.sgd(RATE)))
    close(train(optax.chain(ours, optim.sgd(RATE)))[0], expected)


@pytest.mark.parametrize(
    "name, tx",
    [("global", optim.clip_by_global_norm(30.0, eps=1e-6)), ("value", optim.clip_by_value(2.0))],
)
def test_equals_torch(x64, name, tx):
    vectors = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_clip.npz")
    close(train(optax.chain(tx, optim.sgd(RATE)))[0], vectors[name])


@pytest.mark.parametrize("shape", [(5, 3), (3, 3, 4, 5), (7,)])
def test_adaptive_units_are_those_of_optax(x64, shape):
    w, g = np.random.default_rng(0).normal(size=(2, *shape))

    @jax.jit
    def all_at_once(g, w):
        makes = (optax.adaptive_grad_clip, optim.clip_adaptive)
        clipped = [make(0.9).update(g, optax.EmptyState(), w)[0] for make in makes]
        zero = [optim.clip_adaptive(0.9, eps=eps).update(g, optax.EmptyState(), 0 * w)[0]
                for eps in (0.1, 0.0)]  # fmt: skip
        return clipped, zero

    (expected, found), (from_zero, stuck) = jax.device_get(all_at_once(g, w))
    # Sums of up to 36 squares, in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert (found != g).any() and (from_zero != 0).all() and not stuck.any()
    axes = tuple(range(len(shape) - 1)) or None
    unit, size = (np.sqrt((x * x).sum(axes)) for x in (found, w))
    assert (unit <= 0.9 * size * (1 + 1e-14)).all()


@pytest.mark.fast
def test_direction_is_kept_and_the_norm_capped(x64):
    g = {"a": jnp.array([3.0, 4.0]), "b": jnp.array(12.0)}
    for max_norm in (1.0, 13.0, 20.0):
        clipped, _ = optim.clip_by_global_norm(max_norm).update(g, optax.EmptyState())
        assert float(tree.global_norm(clipped)) == pytest.approx(min(max_norm, 13), rel=1e-15)
        for name, x in g.items():
            np.testing.assert_allclose(clipped[name] * 13, x * min(max_norm, 13), rtol=1e-15)
    near, _ = optim.clip_by_global_norm(13.5, eps=1.0).update(g, optax.EmptyState())
    assert float(near["b"]) == pytest.approx(12 * 13.5 / 14, rel=1e-15)
    per_leaf, _ = optim.clip_per_parameter(1.0).update(g, optax.EmptyState())
    np.testing.assert_allclose(per_leaf["a"], [0.6, 0.8], rtol=1e-15)
    assert per_leaf["b"] == 1


@pytest.mark.fast
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_extreme_norms_in_float32(eps):
    """Squares overflow, the norm overflows, 1 / norm underflows: the direction still is right."""
    for size in (1e20, 1e37, 3e38):
        g = jnp.full(16, size, jnp.float32)
        clipped, _ = optim.clip_by_global_norm(1.0, eps=eps).update(g, optax.EmptyState())
        np.testing.assert_allclose(clipped, 0.25, rtol=1e-6)
        clipped, _ = optim.clip_per_parameter(1.0).update(g, optax.EmptyState())
        np.testing.assert_allclose(clipped, 0.25, rtol=1e-6)
        assert float(tree.global_norm(g[:1])) == pytest.approx(size, rel=1e-6)
    g = jnp.full(16, 1e-37, jnp.float32)
    clipped, _ = optim.clip_by_global_norm(1.0, eps=eps).update(g, optax.EmptyState())
    np.testing.assert_array_equal(clipped, g)
    clipped, _ = optim.clip_by_global_norm(1e-37).update(g, optax.EmptyState())
    np.testing.assert_allclose(clipped, 2.5e-38, rtol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize(
    "tx",
    [
        optim.clip_by_global_norm(1.0),
        optim.clip_per_parameter(1.0),
        optim.clip_by_value(1.0),
        optim.clip_adaptive(0.01),
    ],
    ids=["global", "per parameter", "value", "adaptive"],
)
def test_zero_empty_and_narrow(tx):
    shapes = {"kernel": (3, 2), "scalar": (), "none": (0, 3), "nothing": (2, 0)}
    zero = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    state, update = tx.init(zero), jax.jit(tx.update)
    assert jax.tree.leaves(state) == []
    for g in (zero, {}):
        clipped, _ = update(g, state, g)
        assert jax.tree.map(jnp.shape, clipped) == jax.tree.map(jnp.shape, g)
        assert not any(x.any() for x in jax.tree.leaves(clipped))
    for dtype in (jnp.bfloat16, jnp.float16):
        g = jnp.full(300, 300.0, dtype)  # the norm of 5196 has a square beyond float16
        clipped, _ = update(g, state, jnp.ones(300, dtype))
        assert clipped.dtype == dtype and np.isfinite(clipped.astype(jnp.float32)).all()
        assert 0 < clipped[0] <= 1


@pytest.mark.fast
def test_not_finite():
    state = optax.EmptyState()
    g = jnp.array([1.0, jnp.inf])
    clipped, _ = optim.clip_by_global_norm(1.0).update(g, state)
    assert clipped[0] == 0 and jnp.isnan(clipped[1])
    clipped, _ = optim.clip_by_global_norm(1.0).update(g * jnp.nan, state)
    assert jnp.isnan(clipped).all()
    clipped, _ = optim.clip_by_value(1.0).update(jnp.array([jnp.nan, -jnp.inf]), state)
    assert jnp.isnan(clipped[0]) and clipped[1] == -1


def test_inside_jax():
    """A traced bound, under inject_hyperparams, vmap and masked: the same numbers."""
    params = {"kernel": jnp.array([[3.0, 4.0], [1.0, 2.0]]), "bias": jnp.array([12.0, 5.0])}
    masked = {"kernel": True, "bias": False}
    for make in (
        optim.clip_by_global_norm,
        optim.clip_per_parameter,
        optim.clip_by_value,
        optim.clip_adaptive,
    ):

        def one(bound, make=make):
            tx = make(bound)
            return tx.update(params, tx.init(params), params)[0]

        expected = one(0.5)
        for found in (
            one(0.5, optax.inject_hyperparams(make)),
            jax.tree.map(lambda x: x[1], jax.jit(jax.vmap(one))(jnp.array([0.1, 0.5]))),
        ):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-7), found, expected)
        rest = one(0.5, lambda bound, make=make: optax.masked(make(bound), masked))
        np.testing.assert_array_equal(rest["bias"], params["bias"])


@pytest.mark.fast
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_bad_arguments(value):
    for make, name in (
        (optim.clip_by_global_norm, "clip_by_global_norm: max_norm"),
        (optim.clip_per_parameter, "clip_per_parameter: max_norm"),
        (optim.clip_by_value, "clip_by_value: limit"),
        (optim.clip_adaptive, "clip_adaptive: clipping"),
    ):
        with pytest.raises(ConfigError, match=f"{name} must be a finite number > 0, got"):
            make(value)
    for make in (optim.clip_by_global_norm, optim.clip_adaptive):
        with pytest.raises(ConfigError, match="eps must be a finite number >= 0"):
            make(1.0, eps=-1.0)
    with pytest.raises(ConfigError, match="clip_adaptive: params must be given"):
        optim.clip_adaptive(0.1).update(jnp.ones(2), optax.EmptyState())
