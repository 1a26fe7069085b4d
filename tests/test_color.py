"""Brightness, contrast, saturation, hue and lighting; blurring and sharpening."""

import colorsys
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from scipy import stats

from jaxtrain import augment
from jaxtrain.errors import ConfigError, DataError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "images.npz")
RNG = np.random.default_rng(0)
IMAGE = VECTORS["image"].astype(np.float32)
LUMA = np.array([0.299, 0.587, 0.114])


def drawn(f, image, n=200, **options):
    """Returns f of an image under n keys."""
    keys = jax.random.split(key(0), n)
    image = jnp.asarray(image)
    return np.asarray(jax.jit(jax.vmap(lambda key: f(key, image, **options)))(keys))


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpen"])
def test_bytes_equal_pillow_s(name, factor):
    y = np.asarray(getattr(augment, name)(VECTORS["bytes"], factor), int)
    # Pillow rounds the other image first, which moves y by (1 - factor) / 2 at most, 0.5 here, and
    # cuts off the fraction in the end where we round: we are above it by less than 1.5 + 0.5.
    off = y - VECTORS[f"{name}, {factor}"]
    assert off.min() >= 0 and off.max() <= 1


def test_grayscale_equals_pillow_s():
    y = augment.grayscale(VECTORS["bytes"])
    # Its weights have 16 bits: they differ from ours by 255 * 2^-15 in all.
    np.testing.assert_array_equal(y, np.repeat(VECTORS["grayscale"][..., None], 3, -1))


CONTRAST = {
    "gray": lambda x: (x @ LUMA).mean(),
    "channel": lambda x: x.mean((0, 1)),
    "global": lambda x: x.mean(),
}


@pytest.mark.fast
def test_floats_equal_numpy():
    x = VECTORS["image"]
    # Eight roundings of numbers below 2, 2^-24 each.
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=5e-7)
    for factor in (0.3, 1.8):
        close(augment.brightness(IMAGE, factor), np.clip(factor * x, 0, 1))
        gray = (x @ LUMA)[..., None]
        close(augment.saturation(IMAGE, factor), np.clip(gray + factor * (x - gray), 0, 1))
        for mean, f in CONTRAST.items():
            expected = np.clip(f(x) + factor * (x - f(x)), 0, 1)
            close(augment.contrast(IMAGE, factor, mean=mean), expected)


def test_sharpen_equals_numpy():
    x = VECTORS["image"]
    kernel, s = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13, x.copy()
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            s[i, j] = np.tensordot(kernel, x[i - 1 : i + 2, j - 1 : j + 2], 2)
    for factor in (0.0, 2.5):
        y = augment.sharpen(IMAGE, factor)
        # A sum of nine, each rounded by 2^-25, times 1.5; three roundings of numbers below 4.
        np.testing.assert_allclose(y, np.clip(s + factor * (x - s), 0, 1), rtol=0, atol=8e-7)
    flat = np.ones((2, 1, 3), np.float32)  # no pixel has all neighbors
    np.testing.assert_array_equal(augment.sharpen(flat, 3.0), flat)


@pytest.mark.fast
def test_hue_equals_the_standard_library():
    x = np.concatenate([IMAGE.reshape(-1, 3), np.eye(3), 1 - np.eye(3), np.full((2, 3), 0.4)])
    turn = jax.jit(augment.hue)
    for shift in (-0.4, 0.1, 0.75):
        expected = []
        for r, g, b in x.astype(float):
            h, s, v = colorsys.rgb_to_hsv(r, g, b)
            expected.append(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
        # h and its turn are below 8, 2^-22 each; their sum and k below 16, 2^-21 each; v - c k.
        y = turn(x[:, None].astype(np.float32), shift)[:, 0]
        np.testing.assert_allclose(y, expected, rtol=0, atol=1.6e-6)
    np.testing.assert_array_equal(turn(IMAGE, 0.0), IMAGE)
    y = augment.hue(np.array([[[250, 10, 20], [7, 7, 7]]], np.uint8), -1 / 3)
    np.testing.assert_array_equal(y, [[[10, 20, 250], [7, 7, 7]]])


def test_the_range_may_be_another():
    x = np.full((1, 2, 3), 3000, np.int32)
    assert (augment.brightness(x, 2.0, high=4095) == 4095).all()
    assert (augment.brightness(x, 2.0) == 255).all()
    wide = augment.contrast(np.array([[[-1.0], [9.0]]], np.float32), 3.0, high=10.0)
    np.testing.assert_array_equal(wide.ravel(), [0, 10])


def test_color_jitter_draws_factors_and_shifts():
    gray = np.full((2, 2, 3), 0.25, np.float32)
    factor = drawn(augment.color_jitter, gray, brightness=0.6)[:, 0, 0, 0] / 0.25
    assert stats.kstest(factor, "uniform", (0.4, 1.2)).pvalue > 1e-3
    factor = (
        drawn(augment.color_jitter, gray, brightness=1.5)[:, 0, 0, 0] / 0.25
    )  # from 0, not -0.5
    assert stats.kstest(factor, "uniform", (0, 2.5)).pvalue > 1e-3
    pair = np.broadcast_to(np.array([0.4, 0.6], np.float32)[:, None, None], (2, 1, 3))
    y = drawn(augment.color_jitter, pair, contrast=0.8)
    factor = (y[:, 1, 0, 0] - y[:, 0, 0, 0]) / 0.2
    assert stats.kstest(factor, "uniform", (0.2, 1.6)).pvalue > 1e-3
    red = np.array([[[0.6, 0.5, 0.5]]], np.float32)
    y = drawn(augment.color_jitter, red, saturation=0.5, hue=0.1)
    hue = [colorsys.rgb_to_hsv(*map(float, c)) for c in y[:, 0, 0]]
    h = [(h + 0.5) % 1 - 0.5 for h, _, _ in hue]
    assert stats.kstest(h, "uniform", (-0.1, 0.2)).pvalue > 1e-3
    factor = (y.max(-1) - y.min(-1)).ravel() / 0.1
    assert stats.kstest(factor, "uniform", (0.5, 1)).pvalue > 1e-3


def test_exchange_channels_takes_all_orders_equally():
    y = drawn(augment.exchange_channels, np.array([[[0, 1, 2]]]), 600)[:, 0, 0]
    orders, counts = np.unique(y, axis=0, return_counts=True)
    assert len(orders) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_lighting_of_a_set_of_images_has_its_principal_components():
    images = RNG.integers(0, 256, (5, 4, 3, 3), np.uint8)
    lighting = augment.fit_lighting(images)
    covariance = np.cov(images.reshape(-1, 3).T / 255, ddof=0)
    p, lam = lighting.eigenvectors, lighting.eigenvalues
    # An eigenvalue solver is right to some ten units, 2e-16, of the largest, 0.1.
    np.testing.assert_allclose(p @ np.diag(lam) @ p.T, covariance, rtol=0, atol=2e-16)
    assert (np.diff(lam) < 0).all()
    other = augment.fit_lighting(images / 255).eigenvalues
    np.testing.assert_allclose(other, lam, rtol=60 * 2.2e-16)  # sums of 60 squares
    constant = augment.fit_lighting(np.ones((2, 2, 2, 3), np.float32))
    np.testing.assert_array_equal(constant.eigenvalues, 0)
    with pytest.raises(DataError, match="fit_lighting: images must be an array with at least one"):
        augment.fit_lighting(np.zeros((0, 2, 2, 3)))


def test_lighting_adds_colors_of_the_covariance_and_none_on_average():
    """C81: the mean offset is 0."""
    n, x = 4000, np.full((1, 2, 3), 0.5, np.float32)
    p = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    lam = np.array([0.5, 0.2, 0.1])
    y = drawn(augment.pca_lighting, x, n, eigenvalues=lam, eigenvectors=p) - 0.5
    np.testing.assert_array_equal(y[:, :, 0], y[:, :, 1])  # one color for all
    a = y[:, 0, 0] @ p / lam
    assert stats.kstest(a.ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3
    # The means of n numbers of deviation 0.1; so is every correlation below 4 / sqrt(n).
    assert (np.abs(a.mean(0)) < 4 * 0.1 / np.sqrt(n)).all()
    assert (np.abs(np.corrcoef(a.T) - np.eye(3)) < 4 / np.sqrt(n)).all()


def test_lighting_of_imagenet_is_in_the_unit_of_the_range():
    floats = drawn(augment.pca_lighting, np.full((1, 1, 3), 0.5, np.float32), 50)
    bytes_ = drawn(augment.pca_lighting, np.full((1, 1, 3), 128, np.uint8), 50)
    # 128 is 255 * 0.5 + 0.5. A byte is rounded by half, and before by 2^-17 = 7.6e-6; 255 y is
    # off by twice that.
    np.testing.assert_allclose(bytes_, 255.0 * floats + 0.5, rtol=0, atol=0.5 + 2.3e-5)
    # Published to four digits: a product of unit vectors, whose |p| sum to at most sqrt(3) = 1.73,
    # is off by 2 * 1.73 * 5e-5.
    p = np.array(augment.pca_lighting.__kwdefaults__["eigenvectors"])
    np.testing.assert_allclose(p.T @ p, np.eye(3), rtol=0, atol=1.8e-4)


def test_blur_equals_scipy(x64):
    y = augment.gaussian_blur(VECTORS["image"], 0.8)
    # Two means of seven numbers below 1 by weights that are right to four of 2^-53: 2 * (7 + 4).
    np.testing.assert_allclose(y, VECTORS["blur"], rtol=0, atol=2.5e-15)


def test_blur_has_the_radius_asked_for_and_is_nothing_at_zero():
    spike = np.zeros((9, 9, 1), np.float32)
    spike[4, 4] = 1
    y = np.asarray(augment.gaussian_blur(spike, 2.0, radius=2))[..., 0]
    w = np.exp(-(np.arange(-2, 3) ** 2) / 8)
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = np.outer(w, w) / w.sum() ** 2
    # Products of two weights, each of four roundings of 2^-24.
    np.testing.assert_allclose(y, expected, rtol=5.4e-7)
    np.testing.assert_array_equal(augment.gaussian_blur(IMAGE, 0.0), IMAGE)
    y = drawn(augment.random_blur, spike, 100, sigma=(0.5, 1.5), radius=4)
    # The ratio of two weights tells the deviation.
    sigma = 1 / np.sqrt(2 * np.log(y[:, 4, 4, 0] / y[:, 4, 5, 0]))
    assert stats.kstest(sigma, "uniform", (0.5, 1)).pvalue > 1e-3


@pytest.mark.fast
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: augment.brightness(x, -1.0), "brightness: factor must be a finite number >= 0"),
        (lambda x: augment.contrast(x, 1.0, mean="median"), "contrast: mean must be one of"),
        (lambda x: augment.contrast(x, 1.0, high=0.0), "high must be a finite number > 0, got 0.0"),
        (lambda x: augment.saturation(x[..., :2], 1.0), "of 3 channels, red, green and blue, or 1"),
        (lambda x: augment.hue(x[..., :1], 0.1), "hue: image must be of shape (height, width, 3)"),
        (
            lambda x: augment.color_jitter(key(0), x[..., :1], hue=0.1),
            "color_jitter: image must be of shape (height, width, 3), got (4, 4, 1)",
        ),
        (lambda x: augment.color_jitter(key(0), x, hue=0.6), "hue must be a number in [0, 0.5]"),
        (
            lambda x: augment.pca_lighting(key(0), x[..., :1]),
            "those of the 1 channels of the image",
        ),
        (
            lambda x: augment.random_blur(key(0), x, sigma=(0.0, 1.0)),
            "sigma must be a finite number",
        ),
        (lambda x: augment.gaussian_blur(x, 1.0, radius=-1), "radius must be an int >= 0, got -1"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError) as error:
        call(jnp.ones((4, 4, 3)))
    assert message in str(error.value)
