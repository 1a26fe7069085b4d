"""One augmentation made of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check

Augmentation = Callable[[jax.Array, Any], jax.Array]


def compose(*functions: Augmentation) -> Augmentation:
    """Makes an augmentation of several, one after the other, each with a key of its own.

    Args:
        functions: `f(key, image) -> image`; one that takes no key is `lambda _, image: f(image)`.

    Returns:
        `f(key, image) -> image`. The key of a function depends on its position alone.

    Example:
        >>> import functools
        >>> from jaxtrain import augment
        >>> f = compose(augment.random_flip, functools.partial(augment.random_crop, padding=4))
        >>> f(jax.random.key(0), jnp.ones((32, 32, 3))).shape
        (32, 32, 3)
    """
    for f in functions:
        _check.function("compose", "functions", f, "give f(key, image) -> image")

    def composed(key, image):
        for i, f in enumerate(functions):
            image = f(jax.random.fold_in(key, i), image)
        return image

    return composed


def maybe(function: Augmentation, probability: ArrayLike) -> Augmentation:
    """Makes an augmentation that is applied with a probability, and else changes nothing.

    Args:
        function: `f(key, image) -> image` that keeps shape and dtype.
        probability: In [0, 1].

    Returns:
        `f(key, image) -> image`. Inside `jax.vmap` it computes the function of every image.

    Example:
        >>> f = maybe(lambda _, image: 1 - image, 1.0)
        >>> f(jax.random.key(0), jnp.zeros((1, 1, 1))).item()
        1.0
    """
    _check.function("maybe", "function", function, "give f(key, image) -> image")
    _check.within("maybe", "probability", probability, 0, 1)

    def applied(key, image):
        k_whether, k_function = jax.random.split(key)
        yes = jax.random.bernoulli(k_whether, jnp.asarray(probability, np.float32))
        return jnp.where(yes, function(k_function, image), image)

    return applied
