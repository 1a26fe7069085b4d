"""Blurring and sharpening."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.augment._box import inside
from jaxtrain.augment._color import blended


def gaussian_blur(image: Any, sigma: ArrayLike, *, radius: int | None = None) -> jax.Array:
    """Averages around each pixel with the weights exp(-d^2 / (2 sigma^2)) of rows and of columns.

    The image is continued by its mirror image about the outermost pixels.

    Args:
        image: (height, width, channels).
        sigma: Standard deviation in pixels, >= 0, where 0 leaves the image as it is.
        radius: Largest d in pixels, at least 0; None means round(4 sigma), as SciPy has it. Never
            more than a side less 1, where SciPy mirrors the image again.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> image = jnp.array([[[0], [0], [100], [0], [0]]], jnp.uint8)
        >>> gaussian_blur(image, 0.5).ravel()
        Array([ 0, 11, 79, 11,  0], dtype=uint8)
    """
    _check.nonnegative("gaussian_blur", "sigma", sigma)
    return _blurred("gaussian_blur", image, sigma, radius)


def _blurred(where, image, sigma, radius):
    if radius is not None:
        _check.integer(where, "radius", radius, least=0)
    image = _image.checked(where, image)
    y = blur(_image.widened(image), sigma, radius=radius)
    return _image.narrowed(y, image.dtype)


def random_blur(
    key: jax.Array,
    image: Any,
    *,
    sigma: tuple[ArrayLike, ArrayLike] = (0.1, 2.0),
    radius: int | None = None,
) -> jax.Array:
    """Blurs an image by `gaussian_blur` with a standard deviation from U(sigma).

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        sigma: Range of the standard deviation in pixels, > 0.
        radius: As in `gaussian_blur`; half of the kernel size that others ask for.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_blur(jax.random.key(0), jnp.ones((4, 4, 1))).shape
        (4, 4, 1)

    References:
        T. Chen et al., A simple framework for contrastive learning of visual representations, 2020:
        the range.
    """
    low, high = _image.interval("random_blur", "sigma", sigma)
    drawn = jax.random.uniform(key, (), np.float32, low, high)
    return _blurred("random_blur", image, drawn, radius)


def sharpen(image: Any, factor: ArrayLike, *, high: ArrayLike | None = None) -> jax.Array:
    """Sharpens an image: y = s + factor (x - s), s the mean of 3 x 3 pixels, the middle one 5 fold.

    The outermost pixels, which have not all neighbors, stay.

    Args:
        image: x, (height, width, channels).
        factor: 1 leaves the image as it is, 0 gives s, above 1 is sharper, >= 0.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, clipped to [0, high], of the shape and dtype of the image, rounded where that is an
        integer.

    Example:
        >>> sharpen(jnp.zeros((3, 3, 1)).at[1, 1].set(0.5), 2.0)[1, 1].round(3)
        Array([0.808], dtype=float32)
    """
    _check.nonnegative("sharpen", "factor", factor)
    image = _image.checked("sharpen", image)
    x = _image.widened(image)
    p = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    rows = p[:-2] + p[1:-1] + p[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = inside(x.shape[:2], np.array([1, 1]), np.array(x.shape[:2]) - 1)
    s = jnp.where(inner, (box + 4 * x) / 13, x)
    return blended("sharpen", image, s, factor, high)


def blur(x: jax.Array, sigma: ArrayLike, *, radius: int | None = None, mode: str = "reflect"):
    """Returns x smoothed along its first two axes, continued as `np.pad` does in that mode."""
    sigma = jnp.asarray(sigma, x.dtype)
    rows, columns = (_gaussian(n, sigma, radius, mode) for n in x.shape[:2])
    return jnp.einsum("ai,bj,ijc->abc", rows, columns, x, precision="highest")


def _gaussian(n, sigma, radius, mode):
    """The matrix (n, n) that smooths n numbers."""
    beyond = n - 1 if radius is None else min(radius, n - 1)
    d = np.abs(np.arange(n)[:, None] - np.arange(-beyond, n + beyond)[None]).astype(sigma.dtype)
    # exp(-d^2 / (2 sigma^2)), without 0 / 0 at sigma = 0.
    weight = jnp.exp(-((d / jnp.maximum(sigma, 1e-6)) ** 2) / 2)
    weight = jnp.where(d <= (jnp.round(4 * sigma) if radius is None else radius), weight, 0)
    weight = weight / weight.sum(1, keepdims=True)
    continued = np.pad(np.eye(n, dtype=sigma.dtype), ((beyond, beyond), (0, 0)), mode)
    return jnp.matmul(weight, continued, precision="highest")
