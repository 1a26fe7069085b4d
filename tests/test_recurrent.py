"""Recurrent layers against the papers' equations in NumPy, and against torch and flax."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn
from jaxtrain.errors import ConfigError

KEY = key(0)
VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_linear.npz")
INPUTS, FEATURES = 3, 4


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(got, want):
    """Some hundred products of size 1 in each of five steps, 2^-53 each, of the largest."""
    np.testing.assert_allclose(got, want, rtol=0, atol=500 * 2**-53 * np.abs(want).max(initial=1))


# The equations, for one example x (time, inputs); f is what normalizes a product, by its number.


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def elman(x, W, U, b, f):
    h, hs = np.zeros(len(U)), []
    for x_t in x:
        h = np.tanh(f(0, x_t @ W) + f(1, h @ U) + b)
        hs.append(h)
    return np.stack(hs)


def long_short_term_memory(x, W, U, b, f):
    h, c, hs = np.zeros(len(U)), np.zeros(len(U)), []
    for x_t in x:
        i, f_, g, o = np.split(f(0, x_t @ W) + f(1, h @ U) + b, 4)
        c = sigmoid(f_) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hs.append(h)
    return np.stack(hs)


def gated(x, W, U, b, f, b_u):
    """b_u is None where r acts before U."""
    h, n, hs = np.zeros(len(U)), len(U), []
    for x_t in x:
        a, u = f(0, x_t @ W) + b, f(1, h @ U)
        r, z = sigmoid(a[:n] + u[:n]), sigmoid(a[n : 2 * n] + u[n : 2 * n])
        v = (r * h) @ U[:, 2 * n :] if b_u is None else r * (u[2 * n :] + b_u)
        h = (1 - z) * np.tanh(a[2 * n :] + v) + z * h
        hs.append(h)
    return np.stack(hs)


EQUATIONS = {"rnn": (elman, 1), "lstm": (long_short_term_memory, 4), "gru": (gated, 3)}


@nn.constructor
def center(*, scale: bool = True):
    """Subtracts the mean of the last axis, and multiplies by a scale: a norm without state."""

    def init(key, x):
        return ({"scale": jax.random.normal(key, x.shape[-1:], x.dtype)} if scale else {}), {}

    def apply(params, state, x, ctx):
        y = x - x.mean(-1, keepdims=True)
        return y * params["scale"].reshape((1,) * (x.ndim - 1) + (-1,)) if params else y, state

    return nn.Layer(init, apply)


@pytest.mark.parametrize(
    "layer",
    [
        *(
            make(FEATURES, norm=norm)
            for make in (nn.rnn, nn.lstm, nn.gru)
            for norm in (None, center())
        ),
        nn.rnn(FEATURES, norm=center(scale=False)),
        nn.gru(FEATURES, reset_after=False),
    ],
    ids=repr,
)
def test_equals_the_equations(layer, x64):
    x = numbers(2, 5, INPUTS)
    params, state = jax.jit(layer.init)(KEY, jnp.asarray(x))
    params["bias"] = jnp.asarray(numbers(*params["bias"].shape))
    assert state == {}
    equation, parts = EQUATIONS[layer.kind]
    W, U, b = params["kernel"], params["recurrent"]["kernel"], params["bias"]
    assert (W.shape, U.shape, b.shape) == (
        (INPUTS, parts * FEATURES), (FEATURES, parts * FEATURES), (parts * FEATURES,)
    )  # fmt: skip
    more = []
    if layer.kind == "gru":
        if layer.options["reset_after"]:
            params["recurrent"]["bias"] = jnp.asarray(numbers(FEATURES, seed=1))
        more = [params["recurrent"].get("bias")]
    norm = layer.options["norm"]
    assert ("norm" in params) == (norm is not None and norm.options["scale"])

    def f(number, z):
        z = z if norm is None else z - z.mean()
        return z * np.asarray(params["norm"]["scale"][number]) if "norm" in params else z

    want = np.stack([equation(x_i, *map(np.asarray, (W, U, b)), f, *more) for x_i in x])
    y, state = jax.jit(layer.apply)(params, {}, jnp.asarray(x), nn.EVAL)
    close(y, want)
    assert state == {}
    empty = jax.eval_shape(layer.apply, params, {}, jnp.asarray(x[:, :0]), nn.EVAL)[0]
    assert empty.shape == (2, 0, FEATURES)
    if norm is not None and norm.options["scale"]:
        assert not np.array_equal(*params["norm"]["scale"])


# torch and flax.

LIKE_TORCH = {
    "rnn": nn.rnn(FEATURES),
    "rnn, relu": nn.rnn(FEATURES, activation=jax.nn.relu),
    "lstm": nn.lstm(FEATURES),
    "gru": nn.gru(FEATURES),
}


def from_torch(name, prefix=""):
    """torch's params, or with the prefix "d" their gradients: of two biases that add up, one's."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    W, U, b, c = (VECTORS[f"{name}/{prefix}{k}_l0"] for k in names)
    recurrent = {"kernel": U.T}
    if name == "gru":
        recurrent["bias"] = c[2 * FEATURES :]
        c = np.concatenate([c[: 2 * FEATURES], np.zeros(FEATURES)])
    return {"kernel": W.T, "recurrent": recurrent, "bias": b if prefix else b + c}


@pytest.mark.parametrize("name", LIKE_TORCH)
def test_equals_torch(name, x64):
    layer, x = LIKE_TORCH[name], jnp.asarray(VECTORS[f"{name}/x"])
    params = jax.tree.map(jnp.asarray, from_torch(name))

    def loss(params, x):
        y = layer.apply(params, {}, x, nn.EVAL)[0]
        return (y * jnp.sin(y)).sum(), y

    value_and_grad = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, y), (dp, dx) = value_and_grad(params, x)
    close(y, VECTORS[f"{name}/y"])
    close(dx, VECTORS[f"{name}/dx"])
    jax.tree.map(close, dp, from_torch(name, "d"))


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_equals_flax(name, x64):
    import flax.linen as linen

    cell, names = {
        "rnn": (linen.SimpleCell, [("i", "h")]),
        "lstm": (linen.LSTMCell, [("ii", "hi"), ("if", "hf"), ("ig", "hg"), ("io", "ho")]),
        "gru": (linen.GRUCell, [("ir", "hr"), ("iz", "hz"), ("in", "hn")]),
    }[name]
    layer, x = LIKE_TORCH[name], jnp.asarray(VECTORS[f"{name}/x"])
    params = jax.tree.map(jnp.asarray, from_torch(name))
    W, U, b = params["kernel"], params["recurrent"]["kernel"], params["bias"]
    theirs = {}
    for k, (i, h) in enumerate(names):
        part = slice(k * FEATURES, (k + 1) * FEATURES)
        biased, other = (h, i) if name == "lstm" else (i, h)
        theirs |= {i: {"kernel": W[:, part]}, h: {"kernel": U[:, part]}}
        theirs[biased]["bias"] = b[part]
    if name == "gru":
        theirs["hn"]["bias"] = params["recurrent"]["bias"]
    y = linen.RNN(cell(FEATURES, param_dtype=np.float64)).apply({"params": {"cell": theirs}}, x)
    close(layer.apply(params, {}, x, nn.EVAL)[0], y)


# Rules of their own.


@pytest.mark.fast
def test_params_start_as_documented():
    x = jnp.zeros((1, 2, INPUTS))
    params, _ = jax.jit(nn.lstm(FEATURES).init)(KEY, x)
    np.testing.assert_array_equal(params["bias"], np.repeat([0.0, 1, 0, 0], FEATURES))
    for part in np.split(np.asarray(params["recurrent"]["kernel"]), 4, -1):
        # Of a QR decomposition of 4 x 4: less than ten of 2^-24.
        np.testing.assert_allclose(part.T @ part, np.eye(FEATURES), rtol=0, atol=6e-7)
    parts = np.split(np.asarray(params["kernel"]), 4, -1)
    assert all(not np.array_equal(p, parts[0]) for p in parts[1:])
    for reset_after in (True, False):
        gru = nn.gru(FEATURES, reset_after=reset_after)
        assert ("bias" in jax.eval_shape(gru.init, KEY, x)[0]["recurrent"]) == reset_after


@pytest.mark.fast
def test_what_does_not_fit_is_refused():
    x = jnp.zeros((2, 5, INPUTS))

    def init(layer, x):
        return jax.eval_shape(layer.init, KEY, x)[0]

    with pytest.raises(ConfigError, match="lstm: features must be an int >= 1, got 0"):
        nn.lstm(0)
    with pytest.raises(ConfigError, match="gru: norm must be None with reset_after=False"):
        nn.gru(4, norm=center(), reset_after=False)
    for norm in (nn.batch_norm(), nn.dense(1)):
        with pytest.raises(ConfigError, match="rnn: norm must be without state and of its input's"):
            init(nn.rnn(4, norm=norm), x)
    with pytest.raises(TypeError, match="a layer must be a Layer or a function of one array"):
        nn.rnn(4, norm=3)
    with pytest.raises(ConfigError, match=r"rnn: x must be \(batch, time, inputs\), got \(2, 5\)"):
        init(nn.rnn(4), x[..., 0])
    with pytest.raises(TypeError, match="gru: x must be of a floating dtype, got 'int32'"):
        init(nn.gru(4), x.astype(np.int32))
    params = init(nn.gru(4), x)
    with pytest.raises(ConfigError, match=r"gru: x must be \(batch, time, 3\), got \(2, 5, 2\)"):
        jax.eval_shape(nn.gru(4).apply, params, {}, x[..., 1:], nn.EVAL)


@pytest.mark.fast
def test_what_a_norm_sees_comes_out_of_a_tap(x64):
    """A record per step and product, of the same output; and a mistake names it."""
    net = nn.serial(a=nn.rnn(FEATURES, norm=center()))
    x = jnp.asarray(numbers(2, 5, INPUTS))
    params, state = net.init(KEY, x)
    tapped = nn.tap(net, "a/norm", lambda layer, params, x, y: (y, x))
    y, seen = tapped.apply(params, state, x, nn.EVAL)
    np.testing.assert_array_equal(y, net.apply(params, state, x, nn.EVAL)[0])
    products = nn.split_taps(seen)[1]["a/norm"]
    assert products.shape == (5, 2, 2, FEATURES)
    close(products[:, 0], jnp.moveaxis(x @ params["a"]["kernel"], 1, 0))
    before = jnp.concatenate([jnp.zeros((2, 1, FEATURES)), y[:, :-1]], 1)
    close(products[:, 1], jnp.moveaxis(before @ params["a"]["recurrent"]["kernel"], 1, 0))


def test_far_inputs_and_bfloat16_stay_finite():
    net = nn.parallel(nn.lstm(FEATURES), nn.gru(FEATURES))
    x = jnp.asarray(numbers(2, 5, INPUTS), np.float32)

    @jax.jit
    def program(params, x):
        loss = lambda p, x: net.apply(p, {}, x, nn.EVAL)[0].sum()  # noqa: E731
        y, low = (net.apply(params, {}, z, nn.EVAL)[0] for z in (x, x.astype(jnp.bfloat16)))
        return y, low, jax.grad(loss, (0, 1))(params, 1e4 * x)

    y, low, gradients = program(jax.jit(net.init)(KEY, x)[0], x)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    # Gates, products and states below 1 round by 2^-9 at most, about three a step for five steps:
    # four deviations, 2^-9 / sqrt(3) each, of fifteen.
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(np.float32), y, rtol=0, atol=4 * 2**-9 * np.sqrt(15 / 3))


@pytest.mark.fast
def test_a_layer_is_rebuilt_from_its_json():
    net = nn.serial(
        nn.rnn(3, activation=jax.nn.relu), nn.lstm(3, forget_bias=0.5), nn.gru(3, norm=jnp.tanh)
    )
    again = nn.build(json.loads(json.dumps(nn.describe(net))))
    x = jnp.asarray(numbers(2, 5, INPUTS), np.float32)
    params, _ = jax.jit(net.init)(KEY, x)
    y, z = (jax.jit(f.apply)(params, {}, x, nn.EVAL)[0] for f in (net, again))
    np.testing.assert_array_equal(y, z)
    assert nn.describe(again) == nn.describe(net)
