"""Reading an image at other places than its pixels: as through a lens, or on an elastic sheet."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.augment._filter import blur


def resample(image: Any, at: Any, *, order: int = 1, fill: ArrayLike = 0) -> jax.Array:
    """Reads an image at any places: y(p) = x(at(p)).

    Order 1 interpolates linearly between the four pixels around a place, with i, j its whole and
    a, b its fractional part,

        y = (1 - a) ((1 - b) x[i, j] + b x[i, j+1]) + a ((1 - b) x[i+1, j] + b x[i+1, j+1]),

    and order 0 takes the nearest one. Pixels outside the image have the value `fill`.

    Args:
        image: x, (height, width, channels).
        at: Places, (2, rows, columns) or a list of two: of each pixel of y its row and its column
            in x, in pixels, the center of the first one at 0.
        order: 1 or 0.
        fill: A number, or one for each channel, in the unit of the image; rounded where that has
            integers, whose range it must be in.

    Returns:
        y, (rows, columns, channels), of the dtype of the image, rounded where that is an integer.

    Raises:
        ConfigError: If the image has not three axes, or `at` is not of shape (2, rows, columns).

    Example:
        >>> resample(jnp.array([[[0.0], [1.0]]]), jnp.array([[[0.0]], [[0.25]]]))
        Array([[[0.25]]], dtype=float32)
    """
    image = _image.checked("resample", image)
    at = _check.array("resample", "at", at, lambda at: jnp.asarray(at, _image.wide(image)))
    if at.ndim != 3 or len(at) != 2:
        _check.fail("resample", "at", "two arrays of one shape (rows, columns)", at.shape)
    return read("resample", image, at[0], at[1], order, fill)


def read(
    where: str, image: jax.Array, row: Any, column: Any, order: int, fill: ArrayLike
) -> jax.Array:
    """Returns `resample(image, (row, column))`, whose errors name the function `where`."""
    _check.choice(where, "order", order, (0, 1))
    height, width, channels = image.shape
    # In a frame of `fill`, onto which all places outside are moved, every index exists.
    framed = jnp.full((height + 3, width + 3, channels), _image.filled(where, image, fill))
    pixels = framed.at[1:-2, 1:-2].set(image).reshape(-1, channels)

    def x(i, j):
        index = (i.astype(np.int32) + 1) * (width + 3) + j.astype(np.int32) + 1
        return pixels.at[index].get(mode="clip")

    dtype = _image.wide(image)
    row = jnp.clip(jnp.asarray(row, dtype), -1, height)
    column = jnp.clip(jnp.asarray(column, dtype), -1, width)
    if order == 0:
        return x(jnp.floor(row + 0.5), jnp.floor(column + 0.5))
    i, j = jnp.floor(row), jnp.floor(column)
    a, b = (row - i)[..., None], (column - j)[..., None]
    upper = (1 - b) * x(i, j).astype(dtype) + b * x(i, j + 1).astype(dtype)
    lower = (1 - b) * x(i + 1, j).astype(dtype) + b * x(i + 1, j + 1).astype(dtype)
    return _image.narrowed((1 - a) * upper + a * lower, image.dtype)


def centered(image: jax.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the center of an image, and row and column of each pixel from there."""
    c = (np.array(image.shape[:2], _image.wide(image)) - 1) / 2
    row, column = np.indices(image.shape[:2], c.dtype) - c[:, None, None]
    return c, row, column


def lens_distortion(
    image: Any, strength: ArrayLike, *, order: int = 1, fill: ArrayLike = 0
) -> jax.Array:
    """Distorts an image as a lens does: y(p) = x(c + (1 + k r^2) (p - c)).

    r is the distance of p from the center c, 1 at the corners. k > 0 gives the barrel, where what
    is far from the center appears smaller, and k < 0 the pincushion.

    Args:
        image: x, (height, width, channels).
        strength: k, finite; below -1/3 the corners fold back.
        order: 1 interpolates linearly, 0 takes the nearest pixel.
        fill: Value outside the image, a number or one for each channel.

    Returns:
        y of the shape and dtype of the image, rounded where that is an integer.

    Example:
        >>> lens_distortion(jnp.ones((4, 4, 1)), -0.2).min()
        Array(1., dtype=float32)

    References:
        D. C. Brown, Close-range camera calibration, 1971: its first radial coefficient.
    """
    _check.finite("lens_distortion", "strength", strength)
    return _distorted("lens_distortion", image, strength, order, fill)


def _distorted(where, image, strength, order, fill):
    image = _image.checked(where, image)
    c, row, column = centered(image)
    r2 = (row**2 + column**2) / max((c**2).sum(), 1)
    scale = 1 + jnp.asarray(strength, c.dtype) * r2
    return read(where, image, c[0] + scale * row, c[1] + scale * column, order, fill)


def random_lens_distortion(
    key: jax.Array, image: Any, *, strength: ArrayLike, order: int = 1, fill: ArrayLike = 0
) -> jax.Array:
    """Distorts an image by `lens_distortion` with k ~ U(-strength, strength).

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        strength: Largest k, at least 0.
        order: As in `lens_distortion`.
        fill: As in `lens_distortion`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_lens_distortion(jax.random.key(0), jnp.ones((4, 4, 1)), strength=0.2).shape
        (4, 4, 1)
    """
    where = "random_lens_distortion"
    _check.nonnegative(where, "strength", strength)
    image = _image.checked(where, image)
    dtype = _image.wide(image)
    k = jnp.asarray(strength, dtype) * jax.random.uniform(key, (), dtype, -1, 1)
    return _distorted(where, image, k, order, fill)


def elastic(
    key: jax.Array,
    image: Any,
    *,
    alpha: ArrayLike,
    sigma: ArrayLike,
    order: int = 1,
    fill: ArrayLike = 0,
) -> jax.Array:
    """Warps an image smoothly, as if drawn on an elastic sheet: y(p) = x(p + alpha G u(p)).

    u has two numbers from U(-1, 1) at each pixel, for the row and the column; G averages them with
    the weights of a Gaussian, and with zeros beyond the border.

    Args:
        key: The random key of this image.
        image: x, (height, width, channels).
        alpha: How far pixels move, at least 0. Inside, a displacement has the standard deviation
            alpha / (sigma sqrt(12 pi)) pixels, where sigma is above 1.
        sigma: Standard deviation of the Gaussian in pixels, > 0: near 0 every pixel moves by
            itself, and where it is large all move together. The paper has alpha 34 and sigma 4 for
            digits of 28 x 28.
        order: 1 interpolates linearly, 0 takes the nearest pixel.
        fill: Value outside the image, a number or one for each channel.

    Returns:
        y of the shape and dtype of the image, rounded where that is an integer.

    Example:
        >>> image = jnp.ones((8, 8, 1))
        >>> elastic(jax.random.key(0), image, alpha=10.0, sigma=3.0).shape
        (8, 8, 1)

    References:
        P. Simard, D. Steinkraus, J. Platt, Best practices for convolutional neural networks applied
        to visual document analysis, 2003.
    """
    _check.nonnegative("elastic", "alpha", alpha)
    image = _image.checked("elastic", image)
    _check.positive("elastic", "sigma", sigma)
    height, width, _ = image.shape
    dtype = _image.wide(image)
    u = 2 * _image.draw(jax.random.uniform, key, (height, width, 2), dtype) - 1
    moved = jnp.asarray(alpha, dtype) * jnp.moveaxis(blur(u, sigma, mode="constant"), -1, 0)
    row, column = np.indices((height, width), dtype) + moved
    return read("elastic", image, row, column, order, fill)
