"""Reading an image at other places: affine maps, lenses, elastic sheets."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from scipy import stats

from jaxtrain import augment
from jaxtrain.errors import ConfigError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "images.npz")
RNG = np.random.default_rng(0)
PIXELS = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0), indexing="ij"), -1) - 4
RAMPS = jnp.asarray(PIXELS, jnp.float32)  # each pixel's value is its place from the center


def oracle(x, at, fill):
    y = np.zeros((*at[0].shape, x.shape[2]))
    for i in (np.floor(at[0]), np.floor(at[0]) + 1):
        for j in (np.floor(at[1]), np.floor(at[1]) + 1):
            weight = (1 - np.abs(at[0] - i)) * (1 - np.abs(at[1] - j))
            inside = (i >= 0) & (i < x.shape[0]) & (j >= 0) & (j < x.shape[1])
            k = np.where(inside, i * x.shape[1] + j, 0).astype(int)
            value = np.where(inside[..., None], x.reshape(-1, x.shape[2])[k], fill)
            y += weight[..., None] * value
    return y


def drawn(f, image=RAMPS, n=200, **options):
    """Returns f of an image under n keys."""
    keys = jax.random.split(key(0), n)
    return np.asarray(jax.jit(jax.vmap(lambda key: f(key, image, **options)))(keys))


def maps(y):
    """Returns the matrices and the shifts that ramps have been read with.

    A place below 8 is rounded by 2^-22 up to three times and its pixel by as much in all: right to
    2^-20, a difference of two to 2^-19.
    """
    shift = y[:, 4, 4]
    return np.stack([y[:, 5, 4] - shift, y[:, 4, 5] - shift], -1), shift


@pytest.mark.fast
@pytest.mark.parametrize("fill", [0, 7, (1, 2, 3)], ids=str)
def test_resample_equals_numpy(fill):
    x = RNG.integers(0, 256, (6, 5, 3), np.uint8)
    at = RNG.uniform(-4, 10, (2, 7, 8)).astype(np.float32)
    at[:, 0, :5] = [[0, 5, -1, 2, 1e9], [0, 4, -1, -1e9, 2]]
    expected = oracle(x, at.astype(float), fill)
    y = augment.resample(x.astype(np.float32), at, fill=fill)
    # Of exact places: weights that add up to 1 with two roundings and a product with 255 of 2^-24
    # each, and three sums below 256, 2^-17 each.
    np.testing.assert_allclose(y, expected, rtol=0, atol=7e-5)
    y = augment.resample(x, at, fill=fill)
    assert y.dtype == np.uint8
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=0, atol=0.5 + 7e-5)


def test_resample_takes_the_nearest_pixel_and_what_is_no_number():
    x = jnp.arange(12).reshape(3, 4, 1)
    at = jnp.array([[[0.4, 0.6, 1.0, -0.6, 2.5]], [[1.4, 1.6, -0.5, 0.0, 0.0]]])
    y = augment.resample(x, at, order=0, fill=-1).ravel()
    np.testing.assert_array_equal(y, [1, 6, 4, -1, -1])
    lost = jnp.full((2, 1, 1), jnp.nan)
    assert augment.resample(x, lost).shape == (1, 1, 1)
    assert np.isnan(augment.resample(x.astype(np.float32), lost)).all()


@pytest.mark.parametrize(
    "name, options",
    [("linear", {}), ("filled", {"fill": 0.5}), ("nearest", {"order": 0})],
    ids=["linear", "filled", "nearest"],
)
def test_affine_equals_scipy(name, options, x64):
    y = augment.affine(VECTORS["image"], VECTORS["matrix"], VECTORS["shift"], **options)
    # Numbers below 1 of places below 16: in two programs and two directions five of 2^-50.
    np.testing.assert_allclose(y, VECTORS[f"affine, {name}"], rtol=0, atol=20 * 2**-50)


@pytest.mark.parametrize("library", ["scipy", "torch"])
def test_rotate_by_30_degrees_equals(library, x64):
    y = augment.rotate(VECTORS["image"], 30)
    # As for affine maps.
    np.testing.assert_allclose(y, VECTORS[f"rotate, {library}"], rtol=0, atol=20 * 2**-50)


def test_rotate_in_single_precision_and_in_bytes():
    x, expected = VECTORS["image"], VECTORS["rotate, scipy"]
    # Places below 16 are rounded five times by 2^-21 in each of two directions; values below 1.
    y = augment.rotate(x.astype(np.float32), 30)
    np.testing.assert_allclose(y, expected, rtol=0, atol=10 * 2**-21)
    y = augment.rotate(VECTORS["bytes"], 30)
    rotated = augment.rotate(VECTORS["bytes"].astype(np.float32), 30)
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(y, np.round(rotated))
    # bfloat16 has 8 bits: rounded once before and once after.
    y = augment.rotate(jnp.asarray(x, jnp.bfloat16), 30)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=0, atol=2**-8)


@pytest.mark.fast
def test_rotate_by_right_angles_is_exact_and_counter_clockwise():
    x = RNG.normal(size=(6, 6, 2)).astype(np.float32)
    rotate = jax.jit(augment.rotate)
    for turns in (-3, -1, 0, 1, 2, 3, 4):
        np.testing.assert_array_equal(rotate(x, 90.0 * turns), np.rot90(x, turns))
    wide = RNG.integers(0, 256, (4, 7, 1), np.uint8)
    np.testing.assert_array_equal(augment.rotate(wide, 180), wide[::-1, ::-1])
    np.testing.assert_array_equal(augment.rotate(wide, 0), wide)


def test_rotation_of_an_image_is_a_resampling_matrix():
    """Not a rotation of the vector of its pixels: E67."""
    x = RNG.normal(size=(5, 5, 1)).astype(np.float32)
    rotate = jax.jit(functools.partial(augment.rotate, degrees=30))
    a = np.asarray(jax.jacobian(rotate)(x)).reshape(25, 25)
    # A row has four weights: their products with numbers below 4 and sums, 2^-23 each.
    np.testing.assert_allclose(a @ x.ravel(), np.ravel(rotate(x)), rtol=0, atol=8 * 2**-23)
    assert a.min() >= 0 and (np.count_nonzero(a, axis=1) <= 4).all()
    # Within the image all weights are there: four products and three sums below 1.
    assert abs(a[6:9].sum(1) - 1).max() < 7 * 2**-25
    assert abs(a @ a.T - np.eye(25)).max() > 0.5


def test_lens_distortion_equals_numpy_and_has_the_sign_of_a_barrel():
    x = RNG.uniform(size=(7, 10, 2)).astype(np.float32)
    p = np.stack(np.meshgrid(np.arange(7.0), np.arange(10.0), indexing="ij"))
    c = np.array([3, 4.5]).reshape(2, 1, 1)
    r2 = ((p - c) ** 2).sum(0) / (3**2 + 4.5**2)
    for k in (-0.3, 0.4):
        y = augment.lens_distortion(x, k)
        expected = oracle(x, c + (1 + k * r2) * (p - c), 0)
        np.testing.assert_allclose(y, expected, rtol=0, atol=10 * 2**-21)  # as for rotations
    # A barrel makes the image smaller: the corner, where r is 1, is read from 1.3 times as far.
    y = np.asarray(augment.lens_distortion(RAMPS, 0.3))
    np.testing.assert_allclose(y[6, 6], 2 * (1 + 0.3 * 8 / 32), rtol=0, atol=2**-20)  # as `maps`
    assert (y[0, 0] == 0).all()


FORMS = {  # of the matrix A, by what it must be made of
    "rotation": (dict(degrees=40.0), lambda a: np.degrees(np.arctan2(a[..., 0, 1], a[..., 0, 0]))),
    "scale": (dict(scale=(0.6, 1.8)), lambda a: 1 / a[..., 0, 0]),
    "stretch": (dict(stretch=(0.5, 3.0)), lambda a: 2 * np.log(a[..., 0, 0])),
    "shear": (dict(shear=0.4), lambda a: a[..., 1, 0]),
}
REBUILT = {
    "rotation": lambda v: [[np.cos(v), np.sin(v)], [-np.sin(v), np.cos(v)]],
    "scale": lambda v: [[1 / v, 0 * v], [0 * v, 1 / v]],
    "stretch": lambda v: [[np.exp(v / 2), 0 * v], [0 * v, np.exp(-v / 2)]],
    "shear": lambda v: [[1 + 0 * v, 0 * v], [v, 1 + 0 * v]],
}
RANGES = {
    "rotation": (-40, 40),
    "scale": (0.6, 1.8),
    "stretch": (np.log(0.5), np.log(3)),
    "shear": (-0.4, 0.4),
}


@pytest.mark.parametrize("name", FORMS)
def test_special_cases_draw_what_they_say(name):
    options, value = FORMS[name]
    a, shift = maps(drawn(getattr(augment, f"random_{name}"), **options))
    v = value(a)
    rebuilt = np.array(REBUILT[name](np.radians(v) if name == "rotation" else v))
    np.testing.assert_allclose(a, np.moveaxis(rebuilt, -1, 0), rtol=0, atol=2**-19)
    np.testing.assert_array_equal(shift, 0)
    low, high = RANGES[name]
    # Kolmogorov and Smirnov's p would be below 1e-3 for one key in a thousand; this one is not it.
    assert stats.kstest(v, "uniform", (low, high - low)).pvalue > 1e-3


def test_random_translation_and_lens_draw_uniformly():
    a, shift = maps(drawn(augment.random_translation, shift=1.5))
    np.testing.assert_allclose(a, np.broadcast_to(np.eye(2), a.shape), rtol=0, atol=2**-19)
    y = drawn(augment.random_lens_distortion, strength=0.3)
    k = (y[:, 5, 5, 0] - 1) * 32 / 2
    for v, bound in ((shift[:, 0], 1.5), (shift[:, 1], 1.5), (k, 0.3)):
        assert stats.kstest(v, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
    assert abs(np.corrcoef(shift.T)[0, 1]) < 4 / np.sqrt(200)  # deviations


def test_random_affine_composes_all_in_one_matrix():
    """The product of the parts, in the order of the docstring."""
    y = drawn(augment.random_affine, n=1, scale=(1.25, 1.25), stretch=(1.44, 1.44))
    a, _ = maps(y)
    np.testing.assert_allclose(a[0], np.diag([1.2, 1 / 1.2]) / 1.25, rtol=0, atol=2**-19)
    y = drawn(
        augment.random_affine,
        n=50, degrees=20.0, shear=0.3, scale=(1.25, 1.25), stretch=(1.44, 1.44), shift=1.0,
    )  # fmt: skip
    a, shift = maps(y)
    assert abs(shift).max() > 0.5
    # 2^-19 of each entry, times another: their sizes add up to less than 2.5.
    np.testing.assert_allclose(np.linalg.det(a), 1.25**-2, rtol=0, atol=2.5 * 2**-19)
    # A sends (0, 1) to R (0, 1 / (1.2 * 1.25)): the angle. Undone, what is left is the shear.
    angle = np.arctan2(a[:, 0, 1], a[:, 1, 1])
    back = np.moveaxis(np.array(REBUILT["rotation"](-angle)), -1, 0)
    sheared = np.diag([1 / 1.2, 1.2]) @ back @ a * 1.25
    # 1.2 * 1.25 times two entries, 2^-19 each, turned, and as much for the angle, of sides of 0.67.
    found = sheared[:, [0, 0, 1], [0, 1, 1]]
    np.testing.assert_allclose(found, [[1, 0, 1]] * 50, rtol=0, atol=1.2e-5)
    # All of 50 are below 2/3, or 0.72, of the bound with probability 2e-9, or 6e-8.
    assert 0.2 < abs(sheared[:, 1, 0]).max() < 0.3 and 0.25 < abs(angle).max() < np.radians(20)


@pytest.mark.fast
def test_random_affine_reads_at_an_affine_map_of_the_pixels():
    # Interpolation is exact on a ramp: the values are the places that were read.
    y = drawn(augment.random_affine, RAMPS, distortion=0.2, shift=1.0)
    shift = y[:, 4, 4]
    matrix = np.stack([y[:, 5, 4] - shift, y[:, 4, 5] - shift], -1)
    places = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1)
    expected = np.einsum("kij,abj->kabi", matrix, places) + shift[:, None, None]
    # As `maps` says: of two differences, the shift and a pixel.
    np.testing.assert_allclose(y[:, 3:6, 3:6], expected, rtol=0, atol=6 * 2**-20)
    # Of 200 uniform numbers the largest falls below 0.9 of the bound once in 10^9 times.
    for entry, bound in [*((e, 0.2) for e in (matrix - np.eye(2)).reshape(-1, 4).T)] + [
        (t, 1.0) for t in shift.T
    ]:
        assert 0.9 * bound < entry.max() < bound + 2**-19
        assert 0.9 * bound < -entry.min() < bound + 2**-19


def test_random_affine_rounds_integers_and_fills_with_zeros():
    image = jnp.full((9, 9, 1), 7, jnp.uint8)
    y = drawn(augment.random_affine, image, distortion=0.2, shift=1.0)
    assert (y[:, 3:6, 3:6] == 7).all()
    assert (y[:, 0, 0] == 0).any()


def test_random_affine_keeps_float64(x64):
    image = np.random.default_rng(0).normal(size=(5, 5, 1))
    y = augment.random_affine(key(0), jnp.asarray(image), distortion=0.0)
    np.testing.assert_array_equal(y, image)


def test_elastic_moves_pixels_smoothly_by_what_it_says():
    n = 33
    image = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1) * 1.0
    alpha, sigma = 10.0, 2.0
    y = drawn(augment.elastic, jnp.asarray(image, np.float32), 40, alpha=alpha, sigma=sigma)
    moved = (y - image)[:, 10:23, 10:23]  # 10 pixels, five deviations, from the border
    # var u = 1/3, and the squares of a Gaussian's weights sum to 1 / (4 pi sigma^2). In 40 images
    # there are 40 * 2 * 169 / (4 pi sigma^2) independent numbers, about 270: their deviation is
    # known to 1 / sqrt(540), 4.3 %; four times that.
    assert abs(moved.std() / (alpha / (sigma * np.sqrt(12 * np.pi))) - 1) < 0.17
    # Neighbors are correlated by r = exp(-1 / (4 sigma^2)) = 0.94, so that one sees the other; the
    # deviation is (1 - r^2) / sqrt(270) = 0.007.
    a, b = moved[:, 1:].ravel(), moved[:, :-1].ravel()
    assert abs(np.corrcoef(a, b)[0, 1] - np.exp(-1 / 16)) < 0.03


@pytest.mark.fast
@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x: augment.resample(x[0], x),
            "resample: image must be of shape (height, width, ch",
        ),
        (lambda x: augment.resample(x, x), "resample: at must be two arrays of one shape"),
        (lambda x: augment.resample(x, x[:2, :, :], order=2), "resample: order must be one of"),
        (
            lambda x: augment.affine(x, [1, 0], (0, 0)),
            "affine: matrix and shift must be of shapes (2, 2)",
        ),
        (
            lambda x: augment.affine(x[None], np.eye(2), (0, 0)),
            "got (1, 4, 4, 3); jax.vmap takes a batch",
        ),
        (lambda x: augment.rotate(x, np.inf), "rotate: degrees must be a finite number, got inf"),
        (
            lambda x: augment.random_scale(key(0), x, scale=(2.0, 1.0)),
            "the lower end of scale must",
        ),
        (
            lambda x: augment.random_shear(key(0), x, shear=-1.0),
            "shear must be a finite number >= 0",
        ),
        (
            lambda x: augment.elastic(key(0), x, alpha=1.0, sigma=0.0),
            "elastic: sigma must be a fin",
        ),
        (
            lambda x: augment.lens_distortion(x, np.nan),
            "lens_distortion: strength must be a finite",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError) as error:
        call(jnp.ones((4, 4, 3)))
    assert message in str(error.value)
