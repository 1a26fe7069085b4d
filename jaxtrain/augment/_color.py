"""Brightness, contrast, saturation and hue of an image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image


def blend(
    image: Any, other: ArrayLike, factor: ArrayLike, *, high: ArrayLike | None = None
) -> jax.Array:
    """Goes from one image towards another: y = b + factor (a - b).

    Args:
        image: a, (height, width, channels).
        other: b, of a shape that broadcasts to that of a, in the same unit.
        factor: 1 gives a exactly, 0 gives b; beyond them it extrapolates.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, clipped to [0, high], of the shape and dtype of a, rounded where that is an integer.

    Example:
        >>> blend(jnp.full((1, 1, 1), 0.5), 0.25, 2.0).item()
        0.75
    """
    _check.finite("blend", "factor", factor)
    image = _image.checked("blend", image)
    other = _image.numbers("blend", "other", other)
    try:
        other = jnp.broadcast_to(other, image.shape)
    except ValueError:
        rule = f"of a shape that broadcasts to {image.shape}"
        _check.fail("blend", "other", rule, other.shape)
    return blended("blend", image, other, factor, high)


def blended(
    where: str, image: jax.Array, other: ArrayLike, factor: ArrayLike, high: Any
) -> jax.Array:
    """Returns `blend` of checked arguments, whose errors name the function `where`."""
    a = _image.widened(image)
    # a + (1 - factor) (b - a), which is a for factor = 1 whatever is rounded.
    y = a + (1 - jnp.asarray(factor, a.dtype)) * (jnp.asarray(other, a.dtype) - a)
    return _image.narrowed(y, image.dtype, _image.largest(where, image, high))


def brightness(image: Any, factor: ArrayLike, *, high: ArrayLike | None = None) -> jax.Array:
    """Changes the brightness of an image: y = factor x.

    Args:
        image: x, (height, width, channels).
        factor: 1 leaves the image as it is, 0 makes it black, >= 0.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, clipped to [0, high], of the shape and dtype of the image, rounded where that is an
        integer.

    Example:
        >>> brightness(jnp.full((1, 1, 1), 100, jnp.uint8), 1.5).item()
        150
    """
    _check.nonnegative("brightness", "factor", factor)
    return blended("brightness", _image.checked("brightness", image), 0, factor, high)


def contrast(
    image: Any, factor: ArrayLike, *, mean: str = "gray", high: ArrayLike | None = None
) -> jax.Array:
    """Changes the contrast of an image: y = m + factor (x - m), m a mean.

    Args:
        image: x, (height, width, channels).
        factor: 1 leaves the image as it is, 0 gives m everywhere, >= 0.
        mean: Of what m is the mean: "gray" of the image in gray, as Pillow and torchvision,
            "channel" of each channel by itself, as TensorFlow, or "global" of all numbers.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, clipped to [0, high], of the shape and dtype of the image, rounded where that is an
        integer.

    Example:
        >>> contrast(jnp.array([[[0.2], [0.6]]]), 0.5).ravel().round(3)
        Array([0.3, 0.5], dtype=float32)
    """
    _check.nonnegative("contrast", "factor", factor)
    _check.choice("contrast", "mean", mean, ("gray", "channel", "global"))
    image = _image.checked("contrast", image)
    m = _image.widened(image).mean(None if mean == "global" else (0, 1), keepdims=True)
    if mean == "gray":
        m = _gray("contrast", m)
    return blended("contrast", image, m, factor, high)


def saturation(image: Any, factor: ArrayLike, *, high: ArrayLike | None = None) -> jax.Array:
    """Changes the saturation of an image: y = g + factor (x - g), g the image in gray.

    Args:
        image: x, (height, width, channels), of the channels red, green and blue, or of one.
        factor: 1 leaves the image as it is, 0 gives g, >= 0.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, clipped to [0, high], of the shape and dtype of the image, rounded where that is an
        integer.

    Example:
        >>> saturation(jnp.array([[[1.0, 0.5, 0.0]]]), 0.0).round(4).ravel().tolist()
        [0.5924999713897705, 0.5924999713897705, 0.5924999713897705]
    """
    _check.nonnegative("saturation", "factor", factor)
    image = _image.checked("saturation", image)
    return blended("saturation", image, _gray("saturation", image), factor, high)


def grayscale(image: Any) -> jax.Array:
    """Makes an image gray, in as many channels: 0.299 R + 0.587 G + 0.114 B.

    Args:
        image: (height, width, channels), of the channels red, green and blue, or of one.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> grayscale(jnp.array([[[255, 0, 0]]], jnp.uint8))
        Array([[[76, 76, 76]]], dtype=uint8)
    """
    image = _image.checked("grayscale", image)
    gray = _image.narrowed(_gray("grayscale", image), image.dtype)
    return jnp.broadcast_to(gray, image.shape)


def hue(image: Any, shift: ArrayLike) -> jax.Array:
    """Turns the colors of an image round the circle of hues, and keeps its gray as it is.

    With V the largest, V - C the smallest of the three channels and H in [0, 6) the hue of HSV, the
    channels red, green and blue of a hue are

        V - C max(0, min(1, k, 4 - k)),   k = (n + H) mod 6,   n = 5, 3, 1.

    H becomes H + 6 shift.

    Args:
        image: (height, width, 3), the channels red, green and blue.
        shift: A part of the circle: 1/3 makes green of red. 0 leaves the image as it is.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> hue(jnp.array([[[255, 0, 0]]], jnp.uint8), 1 / 3)
        Array([[[  0, 255,   0]]], dtype=uint8)

    References:
        A. R. Smith, Color gamut transform pairs, 1978.
    """
    _check.finite("hue", "shift", shift)
    image = _image.checked("hue", image, channels=3)
    y = _turned(_image.widened(image), shift)
    return _image.narrowed(y, image.dtype)


def exchange_channels(key: jax.Array, image: Any) -> jax.Array:
    """Puts the channels of an image into a random order.

    Args:
        key: The random key of this image.
        image: (height, width, channels).

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> sorted(exchange_channels(jax.random.key(0), jnp.array([[[1, 2, 3]]])).ravel().tolist())
        [1, 2, 3]
    """
    return jax.random.permutation(key, _image.checked("exchange_channels", image), axis=2)


# Their names are arguments of `color_jitter`.
_BY_FACTORS = (brightness, contrast, saturation)


def color_jitter(
    key: jax.Array,
    image: Any,
    *,
    brightness: ArrayLike = 0.0,
    contrast: ArrayLike = 0.0,
    saturation: ArrayLike = 0.0,
    hue: ArrayLike = 0.0,
    high: ArrayLike | None = None,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue at random, in this order.

    The first three by factors from U(max(0, 1 - a), 1 + a), the hue by a shift from U(-a, a), a the
    argument of that name.

    Args:
        key: The random key of this image.
        image: (height, width, channels), of red, green and blue, or of one channel, which has no
            hue.
        brightness: At least 0; 0 leaves it as it is, as in the following.
        contrast: At least 0; about the mean of the image in gray.
        saturation: At least 0.
        hue: In [0, 0.5], a part of the circle of hues.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype, rounded at the end where that is an integer.

    Example:
        >>> image = jnp.full((4, 4, 3), 100, jnp.uint8)
        >>> color_jitter(jax.random.key(0), image, brightness=0.4, hue=0.1).dtype
        dtype('uint8')
    """
    where = "color_jitter"
    factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, a in factors.items():
        _check.nonnegative(where, name, a)
    _check.within(where, "hue", hue, 0, 0.5)
    image = _image.checked(where, image, channels=None if _is_zero(hue) else 3)
    high = _image.largest(where, image, high)
    y = _image.widened(image)
    u = jax.random.uniform(key, (4,), y.dtype)
    for f, a, draw in zip(_BY_FACTORS, factors.values(), u[:3], strict=True):
        if not _is_zero(a):
            a = jnp.asarray(a, y.dtype)
            least = jnp.maximum(0, 1 - a)
            y = f(y, least + (1 + a - least) * draw, high=high)
    if not _is_zero(hue):
        y = _turned(y, jnp.asarray(hue, y.dtype) * (2 * u[3] - 1))
    return _image.narrowed(y, image.dtype, high)


def _gray(where, image):
    """The image in gray by the weights of ITU-R BT.601, (height, width, 1), not rounded."""
    x = _image.widened(image)
    if image.shape[2] == 1:
        return x
    if image.shape[2] != 3:
        _check.fail(where, "image", "of 3 channels, red, green and blue, or 1", image.shape)
    red, green, blue = jnp.split(x, 3, -1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _is_zero(a):
    return isinstance(a, int | float) and a == 0


def _turned(x, shift):
    """`hue` of an image in the type to compute in."""
    red, green, blue = jnp.moveaxis(x, -1, 0)
    v, least = x.max(-1), x.min(-1)
    c = v - least
    positive = jnp.where(c > 0, c, 1)
    h = jnp.where(v == green, 2 + (blue - red) / positive, 4 + (red - green) / positive)
    h = jnp.where(v == red, (green - blue) / positive, h)

    def channel(n, h):
        k = n + h - 6 * jnp.floor((n + h) / 6)  # several times as fast as %
        return v - c * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    def turned(n, x):
        # The difference of two hues, so that nothing is rounded where they are the same.
        y = x + (channel(n, h + 6 * jnp.asarray(shift, x.dtype)) - channel(n, h))
        return jnp.clip(y, least, v)

    return jnp.stack([turned(5, red), turned(3, green), turned(1, blue)], -1)
