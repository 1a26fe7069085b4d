"""Kernels rescaled by the data: against NumPy, and in every kind of net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn

RNG = np.random.default_rng(0)
X = jnp.asarray(3 + 2 * RNG.normal(size=(40, 5)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(16, 6, 5, 2)), jnp.float32)
METHODS = pytest.mark.parametrize("f", [nn.lsuv, nn.data_dependent])


def drawn(net, x):
    """Params with biases that are not zero, and the state."""
    params, state = jax.jit(net.init)(key(0), x)
    return jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, params), state


def lsuv(x, layers):
    """Mishkin and Matas, with the Q of a QR decomposition of positive diagonal, for dense ReLUs."""
    new = []
    for w, b in layers:
        q, r = np.linalg.qr(w if len(w) >= w.shape[1] else w.T)
        q = q * np.sign(np.diag(r))
        w = q if len(w) >= w.shape[1] else q.T
        w = w / (x @ w).std()
        new.append((w, b))
        x = np.maximum(x @ w + b, 0)
    return new


def data_dependent(x, layers):
    """Kraehenbuehl et al., algorithm 1 with beta = 0, for dense ReLUs."""
    new = []
    for w, b in layers:
        y = x @ w + b
        w, b = w / y.std(0), (b - y.mean(0)) / y.std(0)
        new.append((w, b))
        x = np.maximum(x @ w + b, 0)
    return new


@METHODS
def test_equals_numpy(x64, f):
    x = X.astype(jnp.float64)
    net = nn.serial(nn.dense(7), jax.nn.relu, nn.dense(4), jax.nn.relu, nn.dense(4))
    params, state = drawn(net, x)
    layers = [tuple(np.asarray(p[k]) for k in ("kernel", "bias")) for p in params.values()]
    reference = {nn.lsuv: lsuv, nn.data_dependent: data_dependent}[f](np.asarray(x), layers)
    found = f(net, params, state, x)
    for p, (w, b) in zip(found.values(), reference, strict=True):
        # Sums of 40 numbers through three layers: some hundred roundings.
        np.testing.assert_allclose(p["kernel"], w, rtol=0, atol=1e-12 * abs(w).max())
        np.testing.assert_allclose(p["bias"], b, rtol=0, atol=1e-12 * abs(b).max())


NETS = {
    "conv": (nn.serial(nn.conv(3, 3, strides=2), nn.tanh, nn.conv(4, 2)), IMAGES),
    "other convolutions": (
        nn.serial(nn.depthwise_conv(3, multiplier=2), nn.relu, nn.conv_transpose(3, 2, strides=2)),
        IMAGES,
    ),
    "maxout": (nn.serial(nn.maxout(4, pieces=3), nn.dense(3, bias=False)), X),
    "residual, repeat, remat": (
        nn.serial(
            nn.dense(6),
            nn.repeat(nn.residual(nn.serial(nn.remat(nn.dense(6)), nn.relu)), 3),
            nn.parallel(nn.dense(2), nn.dense(3)),
        ),
        X,
    ),
    "batch_norm": (nn.serial(nn.dense(4, bias=False), nn.batch_norm(), nn.relu, nn.dense(2)), X),
    "dense alone": (nn.dense(3), X),
}


@METHODS
@pytest.mark.parametrize("name", NETS)
def test_every_layer_has_unit_variance(f, name):
    net, x = NETS[name]
    params, state = jax.jit(net.init)(key(0), x)
    found = f(net, params, state, x)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)
    seen = []

    def see(layer, own, x, y):
        axes = tuple(range(y.ndim - 1)) if f is nn.data_dependent else None
        return y, (y.mean(axes), y.std(axes))

    at = lambda path, layer: "kernel_init" in layer.options  # noqa: E731
    _, tapped = jax.jit(nn.tap(net, at, see).apply)(found, state, x, nn.EVAL)
    for path, (mean, std) in nn.split_taps(tapped)[1].items():
        seen.append(path)
        # float32, sums of a thousand numbers.
        np.testing.assert_allclose(std, np.ones_like(std), rtol=1e-4, err_msg=path)
        biased = f is nn.data_dependent and name not in ("batch_norm", "maxout")
        if biased:
            np.testing.assert_allclose(mean, np.zeros_like(mean), atol=1e-4, err_msg=path)
    assert len(seen) == sum(layer.kind in nn._data_init.AFFINE for _, layer in nn._look.walk(net))


def test_lsuv_keeps_the_kernels_orthogonal_and_every_copy_its_own_scale():
    net, x = NETS["residual, repeat, remat"]
    params, state = jax.jit(net.init)(key(0), x)
    w = np.asarray(nn.lsuv(net, params, state, x)["repeat0"]["body"]["remat0"]["kernel"])
    products = np.einsum("nij,nik->njk", w, w)
    scales = products[:, 0, 0]
    np.testing.assert_allclose(products, scales[:, None, None] * np.eye(6), atol=1e-5)
    assert len(set(scales.round(4))) == 3


@METHODS
def test_padding_does_not_count(f):
    net = nn.serial(nn.dense(4), nn.relu, nn.dense(2))
    params, state = jax.jit(net.init)(key(0), X)
    padded = jnp.concatenate([X, jnp.full((3, 5), 99.0)])
    ctx = nn.Context(train=False, mask=(jnp.arange(43) < 40).astype(jnp.float32))
    masked = f(net, params, state, padded, ctx=ctx)
    jax.tree.map(
        # The same sums in another order.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        masked,
        f(net, params, state, X),
    )


@METHODS
@pytest.mark.parametrize("case", ["zeros", "one example", "offset", "large", "bfloat16"])
def test_odd_inputs(f, case):
    x = {
        "zeros": jnp.zeros((4, 5)),
        "one example": X[:1],
        "offset": 1e4 + X,
        "large": 1e4 * jnp.sign(X - 3),
        "bfloat16": X,
    }[case]
    net = nn.serial(nn.dense(4), nn.relu, nn.dense(2))
    net = nn.cast(net, jnp.bfloat16) if case == "bfloat16" else net
    params, state = jax.jit(net.init)(key(0), x)
    found = f(net, params, state, x)
    assert all(np.isfinite(p).all() and p.dtype == np.float32 for p in jax.tree.leaves(found))
    y, _ = net.apply(found, state, x, nn.EVAL)
    if case in ("offset", "large", "bfloat16") and f is nn.lsuv:
        # bfloat16 has 8 bits. At the offset the sums of 1e4 leave 7 - 4 digits of the variance.
        assert y.std() == pytest.approx(1, rel={"large": 1e-4, "bfloat16": 2e-2}.get(case, 1e-2))


@pytest.mark.fast
def test_what_is_constant_but_for_rounding_is_only_shifted():
    x = jnp.where(X > 3, 0.3, np.nextafter(np.float32(0.3), np.float32(1)))
    params = {"kernel": jnp.ones((5, 2)), "bias": jnp.ones(2)}
    found = nn.data_dependent(nn.dense(2), params, {}, x)
    np.testing.assert_array_equal(found["kernel"], params["kernel"])
    np.testing.assert_allclose(found["bias"], [-1.5, -1.5], rtol=1e-6)


@pytest.mark.fast
def test_the_tenth_layer_of_a_deep_net_still_sees_the_data():
    """The two misfits, 0.01 randn and 1.0 randn, come out alike: kernels are made orthonormal."""
    net = nn.repeat(nn.serial(w=nn.dense(20, bias=False), f=jnp.tanh), 10)
    x = jax.random.normal(key(1), (100, 20))
    drawn = jax.random.normal(key(0), (2, 10, 20, 20)) * jnp.array([0.01, 1.0]).reshape(2, 1, 1, 1)

    @jax.vmap
    def before_and_after(kernels):
        params = {"w": {"kernel": kernels}}
        new = nn.lsuv(net, params, {}, x)
        return nn.unit_stats(net, params, {}, x), nn.unit_stats(net, new, {}, x)

    before, after = before_and_after(drawn)
    assert before["f"].std[0, -1] < 1e-6 and before["f"].saturated[1, -1] > 0.5
    np.testing.assert_allclose(after["w"].std, np.ones((2, 10)), rtol=1e-4)
    assert (after["f"].std > 0.6).all() and (after["f"].saturated < 0.1).all()


@pytest.mark.fast
@METHODS
def test_what_is_refused(f):
    name = f.__name__
    with pytest.raises(ValueError, match=f"{name}: net must be made of any of .'dense', 'conv'"):
        f(nn.flatten(), {}, {}, X)
    net = nn.serial(nn.weight_norm(nn.dense(2)))
    params, state = net.init(key(0), X)
    with pytest.raises(ValueError, match=f"{name}: params of 'weight_norm0' must be the layer's"):
        f(net, params, state, X)
