"""Maps of single values, by a formula or by a table of 256 levels, each channel by itself.

For uint8 the results are those of PIL's `ImageOps`. `posterize`, `equalize` and `autocontrast`
round any other image to the levels 0, high / 255, ..., high first.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check

from ._image import checked, largest, narrowed, widened

LEVELS = np.arange(256, dtype=np.int32)


def invert(image: jax.Array, *, high: Any = None) -> jax.Array:
    """Inverts an image: y = high - x.

    Args:
        image: x, (height, width, channels).
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, of the same shape and dtype.

    Example:
        >>> invert(jnp.array([[[0, 10, 255]]], jnp.uint8)).tolist()
        [[[255, 245, 0]]]
    """
    return _inverted("invert", image, 0, high)


def solarize(image: jax.Array, threshold: Any, *, high: Any = None) -> jax.Array:
    """Inverts what is bright: y = x where x < threshold, else high - x.

    Args:
        image: x, (height, width, channels).
        threshold: in the unit of the image, at least 0; 0 inverts all, more than `high` nothing.
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, of the same shape and dtype.

    Example:
        >>> solarize(jnp.array([[[0, 127, 128, 255]]], jnp.uint8), 128).tolist()
        [[[0, 127, 127, 0]]]
    """
    _check.nonnegative("solarize", "threshold", threshold)
    return _inverted("solarize", image, threshold, high)


def _inverted(where, image, threshold, high):
    image = checked(where, image)
    x = widened(image)
    y = jnp.where(x < jnp.asarray(threshold, x.dtype), x, largest(where, image, high) - x)
    return narrowed(y, image.dtype)


def posterize(image: jax.Array, bits: int, *, high: Any = None) -> jax.Array:
    """Keeps the leading bits of the eight that each level has.

    Args:
        image: (height, width, channels).
        bits: how many, in [1, 8].
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> posterize(jnp.array([[[63, 64, 200]]], jnp.uint8), 2).tolist()
        [[[0, 64, 192]]]
    """
    _check.integer("posterize", "bits", bits)
    _check.at_most("posterize", "bits", bits, "those of a level", 8)
    image = checked("posterize", image)
    x = to_levels("posterize", image, high)
    return from_levels("posterize", x & 256 - (1 << 8 - bits), image, high)


def equalize(image: jax.Array, *, high: Any = None) -> jax.Array:
    """Spreads the levels so that each occurs about as often.

        y = (s // 2 + sum_{j < x} h_j) // s,   s = (n - h_m) // 255

    h_j counts the pixels of level j, of n in all, and m is the largest level that occurs. Where
    s = 0, y = x.

    Args:
        image: x, (height, width, channels).
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, of the same shape and dtype.

    Example:
        >>> ramp = jnp.repeat(jnp.arange(64, dtype=jnp.uint8), 64).reshape(64, 64, 1)
        >>> int(ramp.max()), int(equalize(ramp).max())
        (63, 255)
    """
    image = checked("equalize", image)
    x = to_levels("equalize", image, high)
    return from_levels("equalize", look_up(equalizing(histogram(x)), x), image, high)


def autocontrast(image: jax.Array, *, cutoff: float = 0.0, high: Any = None) -> jax.Array:
    """Stretches the levels of each channel to the whole range.

        y = 255 (x - a) // (b - a)

    a and b are the smallest and largest level that occur, or that remain when the darkest and the
    brightest pixels are left out. Where a = b, y = x.

    Args:
        image: x, (height, width, channels).
        cutoff: how many pixels are left out at each end, in percent, in [0, 50).
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, of the same shape and dtype; sometimes one level less than above, as in PIL, which
        divides first.

    Example:
        >>> autocontrast(jnp.array([[[100], [110], [150]]], jnp.uint8)).ravel().tolist()
        [0, 51, 255]
    """
    _check.nonnegative("autocontrast", "cutoff", cutoff)
    if cutoff >= 50:
        _check.fail("autocontrast", "cutoff", "a number in [0, 50)", cutoff)
    image = checked("autocontrast", image)
    x = to_levels("autocontrast", image, high)
    cut = int(image.shape[0] * image.shape[1] * cutoff // 100)
    below = jnp.cumsum(h := histogram(x), axis=1)
    a = (below <= cut).sum(1, dtype=np.int32)
    b = 255 - (jnp.cumsum(h[:, ::-1], axis=1) <= cut).sum(1, dtype=np.int32)
    return from_levels("autocontrast", look_up(stretching(a, b), x), image, high)


def to_levels(where: str, image: jax.Array, high: Any) -> jax.Array:
    """Returns the levels 0 to 255 of an image, int32."""
    if image.dtype == np.uint8 and high is None:
        return image.astype(np.int32)
    x = widened(image)
    return narrowed(x * (255 / largest(where, image, high)), np.int32, 255)


def from_levels(where: str, x: jax.Array, image: jax.Array, high: Any) -> jax.Array:
    """Returns levels in the range and dtype of an image."""
    high = largest(where, image, high)
    return narrowed(x.astype(high.dtype) * (high / 255), image.dtype)


def histogram(x: jax.Array) -> jax.Array:
    """Counts the levels of each channel, (channels, 256) int32."""
    channels = x.shape[-1]
    at = (x + 256 * np.arange(channels, dtype=np.int32)[None, None]).ravel()
    count = jnp.zeros(channels * 256, np.int32).at[at].add(1, mode="promise_in_bounds")
    return count.reshape(channels, 256)


def look_up(table: jax.Array, x: jax.Array) -> jax.Array:
    """Returns table[c, x] for each channel c of x."""
    # The product changes nothing, but a fusion ends there: XLA on CPU would otherwise compute an
    # entry of the table anew for each pixel that looks it up.
    table = jnp.matmul(table.reshape(-1, 16).astype(np.float32), np.eye(16, dtype=np.float32))
    at = x + 256 * np.arange(x.shape[-1], dtype=np.int32)[None, None]
    return table.astype(np.int32).ravel().at[at].get(mode="promise_in_bounds")


def equalizing(h: jax.Array) -> jax.Array:
    """Returns the table that equalizes an image of histogram h, (channels, 256)."""
    n = h.sum(1, keepdims=True, dtype=np.int32)
    m = jnp.max(jnp.where(h > 0, LEVELS[None], 0), axis=1, keepdims=True)
    s = (n - jnp.take_along_axis(h, m, axis=1)) // 255
    below = jnp.cumsum(h, axis=1, dtype=np.int32) - h
    y, _ = _divided(s // 2 + below, s)
    return jnp.where(s > 0, jnp.minimum(y, 255), LEVELS[None])


def stretching(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the table that takes the levels [a, b] of each channel, (channels,), to [0, 255]."""
    a, d = a[:, None], jnp.maximum(b - a, 0)[:, None]
    y, rest = _divided(255 * (LEVELS[None] - a), d)
    error, gap = _float64()
    of_x = jnp.asarray(error)[d[:, 0]]
    of_a = jnp.take_along_axis(of_x, a, axis=1)
    short = (rest == 0) & (of_x - of_a < -jnp.asarray(gap)[jnp.clip(y, 0, 255)])
    return jnp.where(d > 0, jnp.clip(y - short.astype(np.int32), 0, 255), LEVELS[None])


def _divided(n, d):
    """Returns n // d and n % d for abs(n) < 2^24, by floats: CPUs divide several at once."""
    y = jnp.floor(n.astype(np.float32) / jnp.maximum(d, 1).astype(np.float32)).astype(np.int32)
    y = y - (n < y * d).astype(np.int32) + (n >= y * d + d).astype(np.int32)
    return y, n - y * d


@functools.cache
def _float64() -> tuple[np.ndarray, np.ndarray]:
    """Returns what PIL's float64 arithmetic loses: whole numbers may come out just below.

    It computes x * (255 / d) - a * (255 / d) and cuts off the fraction.

    Returns:
        The error of x * (255 / d) at [d, x], and for each y how far below it a number must be to
        be less in float64, which is more than half of the gap there.
    """
    x, d = LEVELS.astype(float), np.maximum(LEVELS[:, None], 1).astype(float)
    product = x * (255 / d)
    leading = product.astype(np.float32).astype(float)  # so that products with d are exact
    error = ((d * leading - 255 * x) + d * (product - leading)) / d
    gap = x - np.nextafter(x, -1)
    return error.astype(np.float32), (0.5001 * gap).astype(np.float32)
