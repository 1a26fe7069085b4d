"""Table operations: Pillow's results for uint8, formulas and levels for other images."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import augment
from jaxtrain.augment import _tables
from jaxtrain.errors import ConfigError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "pil_policy.npz")
STRENGTHS, CUTOFFS = (0, 1, 3, 4, 7, 9), (1, 10, 49)  # as the script that wrote them has
UNMAGNIFIED = (augment.invert, augment.equalize, augment.autocontrast)


@functools.cache
def by_each(shape):
    """Returns the program that computes all of them."""

    def apply(image):
        return {
            **{f.__name__: f(image) for f in UNMAGNIFIED},
            "posterize": [augment.posterize(image, 8 - round(4 * k / 9)) for k in STRENGTHS],
            "solarize": [augment.solarize(image, 256 - 256 * k / 9) for k in STRENGTHS],
            "cutoff": [augment.autocontrast(image, cutoff=cutoff) for cutoff in CUTOFFS],
        }

    return jax.jit(apply)


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["color", "gray"])
def test_equals_pillow(kind):
    found = by_each(kind)(jnp.asarray(VECTORS[kind]))
    for f in UNMAGNIFIED:
        np.testing.assert_array_equal(found[f.__name__], VECTORS[f"{kind}, {f.__name__}"][0, 0])
    for name in ("posterize", "solarize"):
        np.testing.assert_array_equal(found[name], VECTORS[f"{kind}, {name}"][:, 0])
    np.testing.assert_array_equal(found["cutoff"], VECTORS[f"{kind}, cutoff"])


def test_autocontrast_rounds_as_pillow_does():
    y = jax.jit(jax.vmap(augment.autocontrast))(jnp.asarray(VECTORS["ramps"]))
    np.testing.assert_array_equal(y, VECTORS["ramps, autocontrast"])
    assert y[0].max() == 254  # from float64, where 255 would be exact


def test_stretching_equals_float64_for_all_ends():
    b, a = (i.ravel() for i in np.mgrid[:256, :256].astype(np.int32))
    x = np.arange(256.0)
    scale = 255 / np.maximum(b - a, 1)[:, None]
    expected = np.clip(np.trunc(x * scale - a[:, None] * scale), 0, 255)
    expected = np.where((a < b)[:, None], expected, x)
    np.testing.assert_array_equal(jax.jit(_tables.stretching)(a, b), expected)


def equalized(x):
    """Equalization of one channel."""
    h = np.bincount(x.ravel(), minlength=256)
    s = (x.size - h[x.max()]) // 255
    below = np.cumsum(h) - h
    return np.minimum((s // 2 + below) // s, 255)[x] if s else x


@pytest.mark.fast
def test_equalize_equals_numpy_and_flattens():
    random = np.random.default_rng(0)
    images = [random.integers(0, high, (25, 25)).astype(np.uint8) for high in (256, 20, 2, 1)]
    images += [np.minimum(random.exponential(9, (25, 25)), 255).astype(np.uint8)]
    f = jax.jit(augment.equalize)
    for x in images:
        np.testing.assert_array_equal(f(jnp.asarray(x)[..., None])[..., 0], equalized(x))
    x = np.repeat(np.arange(100, 164, dtype=np.uint8), 64).reshape(64, 64, 1)
    y = np.unique(augment.equalize(jnp.asarray(x)))
    assert y[0] == 0 and y[-1] == 255 and set(np.diff(y[:-1])) == {4, 5}


@pytest.mark.fast
@pytest.mark.parametrize("high", [None, 255, 1.0])
def test_floats_have_256_levels(high):
    image = jnp.asarray(VECTORS["color"])
    x = image.astype(np.float32) / np.float32(255 / (high or 1))
    functions = (*UNMAGNIFIED, functools.partial(augment.posterize, bits=3))
    for f in functions:
        y = f(x, high=high)
        expected = f(image).astype(np.float32) * ((high or 1) / 255)
        # x, a level and its share of the range, 2^-24 each.
        np.testing.assert_allclose(y, expected, rtol=0, atol=3 * 2**-24 * (high or 1))
        assert y.dtype == np.float32
    y = augment.solarize(x, 0.5 * (high or 1), high=high)
    expected = augment.solarize(image, 128).astype(np.float32) * ((high or 1) / 255)
    np.testing.assert_allclose(y, expected, rtol=0, atol=3 * 2**-24 * (high or 1))


def test_types_are_kept(x64):
    image = jnp.asarray(VECTORS["gray"][:9, :9])
    for dtype in (np.uint8, np.int32, jnp.bfloat16, np.float32, np.float64):
        x = image.astype(dtype)
        x = x / jnp.asarray(255, dtype) if jnp.issubdtype(dtype, jnp.floating) else x
        for f in (*UNMAGNIFIED, functools.partial(augment.posterize, bits=8)):
            y = f(x)
            assert y.dtype == dtype and y.shape == x.shape
    x = image.astype(np.float64) / 255
    # 1 - x is rounded by 2^-54; the way back is exact.
    np.testing.assert_allclose(augment.invert(augment.invert(x)), x, rtol=0, atol=2**-54)
    np.testing.assert_array_equal(augment.solarize(x, 1.1), x)


@pytest.mark.fast
def test_odd_images():
    flat = jnp.full((5, 4, 3), 77, jnp.uint8)
    for f in (augment.equalize, augment.autocontrast):
        np.testing.assert_array_equal(f(flat), flat)
    one = jnp.array([[[9]]], jnp.uint8)
    np.testing.assert_array_equal(augment.equalize(one), one)
    huge = jnp.array([[[-1e30], [0.5], [1e30]]])
    assert np.isfinite(augment.posterize(huge, 4)).all()


@pytest.mark.fast
def test_images_of_a_batch_are_independent():
    images = jnp.stack([jnp.asarray(VECTORS["color"]), 255 - jnp.asarray(VECTORS["color"]) // 2])
    for f in UNMAGNIFIED:
        both = jax.jit(jax.vmap(f))(images)
        for y, image in zip(both, images, strict=True):
            np.testing.assert_array_equal(y, f(image))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: augment.posterize(x, 0), "posterize: bits must be an int >= 1, got 0"),
        (lambda x: augment.posterize(x, 9), "posterize: bits must be"),
        (lambda x: augment.solarize(x, -1), "solarize: threshold must be a finite number >= 0"),
        (lambda x: augment.autocontrast(x, cutoff=50), "autocontrast: cutoff must be"),
        (lambda x: augment.equalize(x[0]), "equalize: image must be of shape"),
        (lambda x: augment.invert(x, high=0), "high must be"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError, match=message):
        call(jnp.ones((4, 4, 1)))
