"""The operations of policies: each is a row of numbers, and one function applies any of them.

Under `vmap`, `lax.switch` computes every operation for every image. Here one function blends the
image with another one, maps its levels by a table and moves its pixels, most of these by the
identity. What no operation of a policy needs is left out of the program.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check

from ._tables import LEVELS, equalizing, histogram, look_up, stretching

MOVES = frozenset({"shear_x", "shear_y", "translate_x", "translate_y", "rotate"})
# By the other image: black, gray of its mean, gray, and smoothed.
TOWARD = {"brightness": 0, "contrast": 1, "color": 2, "sharpness": 3}
BLENDS = frozenset(TOWARD)
TABLES = frozenset({"posterize", "solarize", "invert", "autocontrast", "equalize"})
OPERATIONS = ("identity", *sorted(MOVES | BLENDS | TABLES), "cutout")
# Those of RandAugment and TrivialAugment.
USUAL = tuple(name for name in OPERATIONS if name not in ("invert", "cutout"))


class Ranges(NamedTuple):
    """What the operations that have a magnitude do where it is full; at 0 they do nothing.

    Attributes:
        shear: pixels moved for each pixel of distance.
        translate: a fraction of the side if a float, pixels if an int.
        rotate: degrees.
        enhance: how far the factor of brightness, color, contrast and sharpness is from 1.
        posterize: the bits that are lost, of 8.
        solarize: how far the threshold falls, from 256.
        cutout: the side of the square, a fraction of the shorter side if a float, else pixels.
    """

    shear: float = 0.3
    translate: float = 150 / 331
    rotate: float = 30.0
    enhance: float = 0.9
    posterize: int = 4
    solarize: float = 256.0
    cutout: float = 60 / 331


PAPER = Ranges()
WIDE = Ranges(shear=0.99, translate=32, rotate=135.0, enhance=0.99, posterize=6)


class Effect(NamedTuple):
    """The numbers that make an operation; by default those of the identity.

    Attributes:
        matrix: a to f: pixel (x, y) is read at ((a x + b y + c) >> 16, (d x + e y + f) >> 16).
        toward: which other image is blended in, by TOWARD.
        factor: 0 makes it the other image, 1 leaves it, more leads away.
        threshold: levels from here on are inverted.
        mask: the bits of a level that stay.
        stretch: whether to stretch the levels to the whole range.
        equalize: whether to equalize them.
        size: the side of the square that is cut out.
    """

    matrix: Any = (2**16, 0, 2**15, 0, 2**16, 2**15)
    toward: Any = 0
    factor: Any = 1.0
    threshold: Any = 256
    mask: Any = 255
    stretch: Any = False
    equalize: Any = False
    size: Any = 0


def effect(name: str, strength: float, sign: int, shape: tuple[int, int], ranges: Ranges) -> Effect:
    """Returns what makes an operation at a strength in [0, 1], on images of a shape."""
    height, width = shape
    s = sign * strength
    factor = 1 + s * ranges.enhance

    def pixels(size, side):
        return int(s * (size * side if isinstance(size, float) else size))

    def moved(a=1.0, b=0.0, c=0.0, d=0.0, e=1.0, f=0.0):
        # The centre of a pixel is half a pixel from its corner.
        matrix = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2])
        return Effect(matrix=np.floor(2**16 * matrix + 0.5))

    match name:
        case "shear_x":
            return moved(b=s * ranges.shear)
        case "shear_y":
            return moved(d=s * ranges.shear)
        case "translate_x":
            return moved(c=pixels(ranges.translate, width))
        case "translate_y":
            return moved(f=pixels(ranges.translate, height))
        case "rotate":
            sin, cos = np.sin(np.radians(s * ranges.rotate)), np.cos(np.radians(s * ranges.rotate))
            x, y = width / 2, height / 2
            return moved(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
        case "brightness" | "contrast" | "color" | "sharpness" if factor != 1:
            return Effect(toward=TOWARD[name], factor=factor)
        case "solarize":
            return Effect(threshold=np.ceil(256 - strength * ranges.solarize))
        case "posterize":
            return Effect(mask=256 - 2 ** round(strength * ranges.posterize))
        case "invert":
            return Effect(threshold=0)
        case "autocontrast":
            return Effect(stretch=True)
        case "equalize":
            return Effect(equalize=True)
        case "cutout":
            return Effect(size=abs(pixels(ranges.cutout, min(shape))))
    return Effect()


_DTYPES = (np.int32, np.int32, np.float32, np.int32, np.int32, np.bool_, np.bool_, np.int32)


def stacked(effects: Sequence[Effect], shape: tuple[int, ...]) -> Effect:
    """Returns effects as one of arrays whose first axes are `shape`."""

    def stack(dtype, *values):
        array = np.array(values, dtype)
        return array.reshape(shape + array.shape[1:])

    return Effect(*map(stack, _DTYPES, *effects))


def apply(
    effect: Effect, names: frozenset[str], x: jax.Array, fill: jax.Array, place: jax.Array
) -> jax.Array:
    """Applies an operation to the levels of an image.

    Args:
        effect: the operation.
        names: those that it may be.
        x: levels, (height, width, channels) int32.
        fill: levels for what lies outside, (channels,) int32.
        place: of the square that is cut out, (2,) in [0, 1).

    Returns:
        Levels like x.
    """
    height, width, channels = x.shape
    y = x
    if names & BLENDS:
        other = jnp.zeros_like(x)
        gray = _gray(x)
        if "contrast" in names:
            n = height * width
            mean = (2 * gray.sum(dtype=np.int32) + n) // (2 * n)
            other = jnp.where(effect.toward == TOWARD["contrast"], mean, other)
        if "color" in names:
            other = jnp.where(effect.toward == TOWARD["color"], gray, other)
        if "sharpness" in names:
            other = jnp.where(effect.toward == TOWARD["sharpness"], _smooth(x), other)
        change = effect.factor * (x - other).astype(np.float32)
        # The maximum changes nothing, but keeps a compiler from a fused product and sum, whose
        # single rounding could end at another level.
        z = other.astype(np.float32) + jnp.maximum(change, -1e9)
        blended = jnp.clip(z, 0, 255).astype(np.int32)
    if names & TABLES:
        table = jnp.where(LEVELS < effect.threshold, LEVELS, 255 - LEVELS) & effect.mask
        table = jnp.broadcast_to(table, (channels, 256))
        if "autocontrast" in names:
            stretch = stretching(x.min((0, 1)), x.max((0, 1)))
            table = jnp.where(effect.stretch, stretch, table)
        if "equalize" in names:
            table = jnp.where(effect.equalize, equalizing(histogram(x)), table)
        y = look_up(table, y)
    row, column = (np.arange(n, dtype=np.int32) for n in (height, width))
    row, column = row[:, None], column[None]
    if names & MOVES:
        a, b, c, d, e, f = effect.matrix
        i, j = (d * column + e * row + f) >> 16, (a * column + b * row + c) >> 16
        inside = (0 <= i) & (i < height) & (0 <= j) & (j < width)
        at = jnp.where(inside, i * width + j, 0)
        y = y.reshape(-1, channels).at[at].get(mode="promise_in_bounds")
        y = jnp.where(inside[..., None], y, fill[None, None])
    if names & BLENDS:
        y = jnp.where(effect.factor == 1, y, blended)
    if "cutout" in names:
        i, j = (place * np.array([height, width], np.float32)).astype(np.int32)
        near = [
            (at >= c - effect.size // 2) & (at < c + effect.size // 2)
            for at, c in ((row, i), (column, j))
        ]
        y = jnp.where((near[0] & near[1])[..., None], fill[None, None], y)
    return y


def _gray(x):
    """Returns the luma, (height, width, 1), rounded as PIL does."""
    if x.shape[2] == 1:
        return x
    return (19595 * x[..., :1] + 38470 * x[..., 1:2] + 7471 * x[..., 2:] + 2**15) >> 16


def _smooth(x):
    """Returns the mean over 3 x 3 pixels, the one in the middle taken 5 times; borders stay."""
    c = x.shape[2]
    y = x.reshape(x.shape[0], -1)  # long rows make wide loops
    rows = y[:-2] + y[1:-1] + y[2:]
    inner = rows[:, : -2 * c] + rows[:, c:-c] + rows[:, 2 * c :] + 4 * y[1:-1, c:-c]
    return y.at[1:-1, c:-c].set((2 * inner + 13) // 26).reshape(x.shape)


def check_operations(where, operations):
    if isinstance(operations, str) or not isinstance(operations, Sequence) or not operations:
        _check.fail(where, "operations", "a sequence of names, at least one", operations)
    for name in operations:
        _check.choice(where, "an operation", name, OPERATIONS)


def check_ranges(where, ranges):
    if not isinstance(ranges, Ranges):
        _check.fail(where, "ranges", "a Ranges", ranges, error=TypeError)
    for name, value in ranges._asdict().items():
        _check.nonnegative(where, f"ranges.{name}", value)
    _check.at_most(where, "ranges.posterize", ranges.posterize, "the bits of a level", 8)
