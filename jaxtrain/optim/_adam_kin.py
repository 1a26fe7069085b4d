"""Adam's kin: Adamax, NAdam and RAdam."""

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
    linear,
    one_minus_power,
    over_root,
    ratio,
    scale_by_learning_rate,
    scaled,
    square,
    widened,
    zeros,
)


class AdamaxState(NamedTuple):
    """The number of updates, the mean of gradients, and the decaying maximum of their sizes."""

    count: jax.Array  # type: ignore[assignment]
    m: optax.Updates
    u: optax.Updates


def scale_by_adamax(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_in_max: bool = True,
) -> optax.GradientTransformation:
    """Divides a mean of the gradients g by a decaying maximum of their sizes.

    With m_0 = u_0 = 0 and t from 1::

        m = b1 * m + (1 - b1) * g
        u = max(b2 * u, |g| + eps)
        update = m / (1 - b1**t) / u

    `eps_in_max=False` takes `max(b2 * u, |g|)` and divides by `u + eps`. The paper has no eps.

    Args:
      b1: the weight of the past in m, in [0, 1).
      b2: the factor by which the maximum falls, in [0, 1).
      eps: >= 0, bounds the update where gradients vanish.
      eps_in_max: whether eps is added to each gradient's size or to their maximum.

    Returns:
      The transformation; its updates have the gradients' dtype, its state at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = scale_by_adamax()
      >>> g = jnp.array([3.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.0, -1.0]

    References:
      Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, section 7.1.
    """
    where = "scale_by_adamax"
    _check.fraction(where, "b1", b1)
    _check.fraction(where, "b2", b2)
    _check.nonnegative(where, "eps", eps)
    _check.choice(where, "eps_in_max", eps_in_max, (False, True))

    def init(params):
        return AdamaxState(jnp.zeros((), jnp.int32), zeros(params), zeros(params))

    def maximum(u, g):
        b, e = (jnp.asarray(x, u.dtype) for x in (b2, eps if eps_in_max else 0))
        return jnp.maximum(b * u, jnp.abs(g) + e)

    def update(updates, state, params=None):
        t = optax.safe_increment(state.count)
        m = linear(b1, state.m, 1 - b1, updates)
        u = jax.tree.map(maximum, state.u, widened(updates))
        e = as_float(0 if eps_in_max else eps)
        step = jax.tree.map(
            lambda m_hat, u: ratio(m_hat, u + e.astype(u.dtype)),
            scaled(1 / one_minus_power(b1, t), m, m),
            u,
        )
        return scaled(1, step, updates), AdamaxState(t, m, u)

    return optax.GradientTransformation(init, update)


def adamax(
    learning_rate: Schedule | ArrayLike,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_in_max: bool = True,
) -> optax.GradientTransformation:
    """Makes Adamax: `w = w - learning_rate * update`, the update that of `scale_by_adamax`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; the paper starts from 2e-3.
      b1, b2, eps, eps_in_max: as in `scale_by_adamax`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = adamax(2e-3)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> updates.round(6).tolist()
      [-0.002..., -0.002...]
    """
    scale = scale_by_adamax(b1=b1, b2=b2, eps=eps, eps_in_max=eps_in_max)
    return optax.chain(scale, scale_by_learning_rate(learning_rate))


class NAdamState(NamedTuple):
    """The number of updates, the weights' sum c, and both moments."""

    count: jax.Array  # type: ignore[assignment]
    c: jax.Array
    m: optax.Updates
    v: optax.Updates


def scale_by_nadam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike | None = 4e-3,
) -> optax.GradientTransformation:
    """Replaces the mean in `scale_by_adam` by Nesterov's, which is one gradient ahead.

    With m_0 = v_0 = c_0 = 0, t from 1 and the scheduled weight of the past mu::

        mu_t = b1 * (1 - 0.5 * 0.96**(momentum_decay * t))
        c_t = mu_t * c_(t-1) + 1 - mu_t, which is 1 - mu_1 * ... * mu_t
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_bar = mu_(t+1) * m / c_(t+1) + (1 - mu_t) * g / c_t
        update = m_bar / (sqrt(v / (1 - b2**t)) + eps)

    Args:
      b1: the weight of the past in m, in [0, 1).
      b2: the weight of the past in v, in [0, 1).
      eps: >= 0, bounds the update where gradients vanish.
      momentum_decay: >= 0, how fast mu rises from half of b1 to b1; None keeps mu = b1.

    Returns:
      The transformation; its updates have the gradients' dtype, its moments at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = scale_by_nadam(momentum_decay=None)
      >>> g = jnp.array([3.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.474..., -1.474...]

    References:
      Dozat, Incorporating Nesterov Momentum into Adam, 2016.
    """
    where = "scale_by_nadam"
    _check.fraction(where, "b1", b1)
    _check.fraction(where, "b2", b2)
    _check.nonnegative(where, "eps", eps)
    if momentum_decay is not None:
        _check.nonnegative(where, "momentum_decay", momentum_decay)

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return NAdamState(zero, as_float(0), zeros(params), zeros(params))

    def one_minus_mu(t):
        if momentum_decay is None:
            return as_float(1 - b1)
        half = 0.5 * 0.96 ** (as_float(momentum_decay) * as_float(t))
        return as_float(1 - b1) + as_float(b1) * half

    def update(updates, state, params=None):
        t = optax.safe_increment(state.count)
        now, ahead = one_minus_mu(t), one_minus_mu(optax.safe_increment(t))
        c = (1 - now) * as_float(state.c) + now
        c_ahead = (1 - ahead) * c + ahead
        m = linear(b1, state.m, 1 - b1, updates)
        v = linear(b2, state.v, 1 - b2, square(updates))
        m_bar = linear((1 - ahead) / c_ahead, m, now / c, updates)
        v_hat = scaled(1 / one_minus_power(b2, t), v, v)
        return over_root(m_bar, v_hat, eps, updates), NAdamState(t, c, m, v)

    return optax.GradientTransformation(init, update)


def nadam(
    learning_rate: Schedule | ArrayLike,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    momentum_decay: ArrayLike | None = 4e-3,
) -> optax.GradientTransformation:
    """Makes NAdam: `w = w - learning_rate * update`, the update that of `scale_by_nadam`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 2e-3 is the usual start.
      b1, b2, eps, momentum_decay: as in `scale_by_nadam`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = nadam(0.01, momentum_decay=None)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> updates.round(4).tolist()
      [-0.0146..., -0.0146...]
    """
    scale = scale_by_nadam(b1=b1, b2=b2, eps=eps, momentum_decay=momentum_decay)
    return optax.chain(scale, scale_by_learning_rate(learning_rate))


class RAdamState(NamedTuple):
    """The number of updates, the length rho of the mean that v is, and both moments."""

    count: jax.Array  # type: ignore[assignment]
    rho: jax.Array
    m: optax.Updates
    v: optax.Updates


def scale_by_radam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_mode: str = "uncorrected",
    threshold: ArrayLike = 5.0,
) -> optax.GradientTransformation:
    """Rectifies the variance that `scale_by_adam` has in its first updates.

    With m_hat and v_hat of `scale_by_adam`, t from 1 and rho_inf = 2 / (1 - b2) - 1::

        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        update = r * m_hat / (sqrt(v_hat) + eps) where rho > threshold, else m_hat

    Args:
      b1: the weight of the past in m, in [0, 1).
      b2: the weight of the past in v, in [0, 1).
      eps: >= 0, bounds the update where gradients vanish.
      eps_mode: "outside" as above, or "uncorrected", as in `scale_by_adam`.
      threshold: >= 4; the paper's is 4, its authors' code has 5.

    Returns:
      The transformation; its updates have the gradients' dtype, its moments at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = scale_by_radam()
      >>> g = jnp.array([3.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [3.0..., -0.001...]

    References:
      Liu, Jiang, He, Chen, Liu, Gao and Han, On the Variance of the Adaptive Learning Rate and
      Beyond, 2020.
    """
    where = "scale_by_radam"
    _check.fraction(where, "b1", b1)
    _check.fraction(where, "b2", b2)
    _check.nonnegative(where, "eps", eps)
    _check.choice(where, "eps_mode", eps_mode, ("outside", "uncorrected"))
    _check.at_least(where, "threshold", threshold, 4)

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return RAdamState(zero, as_float(1), zeros(params), zeros(params))

    def update(updates, state, params=None):
        t = optax.safe_increment(state.count)
        c1, c2 = one_minus_power(b1, t), one_minus_power(b2, t)
        # The same rho: as a difference from rho_inf its first values would lose three digits.
        rho = 1 + (as_float(state.rho) + 1) * (1 - as_float(1 - b2) / c2)
        rho_inf = 2 / as_float(1 - b2) - 1
        m = linear(b1, state.m, 1 - b1, updates)
        v = linear(b2, state.v, 1 - b2, square(updates))
        r = jnp.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        eps_hat = as_float(eps) / (jnp.sqrt(c2) if eps_mode == "uncorrected" else 1)
        updates = jax.tree.map(
            lambda adapted, plain: jnp.where(rho > as_float(threshold), adapted, plain),
            over_root(scaled(r / c1, m, m), scaled(1 / c2, v, v), eps_hat, updates),
            scaled(1 / c1, m, updates),
        )
        return updates, RAdamState(t, rho, m, v)

    return optax.GradientTransformation(init, update)


def radam(
    learning_rate: Schedule | ArrayLike,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_mode: str = "uncorrected",
    threshold: ArrayLike = 5.0,
) -> optax.GradientTransformation:
    """Makes RAdam: `w = w - learning_rate * update`, the update that of `scale_by_radam`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1e-3 is the usual start.
      b1, b2, eps, eps_mode, threshold: as in `scale_by_radam`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = radam(1e-3)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> updates.round(6).tolist()
      [-0.001..., -0.001...]
    """
    scale = scale_by_radam(b1=b1, b2=b2, eps=eps, eps_mode=eps_mode, threshold=threshold)
    return optax.chain(scale, scale_by_learning_rate(learning_rate))
