"""Losses for numbers: the mean over the outputs of a function of the error y - v."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check

from ._labels import floating, per_example, real


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
        TypeError: If the outputs are not floating or the targets not real.
        ConfigError: If the shapes differ: (n, 1) and (n,) would broadcast to (n, n).

    Example:
        >>> squared_error(jnp.array([[1.0, 2.0], [3.0, 3.0]]), jnp.array([[1.0, 0.0], [0.0, 0.0]]))
        Array([2., 9.], dtype=float32)
    """
    return per_example(_error("squared_error", outputs, targets) ** 2)


def absolute_error(outputs: Any, targets: Any) -> jax.Array:
    """Computes the mean of |y - v| over all axes but the first; its derivative at 0 is 0.

    Args:
        outputs: As for `squared_error`.
        targets: As for `squared_error`.

    Returns:
        The error of each example, (batch,), in the dtype of the outputs, at least float32.

    Raises:
        TypeError: If the outputs are not floating or the targets not real.
        ConfigError: If the shapes differ.

    Example:
        >>> absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]]))
        Array([1.], dtype=float32)
    """
    return per_example(absolute(_error("absolute_error", outputs, targets)))


def huber(outputs: Any, targets: Any, *, delta: ArrayLike = 1.0) -> jax.Array:
    """Computes a squared error that goes on as a straight line: outliers pull with limited force.

    With e = y - v and c = min(max(e, -delta), delta), the mean over all axes but the first of::

        c (e - c / 2) = e^2 / 2 for |e| <= delta, else delta (|e| - delta / 2)

    c is its derivative.

    Args:
        outputs: As for `squared_error`.
        targets: As for `squared_error`.
        delta: The error from which on it is straight, > 0, in the unit of the targets.

    Returns:
        The error of each example, (batch,), in the dtype of the outputs, at least float32.

    Raises:
        TypeError: If the outputs are not floating or the targets not real.
        ConfigError: If the shapes differ or delta is not positive.

    Example:
        >>> huber(jnp.array([1.0, 10.0]), jnp.zeros(2), delta=2.0)
        Array([ 0.5, 18. ], dtype=float32)

    References:
        P. Huber, Robust Estimation of a Location Parameter, 1964.
    """
    _check.positive("huber", "delta", delta)
    e = _error("huber", outputs, targets)
    delta = jnp.asarray(delta, e.dtype)
    c = jnp.clip(e, -delta, delta)
    return per_example(c * (e - c / 2))


def minkowski(outputs: Any, targets: Any, *, p: ArrayLike = 1.5) -> jax.Array:
    """Computes the mean of |y - v|^p over all axes but the first; its derivative at 0 is 0.

    p = 2 is `squared_error`, but for its second derivative at 0, which is 0 here, p = 1
    `absolute_error`; between them outliers count for less than in the former, and the derivative is
    still continuous.

    Args:
        outputs: As for `squared_error`.
        targets: As for `squared_error`.
        p: The exponent, >= 1.

    Returns:
        The error of each example, (batch,), in the dtype of the outputs, at least float32.

    Raises:
        TypeError: If the outputs are not floating or the targets not real.
        ConfigError: If the shapes differ or p < 1.

    Example:
        >>> minkowski(jnp.array([[4.0, 0.0]]), jnp.zeros((1, 2)))
        Array([4.], dtype=float32)

    References:
        C. Bishop, Neural Networks for Pattern Recognition, 1995, section 6.3.
    """
    _check.at_least("minkowski", "p", p, 1)
    e = _error("minkowski", outputs, targets)
    return per_example(absolute(e) ** jnp.asarray(p, e.dtype))


def absolute(x: jax.Array) -> jax.Array:
    """Returns |x| with the derivative 0 at 0, where that of `jnp.abs` is 1."""
    return x * jnp.sign(x)


def _error(where, outputs, targets):
    y, v = floating(where, "outputs", outputs), real(where, "targets", targets)
    if y.shape != v.shape or y.ndim == 0:
        rule = f"of the shape of the outputs, {y.shape}, with an axis for the batch"
        _check.fail(where, "targets", rule, v.shape)
    return y - v.astype(y.dtype)
