"""Adam, AMSGrad and AdamW."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule
from jaxtrain.tree import Rule

from . import _decay
from ._base import (
    as_float,
    linear,
    one_minus_power,
    over_root,
    scale_by_learning_rate,
    scaled,
    square,
    zeros,
)


class AdamState(NamedTuple):
    """The number of updates, both moments, and AMSGrad's largest second moment (else None)."""

    count: jax.Array  # type: ignore[assignment]
    m: optax.Updates
    v: optax.Updates
    v_max: optax.Updates | None


def scale_by_adam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    bias_correction: bool = True,
    eps_mode: str = "outside",
    amsgrad: str | None = None,
) -> optax.GradientTransformation:
    """Divides a mean of the gradients g by the root of a mean of their squares.

    With m_0 = v_0 = 0 and t from 1::

        m = b1 * m + (1 - b1) * g        m_hat = m / (1 - b1**t)
        v = b2 * v + (1 - b2) * g**2     v_hat = v / (1 - b2**t)
        update = m_hat / (sqrt(v_hat) + eps)

    `eps_mode="inside"` divides by `sqrt(v_hat + eps)`, "uncorrected" by
    `(sqrt(v) + eps) / sqrt(1 - b2**t)`, the "epsilon hat" of the paper's section 2.
    `bias_correction=False` takes m and v for m_hat and v_hat: a start whose
    first update is `(1 - b1) / sqrt(1 - b2)` times the corrected one.

    AMSGrad never lets the denominator fall: `amsgrad="biased"` takes the largest v so far and
    corrects that, "corrected" takes the largest v_hat, "uncorrected" is its paper's algorithm,
    the largest v without any bias correction.

    Args:
      b1: the weight of the past in m, in [0, 1).
      b2: the weight of the past in v, in [0, 1).
      eps: >= 0, bounds the update where gradients vanish.
      bias_correction: whether to divide out the weight of the initial zeros.
      eps_mode: "outside", "inside" or "uncorrected".
      amsgrad: None, "biased", "corrected" or "uncorrected".

    Returns:
      The transformation; its updates have the gradients' dtype, its moments at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = scale_by_adam()
      >>> g = jnp.array([3.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.0, -1.0]

    References:
      Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015.
      Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018.
    """
    where = "scale_by_adam"
    _check.fraction(where, "b1", b1)
    _check.fraction(where, "b2", b2)
    _check.nonnegative(where, "eps", eps)
    _check.choice(where, "bias_correction", bias_correction, (False, True))
    _check.choice(where, "eps_mode", eps_mode, ("outside", "inside", "uncorrected"))
    _check.choice(where, "amsgrad", amsgrad, (None, "biased", "corrected", "uncorrected"))
    corrected = bias_correction and amsgrad != "uncorrected"

    def init(params):
        v_max = zeros(params) if amsgrad else None
        return AdamState(jnp.zeros((), jnp.int32), zeros(params), zeros(params), v_max)

    def update(updates, state, params=None):
        t = optax.safe_increment(state.count)
        c1, c2 = (one_minus_power(b, t) if corrected else as_float(1) for b in (b1, b2))
        m = linear(b1, state.m, 1 - b1, updates)
        v = linear(b2, state.v, 1 - b2, square(updates))
        v_max, v_hat = None, scaled(1 / c2, v, v)
        if amsgrad == "corrected":
            v_max = v_hat = jax.tree.map(jnp.maximum, state.v_max, v_hat)
        elif amsgrad:
            v_max = jax.tree.map(jnp.maximum, state.v_max, v)
            v_hat = scaled(1 / c2, v_max, v_max)
        # (sqrt(v) + eps) / sqrt(c2) = sqrt(v_hat) + eps / sqrt(c2)
        eps_hat = as_float(eps) / (jnp.sqrt(c2) if eps_mode == "uncorrected" else 1)

        inside = eps_mode == "inside"
        updates = over_root(scaled(1 / c1, m, m), v_hat, eps_hat, updates, eps_in_sqrt=inside)
        return updates, AdamState(t, m, v, v_max)

    return optax.GradientTransformation(init, update)


def adam(
    learning_rate: Schedule | ArrayLike,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    bias_correction: bool = True,
    eps_mode: str = "outside",
    amsgrad: str | None = None,
) -> optax.GradientTransformation:
    """Makes Adam: `w = w - learning_rate * update`, the update that of `scale_by_adam`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1e-3 is the usual start.
      b1, b2, eps, bias_correction, eps_mode, amsgrad: as in `scale_by_adam`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = adam(1e-3)
      >>> params = {"kernel": jnp.ones(2)}
      >>> updates, state = tx.update({"kernel": jnp.ones(2)}, tx.init(params))
      >>> updates["kernel"].round(6).tolist()
      [-0.001..., -0.001...]
    """
    scale = scale_by_adam(
        b1=b1,
        b2=b2,
        eps=eps,
        bias_correction=bias_correction,
        eps_mode=eps_mode,
        amsgrad=amsgrad,
    )
    return optax.chain(scale, scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: Schedule | ArrayLike,
    *,
    weight_decay: Schedule | ArrayLike = 1e-2,
    rule: Rule | None = None,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    bias_correction: bool = True,
    eps_mode: str = "outside",
    amsgrad: str | None = None,
) -> optax.GradientTransformation:
    """Makes Adam with decoupled decay: `w = w - learning_rate * (update + weight_decay * w)`.

    The decay meets no moment: it shrinks all params alike, however large their gradients.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1e-3 is the usual start.
      weight_decay: >= 0, a number, a schedule, or a traced array.
      rule: which params decay, as in `optim.weight_decay`: None means kernels, "*" all.
      b1, b2, eps, bias_correction, eps_mode, amsgrad: as in `scale_by_adam`, whose update this is.

    Returns:
      The optimizer; its update needs the params.

    Raises:
      ConfigError: an argument is out of range or, from init, the rule chooses nothing.

    Example:
      >>> tx = adamw(0.1, weight_decay=0.5)
      >>> params = {"kernel": jnp.array(2.0), "bias": jnp.array(2.0)}
      >>> grads = {"kernel": jnp.array(1.0), "bias": jnp.array(1.0)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> {name: round(float(u), 4) for name, u in updates.items()}
      {'bias': -0.1, 'kernel': -0.2}

    References:
      Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019: there the decay is
      multiplied by the schedule of the rate, not by the rate itself.
    """
    scale = scale_by_adam(
        b1=b1,
        b2=b2,
        eps=eps,
        bias_correction=bias_correction,
        eps_mode=eps_mode,
        amsgrad=amsgrad,
    )
    if not callable(weight_decay):
        _check.nonnegative("adamw", "weight_decay", weight_decay)
    decay = _decay.weight_decay(weight_decay, rule=rule)
    return optax.chain(scale, decay, scale_by_learning_rate(learning_rate))
