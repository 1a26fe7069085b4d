"""Noise on the pixels of an image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image


def gaussian_noise(
    key: jax.Array, image: Any, *, std: ArrayLike, high: ArrayLike | None = None
) -> jax.Array:
    """Adds to each number of an image another one from N(0, (std high)^2).

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        std: Standard deviation as a part of the range, at least 0.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image clipped to [0, high], of the same shape and dtype, rounded where that is an
        integer.

    Example:
        >>> gaussian_noise(jax.random.key(0), jnp.full((4, 4, 3), 0.5), std=0.1).shape
        (4, 4, 3)
    """
    _check.nonnegative("gaussian_noise", "std", std)
    image = _image.checked("gaussian_noise", image)
    high = _image.largest("gaussian_noise", image, high)
    x = _image.widened(image)
    noise = _image.draw(jax.random.normal, key, x.shape, x.dtype)
    return _image.narrowed(x + jnp.asarray(std, x.dtype) * high * noise, image.dtype, high)


def salt_and_pepper(
    key: jax.Array,
    image: Any,
    *,
    probability: ArrayLike,
    per: str = "pixel",
    high: ArrayLike | None = None,
) -> jax.Array:
    """Makes pixels black or white at random, each with half of the probability.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        probability: Of a change, in [0, 1].
        per: What changes as a whole: a "pixel" with all its channels, or an "element" of one.
        high: What is white; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> y = salt_and_pepper(jax.random.key(0), jnp.full((9, 9, 1), 0.5), probability=0.9)
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 0.5, 1.0]
    """
    _check.within("salt_and_pepper", "probability", probability, 0, 1)
    _check.choice("salt_and_pepper", "per", per, ("pixel", "element"))
    image = _image.checked("salt_and_pepper", image)
    white = _image.largest("salt_and_pepper", image, high).astype(image.dtype)
    shape = image.shape if per == "element" else (*image.shape[:2], 1)
    u = _image.draw(jax.random.uniform, key, shape, np.float32)
    p = jnp.asarray(probability, np.float32)
    return jnp.where(u < p / 2, 0, jnp.where(u < p, white, image))
