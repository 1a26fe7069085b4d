"""Initializers: their distributions, the presets, and what they do to activations in depth."""

import math
import pathlib

import catalogue
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn
from jaxtrain.nn import initializers

KEY = jax.random.key(0)
VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_initializers.npz")
SHAPE = (3, 3, 40, 50)  # a 3x3 convolution: fan_in 9 * 40, fan_out 9 * 50
N = math.prod(SHAPE)
RANDOM = {name: case for name, case in catalogue.INITIALIZERS.items() if case[1]}
UNIFORM = [name for name in RANDOM if name.endswith("uniform")]
NORMAL = [name for name in RANDOM if name.endswith("normal") or name == "random_walk"]


def drawn(name):
    make, variance = RANDOM[name]
    return np.asarray(make(KEY, SHAPE), np.float64), variance


@pytest.mark.fast
@pytest.mark.parametrize("name", NORMAL + UNIFORM)
def test_mean_and_variance_are_those_of_the_paper(name):
    kernel, variance = drawn(name)
    # Five standard deviations: of the mean, sigma / sqrt(n), and of the variance,
    # sigma^2 sqrt((k - 1) / n), for the kurtosis k of a normal or of a uniform distribution.
    kurtosis = 3 if name in NORMAL else 9 / 5
    assert abs(kernel.mean()) < 5 * math.sqrt(variance / N)
    assert abs(kernel.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / N)


@pytest.mark.fast
@pytest.mark.parametrize("name", NORMAL + UNIFORM)
def test_the_distribution(name):
    """Kolmogorov and Smirnov: sqrt(n) times the largest distance is above 1.95 once in 1000."""
    kernel, variance = drawn(name)
    z = np.sort(kernel.ravel()) / math.sqrt(variance)
    if name in NORMAL:  # not truncated, too
        expected = (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
    else:
        assert np.abs(z).max() <= math.sqrt(3) * (1 + 1e-6)
        expected = (z / math.sqrt(3) + 1) / 2
    assert np.abs(expected - np.arange(N) / N).max() < 1.95 / math.sqrt(N)


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.INITIALIZERS)
def test_dtypes_and_keys(name):
    make, variance = catalogue.INITIALIZERS[name]
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        kernel = make(KEY, (7, 20), dtype)
        assert kernel.dtype == dtype and kernel.shape == (7, 20)
        assert bool(jnp.isfinite(kernel).all())
    assert np.array_equal(make(KEY, (7, 20)), make(KEY, (7, 20)))
    assert np.array_equal(make(KEY, (7, 20)), make(jax.random.key(1), (7, 20))) == (variance == 0)


def test_in_float64(x64):
    """All bits are random, not those of a float32 alone."""
    for name in NORMAL + UNIFORM + ["orthogonal", "sparse"]:
        kernel = RANDOM[name][0](key(0), (5, 5), jnp.float64)
        assert kernel.dtype == np.float64
        assert (kernel != 0).any() and not np.array_equal(kernel, kernel.astype(np.float32))


# m = n = 500: the bound printed as 6 / sqrt(m + n), 0.1897, would have sqrt(6) times the std.
@pytest.mark.fast
@pytest.mark.parametrize(
    "make, bound, std",
    [
        (initializers.glorot_uniform(), 0.07746, 0.04472),
        (initializers.classical_uniform(), 1 / math.sqrt(500), 0.02582),
    ],
)
def test_numbers_of_the_lectures(make, bound, std):
    kernel = np.asarray(make(KEY, (500, 500)))
    # The largest of n is within 10 / n of the bound but for a chance of exp(-10); the numbers are
    # printed to 4 digits. The std as in the test of the variance, half as much relative.
    assert kernel.max() == pytest.approx(bound, rel=5e-5 + 1e-4)
    assert kernel.std() == pytest.approx(std, rel=2e-4 + 2.5 * math.sqrt(0.8 / kernel.size))


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (2, 3, 4, 6), (2, 1, 2, 9)])
def test_orthogonal(x64, shape):
    w = np.asarray(initializers.orthogonal(gain=1.5)(key(0), shape, jnp.float64))
    w = w.reshape(-1, shape[-1])
    product = w.T @ w if len(w) >= shape[-1] else w @ w.T
    np.testing.assert_allclose(product, 1.5**2 * np.eye(len(product)), rtol=0, atol=1e-14 * 50)


@pytest.mark.fast
def test_orthogonal_is_uniform():
    """The angle of the first column of 2x2 matrices; LAPACK's own signs leave half a circle."""
    n = 1000
    make = initializers.orthogonal()
    w = jax.vmap(lambda k: make(k, (2, 2)))(jax.random.split(key(0), n))
    angle = np.sort(np.arctan2(w[:, 1, 0], w[:, 0, 0])) / (2 * math.pi) + 0.5
    assert np.abs(angle - np.arange(n) / n).max() < 1.95 / math.sqrt(n)
    # Half of them are rotations: 5 standard deviations of a fair coin.
    assert abs((np.linalg.det(w) > 0).mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


@pytest.mark.fast
def test_sparse():
    kernel, _ = drawn("sparse")
    assert ((kernel != 0).sum((0, 1, 2)) == 15).all()
    weights = kernel[kernel != 0]
    assert abs(weights.std() / 2 - 1) < 5 / math.sqrt(2 * weights.size)
    # Each of 200 inputs is chosen by 1000 units with probability 3 / 200.
    chosen = (np.asarray(initializers.sparse(k=3)(key(0), (200, 1000))) != 0).sum(1)
    assert chosen.sum() == 3000 and np.abs(chosen - 15).max() < 5 * math.sqrt(15)
    assert (np.asarray(initializers.sparse()(key(0), (4, 6))) != 0).all()


def walk(make, relu, width=10, depth=50, nets=400):
    """How much the log of the gradient's norm grows on its way back, for each of many nets."""
    rng = np.random.default_rng(0)
    keys = jax.random.split(key(0), nets * depth)
    kernels = np.asarray(jax.vmap(lambda k: make(k, (width, width)))(keys), np.float64)
    g = rng.normal(size=(nets, width))
    start = np.linalg.norm(g, axis=1)
    for w in kernels.reshape(depth, nets, width, width):
        # A unit of a ReLU net is on for half of the examples.
        g = np.einsum("nij,nj->ni", w, g * (rng.random(g.shape) < 0.5 if relu else 1))
        g[~g.any(1)] = np.nan  # all units off: no norm
    return np.log(np.linalg.norm(g, axis=1) / start)


@pytest.mark.fast
def test_random_walk_has_no_drift():
    """Linear: E log(chi^2_N / N) = psi(N / 2) + log(2 / N), -1 / N to first order."""
    psi = 1 + 1 / 2 + 1 / 3 + 1 / 4 - np.euler_gamma  # of 5
    drift = 50 / 2 * (psi + math.log(1 / 5))
    lecun = walk(initializers.lecun_normal(), relu=False)
    linear = walk(initializers.random_walk(activation="linear"), relu=False)
    error = 5 * lecun.std() / math.sqrt(400)
    assert lecun.mean() == pytest.approx(drift, abs=error) and drift < -2.5
    assert linear.mean() == pytest.approx(drift + 50 / 20, abs=error)
    # ReLUs: the same draws times exp(1.2 / 7.6) per layer, which the authors fitted to He's drift
    # (larger than the linear one: the number of units that are on varies too). A tenth is left.
    he = np.nanmean(walk(initializers.he_normal(), relu=True))
    relu = np.nanmean(walk(initializers.random_walk(), relu=True))
    assert relu - he == pytest.approx(50 * 1.2 / 7.6, rel=1e-4) and he < -5
    assert abs(relu) < 0.1 * abs(he)


@pytest.mark.fast
def test_gains_are_torchs():
    names = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")
    gains = [initializers.gain(name) for name in names]
    np.testing.assert_allclose(gains, VECTORS["gains"], rtol=1e-15)
    slopes = [initializers.gain("leaky_relu", negative_slope=a) for a in (0.0, 0.01, 0.2, 1.0)]
    np.testing.assert_allclose(slopes, VECTORS["leaky gains"], rtol=1e-15)
    functions = [initializers.gain(f) for f in (jnp.tanh, jax.nn.relu, jax.nn.selu)]
    assert functions == [5 / 3, math.sqrt(2), 3 / 4]


@pytest.mark.fast
def test_the_gain_of_any_other_function_keeps_the_mean_square():
    # E max(z, 0)^2 = 1 / 2; that of a leaky ReLU as torch has it; E z^2 = 1.
    for f, expected in [
        (lambda x: jnp.maximum(x, 0), math.sqrt(2)),
        (lambda x: jnp.where(x > 0, x, 0.2 * x), math.sqrt(2 / 1.04)),
        (lambda x: x, 1.0),
        (lambda x: jax.nn.selu(x), 1.0),  # what its constants were chosen for
        (lambda x: jnp.abs(x), 1.0),
    ]:
        # Sums of 16,000 float32 numbers, and the kink at a node.
        assert initializers.gain(f) == pytest.approx(expected, rel=1e-5)
    assert jax.jit(lambda: initializers.gain(jnp.exp))() == pytest.approx(math.exp(-1), rel=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize(
    "layer, shape, name",
    [(nn.dense(4000), (1, 50), "linear"), (nn.conv(4000, 3, groups=2), (1, 8, 8, 6), "conv")],
)
def test_torch_default(layer, shape, name):
    params, _ = initializers.torch_default((), layer).init(KEY, jnp.zeros(shape))
    bound = 1 / math.sqrt(math.prod(params["kernel"].shape[:-1]))
    for ours, (largest, std) in zip((params["kernel"], params["bias"]), VECTORS[name], strict=True):
        # The largest of n >= 4000 is within 10 / n of the bound but for a chance of exp(-10).
        assert bound * (1 - 10 / 4000) < largest <= bound
        assert bound * (1 - 10 / 4000) < jnp.abs(ours).max() <= bound
        # Each within 5 standard deviations, sqrt(0.8 / n) / 2 relative.
        assert float(ours.std()) == pytest.approx(std, rel=5 * math.sqrt(0.8 / ours.size))


@pytest.mark.fast
def test_torch_default_of_a_transposed_convolution():
    # torch's weight is (inputs, outputs, *window), and the second axis goes into its fan_in.
    layer = nn.conv_transpose(32, 4)
    params, _ = initializers.torch_default((), layer).init(KEY, jnp.zeros((1, 8, 8, 64)))
    bound = 1 / math.sqrt(4 * 4 * 32)
    assert bound * (1 - 10 / 2**15) < jnp.abs(params["kernel"]).max() <= bound
    assert bound / 2 < jnp.abs(params["bias"]).max() <= bound


@pytest.mark.fast
@pytest.mark.parametrize("rule", [initializers.torch_default, initializers.lecture])
def test_presets_reach_every_layer(rule):
    inner = nn.repeat(nn.residual(nn.remat(nn.dense(4))), 3)
    net = nn.serial(nn.conv(9, 3), nn.batch_norm(), nn.flatten(), nn.dense(4), inner)
    ruled, x = nn.rewrite(net, rule), jnp.zeros((1, 4, 4, 2))
    params, _ = jax.jit(ruled.init)(key(0), x)
    plain, _ = jax.eval_shape(net.init, KEY, x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda p: p.shape, plain)
    assert nn.describe(ruled) == nn.describe(net)
    inside = params["repeat0"]["body"]
    assert not np.array_equal(inside["kernel"][0], inside["kernel"][1])
    bounds = {"conv0": 1 / math.sqrt(18), "dense0": 1 / 12}
    for name, bound in bounds.items():
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        if rule is initializers.lecture:
            assert not bias.any() and kernel.std() == pytest.approx(0.01, rel=0.3)
        else:
            assert bound / 2 < jnp.abs(bias).max() <= bound and jnp.abs(kernel).max() <= bound
    assert jnp.abs(inside["bias"]).max() <= (0 if rule is initializers.lecture else 0.5)


@pytest.mark.fast
def test_flaxs_initializers_serve_as_they_are():
    """Flax's normals are truncated at two standard deviations and widened by 1 / 0.8796."""
    flax = jax.nn.initializers.lecun_normal()
    kernel = nn.dense(300, kernel_init=flax).init(KEY, jnp.zeros((1, 100)))[0]["kernel"]
    assert kernel.std() == pytest.approx(0.1, rel=0.02)
    assert 0.19 < jnp.abs(kernel).max() * 0.8796 < 0.2001
    ours = nn.dense(300, kernel_init=initializers.lecun_normal())
    assert jnp.abs(ours.init(KEY, jnp.zeros((1, 100)))[0]["kernel"]).max() > 0.35


@pytest.mark.fast
def test_bad_arguments():
    for call, message in [
        (lambda: initializers.normal(-1.0), "normal: std must be a finite number >= 0, got -1.0"),
        (lambda: initializers.he_uniform(negative_slope=-0.1), "he_uniform: negative_slope"),
        (lambda: initializers.he_normal(negative_slope=-0.1), "he_normal: negative_slope"),
        (lambda: initializers.orthogonal(gain=0.0), "orthogonal: gain must be a finite number > 0"),
        (lambda: initializers.sparse(k=0), "sparse: k must be an int >= 1, got 0"),
        (lambda: initializers.random_walk(activation="tanh"), "one of .'relu', 'linear'."),
        (lambda: initializers.gain("rely"), "gain: activation must be .* did you mean 'relu'"),
        (lambda: initializers.lecun_normal()(KEY, (3,)), "a bias has no fan_in: see torch"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


# The means and standard deviations of ten layers of 500 units, as printed in lecture notes.

TANH_SMALL = """
-0.000117 0.213081, -0.000001 0.047551, -0.000002 0.010630, 0.000001 0.002378, 0.000002 0.000532,
-0.000000 0.000119, 0.000000 0.000026, -0.000000 0.000006, 0.000000 0.000001, -0.000000 0.000000"""
TANH_LARGE = """
-0.000430 0.981879, -0.000849 0.981649, 0.000566 0.981601, 0.000483 0.981755, -0.000682 0.981614,
-0.000401 0.981560, -0.000237 0.981520, -0.000448 0.981913, -0.000899 0.981728, 0.000584 0.981736"""
TANH_LECUN = """
0.001198 0.627953, -0.000175 0.486051, 0.000055 0.407723, -0.000306 0.357108, 0.000142 0.320917,
-0.000389 0.292116, -0.000228 0.273387, -0.000291 0.254935, 0.000361 0.239266, 0.000139 0.228008"""
RELU_LECUN = """
0.398623 0.582273, 0.272352 0.403795, 0.186076 0.276912, 0.136442 0.198685, 0.099568 0.140299,
0.072234 0.103280, 0.049775 0.072748, 0.035138 0.051572, 0.025404 0.038583, 0.018408 0.026076"""
RELU_HE = """
0.562488 0.825232, 0.553614 0.827835, 0.545867 0.813855, 0.565396 0.826902, 0.547678 0.834092,
0.587103 0.860035, 0.596867 0.870610, 0.623214 0.889348, 0.567498 0.845357, 0.552531 0.844523"""
TABLES = {
    "tanh, 0.01": (jnp.tanh, initializers.normal(0.01), 500 * 1e-4, TANH_SMALL),
    "tanh, 1": (jnp.tanh, initializers.normal(1.0), 500.0, TANH_LARGE),
    "tanh, 1 / sqrt(n)": (jnp.tanh, initializers.lecun_normal(), 1.0, TANH_LECUN),
    "relu, 1 / sqrt(n)": (jax.nn.relu, initializers.lecun_normal(), 1.0, RELU_LECUN),
    "relu, He": (jax.nn.relu, initializers.he_normal(), 2.0, RELU_HE),
}
SEEDS = 8


@pytest.fixture(scope="module")
def measured():
    """The means and standard deviations of all tables, (layers, 2, seeds)."""
    x = jax.random.normal(key(0), (200, 500))
    found = {}
    for f in (jnp.tanh, jax.nn.relu):
        names = [name for name, case in TABLES.items() if case[0] is f]
        keys = jax.random.split(key(1), SEEDS)
        nets = [_net(f, TABLES[name][1]) for name in names]
        params = [jax.vmap(net.init, (0, None))(keys, x)[0] for net in nets]
        both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *params)
        stats = jax.vmap(lambda p: nn.unit_stats(_net(f), p, {}, x)["f"])(both)  # noqa: B023
        table = np.stack([stats.mean, stats.std], -1).reshape(len(names), SEEDS, 10, 2)
        found |= dict(zip(names, table.transpose(0, 2, 3, 1), strict=True))
    return found


def _net(f, kernel_init=initializers.zeros):
    return nn.repeat(nn.serial(w=nn.dense(500, bias=False, kernel_init=kernel_init), f=f), 10)


def mean_field(f, gain, layers=10):
    """Mean and std of each layer for infinitely many units: q <- E f(sqrt(gain q) z)^2."""
    z = np.linspace(-8, 8, 20001)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    q, table = 1.0, []
    for _ in range(layers):
        y = np.asarray(f(np.sqrt(gain * q) * z))
        mean, q = weights @ y, weights @ y**2
        table.append((mean, np.sqrt(q - mean**2)))
    return np.array(table)


@pytest.mark.parametrize("name", TABLES)
def test_activation_statistics(measured, name):
    f, _, gain, printed = TABLES[name]
    printed = np.array([pair.split() for pair in printed.split(",")], float)
    seeds = measured[name]
    middle, spread = seeds.mean(-1), seeds.std(-1, ddof=1)
    # One run against the mean of eight, in units of a spread that is known to 1 / sqrt(14): five
    # spreads are rarely passed. Printed to 6 decimals.
    assert (np.abs(printed - middle) < 5 * spread + 1e-6).all()
    theory = mean_field({jnp.tanh: np.tanh}.get(f, lambda v: np.maximum(v, 0)), gain)
    # The mean of eight is off by spread / sqrt(8), and by what 500 units differ from infinitely
    # many: each layer multiplies q by 1 + O(1 / 500).
    bias = np.arange(1, 11)[:, None] * 2 / 500 * theory[:, 1:]
    assert (np.abs(theory - middle) < 5 * spread / math.sqrt(SEEDS) + bias).all()


@pytest.mark.fast
def test_the_printed_he_rule_explodes():
    """`randn / sqrt(2 / n)` multiplies the mean square by n^2 / 4, the rms by n / 2 = 250."""
    n = 500
    misprint = jax.random.normal(key(0), (4, n, n)) / np.sqrt(2 / n)
    h, rms = jax.random.normal(key(1), (200, n)), []
    for w in misprint:
        h = jax.nn.relu(h @ w)
        rms.append(float(jnp.sqrt((h * h).mean())))
    # From layer to layer the log of the mean square has a standard deviation of sqrt(5 / n), 0.1.
    np.testing.assert_allclose(np.divide(rms[1:], rms[:-1]), 250, rtol=5 * 0.05)
    assert initializers.he_normal()(KEY, (n, n)).std() == pytest.approx(math.sqrt(2 / n), rel=0.01)
    with pytest.raises(TypeError):
        np.random.randn((1, 2))  # as printed for the biases; randn(1, 2) is right
