"""AutoAugment, RandAugment and TrivialAugment: random operations of a policy.

Under `vmap`, `lax.switch` computes every operation for every image. Here an operation is a row of
numbers instead, and one function applies any of them: it blends the image with another one, maps
its levels by a table and moves its pixels, most of these by the identity. What no operation of a
policy needs is left out of the program.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.data._order import check_seed

from ._image import checked
from ._policies import POLICIES
from ._tables import (
    LEVELS,
    equalizing,
    from_levels,
    histogram,
    look_up,
    stretching,
    to_levels,
)

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


def auto_augment(
    key: jax.Array,
    image: jax.Array,
    *,
    policy: Any = "cifar10",
    ranges: Ranges = PAPER,
    fill: Any = 0,
    high: Any = None,
) -> jax.Array:
    """Applies a random sub-policy of a policy found by AutoAugment.

    Each operation of the sub-policy is applied with its probability, with a random sign where it
    has two directions: `shear_x`, `shear_y`, `translate_x`, `translate_y`, `rotate`, and
    `brightness`, `color`, `contrast`, `sharpness`, which lead to or away from black, gray, the
    mean gray and a smoothed image. `posterize`, `solarize` and `cutout` have one, and
    `autocontrast`, `equalize`, `invert` and `identity` no magnitude at all.

    Args:
        key: the random key of this image.
        image: (height, width, channels), of 1 or 3 channels; others than uint8 are rounded to 256
            levels where an operation is applied.
        policy: "cifar10", "svhn", "imagenet", or sub-policies, each a sequence of operations
            (name, probability, magnitude), with the probability in [0, 1] and the magnitude, of
            which 9 is full, in [0, 9].
        ranges: what the full magnitude is; by default that of the paper.
        fill: what lies outside the image or is cut out, in the unit of the image: a number or one
            for each channel.
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Raises:
        ConfigError: If the image does not have 1 or 3 channels, or the policy is not one.

    Example:
        >>> image = jnp.full((8, 8, 3), 100, jnp.uint8)
        >>> auto_augment(jax.random.key(0), image, policy=[[("brightness", 1.0, 9)]]).shape
        (8, 8, 3)

    References:
        E. Cubuk, B. Zoph, D. Mane, V. Vasudevan, Q. Le, AutoAugment: Learning Augmentation
        Policies from Data, 2018.
    """
    if isinstance(policy, str):
        _check.choice("auto_augment", "policy", policy, POLICIES)
        policy = POLICIES[policy]
    else:
        _check_policy(policy)
    layers = max(map(len, policy))
    rows = [
        [(name, p, magnitude / 9) for name, p, magnitude in sub]
        + [("identity", 0.0, 0.0)] * (layers - len(sub))
        for sub in policy
    ]
    options = dict(ranges=ranges, fill=fill, high=high)
    return _augment("auto_augment", key, image, rows, one_row=True, **options)


def rand_augment(
    key: jax.Array,
    image: jax.Array,
    *,
    layers: int = 2,
    magnitude: float = 9,
    operations: Sequence[str] = USUAL,
    ranges: Ranges = PAPER,
    fill: Any = 0,
    high: Any = None,
) -> jax.Array:
    """Applies random operations, one after another, all at one magnitude.

    Args:
        key: the random key of this image.
        image: (height, width, channels), as `auto_augment` has it.
        layers: how many operations.
        magnitude: in [0, 30], of which 30 is full.
        operations: what to draw from, each as likely; by default all but `invert` and `cutout`.
        ranges: what the full magnitude is.
        fill: what lies outside the image, as `auto_augment` has it.
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Raises:
        ConfigError: If the image does not have 1 or 3 channels, or an operation does not exist.

    Example:
        >>> rand_augment(jax.random.key(0), jnp.ones((8, 8, 3)), magnitude=0).min().item()
        1.0

    References:
        E. Cubuk, B. Zoph, J. Shlens, Q. Le, RandAugment: Practical Automated Data Augmentation
        with a Reduced Search Space, 2020.
    """
    _check.integer("rand_augment", "layers", layers)
    _check.within("rand_augment", "magnitude", magnitude, 0, 30)
    _check_operations("rand_augment", operations)
    rows = [[(name, 1.0, magnitude / 30)] * layers for name in operations]
    options = dict(ranges=ranges, fill=fill, high=high)
    return _augment("rand_augment", key, image, rows, one_row=False, **options)


def trivial_augment(
    key: jax.Array,
    image: jax.Array,
    *,
    operations: Sequence[str] = USUAL,
    ranges: Ranges = WIDE,
    fill: Any = 0,
    high: Any = None,
) -> jax.Array:
    """Applies one random operation at a random magnitude, one of 31 from nothing to full.

    Args:
        key: the random key of this image.
        image: (height, width, channels), as `auto_augment` has it.
        operations: what to draw from, each as likely; by default all but `invert` and `cutout`.
        ranges: what the full magnitude is; by default that of the paper's wide space.
        fill: what lies outside the image, as `auto_augment` has it.
        high: the largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        An image of the same shape and dtype.

    Raises:
        ConfigError: If the image does not have 1 or 3 channels, or an operation does not exist.

    Example:
        >>> trivial_augment(jax.random.key(0), jnp.zeros((8, 8, 1), jnp.uint8)).shape
        (8, 8, 1)

    References:
        S. Mueller, F. Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation,
        2021.
    """
    _check_operations("trivial_augment", operations)
    rows = [[(name, 1.0, i / 30)] for name in operations for i in range(31)]
    options = dict(ranges=ranges, fill=fill, high=high)
    return _augment("trivial_augment", key, image, rows, one_row=True, **options)


def _augment(where, key, image, rows, *, one_row, ranges, fill, high):
    """Applies for each layer l an operation rows[i][l], (name, probability, strength).

    i is drawn once for all layers if `one_row`, else for each of them.
    """
    image = checked(where, image)
    channels = image.shape[2]
    if channels not in (1, 3):
        _check.fail(where, "image", "of 1 or 3 channels", image.shape)
    if np.shape(fill) not in ((), (channels,)):
        _check.fail(where, "fill", f"a number or {channels}, one for each channel", fill)
    p = np.array([[p for _, p, _ in row] for row in rows], np.float32)
    every = [(name, strength) for row in rows for name, _, strength in row]
    made = [effect(*pair, sign, image.shape[:2], ranges) for pair in every for sign in (1, -1)]
    effects, identity = stacked(made, (*p.shape, 2)), stacked([Effect()], ())
    changes = jax.tree.map(lambda a, b: (a != b).reshape(*p.shape, -1).any(-1), effects, identity)
    p = np.where(np.any(changes, axis=0), p, 0)

    u = jax.random.uniform(key, (5, p.shape[1]), np.float32)
    i = (u[0, :1] if one_row else u[0]) * len(p)  # each row as likely, to 2^-23
    at = i.astype(np.int32), np.arange(p.shape[1]), (u[1] < 0.5).astype(np.int32)
    applied = u[2] < jnp.asarray(p)[at[:2]]
    x = to_levels(where, image, high)
    fill = to_levels(where, jnp.broadcast_to(jnp.asarray(fill, image.dtype), channels), high)
    chosen = jax.tree.map(
        lambda a, b: jnp.where(applied.reshape(-1, *[1] * b.ndim), jnp.asarray(a)[at], b[None]),
        effects,
        identity,
    )
    y = _layers(rows, at, chosen, x, fill, u[3:].T)
    return jnp.where(applied.any(), from_levels(where, y, image, high), image)


def _layers(rows, at, chosen, x, fill, places):
    """Applies the effects `chosen`, those of rows[at] or the identity, one after another."""
    names = frozenset(name for row in rows for name, *_ in row)

    # A loop, even of two, so that a layer's pixels are computed once: XLA would fuse them into each
    # of their uses in the next layer, the nine neighbors of a pixel among these.
    def layer(x, given):
        return apply(given[0], names, x, fill, given[1]), None

    return jax.lax.scan(layer, x, (chosen, places))[0]


def _check_policy(policy):
    if not all(policy) or not policy:
        rule = "a name or sub-policies of at least one operation"
        _check.fail("auto_augment", "policy", rule, policy)
    for sub in policy:
        for name, probability, magnitude in sub:
            _check_operations("auto_augment", [name])
            _check.within("auto_augment", f"the probability of {name!r}", probability, 0, 1)
            _check.within("auto_augment", f"the magnitude of {name!r}", magnitude, 0, 9)


def _check_operations(where, operations):
    for name in operations:
        _check.choice(where, "an operation", name, OPERATIONS)


class PolicySearch(NamedTuple):
    """What `search_policy` found.

    Attributes:
        policy: the best.
        ranking: (score, policy) of all, the best first.
    """

    policy: tuple
    ranking: tuple


def random_policy(
    seed: int, trial: int = 0, *, sub_policies: int = 5, operations: Sequence[str] = OPERATIONS
) -> tuple:
    """Draws a policy from the search space of AutoAugment.

    Each sub-policy has two operations (name, probability, magnitude), of 16 names, 11
    probabilities 0, 0.1, ..., 1 and 10 magnitudes 0, ..., 9: five sub-policies are drawn from
    (16 * 11 * 10)^10 = 2.9e32. `identity` stands where the paper mixes in a second image.

    Args:
        seed: in [0, 2**32).
        trial: the number of the draw with this seed, at least 0.
        sub_policies: how many.
        operations: the names.

    Returns:
        The sub-policies, as `auto_augment` takes them; the same on every machine.

    Example:
        >>> random_policy(0, sub_policies=1) == random_policy(0, sub_policies=1)
        True
    """
    check_seed("random_policy", seed)
    _check.integer("random_policy", "trial", trial, least=0)
    _check.integer("random_policy", "sub_policies", sub_policies)
    _check_operations("random_policy", operations)
    # NumPy guarantees the raw stream of a bit generator, not what its `Generator` makes of it.
    words = np.random.Philox(key=np.array([seed, trial], np.uint64)).random_raw(6 * sub_policies)
    draws = words.reshape(sub_policies, 2, 3) % np.array([len(operations), 11, 10], np.uint64)
    return tuple(
        tuple((operations[int(i)], int(p) / 10, int(m)) for i, p, m in sub) for sub in draws
    )


def search_policy(
    score: Callable[[tuple], float],
    *,
    trials: int,
    seed: int = 0,
    sub_policies: int = 5,
    operations: Sequence[str] = OPERATIONS,
) -> PolicySearch:
    """Searches a policy for `auto_augment` at random.

    Args:
        score: from a policy to a number, the higher the better, such as the accuracy on a
            validation set of a small network trained with it.
        trials: how many policies are drawn, those of `random_policy(seed, trial)`.
        seed: in [0, 2**32).
        sub_policies: how many each has.
        operations: the names that they are drawn from.

    Returns:
        The best policy, the first drawn among equals, and the ranking of all.

    Raises:
        ConfigError: If a score is not a finite number.

    Example:
        >>> found = search_policy(lambda policy: policy[0][0][1], trials=20)
        >>> found.policy[0][0][1]
        1.0

    References:
        E. Cubuk, B. Zoph, D. Mane, V. Vasudevan, Q. Le, AutoAugment: Learning Augmentation
        Policies from Data, 2018: the space, which they searched by a recurrent controller.
    """
    _check.function("search_policy", "score", score)
    _check.integer("search_policy", "trials", trials)
    ranking = []
    for trial in range(trials):
        policy = random_policy(seed, trial, sub_policies=sub_policies, operations=operations)
        _check.finite("search_policy", "the result of score", value := score(policy))
        ranking.append((float(value), policy))
    ranking.sort(key=lambda pair: -pair[0])
    return PolicySearch(ranking[0][1], tuple(ranking))
