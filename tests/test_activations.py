"""Activations against torch and NumPy: values, derivatives, kinks and extremes."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_activations.npz")
KEY = key(0)
TRAIN = nn.Context(train=True, key=key(1))


def apply(layer, x, params=None, ctx=nn.EVAL):
    return layer.apply(params or {}, {}, x, ctx)[0]


def value_and_slope(f, x):
    """The function and its derivative, element by element."""
    return f(x), jax.grad(lambda x: f(x).astype(float).sum())(x)


def values_and_slopes(functions, x):
    """Those of all functions, in one program."""

    @jax.jit
    def program(x):
        return {name: value_and_slope(f, x) for name, f in functions.items()}

    return program(x)


# Against torch.


def prelu(x):
    params = {"negative_slope": jnp.asarray(VECTORS["slopes"])}
    return apply(nn.prelu(), jnp.broadcast_to(x[:, None], (len(x), 3)), params)


TORCH = {
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "leaky_relu, 0.1": functools.partial(nn.leaky_relu, negative_slope=0.1),
    "elu": nn.elu,
    "elu, 0.5": functools.partial(nn.elu, alpha=0.5),
    "selu": nn.selu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "rrelu": lambda x: apply(nn.rrelu(), x),
    "prelu": prelu,
    # The first of two probabilities.
    "softmax": lambda x: nn.softmax(jnp.stack([x, jnp.ones_like(x)], axis=1))[:, 0],
}


@functools.cache
def for_torch():
    return values_and_slopes(TORCH, jnp.asarray(VECTORS["points"]))


@pytest.mark.fast
@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name, x64):
    y, slope = for_torch()[name]
    # An exponential or a logarithm to two units, 2.2e-16, a sum, a quotient and a product; in both.
    np.testing.assert_allclose(y, VECTORS[name], rtol=1.6e-15, atol=0)
    # Where y saturates at 1 the derivative is 1 - y^2: a y to two units, 1.1e-16, and a rounding.
    np.testing.assert_allclose(slope, VECTORS[f"{name}, gradient"], rtol=1.6e-15, atol=5.6e-16)


@pytest.mark.fast
def test_every_vector_of_torch_is_compared():
    names = {name.removesuffix(", gradient") for name in VECTORS.files}
    dropouts = {name for name in names if "dropout" in name}  # in test_stochastic.py
    assert names - dropouts == {*TORCH, "points", "slopes"}


# Against NumPy: the formula and its derivative.

LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772


def logistic(x):
    """Of both signs without overflow."""
    e = np.exp(-abs(x))
    return np.where(x > 0, 1, e) / (1 + e)


def swish_slope(x, beta):
    s = logistic(beta * x)
    return s + beta * x * s * (1 - s)


def negative(x):
    return np.exp(np.minimum(x, 0))


NUMPY = {
    "sigmoid": (nn.sigmoid, logistic, lambda x: logistic(x) * logistic(-x)),
    "tanh": (nn.tanh, np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2),
    "relu": (nn.relu, lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0)),
    "leaky_relu": (
        functools.partial(nn.leaky_relu, negative_slope=0.3),
        lambda x: np.where(x > 0, x, 0.3 * x),
        lambda x: np.where(x > 0, 1, 0.3),
    ),
    "elu": (
        functools.partial(nn.elu, alpha=0.7),
        lambda x: np.where(x > 0, x, 0.7 * (negative(x) - 1)),
        lambda x: np.where(x > 0, 1, 0.7 * negative(x)),
    ),
    "selu": (
        nn.selu,
        lambda x: LAMBDA * np.where(x > 0, x, ALPHA * (negative(x) - 1)),
        lambda x: LAMBDA * np.where(x > 0, 1, ALPHA * negative(x)),
    ),
    "silu": (nn.silu, lambda x: x * logistic(x), lambda x: swish_slope(x, 1)),
    "swish": (
        functools.partial(nn.swish, beta=2.5),
        lambda x: x * logistic(2.5 * x),
        lambda x: swish_slope(x, 2.5),
    ),
    "softplus": (nn.softplus, lambda x: np.logaddexp(x, 0), logistic),
    "identity": (nn.identity, lambda x: x, np.ones_like),
}


POINTS = np.concatenate([VECTORS["points"], 3 * np.random.default_rng(0).normal(size=1000)])


@functools.cache
def for_numpy():
    return values_and_slopes({name: f for name, (f, *_) in NUMPY.items()}, jnp.asarray(POINTS))


@pytest.mark.fast
@pytest.mark.parametrize("name", NUMPY)
def test_equals_numpy(name, x64):
    _, value, slope = NUMPY[name]
    y, d = for_numpy()[name]
    # exp(z) with z = 2.5 x down to -700 multiplies the rounding of z, 2^-53, by as much: 8e-14.
    # exp(x) - 1 rounds at eps; (1 + t) (1 - t), for t near 1 and right to two eps, at eight.
    np.testing.assert_allclose(y, value(POINTS), rtol=1e-13, atol=4e-16)
    np.testing.assert_allclose(d, slope(POINTS), rtol=1e-13, atol=2e-15)


def test_softmax(x64):
    z = np.random.default_rng(0).normal(size=(5, 7))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)  # over all classes
    # A difference, an exponential, a sum of seven and a quotient: ten of 2^-53, in both.
    np.testing.assert_allclose(nn.softmax(jnp.asarray(z)), p, rtol=20 * 2**-53)
    # A shift of 1e4 rounds z by 2^-40, in the numerator and in the denominator.
    np.testing.assert_allclose(nn.softmax(jnp.asarray(z + 1e4)), p, rtol=2.1 * 2**-40)
    upstream = np.random.default_rng(1).normal(size=p.shape)
    grad = jax.grad(lambda z: (nn.softmax(z) * upstream).sum())(jnp.asarray(z))
    expected = p * (upstream - (p * upstream).sum(1, keepdims=True))
    # p below 1/2 times a difference below 4 of a sum of seven below 1: three of 2^-53, and seven.
    np.testing.assert_allclose(grad, expected, rtol=0, atol=5 * 2**-53)


# Kinks and extremes.

AT_ZERO = {
    "relu": (nn.relu, 0),
    "leaky_relu": (nn.leaky_relu, 0.01),
    "leaky_relu, right": (functools.partial(nn.leaky_relu, at_zero="right"), 1),
    "leaky_relu of jax": (jax.nn.leaky_relu, 1),
    "elu": (functools.partial(nn.elu, alpha=0.5), 0.5),
    "elu, right": (functools.partial(nn.elu, alpha=0.5, at_zero="right"), 1),
    "selu": (nn.selu, LAMBDA * ALPHA),
    "prelu": (lambda x: apply(nn.prelu(), x, {"negative_slope": jnp.array(0.25, x.dtype)}), 0.25),
    "rrelu": (functools.partial(apply, nn.rrelu(low=0.5, high=0.5), ctx=TRAIN), 0.5),
}
EVERY = {
    **{name: f for name, (f, *_) in NUMPY.items()},
    **{f"{name} at 0": f for name, (f, _) in AT_ZERO.items()},
    "softmax": nn.softmax,
    "prelu of one": lambda x: apply(nn.prelu(per="all"), x, nn.prelu(per="all").init(KEY, x)[0]),
    "trainable_swish": lambda x: apply(nn.trainable_swish(), x, {"beta": jnp.float32(1.0)}),
}
ZEROS, EXTREMES, USUAL = [0.0, -0.0], [-1e4, -100, 100, 1e4], np.linspace(-6, 6, 97)


@functools.cache
def of_type(dtype):
    x = jnp.asarray(np.concatenate([ZEROS, EXTREMES, USUAL]), dtype)
    return np.asarray(x, float), values_and_slopes(EVERY, x)


each_dtype = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])


@pytest.mark.fast
@each_dtype
def test_the_derivative_at_zero(dtype):
    for name, (_, expected) in AT_ZERO.items():
        y, slope = (a[:2].astype(float) for a in of_type(dtype)[1][f"{name} at 0"])
        # selu's is a product of two rounded numbers.
        rtol = 2 * float(jnp.finfo(dtype).eps) if name == "selu" else 0
        expected = jnp.asarray(expected, dtype).astype(float)
        np.testing.assert_array_equal(y, 0, err_msg=name)
        np.testing.assert_allclose(slope, expected, rtol=rtol, err_msg=name)


@pytest.mark.fast
@each_dtype
def test_all_is_finite_and_keeps_its_dtype(dtype):
    x, results = of_type(dtype)
    for name, pair in results.items():
        for y in pair:
            assert (y.dtype, y.shape) == (dtype, x.shape), name
            assert np.isfinite(y.astype(float)).all(), name


@each_dtype
def test_every_float_type_agrees_with_numpy(dtype):
    x, results = of_type(dtype)
    atol = 4 * 6 * float(jnp.finfo(dtype).eps)  # a few roundings of a value of size 6
    for name, (_, *expected) in NUMPY.items():
        for got, f in zip(results[name], expected, strict=True):
            usual = slice(-len(USUAL), None)
            got = got[usual].astype(float)
            np.testing.assert_allclose(got, f(x[usual]), rtol=0, atol=atol, err_msg=name)


@pytest.mark.fast
def test_an_empty_batch_and_one_example():
    for f in EVERY.values():
        for shape in ((0, 3), (1, 3), (1,)):
            assert jax.eval_shape(f, jax.ShapeDtypeStruct(shape, np.float32)).shape == shape


@pytest.mark.fast
@pytest.mark.parametrize("layer", [nn.prelu(), nn.trainable_swish(per="channel")], ids=repr)
def test_gradients_of_params_are_finite_at_the_extremes(layer):
    x = jnp.array([[-1e4, 1e4]])
    params, _ = layer.init(KEY, x)
    (grad,) = jax.tree.leaves(jax.grad(lambda p: apply(layer, x, p).sum())(params))
    np.testing.assert_array_equal(grad, [-1e4, 0] if layer.kind == "prelu" else [0, 0])


# The numbers of lecture notes.


@pytest.mark.fast
def test_local_gradients_of_the_lectures(x64):
    x = jnp.array([-10.0, 0.0, 10.0])
    # Printed to five and three digits.
    np.testing.assert_allclose(
        value_and_slope(nn.sigmoid, x)[1], [4.5396e-5, 0.25, 4.5396e-5], rtol=1e-5
    )
    np.testing.assert_allclose(value_and_slope(nn.tanh, x)[1], [8.24e-9, 1, 8.24e-9], rtol=1e-3)
    np.testing.assert_array_equal(value_and_slope(nn.relu, x)[1], [0, 0, 1])


@pytest.mark.fast
def test_ranges_are_open_but_for_rounding(x64):
    """1 - sigmoid(36) is 2.3e-16, just above half of the last digit of 1; that of 37 is below."""
    x = jnp.array([-700.0, 36.0, 37.0])
    low, high, rounded = nn.sigmoid(x)
    assert 0 < low and high < 1 == rounded
    t = nn.tanh(jnp.array([18.0, 20.0]))
    assert t[0] < 1 == t[1]


@pytest.mark.fast
def test_the_larger_of_two_lines_is_a_leaky_relu_for_slopes_up_to_one():
    x = jnp.linspace(-2, 2, 5)
    for slope, same in ((0.01, True), (0.1, True), (1.0, True), (2.0, False)):
        larger = jnp.maximum(slope * x, x)
        assert bool((nn.leaky_relu(x, negative_slope=slope) == larger).all()) == same


@pytest.mark.fast
def test_selu_keeps_mean_zero_and_variance_one(x64):
    z, h = np.linspace(-12, 12, 240_001, retstep=True)
    normal = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * h
    y = np.asarray(nn.selu(jnp.asarray(z)))
    # The trapezoids err by h^2 / 12 of the change of slope at the kink, 1e-9.
    assert (y * normal).sum() == pytest.approx(0, abs=1e-8)
    assert (y**2 * normal).sum() == pytest.approx(1, abs=1e-8)


@pytest.mark.fast
def test_softplus_where_torch_s_is_linear(x64):
    """torch returns x from 20 on."""
    # Numbers near 20 round by 2^-49 = 1.8e-15.
    assert nn.softplus(jnp.array(20.0)) - 20 == pytest.approx(np.exp(-20), abs=2**-49)


# Options, and nets as JSON.


@pytest.mark.fast
def test_an_option_is_bound_by_partial_and_survives_json():
    net = nn.serial(
        functools.partial(nn.leaky_relu, negative_slope=0.1),
        elu=functools.partial(functools.partial(nn.elu, alpha=0.5), at_zero="right"),
        swish=nn.swish,
        jax=jax.nn.leaky_relu,
        both=nn.parallel(nn.identity, functools.partial(nn.softmax, axis=0)),
        drop=nn.drop_connect(
            2, 0.5, activation=functools.partial(nn.leaky_relu, negative_slope=0.3)
        ),
    )
    description = nn.describe(net)
    assert description["serial"]["leaky_relu0"] == {
        "layer": {"leaky_relu": {"negative_slope": 0.1}}
    }
    assert description["serial"]["jax"] == {"layer": "jax.nn.leaky_relu"}
    again = nn.build(json.loads(json.dumps(description)))
    assert nn.describe(again) == description and list(again.children) == list(net.children)
    x = jnp.linspace(-3, 3, 6).reshape(3, 2)
    params, state = net.init(KEY, x)
    np.testing.assert_array_equal(apply(again, x, params), apply(net, x, params))
    # 0.1 and the product are rounded by 2^-24.
    y = apply(nn.serial(net.children["leaky_relu0"]), -x)
    assert y[2, 1] == pytest.approx(-0.3, rel=2**-23)


@pytest.mark.fast
@pytest.mark.parametrize(
    "f", [functools.partial(jnp.clip, max=1.0), functools.partial(nn.elu, jnp.ones(2)), jnp.sin]
)
def test_other_functions_have_no_json(f):
    with pytest.raises(
        TypeError, match="describe: a function must be one of .* keep its code"
    ) as e:
        nn.describe(nn.serial(inner=f))
    assert "in layer 'inner'" in e.value.__notes__


@pytest.mark.fast
@pytest.mark.parametrize(
    "description",
    [{"sin": {}}, {"jax.nn.relu6": {}}, "eval", {"relu": {}, "elu": {}}, {"prelu": {}, "relu": {}}],
)
def test_only_known_functions_are_built(description):
    with pytest.raises((TypeError, ValueError), match="build: a (layer|function) must be"):
        nn.build(description)


@pytest.mark.fast
@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: nn.leaky_relu(x, negative_slope=-1.0), "leaky_relu: negative_slope must be"),
        (lambda x: nn.leaky_relu(x, at_zero="centre"), "leaky_relu: at_zero must be one of"),
        (lambda x: nn.elu(x, alpha=0.0), "elu: alpha must be a finite number > 0, got 0.0"),
        (lambda x: nn.elu(x, at_zero="rigth"), "elu: at_zero .* did you mean 'right'"),
        (lambda x: nn.swish(x, beta=-1.0), "swish: beta must be"),
        (lambda x: nn.prelu(init=-0.1), "prelu: init must be"),
        (lambda x: nn.prelu(per="row"), "prelu: per must be one of"),
        (lambda x: nn.prelu().init(KEY, jnp.arange(3)), "prelu: x must be of a floating dtype"),
        (lambda x: nn.trainable_swish(beta=np.nan), "trainable_swish: beta must be"),
        (lambda x: nn.rrelu(low=-1.0), "rrelu: low must be"),
        (lambda x: nn.rrelu(low=0.5), "rrelu: high must be a finite number >= 0.5"),
        (lambda x: apply(nn.rrelu(), x, ctx=nn.Context(train=True)), "Context: key must be given"),
    ],
)
def test_mistakes_are_refused(f, message):
    with pytest.raises((ValueError, TypeError), match=message):
        f(jnp.ones((2, 3)))


# With params.


@pytest.mark.fast
@pytest.mark.parametrize("per, shape", [("channel", (3,)), ("all", ())])
def test_prelu_and_trainable_swish(per, shape, x64):
    rng = np.random.default_rng(0)
    x, upstream, p = (
        rng.normal(size=(4, 5, 3)),
        rng.normal(size=(4, 5, 3)),
        abs(rng.normal(size=shape)),
    )
    s = logistic(p * x)
    cases = {
        nn.prelu(per=per): ("negative_slope", 0.25, np.where(x > 0, x, p * x), np.minimum(x, 0)),
        nn.trainable_swish(per=per): ("beta", 1.0, x * s, x * x * s * (1 - s)),
    }
    for layer, (name, first, y, slope) in cases.items():
        params, state = layer.init(KEY, jax.ShapeDtypeStruct((1, 3), np.float32))
        assert list(params) == [name] and state == {} and params[name].dtype == np.float32
        np.testing.assert_array_equal(params[name], np.full(shape, first))
        params = {name: jnp.asarray(p)}
        got, vjp = jax.vjp(lambda params: apply(layer, jnp.asarray(x), params), params)  # noqa: B023
        np.testing.assert_allclose(got, y, rtol=1.6e-15)  # as against torch
        grad = (upstream * slope).sum((0, 1) if shape else None)
        # Sums of up to 60 terms, all below 8: 2^-51 each.
        found = vjp(jnp.asarray(upstream))[0][name]
        np.testing.assert_allclose(found, grad, rtol=0, atol=60 * 2**-51)


@pytest.mark.fast
def test_prelu_takes_the_params_of_flax():
    linen = pytest.importorskip("flax.linen")
    x = jnp.linspace(-3, 3, 6).reshape(3, 2)
    module = linen.PReLU(negative_slope_init=0.3)
    params = module.init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(apply(nn.prelu(), x, params), module.apply({"params": params}, x))
    assert jax.tree.map(jnp.shape, nn.prelu(per="all").init(KEY, x)[0]) == jax.tree.map(
        jnp.shape, params
    )


@pytest.mark.fast
def test_trainable_swish_starts_as_swish():
    x = jnp.linspace(-5, 5, 12).reshape(4, 3)
    for beta in (0.0, 1.0, 2.5):
        layer = nn.trainable_swish(beta=beta)
        y = apply(layer, x, layer.init(KEY, x)[0])
        np.testing.assert_array_equal(y, nn.swish(x, beta=beta))
    np.testing.assert_array_equal(nn.swish(x), nn.silu(x))


def test_rrelu():
    x = -jnp.ones((200, 100))
    ctx = nn.Context(train=True, key=jax.random.key(0))
    slope = -np.asarray(apply(nn.rrelu(), x, ctx=ctx))
    assert 1 / 8 <= slope.min() < 0.126 and 0.332 < slope.max() <= 1 / 3
    assert len({row.tobytes() for row in slope}) == 200
    # A uniform's standard deviation is its width / sqrt(12); five of those of the mean of 20,000.
    assert abs(slope.mean() - (1 / 8 + 1 / 3) / 2) < 5 * (1 / 3 - 1 / 8) / np.sqrt(12 * 20_000)
    np.testing.assert_array_equal(apply(nn.rrelu(), -x, ctx=ctx), -x)
    # Both ends, their mean and the product: 2^-24 each.
    y = apply(nn.rrelu(low=0.2, high=0.4), x)
    np.testing.assert_allclose(y, np.full(x.shape, -0.3), rtol=4 * 2**-24)


def test_positive_inputs_give_weight_gradients_of_one_sign(x64):
    """Behind a sigmoid all weights of a unit move in the sign of its upstream gradient."""
    x = abs(np.random.default_rng(0).normal(size=(1, 8)))
    net = nn.serial(nn.dense(5), nn.sigmoid)
    params, _ = net.init(KEY, jnp.asarray(x))
    upstream = jnp.array([[1.0, -1.0, 2.0, -2.0, 0.5]])
    grads = jax.grad(lambda p: (apply(net, jnp.asarray(x), p) * upstream).sum())(params)
    np.testing.assert_array_equal(
        np.sign(grads["dense0"]["kernel"]), np.sign(upstream) * np.ones((8, 1))
    )
