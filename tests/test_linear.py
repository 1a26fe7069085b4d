"""Dense and convolutional layers and embeddings against NumPy loops, torch and special cases."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn, tree
from jaxtrain.errors import ConfigError
from jaxtrain.nn import initializers

KEY = key(0)
VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_linear.npz")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def outputs(layer, x, params=None):
    params = jax.tree.map(jnp.asarray, params or {})
    return np.asarray(layer.apply(params, {}, jnp.asarray(x), nn.EVAL)[0])


def close(got, want, tolerance=1e-12):
    """Compares relative to the largest element: sums of some tens of products of size 1."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max(initial=1))


# Convolutions in NumPy. A kernel is (*window, inputs / groups, features).


def convolution(x, K, strides, pads, dilation, groups):
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    sides = zip(x.shape[1:-1], K.shape[:-2], strides, dilation, strict=True)
    size = [(n - (w - 1) * d - 1) // s + 1 for n, w, s, d in sides]
    y = np.zeros((len(x), *size, K.shape[-1]))
    i, j = K.shape[-2], K.shape[-1] // groups
    for place, at in itertools.product(np.ndindex(*size), np.ndindex(*K.shape[:-2])):
        pixel = x[(slice(None), *np.multiply(place, strides) + np.multiply(at, dilation))]
        for g in range(groups):
            part = pixel[:, g * i : (g + 1) * i] @ K[at][:, g * j : (g + 1) * j]
            y[(slice(None), *place, slice(g * j, (g + 1) * j))] += part
    return y


def pads_of(padding, size, window, strides, dilation):
    """TensorFlow's rule for "SAME": the odd one goes behind."""
    if not isinstance(padding, str):
        return padding
    missing = [
        max(-(-n // s) * s - s + (w - 1) * d + 1 - n, 0) if padding == "SAME" else 0
        for n, w, s, d in zip(size, window, strides, dilation, strict=True)
    ]
    return [(m // 2, m - m // 2) for m in missing]


@pytest.mark.parametrize("size, window, strides, padding, dilation, groups", [
    ((9,), (3,), (2,), "SAME", (2,), 2),
    ((7, 6), (3, 2), (1, 2), "SAME", (2, 1), 1),
    ((7, 6), (2, 3), (2, 1), "VALID", (3, 2), 4),
    ((6, 5), (3, 3), (2, 2), [(2, 1), (0, 3)], (1, 2), 2),
    ((3, 4, 4), (2, 1, 2), (1, 2, 1), "SAME", (1, 1, 2), 2),
])  # fmt: skip
def test_conv_in_groups_and_dilated(size, window, strides, padding, dilation, groups, x64):
    x, K, b = numbers(2, *size, 4), numbers(*window, 4 // groups, 8), numbers(8)
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    layer = nn.conv(8, window, groups=groups, **options)
    pads = pads_of(padding, size, window, strides, dilation)
    want = convolution(x, K, strides, pads, dilation, groups) + b
    close(outputs(layer, x, {"kernel": K, "bias": b}), want)
    if groups == 4:
        depthwise = nn.depthwise_conv(window, multiplier=2, **options)
        close(outputs(depthwise, x, {"kernel": K, "bias": b}), want)


def transposed(x, K, strides, size, pads):
    sides = zip(x.shape[1:-1], K.shape[:-2], strides, strict=True)
    y = np.zeros((len(x), *(n * s + w for n, w, s in sides), K.shape[-1]))
    for place, at in itertools.product(np.ndindex(*x.shape[1:-1]), np.ndindex(*K.shape[:-2])):
        target = np.multiply(place, strides) + K.shape[:-2] - np.add(at, 1)
        y[(slice(None), *target)] += x[(slice(None), *place)] @ K[at]
    cuts = (slice(before, before + m) for m, (before, _) in zip(size, pads, strict=True))
    return y[(slice(None), *cuts)]


@pytest.mark.parametrize("size, window, strides, padding", [
    ((5,), (3,), (2,), "SAME"),
    ((4,), (2,), (3,), "SAME"),
    ((4,), (2,), (3,), "VALID"),
    ((3, 4), (4, 3), (2, 2), "VALID"),
    ((3, 4), (5, 2), (2, 1), "SAME"),
    ((4, 3), (3, 3), (2, 2), [(1, 0), (1, 1)]),
    ((2, 2, 3), (2, 3, 2), (1, 2, 2), "SAME"),
])  # fmt: skip
def test_conv_transpose(size, window, strides, padding, x64):
    """Against a loop, and the gradient of a convolution with the kernel turned round."""
    x, K, b = numbers(2, *size, 3), numbers(*window, 3, 4), numbers(4)
    layer = nn.conv_transpose(4, window, strides=strides, padding=padding)
    y = outputs(layer, x, {"kernel": K, "bias": b})
    documented = [
        {"SAME": n * s, "VALID": n * s + max(w - s, 0)}[padding]
        if isinstance(padding, str)
        else (n - 1) * s + w - sum(padding[axis])
        for axis, (n, w, s) in enumerate(zip(size, window, strides, strict=True))
    ]
    pads = pads_of(padding, documented, window, strides, [1] * len(size))
    close(y, transposed(x, K, strides, documented, pads) + b)

    conv = nn.conv(3, window, strides=strides, padding=padding, bias=False)
    turned = {"kernel": jnp.flip(jnp.asarray(K), range(len(size))).swapaxes(-1, -2)}
    z, pull = jax.vjp(lambda y: conv.apply(turned, {}, y, nn.EVAL)[0], jnp.asarray(y))
    assert z.shape == x.shape
    close(np.asarray(pull(jnp.asarray(x))[0]) + b, y)


@pytest.mark.fast
def test_separable_convolution_is_a_convolution(x64):
    """A depthwise and a 1x1 convolution make the kernel D[window, 0, i] P[0, 0, i, o]."""
    x, D, P = numbers(2, 5, 5, 3), numbers(3, 3, 1, 3), numbers(1, 1, 3, 4)
    pair = nn.serial(nn.depthwise_conv(3, bias=False), nn.conv(4, 1, bias=False))
    y = outputs(pair, x, {"depthwise_conv0": {"kernel": D}, "conv0": {"kernel": P}})
    close(y, outputs(nn.conv(4, 3), x, {"kernel": D[:, :, 0, :, None] * P[0]}))


@pytest.mark.fast
def test_what_does_not_fit_is_refused():
    image = jnp.zeros((1, 5, 5, 3))
    with pytest.raises(ConfigError, match="conv: features must be a multiple of groups, 3, got 8"):
        nn.conv(8, 3, groups=3)
    with pytest.raises(ConfigError, match="conv: groups must be an int >= 1, got 0"):
        nn.conv(8, 3, groups=0)
    with pytest.raises(ConfigError, match="conv: x must be of a multiple of groups, 2, channels"):
        nn.conv(8, 3, groups=2).init(KEY, image)
    with pytest.raises(ConfigError, match="conv: dilation must be an int >= 1 or 2 of them, got 0"):
        nn.conv(8, 3, dilation=0).init(KEY, image)
    with pytest.raises(ConfigError, match="depthwise_conv: multiplier must be an int >= 1, got 0"):
        nn.depthwise_conv(3, multiplier=0)
    with pytest.raises(ConfigError, match="conv_transpose: padding must be 'SAME', 'VALID' or 2"):
        nn.conv_transpose(8, 3, padding=[(1, 1)]).init(KEY, image)
    for layer in (nn.depthwise_conv(2), nn.conv_transpose(2, 2), nn.conv(3, 2, groups=3)):
        params, _ = jax.eval_shape(layer.init, KEY, image)
        with pytest.raises(ConfigError, match=r"x must be \(batch, 2 spatial axes, 3 channels\)"):
            jax.eval_shape(layer.apply, params, {}, image[..., :2], nn.EVAL)


# One matrix: maxout, bottleneck, embedding.


@pytest.mark.fast
@pytest.mark.parametrize("shape, pieces", [((4, 5), 2), ((2, 3, 5), 3)])
def test_maxout(shape, pieces, x64):
    x, W, b = numbers(*shape), numbers(pieces, 5, 4), numbers(pieces, 4)
    params = {"kernel": np.concatenate(W, -1), "bias": b.ravel()}
    want = np.max([x @ W_k + b_k for W_k, b_k in zip(W, b, strict=True)], 0)
    close(outputs(nn.maxout(4, pieces=pieces), x, params), want)


@pytest.mark.fast
def test_maxout_has_a_dense_layer_s_params_for_each_piece_and_contains_relu():
    x = jax.ShapeDtypeStruct((1, 7), np.float32)
    dense = tree.count(jax.eval_shape(nn.dense(5).init, KEY, x)[0])
    for k in (1, 2, 3):
        params = jax.eval_shape(nn.maxout(5, pieces=k).init, KEY, x)[0]
        assert tree.count(params) == k * dense == k * (7 + 1) * 5
    eye, x = np.eye(3, dtype=np.float32), numbers(6, 3).astype(np.float32)
    for slope in (0.0, 0.01):
        y = outputs(nn.maxout(3), x, {"kernel": np.concatenate([eye, slope * eye], -1)})
        np.testing.assert_array_equal(y, np.where(x > 0, x, np.float32(slope) * x))
    with pytest.raises(ConfigError, match="maxout: pieces must be an int >= 1, got 0"):
        nn.maxout(3, pieces=0)


@pytest.mark.fast
def test_bottleneck_has_few_params_and_a_low_rank():
    D, H, k = 30, 20, 4
    net = nn.bottleneck(H, k, bias=False)
    params, state = net.init(KEY, jnp.zeros((1, D)))
    assert tree.count(params) == (D + H) * k and state == {}
    assert tree.count(jax.eval_shape(nn.bottleneck(H, k).init, KEY, jnp.zeros((1, D)))[0]) == (
        (D + H) * k + H
    )
    assert np.linalg.matrix_rank(outputs(net, np.eye(D, dtype=np.float32), params)) == k
    with pytest.raises(ConfigError, match="bottleneck: rank must be an int >= 1, got 0"):
        nn.bottleneck(H, 0)


@pytest.mark.fast
def test_embedding(x64):
    ids, E, v = np.array([[1, 3, 1], [0, 4, 1]]), numbers(5, 2), numbers(2, 3, 2)
    layer = nn.embedding(5, 2)
    np.testing.assert_array_equal(outputs(layer, ids, {"embedding": E}), E[ids])
    for dtype in (np.uint8, np.int16):
        np.testing.assert_array_equal(outputs(layer, ids.astype(dtype), {"embedding": E}), E[ids])
    gradient = jax.grad(
        lambda E: (layer.apply({"embedding": E}, {}, jnp.asarray(ids), nn.EVAL)[0] * v).sum()
    )(jnp.asarray(E))
    want = np.zeros_like(E)
    np.add.at(want, ids, v)  # three of them meet at 1
    close(gradient, want)
    ensemble = jax.vmap(layer.apply, (0, None, None, None))
    both = ensemble({"embedding": jnp.stack([E, 2 * E])}, {}, jnp.asarray(ids), nn.EVAL)[0]
    np.testing.assert_array_equal(both, [E[ids], 2 * E[ids]])
    assert outputs(layer, ids[:0], {"embedding": E}).shape == (0, 3, 2)


@pytest.mark.fast
def test_embedding_starts_at_unit_variance_in_the_default_dtype():
    layer, ids = nn.embedding(100, 100), jax.ShapeDtypeStruct((1, 3), np.int32)
    E = layer.init(KEY, ids)[0]["embedding"]
    # Five standard deviations of the mean square of 10,000 normal numbers, 1 +- sqrt(2 / n).
    assert E.dtype == np.float32 and abs(np.square(E).mean() - 1) < 5 * np.sqrt(2 / E.size)
    again = nn.build(json.loads(json.dumps(nn.describe(layer))))
    np.testing.assert_array_equal(again.init(KEY, ids)[0]["embedding"], E)
    net = nn.serial(layer, nn.global_avg_pool())
    assert set(net.init(KEY, ids)[0]) == {"embedding0"}


@pytest.mark.fast
@pytest.mark.parametrize("bad", [-1, 5, 255])
def test_embedding_of_what_it_does_not_hold(bad):
    layer = nn.embedding(5, 2)
    params, ids = {"embedding": jnp.ones((5, 2))}, jnp.array([[4, bad], [bad, 0]])
    with pytest.raises(ConfigError, match=rf"embedding: x must be in \[0, 5\), got {bad}"):
        layer.apply(params, {}, ids, nn.EVAL)
    y = jax.jit(layer.apply)(params, {}, ids, nn.EVAL)[0]
    np.testing.assert_array_equal(np.isnan(y), np.stack([ids == bad] * 2, -1))
    for call in (lambda x: layer.init(KEY, x), lambda x: layer.apply(params, {}, x, nn.EVAL)):
        with pytest.raises(TypeError, match="x must be of an integer dtype, got 'float32'"):
            call(jnp.zeros((1, 2)))


# torch.


def image(v, prefix=""):
    return np.moveaxis(v[f"{prefix}x"], 1, -1)


def with_bias(v, prefix, kernel):
    bias = {"bias": v[f"{prefix}bias"]} if "bias" in v else {}
    return {"kernel": kernel} | bias


def of_conv(v, prefix=""):
    return with_bias(v, prefix, np.moveaxis(v[f"{prefix}weight"], (0, 1), (-1, -2)))


def of_transpose(v, prefix=""):
    kernel = np.moveaxis(v[f"{prefix}weight"], (0, 1), (-2, -1))
    return with_bias(v, prefix, np.flip(kernel, range(kernel.ndim - 2)))


LIKE_TORCH = {
    "conv1d": nn.conv(6, 3, strides=2, padding=[(1, 1)], groups=2),
    "conv2d": nn.conv(2, (3, 2), strides=(2, 1), padding=[(2, 2), (0, 0)], bias=False),
    "conv2d, dilated": nn.conv(6, 3, padding=[(2, 2), (1, 1)], dilation=2, groups=3),
    "conv2d, depthwise": nn.depthwise_conv(3, multiplier=2),
    "conv3d": nn.conv(
        4, 2, strides=(1, 2, 1), padding="VALID", dilation=(1, 1, 2), groups=2
    ),
    "transpose1d": nn.conv_transpose(3, 4, strides=3, padding="VALID"),
    "transpose2d": nn.conv_transpose(2, 3, strides=2, padding=[(1, 0), (1, 0)]),
    "transpose3d": nn.conv_transpose(
        2, 2, strides=(1, 2, 1), padding=[(0, 0)] * 3, bias=False
    ),
}  # fmt: skip


def entries(name):
    """The arrays of a case, by torch's names."""
    return {k.split("/")[1]: VECTORS[k] for k in VECTORS.files if k.startswith(f"{name}/")}


def forward_and_gradient(layer, params, x):
    def loss(params, x):
        y = layer.apply(params, {}, x, nn.EVAL)[0]
        return (y * jnp.sin(y)).sum(), y

    (_, y), (dp, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    return y, dp, dx


@pytest.mark.parametrize("name", LIKE_TORCH)
def test_equals_torch(name, x64):
    layer, v = LIKE_TORCH[name], entries(name)
    convert = of_transpose if name.startswith("transpose") else of_conv
    params = jax.tree.map(jnp.asarray, convert(v))
    y, dp, dx = forward_and_gradient(layer, params, jnp.asarray(image(v)))
    close(y, np.moveaxis(v["y"], 1, -1))
    close(dx, image(v, "d"))
    jax.tree.map(close, dp, convert(v, "d"))
    made = layer.init(KEY, jax.ShapeDtypeStruct(image(v).shape, np.float64))[0]
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)


def test_equals_flax(x64):
    """The same kernels and embeddings, explicit padding of a transpose apart."""
    import flax.linen as linen

    x, ids = jnp.asarray(numbers(2, 5, 4, 6)), jnp.array([[0, 2]])
    grouped = {"kernel_dilation": 2, "feature_group_count": 2}
    for ours, theirs, z in (
        (nn.conv(4, 3, dilation=2, groups=2), linen.Conv(4, (3, 3), **grouped), x),
        (nn.conv_transpose(4, 3, strides=2), linen.ConvTranspose(4, (3, 3), strides=(2, 2)), x),
        (
            nn.conv_transpose(4, (3, 2), strides=2, padding=[(1, 0), (0, 1)]),
            linen.ConvTranspose(4, (3, 2), strides=(2, 2), padding=[(1, 2), (1, 0)]),
            x,
        ),
        (nn.embedding(3, 2), linen.Embed(3, 2), ids),
    ):
        params = jax.jit(ours.init)(KEY, z)[0]
        params |= {"bias": jnp.asarray(numbers(4))} if "bias" in params else {}
        close(ours.apply(params, {}, z, nn.EVAL)[0], theirs.apply({"params": params}, z))


@pytest.mark.fast
def test_embedding_equals_torch(x64):
    v = entries("embedding")
    layer, ids = nn.embedding(7, 3), jnp.asarray(v["x"])
    E = jnp.asarray(v["weight"])
    y, pull = jax.vjp(lambda E: layer.apply({"embedding": E}, {}, ids, nn.EVAL)[0], E)
    close(y, v["y"])
    close(pull(jnp.sin(y) + y * jnp.cos(y))[0], v["dweight"])


@pytest.mark.fast
def test_every_vector_of_torch_is_compared():
    recurrent = {"rnn", "rnn, relu", "lstm", "gru"}  # test_recurrent.py
    assert {k.split("/")[0] for k in VECTORS.files} == {*LIKE_TORCH, "embedding", *recurrent}


# Layers as values.


@pytest.mark.fast
@pytest.mark.parametrize("layer", [
    nn.conv(4, (3, 2), strides=2, dilation=(1, 2), groups=2, padding=[(1, 0), (0, 1)]),
    nn.depthwise_conv(3, multiplier=2, padding="VALID"),
    nn.conv_transpose(4, 3, strides=2, padding=[(1, 0), (1, 0)]),
    nn.maxout(3, pieces=3, bias=False),
    nn.bottleneck(3, 2),
])  # fmt: skip
def test_a_layer_is_rebuilt_from_its_json(layer):
    again = nn.build(json.loads(json.dumps(nn.describe(layer))))
    x = jnp.ones((2, 6, 6, 4))
    params, state = jax.eval_shape(layer.init, KEY, x)
    programs = [str(jax.make_jaxpr(f.apply)(params, state, x, nn.EVAL)) for f in (layer, again)]
    assert programs[0] == programs[1] and nn.describe(again) == nn.describe(layer)


def test_an_example_alone_no_example_and_bfloat16():
    for layer in (
        nn.conv(4, 3, groups=2, dilation=2),
        nn.depthwise_conv(3, strides=2),
        nn.conv_transpose(3, 3, strides=2),
        nn.maxout(3),
    ):
        x = jnp.asarray(numbers(3, 6, 6, 4), np.float32)
        params, apply = jax.jit(layer.init)(KEY, x)[0], jax.jit(layer.apply)
        y, one, none, low = (
            np.asarray(apply(params, {}, z, nn.EVAL)[0], np.float32)
            for z in (x, x[1:2], x[:0], x.astype(jnp.bfloat16))
        )
        close(one, y[1:2], 1e-5)  # sums of some twenty products in another order
        assert none.shape == (0, *y.shape[1:])
        close(low, y, 0.02)  # inputs and kernels rounded to 8 bits


@pytest.mark.fast
def test_default_initializers_keep_the_variance():
    """He's rule counts the inputs of one output: those of a group, of a window."""
    x = jnp.zeros((1, 9, 9, 64))
    for layer, inputs in (
        (nn.conv(64, 3, groups=4), 9 * 16),
        (nn.depthwise_conv(5, multiplier=4), 25),
        (nn.conv_transpose(64, 3), 9 * 64),
    ):
        kernel = np.asarray(jax.jit(layer.init)(KEY, x)[0]["kernel"], np.float64)
        # Five standard deviations of the mean square of n normal numbers.
        assert abs(np.square(kernel).mean() * inputs / 2 - 1) < 5 * np.sqrt(2 / kernel.size)
    assert (nn.conv(2, 3, kernel_init=initializers.ones).init(KEY, x)[0]["kernel"] == 1).all()
