"""Moving the pixels of an image."""

import jax
import jax.numpy as jnp

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
    return jax.lax.dynamic_slice(padded, (y, x, 0), image.shape)
