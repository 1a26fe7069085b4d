"""Flips, crops and sizes of an image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.augment._box import random_box

_AXES = {"vertical": (0,), "horizontal": (1,), "both": (0, 1)}


def flip(image: Any, *, axis: str = "horizontal") -> jax.Array:
    """Mirrors an image.

    Args:
        image: (height, width, channels).
        axis: "horizontal" exchanges left and right, "vertical" top and bottom, "both" all.

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> flip(jnp.array([[[1], [2]]])).ravel().tolist()
        [2, 1]
    """
    _check.choice("flip", "axis", axis, _AXES)
    return jnp.flip(_image.checked("flip", image), _AXES[axis])


def random_flip(
    key: jax.Array, image: Any, *, axis: str = "horizontal", probability: ArrayLike = 0.5
) -> jax.Array:
    """Mirrors an image with a probability.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        axis: "horizontal" exchanges left and right, "vertical" top and bottom, "both" does each by
            itself.
        probability: Of each, in [0, 1].

    Returns:
        An image of the same shape and dtype.

    Example:
        >>> random_flip(jax.random.key(0), jnp.array([[[1], [2]]]), probability=1).ravel().tolist()
        [2, 1]
    """
    _check.choice("random_flip", "axis", axis, _AXES)
    _check.within("random_flip", "probability", probability, 0, 1)
    image = _image.checked("random_flip", image)
    flipped = jax.random.bernoulli(key, jnp.asarray(probability, np.float32), (2,))
    for i in _AXES[axis]:
        image = jnp.where(flipped[i], jnp.flip(image, i), image)
    return image


def crop(image: Any, corner: Any, shape: tuple[int, int]) -> jax.Array:
    """Cuts a part out of an image.

    Args:
        image: (height, width, channels).
        corner: (top, left) in pixels, whole numbers, traced or not.
        shape: (height, width) of the part, at most those of the image.

    Returns:
        The part, (*shape, channels). One that would leave the image at a traced corner is moved
        back into it.

    Raises:
        ConfigError: If the part is not within the image.

    Example:
        >>> crop(jnp.arange(9).reshape(3, 3, 1), (0, 1), (2, 2))[..., 0]
        Array([[1, 2],
               [4, 5]], dtype=int32)
    """
    image = _image.checked("crop", image)
    height, width = _image.sizes("crop", "shape", shape)
    top, left = _image.pair("crop", "corner", corner, "a pair (top, left)")
    for name, first, size, room in zip(
        ("top", "left"), (top, left), (height, width), image.shape[:2], strict=True
    ):
        _check.integer("crop", name, first, least=0)
        _check.at_most("crop", f"{name} + shape", first + size, "the image's size", room)
    start = (jnp.asarray(top, np.int32), jnp.asarray(left, np.int32), np.int32(0))
    return jax.lax.dynamic_slice(image, start, (height, width, image.shape[2]))


def center_crop(image: Any, shape: tuple[int, int]) -> jax.Array:
    """Cuts the middle out of an image; an odd pixel is left over at the bottom and the right.

    Args:
        image: (height, width, channels).
        shape: (height, width) of the middle, at most those of the image.

    Returns:
        The middle, (*shape, channels).

    Example:
        >>> center_crop(jnp.arange(4).reshape(1, 4, 1), (1, 1)).ravel().tolist()
        [1]
    """
    image = _image.checked("center_crop", image)
    shape = _image.sizes("center_crop", "shape", shape)
    for size, room in zip(shape, image.shape[:2], strict=True):
        _check.at_most("center_crop", "shape", size, "the image's size", room)
    top, left = ((room - size) // 2 for size, room in zip(shape, image.shape[:2], strict=True))
    return crop(image, (top, left), shape)


def random_crop(
    key: jax.Array,
    image: Any,
    *,
    padding: int,
    size: tuple[int, int] | None = None,
    mode: str = "constant",
    fill: ArrayLike = 0,
) -> jax.Array:
    """Pads an image on all sides and cuts out a part at random.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        padding: Pixels added on each side, at least 0: the largest shift if the size stays.
        size: (height, width) of the part; None means that of the image.
        mode: What is added: "constant" the number `fill`, "reflect" the mirror image about the
            outermost pixels, "edge" their repetition.
        fill: A number, or one for each channel, as `resample` has it.

    Returns:
        The part, of the dtype of the image.

    Raises:
        ConfigError: If the size is not within the padded image.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((4, 4, 1)), padding=1).shape
        (4, 4, 1)
    """
    _check.integer("random_crop", "padding", padding, least=0)
    _check.choice("random_crop", "mode", mode, ("constant", "reflect", "edge"))
    image = _image.checked("random_crop", image)
    size = image.shape[:2] if size is None else _image.sizes("random_crop", "size", size)
    if mode == "constant":
        height, width, channels = image.shape
        shape = height + 2 * padding, width + 2 * padding, channels
        frame = jnp.full(shape, _image.filled("random_crop", image, fill))
        padded = jax.lax.dynamic_update_slice(frame, image, (padding, padding, 0))
    else:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode)
    for part, whole in zip(size, padded.shape[:2], strict=True):
        _check.at_most("random_crop", "size", part, "the padded image's", whole)
    last = np.subtract(padded.shape[:2], size, dtype=np.int32)
    corner = jax.random.randint(key, (2,), 0, last + 1, np.int32)
    return crop(padded, tuple(corner), size)


def resize(
    image: Any, shape: tuple[int, int], *, method: str = "linear", antialias: bool = True
) -> jax.Array:
    """Changes the number of an image's pixels; the borders of old and new pixels coincide.

    Args:
        image: (height, width, channels).
        shape: The new (height, width).
        method: "linear", "cubic" (Keys's with a = -1/2) or "nearest". "cubic" may leave the range
            of the image; integers are clipped to that of their type.
        antialias: Whether to average over the pixels that one new pixel covers where the image
            shrinks; without, some of them are not looked at. "nearest" never averages.

    Returns:
        An image (*shape, channels) of the same dtype, rounded where that is an integer.

    Example:
        >>> resize(jnp.array([[[1.0], [3.0], [5.0], [9.0]]]), (1, 2), antialias=False).ravel()
        Array([2., 7.], dtype=float32)
    """
    _check.choice("resize", "method", method, ("linear", "cubic", "nearest"))
    _check.flag("resize", "antialias", antialias)
    image = _image.checked("resize", image)
    height, width = _image.sizes("resize", "shape", shape)
    y = jax.image.resize(
        _image.widened(image), (height, width, image.shape[2]), method, antialias=antialias
    )
    return _image.narrowed(y, image.dtype)


def random_resized_crop(
    key: jax.Array,
    image: Any,
    *,
    size: int = 224,
    form: str = "resnet",
    short_side: tuple[int, int] = (256, 480),
    area: tuple[ArrayLike, ArrayLike] = (0.08, 1.0),
    ratio: tuple[ArrayLike, ArrayLike] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cuts a random part out of an image and brings it to one size, in one linear resampling.

    The form "resnet" draws a whole number L ~ U[short_side], resizes the image so that its shorter
    side is L, and takes any square of `size` pixels. The form "inception" takes any box whose area
    is a fraction ~ U(area) of the image's and whose log(width / height) ~ U(log ratio), as wide or
    high as the image if none of ten fits. Both average where the image shrinks.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        size: Height and width of the result in pixels.
        form: "resnet" or "inception".
        short_side: Of "resnet": least and largest L, at least `size`.
        area: Of "inception": range of the area's fraction, in (0, 1].
        ratio: Of "inception": range of width / height, > 0.

    Returns:
        (size, size, channels) of the dtype of the image, rounded where that is an integer.

    Example:
        >>> image = jnp.ones((40, 60, 3))
        >>> random_resized_crop(jax.random.key(0), image, size=32, short_side=(36, 48)).shape
        (32, 32, 3)

    References:
        K. He et al., Deep residual learning for image recognition, 2016, after K. Simonyan and A.
        Zisserman, Very deep convolutional networks, 2015.
        C. Szegedy et al., Going deeper with convolutions, 2015 (the Inception form).
    """
    where = "random_resized_crop"
    _check.choice(where, "form", form, ("resnet", "inception"))
    _check.integer(where, "size", size)
    image = _image.checked(where, image)
    shape = image.shape[:2]
    if form == "resnet":
        least, most = _image.sizes(where, "short_side", short_side)
        _check.at_most(where, "size", size, "the least short_side", least)
        _check.at_most(where, "the least short_side", least, "the largest", most)
        k_scale, k_place = jax.random.split(key)
        side = jax.random.randint(k_scale, (), least, most + 1, np.int32)
        scale = jnp.broadcast_to(side.astype(np.float32) / min(shape), (2,))
        room = jnp.round(scale * np.array(shape, np.float32)) - size
        origin = jnp.floor(jax.random.uniform(k_place, (2,), np.float32) * (room + 1))
    else:
        first, last, fits = random_box(where, key, shape, area, ratio)
        height, width = shape
        r = jnp.clip(width / height, *jnp.array(ratio, np.float32))
        largest = jnp.stack([jnp.minimum(height, width / r), jnp.minimum(width, height * r)])
        side = jnp.where(fits, (last - first).astype(np.float32), largest)
        corner = jnp.where(
            fits, first.astype(np.float32), (np.array(shape, np.float32) - largest) / 2
        )
        scale = size / side
        origin = scale * corner
    y = jax.image.scale_and_translate(
        _image.widened(image), (size, size, image.shape[2]), (0, 1), scale, -origin, "linear"
    )
    return _image.narrowed(y, image.dtype)
