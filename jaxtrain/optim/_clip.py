"""Gradient clipping: by the norm of everything, of each parameter or unit, and by value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check, tree

from ._base import as_float, ratio, require_params


def _clipped(g: Any, max_norm: ArrayLike, eps: ArrayLike = 0.0) -> Any:
    """Computes `g * min(1, max_norm / (norm + eps))` with the norm of all of g."""
    # norm = s * n may overflow and max_norm / norm underflow; g / s and n are near 1.
    s, n = tree.scaled_norm(g)
    small = s * n + as_float(eps) <= as_float(max_norm)
    factor = ratio(as_float(max_norm), n + as_float(eps) / s)

    def leaf(x):
        x_ = as_float(x)
        return jnp.where(small, x_, x_ / s * factor).astype(jnp.result_type(x))

    return jax.tree.map(leaf, g)


def clip_by_global_norm(
    max_norm: ArrayLike, *, eps: ArrayLike = 0.0
) -> optax.GradientTransformation:
    """Shortens the gradient, all leaves as one vector, to a norm; its direction stays.

    `g * min(1, max_norm / (|g| + eps))`, right also where |g| itself overflows.
    An update with a NaN or an infinity keeps none of its finite values: see `guard`.

    Args:
      max_norm: the largest norm, > 0.
      eps: >= 0, added to the norm; 1e-6 is torch's.

    Returns:
      The transformation, without state.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = clip_by_global_norm(1.0)
      >>> tx.update({"kernel": jnp.array([3.0]), "bias": jnp.array(4.0)}, tx.init({}))[0]
      {'bias': Array(0.8, dtype=float32), 'kernel': Array([0.6], dtype=float32)}

    References:
      Pascanu, Mikolov and Bengio, On the Difficulty of Training Recurrent Neural Networks, 2013.
    """
    _check.positive("clip_by_global_norm", "max_norm", max_norm)
    _check.nonnegative("clip_by_global_norm", "eps", eps)
    return optax.stateless(lambda updates, params: _clipped(updates, max_norm, eps))


def clip_per_parameter(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Shortens the gradient of each leaf to a norm; the direction of the whole may change.

    Args:
      max_norm: the largest norm of a leaf, > 0.

    Returns:
      The transformation, without state.

    Raises:
      ConfigError: max_norm is out of range.

    Example:
      >>> tx = clip_per_parameter(1.0)
      >>> tx.update({"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array(0.5)}, tx.init({}))[0]
      {'bias': Array(0.5, dtype=float32), 'kernel': Array([0.6, 0.8], dtype=float32)}
    """
    _check.positive("clip_per_parameter", "max_norm", max_norm)
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda g: _clipped(g, max_norm), updates)
    )


def clip_by_value(limit: ArrayLike) -> optax.GradientTransformation:
    """Clips every element of the gradient to [-limit, limit]; its direction may change.

    An infinity becomes the limit, a NaN stays.

    Args:
      limit: > 0.

    Returns:
      The transformation, without state.

    Raises:
      ConfigError: limit is out of range.

    Example:
      >>> tx = clip_by_value(1.0)
      >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0].tolist()
      [-1.0, 0.5]
    """
    _check.positive("clip_by_value", "limit", limit)

    def clip(g):
        bound = jnp.asarray(limit, jnp.result_type(g))
        return jnp.clip(g, -bound, bound)

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def clip_adaptive(clipping: ArrayLike, *, eps: ArrayLike = 1e-3) -> optax.GradientTransformation:
    """Shortens the gradient of each unit to a multiple of the norm of the unit's own weights.

    The unit i of a kernel W is what leads to one output, `W[..., i]`: the last axis of dense
    kernels (input, output) and of kernels of convolutions (height, width, input, output). Leaves
    of fewer axes, such as biases, are one unit each. With G the gradient of W::

        G_i = G_i * min(1, clipping * max(|W_i|, eps) / |G_i|)

    Args:
      clipping: > 0; the paper takes 0.01 for batches of 4096, more for smaller ones.
      eps: >= 0, lets weights of zero leave it.

    Returns:
      The transformation, without state.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = clip_adaptive(0.5)
      >>> params = {"kernel": jnp.array([[3.0, 30.0], [4.0, 40.0]])}
      >>> grads = {"kernel": jnp.array([[0.0, 0.0], [5.0, 5.0]])}
      >>> tx.update(grads, tx.init(params), params)[0]["kernel"].tolist()
      [[0.0, 0.0], [2.5, 5.0]]

    References:
      Brock, De, Smith and Simonyan, High-Performance Large-Scale Image Recognition Without
      Normalization, 2021: there the last layer is left out; use `optax.masked` for that.
    """
    _check.positive("clip_adaptive", "clipping", clipping)
    _check.nonnegative("clip_adaptive", "eps", eps)

    def unit(g, w):
        return _clipped(g, as_float(clipping) * jnp.maximum(tree.global_norm(w), as_float(eps)))

    def leaf(g, w):
        return jax.vmap(unit, -1, -1)(g, w) if jnp.ndim(w) > 1 else unit(g, w)

    def clip(updates, params):
        require_params("clip_adaptive", params)
        return jax.tree.map(leaf, updates, params)

    return optax.stateless(clip)
