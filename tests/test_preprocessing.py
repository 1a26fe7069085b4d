"""Preprocessings against formulas and scikit-learn; pipelines, and what must not leak."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from jaxtrain import data, nn
from jaxtrain.errors import ConfigError, DataError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "sklearn_data.npz")
X = VECTORS["x"]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 2, 2), np.uint8)


def close(actual, expected, tolerance=4e-12):
    """Equal relative to the largest entry, to 2^-53 times 3.4e4, the condition of X."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


EQUAL = {
    "min_max": (data.min_max, {"low": -1, "high": 1}),
    "robust": (data.robust, {}),
    "robust, 10 to 80": (data.robust, {"quantiles": (0.1, 0.8)}),
    "pca all": (data.pca, {}),
    "whiten": (data.whiten, {"eps": 0, "ddof": 1}),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", EQUAL)
def test_equals_sklearn(name):
    module, options = EQUAL[name]
    stats = module.fit(X, **options)
    y = module.apply(stats, X)
    assert y.dtype == np.float64
    close(y, VECTORS[name])
    close(module.invert(stats, y), X)


# The last of as many components as examples has no variance and any direction.
COMPONENTS = {"all": None, "3": 3, "0.999": 0.999, "wide": 6}


@pytest.mark.fast
@pytest.mark.parametrize("name", COMPONENTS)
def test_pca_equals_sklearn(name):
    x = VECTORS["wide"] if name == "wide" else X
    stats = data.pca.fit(x, components=COMPONENTS[name])
    for field in ("components", "variance", "share"):
        close(getattr(stats, field), VECTORS[f"pca {name}, {field}"])
    y = data.pca.apply(stats, x)
    close(y, VECTORS[f"pca {name}"])
    close(data.pca.invert(stats, y), VECTORS[f"pca {name}, inverse"])


def test_pca_of_images_is_their_singular_value_decomposition():
    x = IMAGES.reshape(40, -1).astype(float)
    u, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    stats = data.pca.fit(IMAGES.astype(float), components=5, ddof=0)
    assert stats.components.shape == (5, 3, 2, 2) and stats.mean.shape == (1, 3, 2, 2)
    close(stats.variance, s[:5] ** 2 / 40)
    close(abs(stats.components.reshape(5, -1)), abs(vt[:5]))
    y = data.pca.apply(stats, IMAGES.astype(float))
    close(abs(y), abs(u * s)[:, :5])
    assert data.pca.invert(stats, y).shape == IMAGES.shape
    # The sign is not left to the eigenvalue solver.
    assert (
        stats.components.reshape(5, -1).max(1) == abs(stats.components).reshape(5, -1).max(1)
    ).all()


@pytest.mark.fast
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_whitening_is_the_inverse_root_of_the_covariance(ddof, eps):
    x = IMAGES[:, 0, 0] / 255.0 @ np.array([[3.0, 1.0], [0.0, 2.0]])
    c = np.cov(x.T, ddof=ddof)
    expected = (x - x.mean(0)) @ np.linalg.inv(sqrtm(c + eps * np.eye(2)).real)
    zca = data.whiten.fit(x, form="zca", eps=eps, ddof=ddof)
    close(data.whiten.apply(zca, x), expected)
    close(data.whiten.invert(zca, expected), x)
    # eps is added to the variances s, which become s / (s + eps).
    s = np.linalg.eigvalsh(c)[::-1]
    pca = data.whiten.fit(x, eps=eps, ddof=ddof)
    close(np.cov(data.whiten.apply(pca, x).T, ddof=ddof), np.diag(s / (s + eps)))


def test_zca_of_images_keeps_their_shape_and_few_components():
    x = IMAGES / 255.0
    whole = data.whiten.fit(x, form="zca", eps=0.0)
    y = data.whiten.apply(whole, x)
    assert y.shape == x.shape
    close(np.cov(y.reshape(40, -1).T, ddof=0), np.eye(12))
    few = data.whiten.fit(x, form="zca", components=3, eps=0.0)
    y = data.whiten.apply(few, x)
    close(np.linalg.svd(y.reshape(40, -1), compute_uv=False) ** 2 / 40, [1] * 3 + [0] * 9)
    pca = data.pca.fit(x, components=3)
    close(data.whiten.invert(few, y), data.pca.invert(pca, data.pca.apply(pca, x)))


MODULES = [data.standardize, data.min_max, data.pca, data.whiten]


@pytest.mark.fast
@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_a_stream_is_fitted_as_the_whole(module, tmp_path):
    x = np.random.default_rng(1).normal(1e4, [1, 3, 9], (2500, 3))
    whole = module.fit(x)
    parts = np.split(x, [1, 1300, 1300, 2000])
    for batches in (parts, parts[::-1]):
        stats = module.fit(lambda batches=batches: iter(batches))
        for a, b in zip(stats, whole, strict=True):
            assert a.dtype == np.float64
            # The mean, 1e4, and with it each distance, is off by 2^-40; of 2500 such of random sign
            # 50 are left.
            np.testing.assert_allclose(a, b, rtol=0, atol=50 * 2**-40)
    file = np.memmap(tmp_path / "x", x.dtype, "w+", shape=x.shape)
    file[:] = x
    jax.tree.map(np.testing.assert_array_equal, module.fit(file), whole)


def test_pca_of_much_data_is_that_of_little(monkeypatch):
    little = data.pca.fit(X), data.whiten.fit(X[:, :2], form="zca", eps=0)
    monkeypatch.setattr(data.pca, "HELD", 0)
    much = data.pca.fit(lambda: iter(np.split(X, 3))), data.whiten.fit(X[:, :2], form="zca", eps=0)
    for a, b in zip(little[0] + little[1], much[0] + much[1], strict=True):
        # The largest variance, 1.1e5, over the least gap of two, 0.05, times 2^-53.
        close(a, b, 2.5e-10)
    x = np.arange(20.0)[:, None] * [1, 2] + [0, 1e6 * np.pi]
    assert not data.pca.fit(x).variance[1]  # what rounding leaves


def test_the_mean_of_a_constant_is_exact():
    x = np.random.default_rng(2).normal(0, 1e-9, (1000, 2))
    x[:, 0] = 1e6 * np.pi
    assert x[:, 0].mean() != x[0, 0]  # what would look like a variance
    np.testing.assert_array_equal(data.whiten.apply(data.whiten.fit(x, eps=0), x)[:, 1], 0)


def test_a_share_is_exceeded():
    x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert data.pca.fit(x).share.tolist() == [0.5, 0.5]
    assert len(data.pca.fit(x, components=0.5).share) == 2
    assert len(data.pca.fit(x, components=0.49).share) == 1


def test_products_have_the_precision_of_their_type():
    stats = data.pca.fit(IMAGES)
    for f in (
        lambda x: data.pca.apply(stats, x),
        lambda x: data.pca.invert(stats, x.reshape(-1, 12)),
    ):
        assert "Precision.HIGHEST" in str(jax.make_jaxpr(f)(jnp.asarray(IMAGES, jnp.float32)))


def test_variances_far_from_zero_are_those_of_the_deviations():
    x = 1e8 + np.arange(3.0)[:, None] * [1, -1]  # squares would cancel all digits
    close(data.pca.fit(x).variance, [2, 0])


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((0, 3)), r"fit: x must be an array with at least one example, got \(0, 3\)"),
        (np.float64(1), r"fit: x must be an array with at least one example, got \(\)"),
        (np.array(["a"]), "fit: x must be of bool, integer or float type, got '<U1'"),
        (np.where(np.arange(3000)[:, None] == 2000, np.inf, [1, 2]), r"got \{\(2000, 0\): inf\}"),
        (iter([np.ones((4, 2))]).__iter__, "must return a new iterator at each call"),
        (lambda: iter([np.ones((4, 2)), np.ones((4, 3))]), r"of one shape, \(2,\), got \(3,\)"),
    ],
    ids=["none", "scalar", "text", "inf", "exhausted", "shapes"],
)
def test_bad_training_sets_are_refused(module, x, message):
    with pytest.raises(DataError, match=message):
        module.fit(x)
    with pytest.raises(TypeError, match="x must be an array or a function, got .*iterator"):
        module.fit(iter([np.ones((4, 2))]))


@pytest.mark.fast
def test_what_does_not_vary_stays_finite():
    constant = 1e6 * np.pi / 3
    x = np.array([[constant, 1.0, 2.0], [constant, 2.0, 4.0], [constant, 4.0, 8.0]])
    later = x + [[1.0, 0.0, 0.0]]
    for module, options in [
        (data.min_max, {"low": -1}),
        (data.robust, {}),
        (data.pca, {}),
        (data.whiten, {"eps": 0}),
        (data.whiten, {"eps": 0, "form": "zca"}),
        (data.standardize, {"eps": 1.0}),
    ]:
        stats = module.fit(x, **options)
        # Some dozen units, of each column by itself: the first is a million times the others.
        back = module.invert(stats, module.apply(stats, x))
        np.testing.assert_allclose(back, x, rtol=24 * 2**-52)
        assert abs(module.apply(stats, later)).max() < 10
    np.testing.assert_array_equal(data.min_max.apply(data.min_max.fit(x, low=-1), x)[:, 0], -1)
    whitened = data.whiten.apply(data.whiten.fit(x, eps=0), x)
    close(np.cov(whitened.T, ddof=0), np.diag([1, 0, 0]))
    constant = np.full((3, 2), 7.0)
    for module in (*MODULES, data.robust):
        assert not module.apply(module.fit(constant), constant).any()


@pytest.mark.fast
def test_robust_is_not_moved_by_an_outlier():
    x = np.arange(101.0)[:, None]
    outlier = np.where(x == 100, 1e6, x)
    stats = data.robust.fit(outlier)
    jax.tree.map(np.testing.assert_array_equal, stats, data.robust.fit(x))
    y, _ = nn.standardize(*stats).apply({}, {}, x, nn.EVAL)
    np.testing.assert_array_equal(y, data.robust.apply(stats, x))


@pytest.mark.parametrize("module", [data.min_max, data.robust])
@pytest.mark.parametrize("per, axes", [("feature", 0), ("channel", (0, 1, 2)), ("all", None)])
def test_scaling_by_feature_channel_and_all(module, per, axes):
    stats, x = module.fit(IMAGES, per=per), IMAGES.astype(float)
    low, median, high = np.quantile(x, [0, 0.5, 1], axes, keepdims=True)
    if module is data.robust:
        low, high = np.quantile(x, [0.25, 0.75], axes, keepdims=True)
        np.testing.assert_array_equal(stats.median, median)
    else:
        np.testing.assert_array_equal(stats.min, low)
    np.testing.assert_array_equal(stats.range, high - low)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32"])
def test_preprocessings_are_layers_under_jit(dtype):
    x = jnp.asarray(IMAGES).astype(dtype)
    modules = [data.standardize, data.min_max, data.robust, data.pca]
    stats = [module.fit(x) for module in modules]

    @jax.jit
    def layers(stats, x):  # stats as arguments; as constants in the pipeline's test
        y = [module.apply(s, x) for module, s in zip(modules, stats, strict=True)]
        return y, [module.invert(*pair) for module, *pair in zip(modules, stats, y, strict=True)]

    y, back = layers(stats, x)
    wide = np.asarray(x.astype(jnp.float32), np.float64)
    for module, out, again in zip(modules, y, back, strict=True):
        expected = module.apply(module.fit(wide), wide)
        assert out.dtype == again.dtype == ("float32" if dtype == "uint8" else dtype)
        # A few roundings of the type of the result, in sums of 12 terms of the largest size.
        close(out.astype(jnp.float32), expected, 4 * float(jnp.finfo(out.dtype).eps))
        assert again.shape == x.shape


def test_preprocessing_in_float64(x64):
    x = jnp.asarray(X)
    stats = data.whiten.fit(x, form="zca", eps=0.0)
    y = data.whiten.apply(stats, x)
    assert y.dtype == np.float64
    close(np.cov(y.T, ddof=0), np.eye(5))
    close(data.whiten.invert(stats, y), X)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: data.pca.fit(X, components=6), r"in \[1, 5\], or a share in \[0, 1\), got 6"),
        (lambda: data.pca.fit(X, components=2.5), r"in \[0, 1\), got 2.5; or an int in \[1, 5\]"),
        (lambda: data.pca.fit(X, components=0), r"components must be in \[1, 5\]"),
        (lambda: data.pca.fit(X, components=1.0), r"components must be a number in \[0, 1\)"),
        (lambda: data.pca.fit(X, ddof=2), r"pca.fit: ddof must be one of \[0, 1\]"),
        (lambda: data.pca.fit(X[:1]), "pca.fit: x must be more than 1 example, got 1"),
        (lambda: data.whiten.fit(X, form="cholesky"), "form must be one of"),
        (lambda: data.whiten.fit(X, eps=-1), "whiten.fit: eps must be a finite number >= 0"),
        (lambda: data.min_max.fit(X, low=1), "high must be above low = 1, got 1.0"),
        (lambda: data.min_max.fit(X, per="pixel"), "per must be one of"),
        (lambda: data.robust.fit(X, quantiles=(0.5, 0.5)), "quantiles must be"),
        (lambda: data.robust.fit(X[:0]), "at least one example"),
        (lambda: data.robust.fit(lambda: iter([X])), "quantile needs all values at once"),
        (lambda: data.standardize.fit(X, scale=2), "scale must be True or False"),
        (lambda: data.pipeline(), "steps must be at least one"),
        (lambda: data.pipeline(np.log), "steps must be preprocessings with fit and apply"),
        (lambda: data.pipeline((data.pca, 3)), "steps must be preprocessings with fit and apply"),
        (lambda: data.prepare(data.pca, TRAIN, allow_duplicates=1), "must be True or False"),
        (lambda: data.prepare(data.pca, data.ArrayDataset([X], X)), "image must be one array"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises((ConfigError, DataError, TypeError), match=message):
        call()


def test_the_three_ways_to_prepare_images():
    """The mean image (AlexNet), a mean per channel (VGG), with its standard deviation (ResNet)."""
    x = IMAGES.astype(float)
    for options, expected in [
        ({"scale": False}, x - x.mean(0)),
        ({"per": "channel", "scale": False}, x - x.mean((0, 1, 2))),
        ({"per": "channel"}, (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))),
    ]:
        close(data.standardize.apply(data.standardize.fit(x, **options), x), expected)


# Pipelines.

STEPS = [(data.robust, {"per": "channel"}), data.standardize, (data.pca, {"components": 3})]


@pytest.mark.fast
def test_a_pipeline_is_its_steps_one_after_the_other():
    y = x = IMAGES.astype(float)
    expected = []
    for module, options in [STEPS[0], (STEPS[1], {}), STEPS[2]]:
        expected.append(module.fit(y, **options))
        y = module.apply(expected[-1], y)
    whole = data.pipeline(*STEPS)
    stats = whole.fit(x)
    jax.tree.map(np.testing.assert_array_equal, stats, tuple(expected))
    np.testing.assert_array_equal(whole.apply(stats, x), y)
    nested = data.pipeline(data.pipeline(*STEPS[:2]), STEPS[2])
    np.testing.assert_array_equal(nested.apply(nested.fit(x), x), y)
    layer = nn.serial(functools.partial(whole.apply, stats), jnp.tanh)
    out, _ = jax.jit(lambda x: layer.apply({}, {}, x, nn.EVAL))(jnp.asarray(IMAGES))
    # Coordinates below 8, sums of 12 terms in float32, 2^-22 each.
    np.testing.assert_allclose(out, np.tanh(y), rtol=0, atol=12 * 2**-22)


def test_a_pipeline_goes_back_and_reads_streams():
    whole = data.pipeline(data.standardize, (data.whiten, {"form": "zca", "eps": 0}))
    stats = whole.fit(X)
    close(whole.invert(stats, whole.apply(stats, X)), X)
    streamed = whole.fit(lambda: iter(np.split(X, 4)))
    close(whole.apply(streamed, X), whole.apply(stats, X))

    class OneWay:
        fit = staticmethod(lambda x: np.ones(()))
        apply = staticmethod(lambda stats, x: abs(x))

    whole = data.pipeline(data.standardize, OneWay)
    with pytest.raises(TypeError, match="steps must be all with invert"):
        whole.invert(whole.fit(X), X)


TRAIN = data.ArrayDataset(IMAGES[:30], np.arange(30) % 3, classes=3)
TEST = data.ArrayDataset(IMAGES[30:], np.arange(10) % 3, classes=3)


@pytest.mark.fast
def test_prepare_fits_on_the_training_set_alone():
    stats, train, a, b = data.prepare(data.standardize, TRAIN, TEST[:4], TEST[4:])
    jax.tree.map(np.testing.assert_array_equal, stats, data.standardize.fit(TRAIN.image))
    np.testing.assert_array_equal(
        np.concatenate([part.image for part in (train, a, b)]),
        data.standardize.apply(stats, IMAGES),
    )
    assert a.classes == 3 and len(b) == 6
    np.testing.assert_array_equal(b.label, TEST.label[4:])


@pytest.mark.fast
def test_prepare_refuses_a_test_set_with_training_images():
    leaky = data.ArrayDataset(
        np.concatenate([TEST.image[:2], TRAIN.image[7:8]]).astype(np.float32), np.arange(3)
    )
    message = r"held_out\[1\] must be without the images of the training set, got \{2: 7\}"
    with pytest.raises(DataError, match=message):
        data.prepare(data.standardize, TRAIN, TEST, leaky)
    *_, part = data.prepare(data.standardize, TRAIN, leaky, allow_duplicates=True)
    assert len(part) == 3
    zero = data.ArrayDataset(np.zeros((2, 3), np.float32), np.zeros(2))
    negative = data.ArrayDataset(np.full((2, 3), -0.0, np.float32), np.zeros(2))
    with pytest.raises(DataError, match=r"got \{0: 1, 1: 1\}"):
        data.prepare(data.standardize, zero, negative)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["standardize", "min_max", "robust", "pca", "whiten"])
def test_nothing_broadcasts_to_another_shape(name):
    module, x = getattr(data, name), np.arange(12.0).reshape(4, 3) ** 2
    stats = module.fit(x)
    for wrong in (x[:, :1], x[0], x[None], x[:, :2]):
        with pytest.raises(DataError, match=rf"{name}.apply: x must be of shape \(n, 3\)"):
            module.apply(stats, wrong)
        with pytest.raises(DataError, match=rf"{name}.invert: x must be of shape"):
            module.invert(stats, wrong)
    per_channel = data.standardize.fit(np.ones((4, 5, 5, 3)), per="channel")
    assert data.standardize.apply(per_channel, np.ones((2, 7, 6, 3))).shape == (2, 7, 6, 3)
    with pytest.raises(DataError, match=r"of shape \(n, any, any, 3\), as what was fitted, got"):
        data.standardize.apply(per_channel, np.ones((2, 5, 5, 1)))


def test_held_out_examples_have_the_shape_of_those_fitted():
    train = data.ArrayDataset(np.ones((4, 1)), np.arange(4.0))
    test = data.ArrayDataset(np.zeros((3, 2)), np.arange(3.0))
    with pytest.raises(DataError, match=r"prepare: held_out must be of examples of .* \(1,\)"):
        data.prepare(data.standardize, train, test)
