"""AdaGrad and Adadelta."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule

from ._base import (
    as_float,
    as_rate,
    filled,
    linear,
    over_root,
    ratio,
    scale_by_learning_rate,
    scaled,
    square,
    zeros,
)


class AdaGradState(NamedTuple):
    """The sum of all squared gradients."""

    r: optax.Updates


def scale_by_adagrad(
    *,
    eps: ArrayLike = 1e-7,
    eps_in_sqrt: bool = False,
    initial_accumulator: ArrayLike = 0.0,
) -> optax.GradientTransformation:
    """Divides gradients g by the root of the sum r of all their squares.

    From r = `initial_accumulator` on::

        r = r + g**2
        update = g / (sqrt(r) + eps)

    `eps_in_sqrt=True` divides by `sqrt(r + eps)`, which tells much more on tiny gradients: the
    first update for g = 10 * eps is 0.91 without it and, at the default eps, 0.0032 with it.

    Args:
      eps: >= 0, bounds the update where gradients vanish.
      eps_in_sqrt: whether eps stands inside the root.
      initial_accumulator: r before the first update, >= 0.

    Returns:
      The transformation; its updates have the gradients' dtype, its sums at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = scale_by_adagrad()
      >>> g = jnp.array([3.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.0, -1.0]

    References:
      Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
      Optimization, 2011.
    """
    where = "scale_by_adagrad"
    _check.nonnegative(where, "eps", eps)
    _check.choice(where, "eps_in_sqrt", eps_in_sqrt, (False, True))
    _check.nonnegative(where, "initial_accumulator", initial_accumulator)

    def init(params):
        return AdaGradState(filled(params, initial_accumulator))

    def update(updates, state, params=None):
        r = linear(1, state.r, 1, square(updates))
        return over_root(updates, r, eps, updates, eps_in_sqrt=eps_in_sqrt), AdaGradState(r)

    return optax.GradientTransformation(init, update)


def adagrad(
    learning_rate: Schedule | ArrayLike,
    *,
    eps: ArrayLike = 1e-7,
    eps_in_sqrt: bool = False,
    initial_accumulator: ArrayLike = 0.0,
    lr_decay: ArrayLike = 0.0,
) -> optax.GradientTransformation:
    """Makes AdaGrad: `w = w - learning_rate * update`, the update that of `scale_by_adagrad`.

    A constant gradient's step falls as 1 / sqrt(t), without any schedule.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1e-2 is the usual start.
      eps, eps_in_sqrt, initial_accumulator: as in `scale_by_adagrad`.
      lr_decay: >= 0; update k, from 0, uses the rate divided by `1 + lr_decay * k`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = adagrad(0.5)
      >>> _, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> tx.update(jnp.ones(2), state)[0].round(4).tolist()
      [-0.353..., -0.353...]
    """
    rate = as_rate("adagrad", learning_rate)
    _check.nonnegative("adagrad", "lr_decay", lr_decay)

    def decayed(count):
        return as_float(rate(count)) / (1 + as_float(lr_decay) * as_float(count))

    scale = scale_by_adagrad(
        eps=eps, eps_in_sqrt=eps_in_sqrt, initial_accumulator=initial_accumulator
    )
    return optax.chain(scale, scale_by_learning_rate(decayed))


class AdadeltaState(NamedTuple):
    """The means of the squared gradients and of the squared updates."""

    r: optax.Updates
    s: optax.Updates


def scale_by_adadelta(
    *, decay: ArrayLike = 0.9, eps: ArrayLike = 1e-6
) -> optax.GradientTransformation:
    """Gives gradients g the size of earlier updates, which have the units of the params.

    From r = s = 0 on::

        r = decay * r + (1 - decay) * g**2
        update = sqrt(s + eps) / sqrt(r + eps) * g
        s = decay * s + (1 - decay) * update**2

    Args:
      decay: the weight of the past, in [0, 1).
      eps: >= 0; the size of the first steps is about its root, so that 0 never moves.

    Returns:
      The transformation; its updates have the gradients' dtype, its means at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = scale_by_adadelta(decay=0.75, eps=1e-4)
      >>> g = jnp.ones(2)
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [0.02..., 0.02...]

    References:
      Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012.
    """
    _check.fraction("scale_by_adadelta", "decay", decay)
    _check.nonnegative("scale_by_adadelta", "eps", eps)

    def init(params):
        return AdadeltaState(zeros(params), zeros(params))

    def leaf(g, r, s):
        e = jnp.asarray(eps, r.dtype)
        return ratio(jnp.sqrt(s + e) * g.astype(r.dtype), jnp.sqrt(r + e))

    def update(updates, state, params=None):
        r = linear(decay, state.r, 1 - decay, square(updates))
        step = jax.tree.map(leaf, updates, r, state.s)
        s = linear(decay, state.s, 1 - decay, square(step))
        return scaled(1, step, updates), AdadeltaState(r, s)

    return optax.GradientTransformation(init, update)


def adadelta(
    learning_rate: Schedule | ArrayLike, *, decay: ArrayLike = 0.9, eps: ArrayLike = 1e-6
) -> optax.GradientTransformation:
    """Makes Adadelta: `w = w - learning_rate * update`, the update that of `scale_by_adadelta`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; the paper has none, that is 1.
      decay, eps: as in `scale_by_adadelta`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = adadelta(1.0, decay=0.75, eps=1e-4)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> updates.round(3).tolist()
      [-0.02..., -0.02...]
    """
    scale = scale_by_adadelta(decay=decay, eps=eps)
    return optax.chain(scale, scale_by_learning_rate(learning_rate))
