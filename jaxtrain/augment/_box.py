"""Boxes of pixels: `first` (row, column) within and `last` (row, column) beyond, both (2,)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.augment import _image


def inside(shape: tuple[int, ...], first: Any, last: Any) -> jax.Array:
    """Returns which pixels of an image are in a box, (rows, columns, 1)."""

    def between(i):
        at = np.arange(shape[i], dtype=first.dtype)
        return (first[i] <= at) & (at < last[i])

    return between(0)[:, None, None] & between(1)[None, :, None]


def random_box(
    where: str, key: jax.Array, shape: tuple[int, ...], area: Any, ratio: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws ten boxes, of which the first that fits into an image is taken.

    Its area is a fraction ~ U(area) of the image's, the logarithm of width / height ~ U(log ratio),
    its place any.

    Args:
        where: The function that error messages name.
        key: The random key.
        shape: (rows, columns) of the image.
        area: Range of the fraction, in (0, 1].
        ratio: Range of width / height, > 0.

    Returns:
        Its `first` and `last`, int32, and whether there is one.
    """
    area, ratio = _image.interval(where, "area", area), _image.interval(where, "ratio", ratio)
    _check.at_most(where, "the upper end of area", area[1], "the image's fraction", 1)
    k_size, k_place = jax.random.split(key)
    u = jax.random.uniform(k_size, (2, 10), np.float32)
    area, ratio = jnp.array(area, np.float32), jnp.array(ratio, np.float32)
    fraction = area[0] + (area[1] - area[0]) * u[0]
    w_to_h = ratio[0] * (ratio[1] / ratio[0]) ** u[1]
    pixels = fraction * (shape[0] * shape[1])
    sides = jnp.round(jnp.sqrt(jnp.stack([pixels / w_to_h, pixels * w_to_h], 1))).astype(np.int32)
    fits = ((sides >= 1) & (sides <= np.array([shape], np.int32))).all(1)
    side = sides[jnp.argmax(fits)]
    room = jnp.maximum(np.array(shape, np.int32) - side, 0)
    first = jax.random.randint(k_place, (2,), 0, room + 1, np.int32)
    return first, first + side, fits.any()
