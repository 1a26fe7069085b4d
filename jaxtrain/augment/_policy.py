"""AutoAugment, RandAugment and TrivialAugment: random operations of a policy."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check

from ._effects import (
    PAPER,
    USUAL,
    WIDE,
    Effect,
    Ranges,
    apply,
    check_operations,
    check_ranges,
    effect,
    stacked,
)
from ._image import checked, filled
from ._policies import POLICIES
from ._tables import from_levels, to_levels


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
        policy = _checked_policy(policy)
    layers = max(map(len, policy))
    rows = [
        [(name, p, magnitude / 9) for name, p, magnitude in sub]
        + [("identity", 0.0, 0.0)] * (layers - len(sub))
        for sub in policy
    ]
    return _augment("auto_augment", key, image, rows, ranges, fill, high, one_row=True)


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
    check_operations("rand_augment", operations)
    rows = [[(name, 1.0, magnitude / 30)] * layers for name in operations]
    return _augment("rand_augment", key, image, rows, ranges, fill, high, one_row=False)


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
    check_operations("trivial_augment", operations)
    rows = [[(name, 1.0, i / 30)] for name in operations for i in range(31)]
    return _augment("trivial_augment", key, image, rows, ranges, fill, high, one_row=True)


def _augment(where, key, image, rows, ranges, fill, high, *, one_row):
    """Applies for each layer l an operation rows[i][l], (name, probability, strength).

    i is drawn once for all layers if `one_row`, else for each of them.
    """
    check_ranges(where, ranges)
    image = checked(where, image)
    channels = image.shape[2]
    if channels not in (1, 3):
        _check.fail(where, "image", "of 1 or 3 channels", image.shape)
    fill = filled(where, image, fill)
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
    fill = to_levels(where, jnp.broadcast_to(fill, channels), high)
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
    return _loop(names, chosen, x, fill, places)


@functools.partial(jax.jit, static_argnums=0)  # else each call outside of jit compiles it anew
def _loop(names, effects, x, fill, places):
    # A loop, even of two, so that a layer's pixels are computed once: XLA would fuse them into each
    # of their uses in the next layer, the nine neighbors of a pixel among these.
    def layer(x, given):
        return apply(given[0], names, x, fill, given[1]), None

    return jax.lax.scan(layer, x, (effects, places))[0]


def _checked_policy(policy):
    try:
        subs = [[(name, p, magnitude) for name, p, magnitude in sub] for sub in policy]
    except (TypeError, ValueError):  # not as deep, or not of three
        subs = []
    if not subs or not all(subs):
        rule = "a name or sub-policies of at least one operation (name, probability, magnitude)"
        _check.fail("auto_augment", "policy", rule, policy)
    for sub in subs:
        for name, probability, magnitude in sub:
            check_operations("auto_augment", [name])
            _check.within("auto_augment", f"the probability of {name!r}", probability, 0, 1)
            _check.within("auto_augment", f"the magnitude of {name!r}", magnitude, 0, 9)
    return subs
