"""Moving the pixels of an image."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from jaxtrain import _check


def random_crop(key: jax.Array, image: jax.Array, *, padding: int) -> jax.Array:
    """Shifts an image by up to `padding` pixels each way: pads with zeros, crops to its size.

    Args:
        key: the random key of this image.
        image: (height, width, channels).
        padding: the largest shift in pixels, at least 0.

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((4, 4, 1)), padding=1).shape
        (4, 4, 1)
    """
    _check.integer("random_crop", "padding", padding, least=0)
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    y, x = jax.random.randint(key, (2,), 0, 2 * padding + 1, jnp.int32)
    return jax.lax.dynamic_slice(padded, (y, x, jnp.int32(0)), image.shape)


def random_affine(
    key: jax.Array, image: jax.Array, *, distortion: float, shift: float = 0.0
) -> jax.Array:
    """Rotates, scales, stretches, shears and shifts an image at random, all by one matrix.

        y(p) = x(c + (I + E) (p - c) + t),   E_ij ~ U(-distortion, distortion),
                                             t_i ~ U(-shift, shift)

    c is the centre of the image. x is interpolated linearly between its pixels, and 0 outside.

    Args:
        key: the random key of this image.
        image: (height, width, channels).
        distortion: largest entry of E, in [0, 1); 0.15 rotates by up to 9 degrees or scales by up
            to 15 %.
        shift: the largest shift in pixels, at least 0, whole or not.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_affine(jax.random.key(0), jnp.ones((4, 4, 1)), distortion=0.1).shape
        (4, 4, 1)
    """
    _check.fraction("random_affine", "distortion", distortion)
    _check.nonnegative("random_affine", "shift", shift)
    dtype = np.float64 if image.dtype == np.float64 else np.float32
    k_matrix, k_shift = jax.random.split(key)
    e = jax.random.uniform(k_matrix, (2, 2), dtype, -distortion, distortion)
    t = jax.random.uniform(k_shift, (2, 1), dtype, -shift, shift)
    height, width, channels = image.shape
    p = jnp.indices((height, width), dtype).reshape(2, -1)
    c = jnp.array([[height - 1], [width - 1]], dtype) / 2
    at = list((p + e @ (p - c) + t).reshape(2, height, width))
    x = image.astype(dtype)
    y = jnp.stack([map_coordinates(x[..., i], at, order=1) for i in range(channels)], -1)
    return (jnp.round(y) if jnp.issubdtype(image.dtype, jnp.integer) else y).astype(image.dtype)
