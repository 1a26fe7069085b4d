"""Mixing the examples of a batch, with their labels: `f(key, images, labels) -> images, labels`.

Each is a function of the whole batch in its order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.augment._box import inside


def mixup(
    key: jax.Array, images: Any, labels: Any, *, alpha: ArrayLike = 0.2, per: str = "batch"
) -> tuple[jax.Array, jax.Array]:
    """Blends each example with another one of its batch.

        x = lam x_i + (1 - lam) x_j,   y = lam y_i + (1 - lam) y_j,   lam ~ Beta(alpha, alpha)

    j is a random permutation of the batch.

    Args:
        key: The random key of the batch.
        images: x, (batch, ...).
        labels: y, the classes' probabilities, (batch, classes), floating.
        alpha: At least 0; 0 changes nothing, 1 makes all lam equally probable, the paper has 0.1 to
            0.4 for ImageNet and 1 for CIFAR-10.
        per: Whether the "batch" has one lam, as in the authors' program, or each "example" its own.

    Returns:
        Images and labels of the same shapes and dtypes, images rounded where that is an integer.

    Raises:
        TypeError: If the labels are not floating.
        ConfigError: If they are not of shape (batch, classes).

    Example:
        >>> images, labels = jnp.ones((4, 2, 2, 1)), jax.nn.one_hot(jnp.arange(4), 4)
        >>> images, labels = mixup(jax.random.key(0), images, labels)
        >>> labels.sum(1).tolist()
        [1.0, 1.0, 1.0, 1.0]

    References:
        H. Zhang et al., mixup: beyond empirical risk minimization, 2018.
    """
    _check.choice("mixup", "per", per, ("batch", "example"))
    images, labels = _checked("mixup", images, labels, alpha)
    k_lam, k_partner = jax.random.split(key)
    lam = _beta(k_lam, alpha, (len(images) if per == "example" else 1,))
    j = jax.random.permutation(k_partner, len(images))
    return _blended(images, images[j], lam), _blended(labels, labels[j], lam)


def cutmix(
    key: jax.Array,
    images: Any,
    labels: Any,
    *,
    alpha: ArrayLike = 1.0,
    box: str = "center_clip",
    adjust_lambda: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Replaces a box of each image by that of another one of its batch.

    The box is the same in all images and has the sides H sqrt(1 - lam) and W sqrt(1 - lam), with
    lam ~ Beta(alpha, alpha); the label is lam y_i + (1 - lam) y_j. The authors place it by its
    center, anywhere in the image, and cut off what is outside, so that it covers less than 1 - lam;
    then lam becomes the share that it leaves.

    Args:
        key: The random key of the batch.
        images: (batch, height, width, channels).
        labels: y, the classes' probabilities, (batch, classes), floating.
        alpha: At least 0; 0 changes nothing, 1 makes all lam equally probable.
        box: Where it is: "center_clip" with its center anywhere, as the authors' program,
            "corner_clip" with its upper left corner anywhere, as their formula can be read, both
            without what is outside, or "inside" with all of it in the image. For alpha = 1 they
            cover 0.321, 0.183 and 0.5 of the image on average.
        adjust_lambda: Whether labels follow the share of the image that is replaced. False takes
            lam as drawn.

    Returns:
        Images and labels of the same shapes and dtypes.

    Raises:
        TypeError: If the labels are not floating.
        ConfigError: If they are not of shape (batch, classes).

    Example:
        >>> images, labels = jnp.ones((4, 8, 8, 1)), jax.nn.one_hot(jnp.arange(4), 4)
        >>> images, labels = cutmix(jax.random.key(0), images, labels)
        >>> labels.sum(1).tolist()
        [1.0, 1.0, 1.0, 1.0]

    References:
        S. Yun et al., CutMix: regularization strategy to train strong classifiers with localizable
        features, 2019.
    """
    _check.choice("cutmix", "box", box, ("center_clip", "corner_clip", "inside"))
    _check.flag("cutmix", "adjust_lambda", adjust_lambda)
    images, labels = _checked("cutmix", images, labels, alpha)
    if images.ndim != 4:
        _check.fail("cutmix", "images", "of shape (batch, height, width, channels)", images.shape)
    k_lam, k_partner, k_place = jax.random.split(key, 3)
    lam = _beta(k_lam, alpha, (1,))
    shape = np.array(images.shape[1:3], np.float32)
    sides = shape * jnp.sqrt(1 - lam)
    u = jax.random.uniform(k_place, (2,), np.float32)
    start = {
        "center_clip": u * shape - sides / 2,
        "corner_clip": u * shape,
        "inside": u * (shape - sides),
    }[box]
    first, last = (jnp.clip(jnp.round(v), 0, shape) for v in (start, start + sides))
    cut = inside(images.shape[1:3], first, last)
    if adjust_lambda:
        lam = 1 - jnp.prod(last - first, keepdims=True) / shape.prod()
    j = jax.random.permutation(k_partner, len(images))
    return jnp.where(cut, images[j], images), _blended(labels, labels[j], lam)


def mix_same_class(
    key: jax.Array, images: Any, labels: Any, *, alpha: ArrayLike = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Blends each example with one of its own class, so that its label stays what it is.

        x = lam x_i + (1 - lam) x_j,   lam ~ Beta(alpha, alpha)

    j is any example of the batch with the same most probable class, i itself among them; each
    example has its own lam. Labels are blended too, which changes those that are no single class.

    Args:
        key: The random key of the batch.
        images: x, (batch, ...).
        labels: y, the classes' probabilities, (batch, classes), floating.
        alpha: At least 0; 0 changes nothing, 1 makes all lam equally probable.

    Returns:
        Images and labels of the same shapes and dtypes, images rounded where that is an integer.

    Raises:
        TypeError: If the labels are not floating.
        ConfigError: If they are not of shape (batch, classes).

    Example:
        >>> images, labels = jnp.ones((4, 2, 2, 1)), jax.nn.one_hot(jnp.array([0, 1, 0, 1]), 2)
        >>> mixed, same = mix_same_class(jax.random.key(0), images, labels)
        >>> bool((same == labels).all())
        True
    """
    images, labels = _checked("mix_same_class", images, labels, alpha)
    k_lam, k_partner = jax.random.split(key)
    lam = _beta(k_lam, alpha, (len(images),))
    classes = labels.argmax(1)
    same = jnp.where(classes[:, None] == classes[None], 0, -jnp.inf)
    j = jax.random.categorical(k_partner, same)
    return _blended(images, images[j], lam), _blended(labels, labels[j], lam)


def _checked(where, images, labels, alpha):
    _check.nonnegative(where, "alpha", alpha)
    images, labels = _image.numbers(where, "images", images), _check.array(where, "labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        fix = "jax.nn.one_hot(labels, classes) makes them of integers"
        _check.fail(where, "labels", "floating", str(labels.dtype), fix, TypeError)
    if images.ndim == 0:
        _check.fail(where, "images", "a batch", images.shape)
    if labels.ndim != 2 or len(labels) != len(images):
        _check.fail(where, "labels", f"of shape ({len(images)}, classes)", labels.shape)
    return images, labels


def _beta(key, alpha, shape):
    """Numbers from Beta(alpha, alpha), 1 for alpha = 0."""
    alpha = jnp.asarray(alpha, np.float32)
    positive = jnp.where(alpha > 0, alpha, 1)
    return jnp.where(alpha > 0, jax.random.beta(key, positive, positive, shape, np.float32), 1)


def _blended(a, b, lam):
    """Returns lam a + (1 - lam) b, of the dtype of a."""
    lam = lam.reshape(-1, *(1,) * (a.ndim - 1)).astype(_image.wide(a))
    return _image.narrowed(lam * _image.widened(a) + (1 - lam) * _image.widened(b), a.dtype)
