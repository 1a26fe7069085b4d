"""Each layer against NumPy, loops and its special cases; and what looks inside a net."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn
from jaxtrain.nn import _norm

KEY = key(0)
TRAIN = nn.Context(train=True, key=key(1))


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def outputs(layer, x, params=None, state=None, ctx=nn.EVAL):
    return np.asarray(layer.apply(params or {}, state or {}, jnp.asarray(x), ctx)[0])


# Dense and convolution.


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5)])
def test_dense(shape, x64):
    x, layer = numbers(*shape), nn.dense(3)
    params = {"kernel": jnp.asarray(numbers(5, 3)), "bias": jnp.asarray(numbers(3))}
    # Sums of five products.
    expected = np.einsum("...i,ij->...j", x, params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(outputs(layer, x, params), expected, rtol=0, atol=1e-14)
    del params["bias"]  # apply goes by what the params hold
    expected = np.einsum("...i,ij->...j", x, params["kernel"])
    np.testing.assert_allclose(outputs(layer, x, params), expected, rtol=0, atol=1e-14)


@pytest.mark.fast
def test_dense_and_conv_refuse_what_does_not_fit():
    dense, conv = nn.dense(3), nn.conv(3, (2, 2))
    params, _ = dense.init(KEY, jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match=r"dense: x must be \(..., 5\), got \(2, 4\)"):
        dense.apply(params, {}, jnp.zeros((2, 4)), nn.EVAL)
    with pytest.raises(TypeError, match="dense: x must be of a floating dtype, got 'uint8'; put"):
        dense.init(KEY, jnp.zeros((1, 5), jnp.uint8))
    params, _ = conv.init(KEY, jnp.zeros((1, 5, 5, 2)))
    with pytest.raises(ValueError, match=r"conv: x must be \(batch, 2 spatial axes, 2 channels\)"):
        conv.apply(params, {}, jnp.zeros((1, 5, 5, 3)), nn.EVAL)
    with pytest.raises(ValueError, match="conv: window must be an int >= 1 or 1 of them"):
        conv.init(KEY, jnp.zeros((1, 5, 2)))
    with pytest.raises(ValueError, match="conv: x must be .* got '2 axes'"):
        conv.init(KEY, jnp.zeros((5, 2)))


def pads(size, window, strides, padding):
    """TensorFlow's rule for "SAME": the odd one goes behind."""
    if not isinstance(padding, str):
        return padding
    if padding == "VALID":
        return [(0, 0)] * len(size)
    missing = [
        max((math.ceil(n / s) - 1) * s + w - n, 0)
        for n, w, s in zip(size, window, strides, strict=True)
    ]
    return [(m // 2, m - m // 2) for m in missing]


def windows(x, window, strides, padding, fill):
    """Yields the place of each window in the output, and (batch, *window, channels) in it."""
    around = pads(x.shape[1:-1], window, strides, padding)
    x = np.pad(x, [(0, 0), *around, (0, 0)], constant_values=fill)
    counts = [(n - w) // s + 1 for n, w, s in zip(x.shape[1:-1], window, strides, strict=True)]
    for place in itertools.product(*map(range, counts)):
        slices = (slice(p * s, p * s + w) for p, s, w in zip(place, strides, window, strict=True))
        yield place, x[(slice(None), *slices)]


def by_loop(f, x, window, strides, padding, fill=0.0):
    cells = {place: f(part) for place, part in windows(x, window, strides, padding, fill)}
    shape = [n + 1 for n in max(cells)]
    flat = np.stack([cells[place] for place in itertools.product(*map(range, shape))], axis=1)
    return flat.reshape(x.shape[0], *shape, -1)


GEOMETRIES = [  # size, window, strides, padding
    ((7,), (3,), (2,), "SAME"),
    ((6,), (3,), (2,), [(2, 0)]),
    ((6, 5), (3, 2), (1, 1), "SAME"),
    ((6, 7), (3, 3), (2, 2), "SAME"),
    ((6, 7), (3, 2), (2, 3), "VALID"),
    ((5, 4), (2, 3), (1, 2), [(1, 1), (0, 2)]),
    ((7, 5), (2, 2), (2, 2), "VALID"),
]
each_geometry = pytest.mark.parametrize("size, window, strides, padding", GEOMETRIES)


@each_geometry
def test_conv(size, window, strides, padding, x64):
    x = numbers(2, *size, 3)
    params = {"kernel": numbers(*window, 3, 4), "bias": numbers(4)}

    def cell(part):
        return part.reshape(2, -1) @ params["kernel"].reshape(-1, 4) + params["bias"]

    layer = nn.conv(4, window, strides=strides, padding=padding)
    # Sums of at most 27 products of size 1.
    expected = by_loop(cell, x, window, strides, padding)
    np.testing.assert_allclose(
        outputs(layer, x, jax.tree.map(jnp.asarray, params)), expected, rtol=0, atol=1e-13
    )


# Pooling and reshaping.


@each_geometry
def test_max_pool(size, window, strides, padding):
    x = numbers(2, *size, 3).astype(np.float32)
    expected = by_loop(
        lambda part: part.reshape(2, -1, 3).max(1), x, window, strides, padding, -np.inf
    )
    layer = nn.max_pool(window, strides=strides, padding=padding)
    np.testing.assert_array_equal(outputs(layer, x), expected)
    if padding == "VALID" and window == strides:
        np.testing.assert_array_equal(outputs(nn.max_pool(window), x), expected)


@pytest.mark.parametrize("strides", [None, 1])
def test_max_pool_gives_the_gradient_of_a_tie_to_the_first(strides):
    # 4x4, of which strides=None takes four windows and strides=1 nine; many ties.
    x = np.random.default_rng(0).integers(0, 3, size=(3, 4, 4, 1)).astype(np.float32)
    layer = nn.max_pool(2, strides=strides)
    y = jnp.asarray(numbers(*outputs(layer, x).shape), np.float32)
    got = jax.grad(lambda x: (layer.apply({}, {}, x, nn.EVAL)[0] * y).sum())(jnp.asarray(x))
    step, expected = strides or 2, np.zeros_like(x)
    for b, i, j in itertools.product(range(3), range(y.shape[1]), range(y.shape[2])):
        part = x[b, i * step : i * step + 2, j * step : j * step + 2, 0]
        first = np.unravel_index(part.argmax(), (2, 2))
        expected[b, i * step + first[0], j * step + first[1], 0] += y[b, i, j, 0]
    # At most four terms of size 1 in each.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strides", [None, 1])
@pytest.mark.parametrize("place", [0, 3])
def test_in_max_pool_nan_wins(strides, place):
    x = np.ones(4, np.float32)
    x[place] = np.nan
    pooled = outputs(nn.max_pool(2, strides=strides), x.reshape(1, 2, 2, 1))
    assert pooled.shape == (1, 1, 1, 1) and np.isnan(pooled).all()


@each_geometry
@pytest.mark.parametrize("count_padding", [False, True])
def test_avg_pool(size, window, strides, padding, count_padding, x64):
    x = numbers(2, *size, 3)
    total, real = (
        by_loop(lambda part: part.reshape(2, -1, 3).sum(1), a, window, strides, padding)
        for a in (x, np.ones_like(x))
    )
    layer = nn.avg_pool(window, strides=strides, padding=padding, count_padding=count_padding)
    expected = total / (math.prod(window) if count_padding else real)
    # Means of at most 9 numbers of size 1.
    np.testing.assert_allclose(outputs(layer, x), expected, rtol=0, atol=1e-14)


@pytest.mark.fast
@pytest.mark.parametrize("dtype, value", [("bfloat16", 1.0078125), ("float16", 3e4)])
def test_avg_pool_sums_in_float32(dtype, value):
    x = jnp.full((1, 28, 28, 1), value, dtype)
    y, _ = nn.avg_pool(28).apply({}, {}, x, TRAIN)
    assert y.dtype == x.dtype and float(y[0, 0, 0, 0]) == value


def test_the_other_shapes(x64):
    x = numbers(2, 5, 4, 3)
    np.testing.assert_allclose(outputs(nn.global_avg_pool(), x), x.mean((1, 2)), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(outputs(nn.flatten(), x), x.reshape(2, -1))
    assert outputs(nn.flatten(), x[:0]).shape == (0, 60)
    shortcut = outputs(nn.pad_shortcut(2), x)
    np.testing.assert_array_equal(shortcut[..., :3], x[:, ::2, ::2])
    assert shortcut.shape == (2, 3, 2, 5) and not shortcut[..., 3:].any()
    mean, std = numbers(1, 1, 1, 3), np.full((1, 1, 1, 3), 2.0)
    np.testing.assert_array_equal(outputs(nn.standardize(mean, std), x), (x - mean) / std)
    np.testing.assert_array_equal(outputs(nn.standardize(mean.ravel(), 2), x), (x - mean) / 2)
    np.testing.assert_array_equal(
        outputs(nn.parallel(jnp.negative, jnp.abs, combine=sum), x), abs(x) - x
    )
    np.testing.assert_array_equal(
        outputs(nn.residual(jnp.abs, shortcut=jnp.negative), x), abs(x) - x
    )


@pytest.mark.fast
def test_residual_refuses_another_shape():
    net = nn.serial(block=nn.residual(nn.dense(3)))
    rule = r"residual: body's output must be of the shortcut's shape \(1, 4\), got \(1, 3\); give"
    with pytest.raises(ValueError, match=rule):
        jax.eval_shape(net.init, KEY, jnp.zeros((1, 4)))


@pytest.mark.fast
def test_cast():
    seen = []

    def see(x):
        seen.append(x.dtype)
        return x

    for dtype, inside, outside in [
        (np.float32, jnp.bfloat16, np.float32),
        (jnp.bfloat16, jnp.bfloat16, np.float32),
        (np.uint8, jnp.bfloat16, np.float32),  # images
        (np.int32, np.int32, np.int32),  # tokens
        (np.bool_, np.bool_, np.bool_),
    ]:
        x = jax.ShapeDtypeStruct((2, 3), dtype)
        y = jax.eval_shape(lambda x: nn.cast(see, jnp.bfloat16).apply({}, {}, x, nn.EVAL)[0], x)
        assert (seen.pop(), y.dtype) == (inside, outside)
    params, _ = nn.cast(nn.dense(2), jnp.bfloat16).init(KEY, jnp.zeros((1, 3), jnp.uint8))
    assert params["kernel"].dtype == np.float32


# Batch normalization.


class Reference:
    """The paper's algorithm, over all axes but the last."""

    def __init__(self, features, decay=0.9, eps=1e-5, unbiased=True, running="var"):
        self.mean, self.spread = np.zeros(features), np.ones(features)
        self.decay, self.eps, self.unbiased, self.running = decay, eps, unbiased, running

    def train(self, x):
        flat = x.reshape(-1, x.shape[-1])
        mean, var = flat.mean(0), flat.var(0)
        spread = flat.var(0, ddof=1) if self.unbiased and len(flat) > 1 else var
        spread = np.sqrt(spread) if self.running == "std" else spread
        self.mean = self.decay * self.mean + (1 - self.decay) * mean
        self.spread = self.decay * self.spread + (1 - self.decay) * spread
        return (x - mean) / np.sqrt(var + self.eps)

    def eval(self, x):
        var = self.spread if self.running == "var" else self.spread**2
        return (x - self.mean) / np.sqrt(var + self.eps)


AFFINE = {"scale": np.array([2.0, -1.0, 0.5]), "bias": np.array([0.0, 3.0, -1.0])}


def batch_norm(params=AFFINE, **options):
    """A layer for three features, its params and its first state."""
    layer = nn.batch_norm(**options)
    state = layer.init(KEY, jax.ShapeDtypeStruct((1, 3), np.float64))[1]
    return layer, jax.tree.map(jnp.asarray, params), state


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 3), (1, 3)])
@pytest.mark.parametrize(
    "options", [{}, {"unbiased": False, "decay": 0.5}, {"running": "std", "eps": 0.1}]
)
def test_batch_norm_is_the_paper_s_after_three_batches(shape, options, x64):
    layer, params, state = batch_norm(**options)
    reference, apply = Reference(3, **options), jax.jit(layer.apply)
    for seed in range(3):
        x = 5 + numbers(*shape, seed=seed)
        y, state = apply(params, state, jnp.asarray(x), TRAIN)
        expected = reference.train(x) * AFFINE["scale"] + AFFINE["bias"]
        # x * a + (bias - mean * a) with a <= 2 / sqrt(1e-5) and x near 5 cancels 3e3 eps.
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(state["mean"], reference.mean, rtol=1e-13)
    spread = options.get("running", "var")
    np.testing.assert_allclose(state[spread], reference.spread, rtol=1e-13)
    y, after = apply(params, state, jnp.asarray(x), nn.EVAL)
    expected = reference.eval(x) * AFFINE["scale"] + AFFINE["bias"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-11)
    frozen = nn.batch_norm(**options, frozen=True).apply(params, state, jnp.asarray(x), TRAIN)
    wrapped = nn.frozen(layer).apply(params, state, jnp.asarray(x), TRAIN)
    for result in ((y, after), frozen, wrapped):
        np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-11)
        jax.tree.map(np.testing.assert_array_equal, result[1], state)


@functools.partial(jax.jit, static_argnums=0)
def over_devices(devices, params, state, x, mask):
    """The layer of `batch_norm()` on so many parts; vmap's axis has the collectives of pmap's."""
    layer = nn.batch_norm()
    ctx = nn.Context(train=True, mask=mask.reshape(devices, -1), axis_name="data")
    axes = nn.Context(train=True, mask=0, axis_name="data")
    apply = jax.vmap(layer.apply, (None, None, 0, axes), (0, None), axis_name="data")
    y, state = apply(params, state, x.reshape(devices, -1, *x.shape[1:]), ctx)
    return y.reshape(x.shape), state


MASKS = {
    1: [1, 0, 1, 1, 1, 0, 1, 0],
    2: [1, 1, 1, 1, 1, 0, 0, 0],
    4: [1, 1, 1, 1, 1, 0, 0, 0],  # one device has nothing
    8: [1, 1, 1, 0, 1, 1, 0, 0],
}


def check_masked_is_shortened(devices):
    """A padded batch on many devices against the real examples alone on one."""
    _, params, state = batch_norm()
    mask = np.array(MASKS[devices])
    x = 100 + 10 * numbers(8, 5, 3) * (1 + np.arange(8).reshape(8, 1, 1))
    reference = Reference(3)
    expected = reference.train(x[mask == 1]) * AFFINE["scale"] + AFFINE["bias"]
    x[mask == 0] = 7  # anything finite
    y, state = over_devices(devices, params, state, jnp.asarray(x), jnp.asarray(mask, float))
    np.testing.assert_allclose(y[mask == 1], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state["mean"], reference.mean, rtol=1e-12)
    np.testing.assert_allclose(state["var"], reference.spread, rtol=1e-12)


@pytest.mark.parametrize("devices", MASKS)
def test_batch_norm_of_a_masked_batch_is_that_of_the_shortened_one(devices, x64):
    check_masked_is_shortened(devices)


def no_psum(moments):
    return lambda x, ctx: moments(x, dataclasses.replace(ctx, axis_name=None))


def mean_of_means(moments):
    def mutant(x, ctx):
        local = moments(x, dataclasses.replace(ctx, axis_name=None))
        return [jax.lax.pmean(part, ctx.axis_name) for part in local]

    return mutant


def ignored_mask(moments):
    return lambda x, ctx: moments(x, dataclasses.replace(ctx, mask=None))


def no_shift_between_devices(moments):
    """Adds up the devices' M2 without the distances of their means."""

    def mutant(x, ctx):
        m2 = moments(x, dataclasses.replace(ctx, axis_name=None))[2]
        return *moments(x, ctx)[:2], jax.lax.psum(m2, ctx.axis_name)

    return mutant


@pytest.mark.parametrize("mutant", [no_psum, mean_of_means, ignored_mask, no_shift_between_devices])
def test_wrong_statistics_over_devices_are_caught(mutant, monkeypatch, x64):
    monkeypatch.setattr(_norm, "moments", mutant(_norm.moments))
    over_devices.clear_cache()
    # Without the psum the states differ between devices, which vmap refuses itself.
    with pytest.raises((AssertionError, ValueError)):
        check_masked_is_shortened(2)
    monkeypatch.undo()
    over_devices.clear_cache()


def test_a_batch_of_padding_leaves_the_state_alone(x64):
    _, params, state = batch_norm()
    state = {"mean": jnp.asarray(numbers(3)), "var": jnp.asarray(numbers(3) ** 2)}
    x, mask = jnp.asarray(numbers(8, 3)), jnp.zeros(8)
    for devices in (1, 4):
        y, after = over_devices(devices, params, state, x, mask)
        jax.tree.map(np.testing.assert_array_equal, after, state)
        grads = jax.grad(
            lambda p, x: (over_devices(devices, p, state, x, mask)[0] ** 2).sum(),  # noqa: B023
            (0, 1),
        )(params, x)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, grads)))


@pytest.mark.parametrize("devices", [1, 4])
def test_batch_norm_far_from_zero(devices):
    x = (1e4 + numbers(64, 3)).astype(np.float32)
    layer = nn.batch_norm(decay=0.0, unbiased=False)
    params, state = layer.init(KEY, jnp.zeros((1, 3)))
    apply = jax.vmap(layer.apply, (None, None, 0, None), (0, None), axis_name="data")
    ctx = nn.Context(train=True, axis_name="data")
    y, state = jax.jit(apply)(params, state, jnp.asarray(x.reshape(devices, -1, 3)), ctx)
    np.testing.assert_allclose(state["var"], x.astype(np.float64).var(0), rtol=0.01)
    # x * a + b rounds at eps * 1e4 = 6e-4, twice.
    assert y.reshape(-1, 3).std(0) == pytest.approx(np.ones(3), abs=0.01)


@pytest.mark.fast
def test_batch_norm_of_a_constant_channel():
    layer, x = nn.batch_norm(unbiased=False, decay=0.0), jnp.full((4, 3), 1234.5)
    params, state = layer.init(KEY, x)

    def f(x):
        y, new = layer.apply(params, state, x, TRAIN)
        return (y**3).sum(), (y, new)

    grad, (y, new) = jax.jit(jax.grad(f, has_aux=True))(x)
    # The variance is 0, so x is multiplied by 1 / sqrt(1e-5) = 316, and rounds to 316 * 1e-4.
    assert (new["var"] == 0).all() and abs(y).max() < 0.04 and np.isfinite(grad).all()


def test_gradient_of_batch_norm(x64):
    """The closed form, finite differences, and the two sums that it makes zero."""
    layer, params, state = batch_norm(eps=1e-30)
    x, upstream, direction = (jnp.asarray(numbers(7, 3, seed=seed)) for seed in range(3))

    @jax.jit
    def f(x):
        return (layer.apply(params, state, x, TRAIN)[0] * upstream).sum()

    grad = jax.jit(jax.grad(f))(x)
    sigma, n = x.std(0, keepdims=True), len(x)
    u, delta = (x - x.mean(0, keepdims=True)) / sigma, upstream * params["scale"][None]
    sums = delta.sum(0, keepdims=True), (delta * u).sum(0, keepdims=True)
    expected = (n * delta - sums[0] - u * sums[1]) / (n * sigma)
    # Sums of 7 terms below 10.
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(grad.sum(0), 0, rtol=0, atol=1e-13)
    np.testing.assert_allclose((u * grad).sum(0), 0, rtol=0, atol=1e-13)
    h = 1e-5  # truncation h^2, rounding 1e-15 / h
    difference = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
    assert float((grad * direction).sum()) == pytest.approx(float(difference), abs=1e-8)


def test_a_bias_before_batch_norm_has_no_gradient(x64):
    net, x = nn.serial(nn.dense(3), nn.batch_norm()), jnp.asarray(numbers(8, 4))
    params, state = net.init(KEY, x)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sin(net.apply(params, state, x, TRAIN)[0]).sum()

    grads = gradient(params)
    assert abs(grads["dense0"]["bias"]).max() < 1e-12 < 1e-3 < abs(grads["dense0"]["kernel"]).max()


@pytest.mark.fast
def test_batch_norm_keeps_statistics_in_float32_under_bfloat16():
    layer = nn.batch_norm(decay=0.0)
    x = jnp.asarray(100 + numbers(256, 3), jnp.bfloat16)
    params, state = layer.init(KEY, x)
    y, state = layer.apply(params, state, x, TRAIN)
    assert y.dtype == jnp.bfloat16 and state["mean"].dtype == np.float32
    exact = np.asarray(x, np.float64)
    # In bfloat16 neither would be right to 1e-2.
    np.testing.assert_allclose(state["mean"], exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(state["var"], exact.var(0, ddof=1), rtol=1e-4)


@pytest.mark.fast
@pytest.mark.parametrize(
    "option, rule", [({"decay": 1.0}, "decay"), ({"eps": 0}, "eps"), ({"running": "sd"}, "running")]
)
def test_batch_norm_refuses(option, rule):
    with pytest.raises(ValueError, match=f"batch_norm: {rule} must be"):
        nn.batch_norm(**option)


@pytest.mark.fast
def test_frozen_stops_the_gradient_of_params_only():
    net, x = nn.frozen(nn.serial(nn.dense(3), nn.batch_norm())), jnp.ones((2, 4))
    params, state = net.init(KEY, x)
    dp, dx = jax.grad(lambda p, x: net.apply(p, state, x, TRAIN)[0].sum(), (0, 1))(params, x)
    assert not any(leaf.any() for leaf in jax.tree.leaves(dp)) and dx.all()


# Dropout.


def masks(x, ctx, rate=0.5):
    return outputs(nn.dropout(rate), x, ctx=ctx) != 0


@pytest.mark.parametrize("given", [True, False])
def test_dropout_masks_are_the_same_on_any_number_of_devices(given):
    x, index = jnp.ones((8, 20)), jnp.arange(100, 108, dtype=jnp.int32) if given else None
    whole = masks(x, dataclasses.replace(TRAIN, index=index))
    ctx = dataclasses.replace(TRAIN, axis_name="data")
    axes = nn.Context(train=True, key=None, index=0 if given else None, axis_name="data")
    for n in (1, 2, 4, 8):
        layer = nn.dropout(0.5)
        parts = None if index is None else index.reshape(n, -1)
        apply = jax.pmap(
            lambda x, ctx: layer.apply({}, {}, x, ctx)[0],  # noqa: B023
            "data",
            in_axes=(0, axes),
            devices=jax.devices()[:n],
        )
        y = apply(x.reshape(n, -1, 20), dataclasses.replace(ctx, index=parts))
        np.testing.assert_array_equal(y.reshape(8, 20) != 0, whole)
    if given:  # and in any part of the batch, in any order
        some = np.array([6, 1, 3])
        part = masks(x[some], dataclasses.replace(TRAIN, index=index[some]))
        np.testing.assert_array_equal(part, whole[some])


@pytest.mark.fast
def test_dropout_masks_differ_between_steps_layers_and_examples():
    x = jnp.ones((8, 64))
    net = nn.serial(a=nn.dropout(0.5))
    first = masks(x, TRAIN.child("a"))
    np.testing.assert_array_equal(outputs(net, x, ctx=TRAIN) != 0, first)
    for other in (TRAIN.child("b"), dataclasses.replace(TRAIN, key=key(2)).child("a")):
        # Two random masks agree in half of the places, give or take 5 sqrt(512 / 4) of 512.
        assert abs((masks(x, other) == first).mean() - 0.5) < 5 * math.sqrt(0.25 / 512)
    assert len({row.tobytes() for row in first}) == 8
    stacked = nn.repeat(nn.dropout(0.5), 2).apply({}, {}, x, TRAIN)[0]
    assert abs((np.asarray(stacked) != 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 512)


@pytest.mark.fast
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_its_expectation(rate):
    x, n = jnp.full((100, 200), 3.0), 20_000
    ctx = dataclasses.replace(TRAIN, key=jax.random.key(0))
    kept = masks(x, ctx, rate)
    # A binomial: five standard deviations.
    band = 5 * math.sqrt(rate * (1 - rate) / n)
    assert abs(kept.mean() - (1 - rate)) < band
    assert (abs(kept.mean(1) - (1 - rate)) < band * math.sqrt(100)).all()  # every example alike
    for form, value, at_test in (("inverted", 3 / (1 - rate), 3), ("vanilla", 3, 3 * (1 - rate))):
        y = outputs(nn.dropout(rate, form=form), x, ctx=ctx)
        np.testing.assert_allclose(y, np.where(kept, value, 0), rtol=1e-6)
        np.testing.assert_allclose(outputs(nn.dropout(rate, form=form), x), at_test, rtol=1e-6)


@pytest.mark.fast
def test_dropout_without_need_of_a_key():
    x = jnp.asarray(numbers(2, 3), np.float32)
    for ctx, rate in ((nn.EVAL, 0.5), (nn.Context(train=True), 0.0)):
        np.testing.assert_array_equal(outputs(nn.dropout(rate), x, ctx=ctx), x)
    with pytest.raises(ValueError, match="Context: key must be given where a layer samples") as e:
        nn.serial(quiet=nn.dropout(0.5)).apply({}, {}, x, nn.Context(train=True))
    assert "in layer 'quiet'" in e.value.__notes__
    index = jnp.arange(3, dtype=jnp.int32)
    with pytest.raises(ValueError, match=r"Context: index must be of shape \(2,\), got \(3,\)"):
        nn.dropout(0.5).apply({}, {}, x, dataclasses.replace(TRAIN, index=index))
    for rate in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"dropout: rate must be a number in \[0, 1\)"):
            nn.dropout(rate)


# Repeat.


@pytest.mark.fast
def test_repeat_is_as_small_a_program_for_fifty_layers_as_for_five():
    def lines(n):
        net = nn.repeat(nn.serial(nn.dense(4), nn.relu), n)
        weights = jax.eval_shape(net.init, KEY, x := jnp.ones((2, 4)))
        loss = lambda params: net.apply(params, weights[1], x, TRAIN)[0].sum()  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(loss))(weights[0])).count("\n")

    assert lines(50) == lines(5)


@pytest.mark.parametrize("conv", [False, True])
def test_repeat_written_out_and_in_a_loop(conv):
    layer = nn.conv(2, 3) if conv else nn.dense(2)
    x = jnp.asarray(numbers(2, 5, 5, 2), np.float32)
    params, state = nn.repeat(layer, 3).init(KEY, x)
    results = {}
    for unroll in (True, False, None):
        apply = jax.jit(nn.repeat(layer, 3, unroll=unroll).apply)
        compiled = apply.lower(params, state, x, TRAIN).compile()
        results[unroll] = compiled(params, state, x, TRAIN)[0]
        loops = " while(" in compiled.as_text()
        # On CPU, XLA runs the convolutions of a loop on one thread.
        assert loops is {True: False, False: True, None: not conv}[unroll]
    # 18 products and two more layers, in float32.
    np.testing.assert_allclose(results[True], results[False], rtol=0, atol=1e-5)


@pytest.mark.fast
def test_repeat_refuses_another_shape_or_dtype():
    for layer in (nn.dense(3), nn.serial(nn.dense(2), lambda x: x.astype(jnp.bfloat16))):
        with pytest.raises(ValueError, match="repeat: layer's output must be of its input's shape"):
            jax.eval_shape(nn.repeat(layer, 2).init, KEY, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="repeat: n must be an int >= 1, got 0"):
        nn.repeat(nn.dense(2), 0)


# Looking inside.


def small_net():
    return nn.serial(
        stem=nn.dense(4),
        blocks=nn.repeat(nn.remat(nn.serial(nn.dense(4), nn.batch_norm(), jnp.tanh)), 3),
        skip=nn.residual(nn.frozen(nn.serial(nn.dropout(0.5), inner=nn.dense(4)))),
        head=nn.dense(2),
    )


@pytest.mark.fast
def test_rewrite_visits_every_layer_from_below():
    seen = []

    def visit(path, layer):
        seen.append(("/".join(path), layer.kind))
        return layer

    net = nn.rewrite(small_net(), visit)
    assert seen == [
        ("stem", "dense"),
        *(
            ("blocks/dense0", "dense"),
            ("blocks/batch_norm0", "batch_norm"),
            ("blocks/tanh0", "tanh"),
        ),
        *(("blocks", "serial"), ("blocks", "remat"), ("blocks", "repeat")),
        *(("skip/body/dropout0", "dropout"), ("skip/body/inner", "dense")),
        *(("skip/body", "serial"), ("skip/body", "frozen")),
        *(("skip/shortcut", "identity"), ("skip", "residual"), ("head", "dense"), ("", "serial")),
    ]
    assert repr(net) == repr(small_net())
    wider = nn.rewrite(net, lambda path, f: f.replace(features=6) if f.kind == "dense" else f)
    params, _ = jax.eval_shape(wider.init, KEY, jax.ShapeDtypeStruct((1, 6), np.float32))
    assert params["blocks"]["dense0"]["kernel"].shape == (3, 6, 6)


def test_tap_reports_without_changing_anything():
    net, x = small_net(), jnp.asarray(numbers(4, 3), np.float32)
    params, state = net.init(KEY, x)
    tapped = nn.tap(net, "*", lambda layer, params, x, y: (y, {"x": x, "y": y}))

    def loss(net, params):
        y, new = net.apply(params, state, x, TRAIN)
        return jnp.sin(y).sum(), new

    (value, plain), grads = jax.jit(jax.value_and_grad(lambda p: loss(net, p), has_aux=True))(
        params
    )
    (seen_value, seen), seen_grads = jax.jit(
        jax.value_and_grad(lambda p: loss(tapped, p), has_aux=True)
    )(params)
    seen, records = nn.split_taps(seen)
    # The same sums; the compiler may order them anew.
    for a, b in ((seen, plain), (seen_grads, grads), (seen_value, value)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), a, b)
    inside = ("", "/dense0", "/batch_norm0", "/tanh0")
    assert set(records) == {"", "stem", "head", "skip", "skip/shortcut", "skip/body"} | {
        *("skip/body/dropout0", "skip/body/inner"),
        *("blocks" + name for name in inside),
    }
    assert records["blocks"]["y"].shape == (3, 4, 4)  # stacked by repeat
    np.testing.assert_array_equal(records["stem"]["x"], x)
    np.testing.assert_array_equal(records["blocks"]["x"][0], records["stem"]["y"])
    np.testing.assert_array_equal(records["blocks/dense0"]["x"][1:], records["blocks"]["y"][:-1])
    np.testing.assert_array_equal(records["skip"]["x"], records["blocks"]["y"][-1])
    np.testing.assert_allclose(jnp.sin(records["head"]["y"]).sum(), value, rtol=0, atol=1e-5)


def test_probes_give_the_gradient_of_an_output(x64):
    tail = nn.serial(act=jnp.tanh, head=nn.dense(2))
    net, x = nn.serial(stem=nn.dense(3), tail=tail), jnp.asarray(numbers(4, 3))
    params, state = net.init(KEY, x)
    tapped = nn.tap(net, "stem", lambda layer, params, x, y: (y, y))
    h = 1e-6

    def loss(probe):
        probed = params | {"stem": params["stem"] | {"probe": probe}}
        y, seen = tapped.apply(probed, state, x, nn.EVAL)
        return jnp.sin(y).sum(), seen

    grad, seen = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros((4, 3)))
    z = nn.split_taps(seen)[1]["stem"]

    @jax.jit
    def f(z):
        return jnp.sin(tail.apply(params["tail"], {}, z, nn.EVAL)[0]).sum()

    for place in np.ndindex(z.shape):
        difference = (f(z.at[place].add(h)) - f(z.at[place].add(-h))) / (2 * h)
        # Truncation h^2, rounding 1e-15 / h.
        assert float(grad[place]) == pytest.approx(float(difference), abs=1e-8)


def test_probes_inside_repeat(x64):
    """One probe per turn of the loop: the chain rule between them."""
    layer = nn.repeat(nn.serial(nn.dense(2), jnp.tanh), 2)
    x = jnp.asarray(numbers(3, 2))
    params, state = layer.init(KEY, x)
    tapped = nn.tap(layer, "dense0", lambda layer, params, x, y: (y, y))

    def loss(probe):
        probed = {"dense0": params["dense0"] | {"probe": probe}}
        y, seen = tapped.apply(probed, state, x, nn.EVAL)
        return y.sum(), seen

    grad, seen = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros((2, 3, 2)))
    z = nn.split_taps(seen)[1]["dense0"]
    last = 1 - jnp.tanh(z[1]) ** 2
    first = (last @ params["dense0"]["kernel"][1].T) * (1 - jnp.tanh(z[0]) ** 2)
    np.testing.assert_allclose(grad, jnp.stack([first, last]), rtol=0, atol=1e-14)


@pytest.mark.fast
def test_a_tap_may_change_the_output_and_stays_through_a_rewrite():
    net, x = nn.serial(nn.dense(3), jnp.tanh), jnp.ones((2, 3))
    params, state = net.init(KEY, x)
    doubled = nn.tap(net, "tanh0", lambda layer, params, x, y: (2 * y, None))
    again = nn.rewrite(doubled, lambda path, layer: layer.replace())
    for tapped in (doubled, again):
        y, _ = tapped.apply(params, state, x, nn.EVAL)
        np.testing.assert_allclose(y, 2 * net.apply(params, state, x, nn.EVAL)[0], rtol=1e-6)
    with pytest.raises(ValueError, match="got 'dense'; did you mean 'dense0'"):
        nn.tap(net, "dense", lambda layer, params, x, y: (y, y))


@pytest.mark.fast
def test_split_taps():
    state = {"a": {"tap": 1, "mean": 2, "in": {"tap": 3}}, "b": {"tap": {"x": 4}}, "tap": 5}
    rest, records = nn.split_taps(state)
    assert rest == {"a": {"mean": 2}}
    assert records == {"a": 1, "a/in": 3, "b": {"x": 4}, "": 5}


# Layers as values.


@pytest.mark.fast
def test_a_layer_remembers_how_it_was_made():
    layer = nn.conv(8, 3, strides=2)
    assert repr(layer) == "conv(features=8, window=3, strides=2)"
    assert layer.given == {"features": 8, "window": 3, "strides": 2}
    changed = layer.replace(features=4, bias=False)
    assert repr(changed) == "conv(features=4, window=3, strides=2, bias=False)"
    assert repr(nn.residual(jax.nn.relu)) == "residual(body=relu())"
    net = nn.serial(nn.dense(2), jax.nn.relu, nn.dense(3), functools.partial(jnp.clip, max=1.0))
    assert list(net.children) == ["dense0", "relu0", "dense1", "clip0"]
    assert net.replace(relu0=jnp.tanh).children["relu0"].kind == "tanh"
    bare = nn.Layer(lambda key, x: ({}, {}), lambda params, state, x, ctx: (x, state))
    assert (repr(bare), bare.children, bare.given) == ("layer()", {}, {})
    assert list(nn.serial(bare, lambda x: x).children) == ["layer0", "lambda0"]
    with pytest.raises(ValueError, match="Layer.replace: make must be a constructor"):
        bare.replace(features=3)
    assert layer != nn.conv(8, 3, strides=2) and len({layer, layer}) == 1  # compared by identity


@pytest.mark.fast
def test_children_must_be_layers_with_fresh_names():
    for name in ("tap", "probe", "layer", "a/b", "dense0"):
        with pytest.raises(ValueError, match="serial: a layer's name must be new and not reserved"):
            nn.serial(nn.dense(2), **{name: nn.dense(3)})
    with pytest.raises(TypeError, match=r"got 'flatten'; call it: flatten\(...\)"):
        nn.serial(nn.flatten)
    with pytest.raises(TypeError, match="nn: a layer must be a Layer or a function .* got 3"):
        nn.serial(3)
