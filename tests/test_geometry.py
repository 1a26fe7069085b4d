"""Flips, crops and sizes of images."""

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
# The value of each pixel is its place.
PLACES = np.stack(np.meshgrid(np.arange(40.0), np.arange(60.0), indexing="ij"), -1)


def drawn(f, image, n=200, **options):
    """Returns f of an image under n keys."""
    keys = jax.random.split(key(0), n)
    image = jnp.asarray(image)
    return np.asarray(jax.jit(jax.vmap(lambda key: f(key, image, **options)))(keys))


@pytest.mark.fast
def test_flip_mirrors():
    x = RNG.integers(0, 256, (3, 4, 2), np.uint8)
    np.testing.assert_array_equal(augment.flip(x), x[:, ::-1])
    np.testing.assert_array_equal(augment.flip(x, axis="vertical"), x[::-1])
    np.testing.assert_array_equal(augment.flip(x, axis="both"), x[::-1, ::-1])
    np.testing.assert_array_equal(augment.flip(augment.flip(x)), x)


def test_random_flip_mirrors_as_often_as_it_says():
    x, n = np.arange(4).reshape(2, 2, 1), 500
    y = drawn(augment.random_flip, x, n, axis="both", probability=0.3)[..., 0]
    horizontal, vertical = y[:, 0, 0] % 2 == 1, y[:, 0, 0] >= 2
    # Four standard deviations of the shares of 500.
    assert abs(horizontal.mean() - 0.3) < 4 * np.sqrt(0.21 / n)
    assert abs(vertical.mean() - 0.3) < 4 * np.sqrt(0.21 / n)
    assert abs((horizontal & vertical).mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / n)
    flips = {"horizontal": x[:, ::-1, 0], "vertical": x[::-1, :, 0]}
    for axis, flipped in flips.items():
        y = drawn(augment.random_flip, x, axis=axis)[..., 0]
        is_flipped, is_not = ((y == z).all((1, 2)) for z in (flipped, x[..., 0]))
        share = is_flipped.mean()
        assert (is_flipped ^ is_not).all() and abs(share - 0.5) < 4 * np.sqrt(0.25 / 200)


@pytest.mark.fast
def test_crop_and_center_crop_cut():
    x = np.arange(5 * 6).reshape(5, 6, 1)
    np.testing.assert_array_equal(augment.crop(x, (2, 1), (3, 4)), x[2:, 1:5])
    np.testing.assert_array_equal(augment.center_crop(x, (2, 4)), x[1:3, 1:5])
    np.testing.assert_array_equal(augment.center_crop(x, (5, 6)), x)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_random_crop_cuts_out_of_the_padded_image(mode):
    x = RNG.integers(0, 256, (4, 5, 2), np.uint8)
    options = {"constant_values": 9} if mode == "constant" else {}
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)), mode, **options)
    crops = np.lib.stride_tricks.sliding_window_view(padded, (3, 6, 2))[:, :, 0]
    y = drawn(augment.random_crop, x, 400, padding=2, size=(3, 6), mode=mode, fill=9)
    found = (y[:, None, None] == crops[None]).all((3, 4, 5)).any(0)
    # Each of 24 crops is missed by 400 draws with probability (23/24)^400 = 4e-8.
    assert found.shape == (6, 4) and found.all()


@pytest.mark.parametrize("size", [(4, 7), (11, 17)], ids=str)
@pytest.mark.parametrize("name", ["linear", "linear, aliased", "cubic", "nearest"])
def test_resize_equals_torch(name, size, x64):
    method, _, aliased = name.partition(", ")
    y = augment.resize(VECTORS["image"], size, method=method, antialias=not aliased)
    expected = VECTORS[f"resize, {name}, {size[0]}x{size[1]}"]
    # Sums of at most 36 terms below 1, each weight and each sum right to 2^-53.
    np.testing.assert_allclose(y, expected, rtol=0, atol=8e-15)


def test_resize_rounds_integers_and_keeps_them_in_range():
    x = np.array([0, 255, 0, 255, 255, 0], np.uint8).reshape(1, 6, 1)
    y = augment.resize(x, (1, 17), method="cubic")
    exact = augment.resize(x.astype(np.float32), (1, 17), method="cubic")
    assert exact.min() < 0 and exact.max() > 255  # it overshoots
    np.testing.assert_array_equal(y, np.clip(np.round(exact), 0, 255))
    assert augment.resize(jnp.asarray(x, jnp.bfloat16), (2, 3)).dtype == jnp.bfloat16


def read(y, margin=5):
    """Returns origin and step of the places that a square of PLACES was read at, (n, 2) each.

    A pixel is a sum of two places below 64, each rounded by 2^-19, with weights of places that are
    rounded as much: off by 2^-17 in all. A step over 37 pixels or more is off by 2^-16 / 37 = 4e-7,
    6e-7 of itself, and an origin by 2^-17 and nine steps', 1.2e-5.
    """
    step = np.stack([np.diff(y[:, margin:-margin, 9, 0], axis=1).mean(1),
                     np.diff(y[:, 9, margin:-margin, 1], axis=1).mean(1)], -1)  # fmt: skip
    return y[:, 9, 9] - 9 * step, step


def test_random_resized_crop_of_resnet():
    f = functools.partial(augment.random_resized_crop, size=48, short_side=(48, 60))
    origin, step = read(drawn(f, PLACES.astype(np.float32), 300))
    sides = 40 / step  # the image grows, so that the ramp is interpolated exactly
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=2 * 6e-7)
    np.testing.assert_allclose(sides, np.round(sides), rtol=6e-7)
    # Of 13 lengths one is missed by 300 draws with probability 13 (12/13)^300 = 5e-10.
    assert set(np.round(sides[:, 0])) == set(range(48, 61))
    # The middle of the first pixel is (first + 1/2) step - 1/2.
    exact = (origin + 0.5) / step - 0.5
    first, sides = np.round(exact), np.round(sides)
    # A first pixel of at most 42 is off by 42 * 6e-7 + 1.2e-5 / 0.67.
    np.testing.assert_allclose(exact, first, rtol=0, atol=4.3e-5)
    room = np.stack([sides[:, 0], np.round(1.5 * sides[:, 1])], -1) - 48
    shares = first[room > 5] / room[room > 5]
    # Some 440 numbers, each of 7 to 43 values, miss one of the ends with probability e^-20. The
    # deviation of seven or more equal steps from 0 to 1 is at most 1/3.
    assert shares.min() == 0 and shares.max() == 1 and (0 <= first).all() and (first <= room).all()
    assert abs(shares.mean() - 0.5) < 4 / 3 / np.sqrt(len(shares))


def test_random_resized_crop_of_resnet_is_a_crop_of_the_resized_image():
    image = VECTORS["image"][:, :8].astype(np.float32)
    resized = np.asarray(augment.resize(image, (6, 6)))
    windows = np.lib.stride_tricks.sliding_window_view(resized, (5, 5, 3))[:, :, 0]
    y = drawn(augment.random_resized_crop, image, 60, size=5, short_side=(6, 6))
    distance = np.abs(y[:, None, None] - windows[None]).max((3, 4, 5)).reshape(60, 4)
    # Each is one of the four crops: weights from places below 8, 2^-22 twice, and two sums of four.
    assert (distance.min(1) < 1e-6).all() and set(distance.argmin(1)) == {0, 1, 2, 3}


def test_random_resized_crop_of_inception():
    f = functools.partial(
        augment.random_resized_crop, size=64, form="inception", area=(0.2, 0.5), ratio=(0.6, 1.5)
    )
    origin, step = read(drawn(f, PLACES.astype(np.float32), 300))
    height, width = np.round(64 * step).T
    np.testing.assert_allclose(64 * step, np.stack([height, width], -1), rtol=0, atol=64 * 4e-7)
    exact = origin - (step - 1) / 2
    first = np.round(exact)
    np.testing.assert_allclose(exact, first, rtol=0, atol=1.3e-5)
    assert (first >= 0).all() and (first + np.stack([height, width], -1) <= [40, 60]).all()
    # All boxes of these ranges fit, so that none is drawn again; rounding of two sides of 17 and
    # more changes area and ratio by 6 %, less than these tests see.
    assert stats.kstest(height * width / 2400, "uniform", (0.2, 0.3)).pvalue > 1e-3
    low, high = np.log([0.6, 1.5])
    assert stats.kstest(np.log(width / height), "uniform", (low, high - low)).pvalue > 1e-3


def test_random_resized_crop_of_an_image_that_no_box_fits():
    f = functools.partial(
        augment.random_resized_crop, size=48, form="inception", area=(1.0, 1.0), ratio=(1.0, 1.0)
    )
    origin, step = read(drawn(f, PLACES.astype(np.float32), 2))
    np.testing.assert_allclose(step, 40 / 48, rtol=6e-7)  # the square in the middle, 40 x 40
    np.testing.assert_allclose(origin - (step - 1) / 2, [[0, 10]] * 2, rtol=0, atol=1.3e-5)


@pytest.mark.fast
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: augment.flip(x, axis="up"), "flip: axis must be one of"),
        (lambda x: augment.random_flip(key(0), x, probability=1.5), "a number in [0, 1], got 1.5"),
        (
            lambda x: augment.crop(x, (3, 0), (2, 2)),
            "crop: top + shape must be at most the image's",
        ),
        (
            lambda x: augment.center_crop(x, (2, 6)),
            "center_crop: shape must be at most the image's",
        ),
        (
            lambda x: augment.random_crop(key(0), x, padding=-1),
            "random_crop: padding must be an int",
        ),
        (
            lambda x: augment.random_crop(key(0), x, padding=0, size=(5, 4)),
            "size must be at most the",
        ),
        (lambda x: augment.random_crop(key(0), x, padding=1, mode="wrap"), "mode must be one of"),
        (lambda x: augment.resize(x, (0, 4)), "resize: shape must be an int >= 1, got 0"),
        (
            lambda x: augment.random_resized_crop(key(0), x, size=300),
            "size must be at most the least",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError) as error:
        call(jnp.ones((4, 4, 3)))
    assert message in str(error.value)
