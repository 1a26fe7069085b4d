"""Erasing a box of an image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _box, _image


def cutout(
    key: jax.Array,
    image: Any,
    *,
    size: int,
    fill: ArrayLike | str = 0,
    inside: bool = False,
    high: ArrayLike | None = None,
) -> jax.Array:
    """Erases a square of an image, for training only: at test time the image is whole.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        size: Side of the square in pixels; the paper has 16 for CIFAR-10 and 8 for CIFAR-100.
        fill: What comes there: a number, or one for each channel, or "noise", for each number of
            the image one of 256 levels from 0 to `high`.
        inside: Whether the whole square is within the image, so that `size` must be too. As in the
            paper its center may be any pixel, and at the border less is erased.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> y = cutout(jax.random.key(0), jnp.ones((8, 8, 1)), size=4, inside=True)
        >>> int((y == 0).sum())
        16

    References:
        T. DeVries, G. W. Taylor, Improved regularization of convolutional neural networks with
        cutout, 2017.
    """
    _check.integer("cutout", "size", size)
    _check.flag("cutout", "inside", inside)
    image = _image.checked("cutout", image)
    k_place, k_fill = jax.random.split(key)
    shape = np.array(image.shape[:2], np.int32)
    if inside:
        _check.at_most("cutout", "size", size, "the image's shorter side", shape.min())
        first = jax.random.randint(k_place, (2,), 0, shape - size + 1, np.int32)
    else:
        first = jax.random.randint(k_place, (2,), 0, shape, np.int32) - size // 2
    return _erased("cutout", k_fill, image, first, first + size, fill, high)


def random_erasing(
    key: jax.Array,
    image: Any,
    *,
    area: tuple[ArrayLike, ArrayLike] = (0.02, 0.4),
    ratio: tuple[ArrayLike, ArrayLike] = (0.3, 1 / 0.3),
    probability: ArrayLike = 0.5,
    fill: ArrayLike | str = "noise",
    high: ArrayLike | None = None,
) -> jax.Array:
    """Erases with some probability a rectangle of an image.

    Its area is a fraction ~ U(area) of the image's, the logarithm of width / height ~ U(log ratio),
    its place any within the image. Nothing is erased where none of ten rectangles fits.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        area: Range of the fraction of the area, in (0, 1].
        ratio: Range of width / height, > 0.
        probability: In [0, 1].
        fill: What comes there: a number, or one for each channel, or "noise", for each number of
            the image one of 256 levels from 0 to `high`.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> y = random_erasing(jax.random.key(0), jnp.ones((9, 9, 1)), probability=1.0, fill=0)
        >>> 0 < int((y == 0).sum()) < 40
        True

    References:
        Z. Zhong et al., Random erasing data augmentation, 2020.
    """
    where = "random_erasing"
    _check.within(where, "probability", probability, 0, 1)
    image = _image.checked(where, image)
    k_whether, k_box, k_fill = jax.random.split(key, 3)
    first, last, fits = _box.random_box(where, k_box, image.shape[:2], area, ratio)
    erased = _erased(where, k_fill, image, first, last, fill, high)
    p = jnp.asarray(probability, np.float32)
    return jnp.where(jax.random.bernoulli(k_whether, p) & fits, erased, image)


def _erased(where, key, image, first, last, fill, high):
    high = _image.largest(where, image, high)
    if isinstance(fill, str):
        _check.choice(where, "fill", fill, ("noise",))
        words = jax.random.bits(key, (-(-image.size // 4),), np.uint32)  # four levels in each
        levels = jax.lax.bitcast_convert_type(words, np.uint8).reshape(-1)[: image.size]
        fill = _image.narrowed(levels.astype(high.dtype) * (high / 255), image.dtype)
        fill = fill.reshape(image.shape)
    else:
        fill = jnp.full(image.shape, _image.filled(where, image, fill))
    return jnp.where(_box.inside(image.shape[:2], first, last), fill, image)
