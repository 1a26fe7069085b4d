"""Losses: functions of outputs and targets that return one number per example, never reduced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check


def softmax_cross_entropy(logits: Any, labels: Any, *, smoothing: ArrayLike = 0.0) -> jax.Array:
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

    Returns:
        The loss of each example, (...), in the dtype of the logits, at least float32.

    Raises:
        TypeError: If logits are not floating, or labels neither integer nor floating.
        ConfigError: If the shapes do not fit or smoothing is outside [0, 1).

    Example:
        >>> loss = softmax_cross_entropy(jnp.zeros((2, 10)), jnp.array([3, 7]))
        >>> loss.round(4).tolist() == jnp.log(jnp.array([10.0, 10.0])).round(4).tolist()
        True

    References:
        C. Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016
        (label smoothing).
    """
    _check.fraction("softmax_cross_entropy", "smoothing", smoothing)
    z, q = _floating("softmax_cross_entropy", "logits", logits), jnp.asarray(labels)
    kind = check_labels("softmax_cross_entropy", z, q)
    z = z - jax.lax.stop_gradient(z.max(-1, keepdims=True))
    log_p = z - jnp.log(jnp.exp(z).sum(-1, keepdims=True))
    if kind == "classes":
        loss = -at_class(log_p, q)
    else:
        loss = -(q.astype(z.dtype) * log_p).sum(-1)
    if not isinstance(smoothing, jax.Array) and smoothing == 0:
        return loss
    a = jnp.asarray(smoothing, z.dtype)
    return (1 - a) * loss - a * log_p.mean(-1)


def squared_error(outputs: Any, targets: Any) -> jax.Array:
    """Computes the mean of (y - v)^2 over all axes but the first.

    The mean rather than the sum, so that a learning rate need not follow the number of outputs;
    without the factor 1/2.

    Args:
        outputs: y, (batch, ...), floating.
        targets: v, of the same shape, any real type.

    Returns:
        The error of each example, (batch,), in the dtype of the outputs, at least float32.

    Raises:
        TypeError: If the outputs are not floating.
        ConfigError: If the shapes differ: (n, 1) and (n,) would broadcast to (n, n).

    Example:
        >>> squared_error(jnp.array([[1.0, 2.0], [3.0, 3.0]]), jnp.array([[1.0, 0.0], [0.0, 0.0]]))
        Array([2., 9.], dtype=float32)
    """
    y, v = _floating("squared_error", "outputs", outputs), jnp.asarray(targets)
    if y.shape != v.shape or y.ndim == 0:
        rule = f"of the shape of the outputs, {y.shape}, with an axis for the batch"
        _check.fail("squared_error", "targets", rule, v.shape)
    return ((y - v.astype(y.dtype)) ** 2).mean(range(1, y.ndim))


def _floating(where: str, argument: str, x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        _check.fail(where, argument, "floating", str(x.dtype), error=TypeError)
    return x.astype(np.promote_types(x.dtype, np.float32))


def check_labels(where: str, logits: jax.Array, labels: jax.Array) -> str:
    """Returns "classes" for integer labels of shape (...), "probabilities" for floating (..., K).

    The dtype decides and the shape must follow: where the batch has as many examples as there
    are classes, the shape alone would not tell.
    """
    if jnp.issubdtype(labels.dtype, jnp.integer):
        kind, shape = "classes", logits.shape[:-1]
        fix = "give classes, or probabilities as floats"
    elif jnp.issubdtype(labels.dtype, jnp.floating):
        kind, shape = "probabilities", logits.shape
        fix = "give probabilities, or classes as integers"
    else:
        _check.fail(where, "labels", "integer or floating", str(labels.dtype), error=TypeError)
    if logits.ndim == 0 or labels.shape != shape:
        rule = f"of shape {shape} for {labels.dtype} labels and logits {logits.shape}"
        _check.fail(where, "labels", rule, labels.shape, fix)
    return kind


def at_class(x: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns x[..., labels], NaN where a label is outside [0, K)."""
    labels = jnp.where(labels < 0, x.shape[-1], labels)  # -1 would be the last class
    return jnp.take_along_axis(x, labels[..., None], -1, mode="fill", fill_value=jnp.nan)[..., 0]
