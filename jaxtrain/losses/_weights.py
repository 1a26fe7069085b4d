"""Losses in which classes or examples count differently."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._labels import check_classes, real, widened

Loss = Callable[[Any, Any], jax.Array]


def class_weighted(loss: Loss, weights: Any) -> Loss:
    """Makes the loss of each example w_c times as large, c its class.

    A training step divides the sum by the number of examples, torch's mean by the sum of their
    weights. Both are the same for weights whose mean over the training set is 1, such as those of
    `class_weights`; divide others by it, `weights / weights[labels].mean()`.

    Args:
        loss: `f(outputs, labels)` of integer labels, such as `softmax_cross_entropy`.
        weights: w, (K,), finite and >= 0.

    Returns:
        `f(outputs, labels)`, one number per example, for outputs (..., K) and labels (...).

    Raises:
        TypeError: If weights are no numbers or, from the loss made, labels not integer.
        ConfigError: If weights are not such numbers, or from the loss made, if their number is
            not K.

    Example:
        >>> from jaxtrain import losses
        >>> loss = class_weighted(losses.hinge, [1.0, 3.0])
        >>> loss(jnp.zeros((2, 2)), jnp.array([0, 1]))
        Array([1., 3.], dtype=float32)
    """
    _check.function("class_weighted", "loss", loss)
    w = _check.array("class_weighted", "weights", weights, lambda w: np.asarray(w, np.float64))
    if w.ndim != 1 or not (np.isfinite(w) & (w >= 0)).all():
        _check.fail("class_weighted", "weights", "a vector of finite numbers >= 0", weights)

    def weighted(outputs, labels):
        outputs = _check.array("class_weighted", "outputs", outputs)
        labels = widened(_check.array("class_weighted", "labels", labels))
        fix = "with mix, which makes probabilities, draw classes alike by fit(weights=)"
        check_classes("class_weighted", outputs, labels, fix)
        if outputs.shape[-1] != len(w):
            rule = f"one number for each of the {outputs.shape[-1]} classes"
            _check.fail("class_weighted", "weights", rule, weights)
        x = loss(outputs, labels)
        # The loss of a label that is no class is NaN, or 0 if it is ignored, and remains so.
        return jnp.asarray(w, x.dtype).at[labels].get(mode="clip") * x

    return weighted


def sample_weighted(loss: Loss) -> Loss:
    """Makes a loss of targets that come with a weight for each example.

    As in `class_weighted` the step divides by the number of examples, not by the sum of weights.

    Args:
        loss: `f(outputs, targets)`, one number per example.

    Returns:
        `f(outputs, (targets, weights))`, with weights of the shape of what the loss returns, finite
        and >= 0.

    Raises:
        TypeError: From the loss made, if targets are no pair.
        ConfigError: From the loss made, if weights are no such numbers.

    Example:
        >>> from jaxtrain import losses
        >>> loss = sample_weighted(losses.squared_error)
        >>> loss(jnp.array([1.0, 2.0]), (jnp.zeros(2), jnp.array([3.0, 0.5])))
        Array([3., 2.], dtype=float32)
    """
    _check.function("sample_weighted", "loss", loss)

    def weighted(outputs, targets):
        if not isinstance(targets, tuple | list) or len(targets) != 2:
            rule = "a pair of targets and weights"
            _check.fail("sample_weighted", "targets", rule, type(targets), error=TypeError)
        targets, weights = targets
        x, w = loss(outputs, targets), real("sample_weighted", "weights", weights)
        if w.shape != x.shape:
            _check.fail("sample_weighted", "weights", f"of shape {x.shape}", w.shape)
        if not isinstance(w, jax.core.Tracer) and not (jnp.isfinite(w) & (w >= 0)).all():
            _check.fail("sample_weighted", "weights", "finite numbers >= 0", weights)
        return w.astype(x.dtype) * x

    return weighted


def class_weights(labels: Any, *, classes: int | None = None) -> np.ndarray:
    """Computes weights with which all classes count alike: w_c = n / (K n_c).

    n_c of the n examples are of class c. The mean weight of an example is 1.

    Args:
        labels: The classes of a training set, (n,), integer, in [0, K).
        classes: K; None takes it from the largest label.

    Returns:
        w, (K,), float64, for `class_weighted`.

    Raises:
        DataError: If labels are no such classes, or a class has no example.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]))
        array([0.66666667, 2.        ])

    References:
        G. King, L. Zeng, Logistic Regression in Rare Events Data, 2001.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or not y.size or not np.issubdtype(y.dtype, np.integer):
        rule = "a vector of integers, at least one"
        _check.fail("class_weights", "labels", rule, (y.shape, str(y.dtype)), error=DataError)
    if classes is None:
        classes = max(int(y.max()), 0) + 1
    _check.integer("class_weights", "classes", classes)
    outside = y[(y < 0) | (y >= classes)]
    if outside.size:
        _check.fail(
            "class_weights", "labels", f"in [0, {classes})", int(outside[0]), error=DataError
        )
    n_c = np.bincount(y, minlength=classes)
    if not n_c.all():
        rule, empty = "of every class at least once", np.flatnonzero(n_c == 0).tolist()
        fix = "these classes have no example"
        _check.fail("class_weights", "labels", rule, empty, fix, DataError)
    return len(y) / (classes * n_c)
