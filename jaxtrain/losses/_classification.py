"""Losses for classes: cross-entropies, hinges and focal losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check

from ._labels import (
    at_class,
    binary,
    check_classes,
    check_labels,
    floating,
    per_example,
    widened,
)


def softmax_cross_entropy(
    logits: Any, labels: Any, *, smoothing: ArrayLike = 0.0, ignore_index: int | None = None
) -> jax.Array:
    """Computes the cross-entropy between labels q and the softmax p of the logits z.

        log p_k = z_k - log sum_j exp(z_j)
        loss = -sum_k ((1 - a) q_k + a / K) log p_k

    q is one-hot for integer labels; a is the smoothing, spread over all K classes. The loss is
    exact to rounding at any finite logits, as is its gradient, p - q for a = 0.

    Args:
        logits: z, (..., K), floating.
        labels: Classes, (...), integer, in [0, K); the loss of any other is NaN. Or
            probabilities q, (..., K), floating.
        smoothing: a, in [0, 1); 0 leaves the labels as they are.
        ignore_index: An integer label whose loss is 0, such as -1 or -100 for padding, and whose
            gradient is too unless a logit is NaN or all are -inf; the examples with it still
            count in a mean, and in `metrics.accuracy` as wrong. None ignores nothing.

    Returns:
        The loss of each example, (...), in the dtype of the logits, at least float32.

    Raises:
        TypeError: If logits are not floating, or labels neither integer nor floating.
        ConfigError: If the shapes do not fit, smoothing is outside [0, 1), or ignore_index is
            no int or given with probabilities.

    Example:
        >>> loss = softmax_cross_entropy(jnp.zeros((2, 10)), jnp.array([3, 7]))
        >>> loss.round(4).tolist() == jnp.log(jnp.array([10.0, 10.0])).round(4).tolist()
        True

    References:
        C. Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016
        (label smoothing).
    """
    _check.fraction("softmax_cross_entropy", "smoothing", smoothing)
    log_p, q, kind = _log_softmax("softmax_cross_entropy", logits, labels)
    loss = -_expected(log_p, q, kind)
    if isinstance(smoothing, jax.Array) or smoothing != 0:
        a = jnp.asarray(smoothing, log_p.dtype)
        loss = (1 - a) * loss - a * log_p.mean(-1)
    if ignore_index is None:
        return loss
    if kind != "classes" or _check.whole(ignore_index) is None:
        rule = "None, or with integer labels an int"
        _check.fail("softmax_cross_entropy", "ignore_index", rule, ignore_index)
    return jnp.where(q == ignore_index, 0, loss)


def focal(logits: Any, labels: Any, *, gamma: ArrayLike = 2.0) -> jax.Array:
    """Computes a cross-entropy in which examples that are classified well count for little.

        loss = -sum_k q_k (1 - p_k)^gamma log p_k

    with p the softmax of the logits. The weights alpha of the paper, one per class, are
    `class_weighted(focal, alpha)`.

    Args:
        logits: As for `softmax_cross_entropy`.
        labels: As for `softmax_cross_entropy`, the classes or q.
        gamma: >= 0; 0 is the cross-entropy.

    Returns:
        The loss of each example, (...), in the dtype of the logits, at least float32.

    Raises:
        TypeError: As from `softmax_cross_entropy`.
        ConfigError: If the shapes do not fit or gamma is negative.

    Example:
        >>> focal(jnp.zeros((1, 2)), jnp.array([0])) == jnp.log(2.0) / 4
        Array([ True], dtype=bool)

    References:
        T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, Focal Loss for Dense Object Detection,
        2017.
    """
    _check.nonnegative("focal", "gamma", gamma)
    log_p, q, kind = _log_softmax("focal", logits, labels)

    def modulated(log_p):
        # Above 0, where a power below 1 has no derivative.
        rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)
        return rest ** jnp.asarray(gamma, log_p.dtype) * log_p

    return -_expected(log_p, q, kind, modulated)


def hinge(scores: Any, labels: Any, *, form: str = "sum", margin: ArrayLike = 1.0) -> jax.Array:
    """Computes the loss of a multi-class support vector machine.

    With the scores f, the class y and m_j = max(0, f_j - f_y + margin) for j != y::

        "sum"   sum_j m_j        Weston and Watkins
        "mean"  sum_j m_j / K    the same, divided by the number of classes
        "max"   max_j m_j        Crammer and Singer

    The derivative of max(0, x) at 0 is 0.

    Args:
        scores: f, (..., K), floating.
        labels: y, (...), integer, in [0, K); the loss of any other is NaN.
        form: "sum", "mean" or "max".
        margin: > 0.

    Returns:
        The loss of each example, (...), in the dtype of the scores, at least float32.

    Raises:
        TypeError: If scores are not floating or labels not integer.
        ConfigError: If the shapes do not fit or an option is outside its range.

    Example:
        >>> hinge(jnp.array([[3.0, 2.5, 2.5]]), jnp.array([0]))
        Array([1.], dtype=float32)

    References:
        J. Weston, C. Watkins, Support Vector Machines for Multi-Class Pattern Recognition, 1999.
        K. Crammer, Y. Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector
        Machines, 2001.
    """
    _check.choice("hinge", "form", form, ("sum", "mean", "max"))
    _check.positive("hinge", "margin", margin)
    f, y = floating("hinge", "scores", scores), widened(_check.array("hinge", "labels", labels))
    check_classes("hinge", f, y)
    m = jax.nn.relu(f - at_class(f, y)[..., None] + jnp.asarray(margin, f.dtype))
    m = jnp.where(jax.nn.one_hot(y, f.shape[-1], dtype=bool), 0, m)
    return getattr(m, form)(-1)


def sigmoid_cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Computes the mean cross-entropy between labels q and the sigmoids p of the logits.

        loss = -q log p - (1 - q) log(1 - p),   p = 1 / (1 + exp(-z))

    For one question of yes or no per example, or for several, of which any may be true. Exact to
    rounding at any finite logits, as is its gradient, p - q.

    Args:
        logits: z, (batch, ...), floating.
        labels: q, of the same shape: bools, 0 and 1, or probabilities; the loss of what is outside
            [0, 1] is NaN.

    Returns:
        The mean over all axes but the first, (batch,), in the dtype of the logits, at least
        float32.

    Raises:
        TypeError: If logits are not floating or labels not real.
        ConfigError: If the shapes differ.

    Example:
        >>> sigmoid_cross_entropy(jnp.zeros(2), jnp.array([True, False])) == jnp.log(2.0)
        Array([ True,  True], dtype=bool)
    """
    z, q = binary("sigmoid_cross_entropy", "logits", logits, labels)
    return per_example(q * jax.nn.softplus(-z) + (1 - q) * jax.nn.softplus(z))


def sigmoid_focal(
    logits: Any, labels: Any, *, gamma: ArrayLike = 2.0, alpha: ArrayLike | None = 0.25
) -> jax.Array:
    """Computes the mean of sigmoid cross-entropies in which what is right counts for little.

        loss = -alpha q (1 - p)^gamma log p - (1 - alpha) (1 - q) p^gamma log(1 - p)

    Args:
        logits: As for `sigmoid_cross_entropy`.
        labels: q, as for `sigmoid_cross_entropy`.
        gamma: >= 0.
        alpha: The weight of the label 1, in [0, 1). None weighs both labels by 1 instead, which
            with gamma = 0 is `sigmoid_cross_entropy`.

    Returns:
        The mean over all axes but the first, (batch,), in the dtype of the logits, at least
        float32.

    Raises:
        TypeError: As from `sigmoid_cross_entropy`.
        ConfigError: If the shapes differ or an option is outside its range.

    Example:
        >>> sigmoid_focal(jnp.zeros(1), jnp.array([1]), alpha=None) == jnp.log(2.0) / 4
        Array([ True], dtype=bool)

    References:
        T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, Focal Loss for Dense Object Detection,
        2017.
    """
    _check.nonnegative("sigmoid_focal", "gamma", gamma)
    z, q = binary("sigmoid_focal", "logits", logits, labels)
    gamma, log = jnp.asarray(gamma, z.dtype), jax.nn.log_sigmoid
    yes = -q * jnp.exp(gamma * log(-z)) * log(z)
    no = -(1 - q) * jnp.exp(gamma * log(z)) * log(-z)
    if alpha is not None:
        _check.fraction("sigmoid_focal", "alpha", alpha)
        alpha = jnp.asarray(alpha, z.dtype)
        yes, no = alpha * yes, (1 - alpha) * no
    return per_example(yes + no)


def binary_hinge(scores: Any, labels: Any, *, margin: ArrayLike = 1.0) -> jax.Array:
    """Computes the mean of the losses of support vector machines of two classes.

        loss = max(0, margin - (2 q - 1) f)

    Args:
        scores: f, (batch, ...), floating; > 0 says 1.
        labels: q, of the same shape: bools, or 0 and 1; the loss of what is outside [0, 1] is NaN.
            For labels y of -1 and 1 give y > 0.
        margin: > 0.

    Returns:
        The mean over all axes but the first, (batch,), in the dtype of the scores, at least
        float32.

    Raises:
        TypeError: If scores are not floating or labels not real.
        ConfigError: If the shapes differ or margin is not positive.

    Example:
        >>> binary_hinge(jnp.array([0.25, 0.25]), jnp.array([True, False]))
        Array([0.75, 1.25], dtype=float32)
    """
    _check.positive("binary_hinge", "margin", margin)
    f, q = binary("binary_hinge", "scores", scores, labels)
    return per_example(jax.nn.relu(jnp.asarray(margin, f.dtype) - (2 * q - 1) * f))


def _log_softmax(where, logits, labels):
    """Returns log p, the labels as an array, and their kind."""
    z, q = floating(where, "logits", logits), widened(_check.array(where, "labels", labels))
    kind = check_labels(where, z, q)
    z = z - jax.lax.stop_gradient(z.max(-1, keepdims=True))
    return z - jnp.log(jnp.exp(z).sum(-1, keepdims=True)), q, kind


def _expected(x, q, kind, f=lambda x: x):
    """Returns sum_k q_k f(x_k)."""
    return f(at_class(x, q)) if kind == "classes" else (q.astype(x.dtype) * f(x)).sum(-1)
