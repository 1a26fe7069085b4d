"""Affine maps of an image, composed into one matrix and read in one resampling."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.augment._warp import centered, read


def affine(
    image: Any, matrix: Any, shift: Any, *, order: int = 1, fill: ArrayLike = 0
) -> jax.Array:
    """Maps an image by a matrix about its center: y(p) = x(c + A (p - c) + t).

    p is (row, column), c the center. A and t lead from a pixel of y to where it is read in x: to
    move what is in the image by B and s give A = B^-1 and t = -B^-1 s.

    Args:
        image: x, (height, width, channels).
        matrix: A, (2, 2).
        shift: t, (2,), in pixels.
        order: 1 interpolates linearly, 0 takes the nearest pixel.
        fill: Value outside the image, a number or one for each channel.

    Returns:
        y of the shape and dtype of the image, rounded where that is an integer.

    Example:
        >>> affine(jnp.array([[[1], [2], [3]]]), jnp.eye(2), (0, 1)).ravel()
        Array([2, 3, 0], dtype=int32)
    """
    image = _image.checked("affine", image)
    dtype = _image.wide(image)
    a = _image.finite("affine", "matrix", matrix, dtype)
    t = _image.finite("affine", "shift", shift, dtype)
    if a.shape != (2, 2) or t.shape != (2,):
        rule = "of shapes (2, 2) and (2,)"
        _check.fail("affine", "matrix and shift", rule, (a.shape, t.shape))
    return _mapped("affine", image, a, t, order, fill)


def _mapped(where, image, a, t, order, fill):
    """Returns `affine` of a checked image, matrix and shift."""
    c, row, column = centered(image)
    # Not a matrix product: rounded to bfloat16 on TPU, computed anew for each neighbor on CPU.
    i, j = (a[i, 0] * row + a[i, 1] * column + (c[i] + t[i]) for i in (0, 1))
    return read(where, image, i, j, order, fill)


def rotate(image: Any, degrees: ArrayLike, *, order: int = 1, fill: ArrayLike = 0) -> jax.Array:
    """Rotates an image about its center, counter-clockwise as it is displayed.

    Exact at multiples of 90 degrees. The shape stays, so that corners leave the image.

    Args:
        image: (height, width, channels).
        degrees: The angle in degrees.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> rotate(jnp.array([[[1], [2]], [[3], [4]]]), 90.0)[..., 0]
        Array([[2, 4],
               [1, 3]], dtype=int32)
    """
    _check.finite("rotate", "degrees", degrees)
    image = _image.checked("rotate", image)
    angle = jnp.asarray(degrees, _image.wide(image))
    return _mapped("rotate", image, _rotation(angle), (0, 0), order, fill)


def random_affine(
    key: jax.Array,
    image: Any,
    *,
    degrees: ArrayLike = 0.0,
    scale: tuple[ArrayLike, ArrayLike] = (1.0, 1.0),
    stretch: tuple[ArrayLike, ArrayLike] = (1.0, 1.0),
    shear: ArrayLike = 0.0,
    distortion: ArrayLike = 0.0,
    shift: ArrayLike = 0.0,
    order: int = 1,
    fill: ArrayLike = 0,
) -> jax.Array:
    """Rotates, scales, stretches, shears and shifts an image at random, all by one matrix.

        y(p) = x(c + A (p - c) + t),   A = R(a) diag(sqrt(q), 1 / sqrt(q)) [1 0; h 1] / s + E

        a ~ U(-degrees, degrees)         s ~ U(scale)    log q ~ U(log stretch)
        h ~ U(-shear, shear)             E_ij ~ U(-distortion, distortion)
        t_i ~ U(-shift, shift)

    c is the center of the image and p = (row, column). x is interpolated once, whatever is asked
    for. Each argument's default leaves its part out.

    Args:
        key: The random key of this image.
        image: x, (height, width, channels).
        degrees: Largest angle, at least 0.
        scale: Range of the factor s by which what is in the image grows, > 0.
        stretch: Range of q, by which width : height of what is in the image grows, > 0.
        shear: Largest slope h of what was vertical, at least 0; a slope of what was horizontal is
            this and a rotation.
        distortion: Largest entry of E, in [0, 1), a little of all the above at once; 0.15 rotates
            by up to 9 degrees or scales by up to 15 %.
        shift: Largest shift in pixels, at least 0, whole or not.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        y of the shape and dtype of the image, rounded where that is an integer.

    Example:
        >>> random_affine(jax.random.key(0), jnp.ones((4, 4, 1)), distortion=0.1).shape
        (4, 4, 1)
    """
    parts = (degrees, scale, stretch, shear, distortion, shift)
    return _random("random_affine", key, image, order, fill, *parts)


def _random(
    where,
    key,
    image,
    order,
    fill,
    degrees=0.0,
    scale=(1.0, 1.0),
    stretch=(1.0, 1.0),
    shear=0.0,
    distortion=0.0,
    shift=0.0,
):
    """Returns `random_affine`, whose errors name the function `where`."""
    _check.nonnegative(where, "degrees", degrees)
    _check.nonnegative(where, "shear", shear)
    _check.fraction(where, "distortion", distortion)
    _check.nonnegative(where, "shift", shift)
    scale = _image.interval(where, "scale", scale)
    stretch = _image.interval(where, "stretch", stretch)
    image = _image.checked(where, image)
    dtype = _image.wide(image)
    u = jax.random.uniform(key, (10,), dtype)
    v = 2 * u - 1
    a, h = v[0] * jnp.asarray(degrees, dtype), v[1] * jnp.asarray(shear, dtype)
    s = _between(jnp.array(scale, dtype), u[2])
    q = jnp.exp(_between(jnp.log(jnp.array(stretch, dtype)), u[3]))
    e = v[4:8].reshape(2, 2) * jnp.asarray(distortion, dtype)
    t = v[8:] * jnp.asarray(shift, dtype)
    stretched = jnp.diag(jnp.sqrt(jnp.array([q, 1 / q])))
    sheared = jnp.eye(2, dtype=dtype).at[1, 0].set(h)
    matrix = _matmul(_rotation(a), _matmul(stretched, sheared)) / s + e
    return _mapped(where, image, matrix, t, order, fill)


def random_rotation(
    key: jax.Array, image: Any, *, degrees: ArrayLike, order: int = 1, fill: ArrayLike = 0
) -> jax.Array:
    """Rotates an image about its center by an angle from U(-degrees, degrees).

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        degrees: Largest angle, at least 0.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_rotation(jax.random.key(0), jnp.ones((4, 4, 1)), degrees=15.0).shape
        (4, 4, 1)
    """
    return _random("random_rotation", key, image, order, fill, degrees=degrees)


def random_translation(
    key: jax.Array, image: Any, *, shift: ArrayLike, order: int = 1, fill: ArrayLike = 0
) -> jax.Array:
    """Shifts an image each way by a number from U(-shift, shift), whole or not.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        shift: Largest shift in pixels, at least 0. `random_crop` shifts by whole pixels.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_translation(jax.random.key(0), jnp.ones((4, 4, 1)), shift=1.5).shape
        (4, 4, 1)
    """
    return _random("random_translation", key, image, order, fill, shift=shift)


def random_scale(
    key: jax.Array,
    image: Any,
    *,
    scale: tuple[ArrayLike, ArrayLike],
    order: int = 1,
    fill: ArrayLike = 0,
) -> jax.Array:
    """Zooms into or out of an image's center by a factor from U(scale), without antialiasing.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        scale: Range of the factor, > 0; below 1 what is in the image becomes smaller.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_scale(jax.random.key(0), jnp.ones((4, 4, 1)), scale=(0.8, 1.2)).shape
        (4, 4, 1)
    """
    return _random("random_scale", key, image, order, fill, scale=scale)


def random_stretch(
    key: jax.Array,
    image: Any,
    *,
    stretch: tuple[ArrayLike, ArrayLike],
    order: int = 1,
    fill: ArrayLike = 0,
) -> jax.Array:
    """Changes the ratio of width to height by a factor q, log q ~ U(log stretch).

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        stretch: Range of q, > 0; above 1 what is in the image becomes wider and less high, and
            keeps its area.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_stretch(jax.random.key(0), jnp.ones((4, 4, 1)), stretch=(0.75, 1.33)).shape
        (4, 4, 1)
    """
    return _random("random_stretch", key, image, order, fill, stretch=stretch)


def random_shear(
    key: jax.Array, image: Any, *, shear: ArrayLike, order: int = 1, fill: ArrayLike = 0
) -> jax.Array:
    """Slants an image: its rows move sideways by h times their distance from the center.

    Args:
        key: The random key of this image.
        image: (height, width, channels).
        shear: Largest slope, h ~ U(-shear, shear), at least 0; the tangent of an angle.
        order: As in `affine`.
        fill: As in `affine`.

    Returns:
        An image of the same shape and dtype, rounded where that is an integer.

    Example:
        >>> random_shear(jax.random.key(0), jnp.ones((4, 4, 1)), shear=0.3).shape
        (4, 4, 1)
    """
    return _random("random_shear", key, image, order, fill, shear=shear)


def _rotation(degrees):
    return jnp.array([[_cos(degrees), _cos(degrees - 90)], [-_cos(degrees - 90), _cos(degrees)]])


def _between(ends, u):
    return ends[0] + (ends[1] - ends[0]) * u


def _cos(degrees):
    """The cosine, exact at multiples of 90 degrees."""
    to_half_turn = jnp.abs((degrees + 180) % 360 - 180)
    return jnp.sin(jnp.deg2rad(90 - to_half_turn))


_matmul = functools.partial(jnp.matmul, precision="highest")  # TPUs round factors to bfloat16
