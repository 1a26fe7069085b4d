"""RMSProp, its centered form, and its momenta."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule

from . import _momentum
from ._base import (
    filled,
    linear,
    one_minus_power,
    over_root,
    scale_by_learning_rate,
    scaled,
    square,
    zeros,
)


class RMSPropState(NamedTuple):
    """The number of updates, and r; with `centered` also the mean of gradients (else None)."""

    count: jax.Array  # type: ignore[assignment]
    r: optax.Updates
    mean: optax.Updates | None


def scale_by_rmsprop(
    *,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    eps_in_sqrt: bool = False,
    initial_scale: ArrayLike = 0.0,
    centered: bool = False,
    bias_correction: bool = False,
) -> optax.GradientTransformation:
    """Divides gradients g by the root of a mean r of their squares.

    From r = `initial_scale` on::

        r = decay * r + (1 - decay) * g**2
        update = g / (sqrt(r) + eps)

    `eps_in_sqrt=True` divides by `sqrt(r + eps)`. `centered=True` takes for r the variance, the
    mean of squares less the square of the mean. `bias_correction=True` divides r by
    `1 - decay**t`, t from 1; without it the first update is `1 / sqrt(1 - decay)` times as long.

    Args:
      decay: the weight of the past, in [0, 1).
      eps: >= 0, bounds the update where gradients vanish.
      eps_in_sqrt: whether eps stands inside the root.
      initial_scale: r before the first update, >= 0.
      centered: whether to divide by the standard deviation; not with `bias_correction`, because a
        single gradient has none.
      bias_correction: whether to divide out the weight of the initial zeros.

    Returns:
      The transformation; its updates have the gradients' dtype, its means at least float32.

    Raises:
      ConfigError: an argument is out of range or without meaning beside the others.

    Example:
      >>> tx = scale_by_rmsprop()
      >>> g = jnp.array([3.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [3.162..., -3.162...]

    References:
      Tieleman and Hinton, Neural Networks for Machine Learning, Lecture 6.5: RMSProp, 2012.
      Graves, Generating Sequences with Recurrent Neural Networks, 2013: the centered form.
    """
    where = "scale_by_rmsprop"
    _check.fraction(where, "decay", decay)
    _check.nonnegative(where, "eps", eps)
    _check.choice(where, "eps_in_sqrt", eps_in_sqrt, (False, True))
    _check.nonnegative(where, "initial_scale", initial_scale)
    _check.choice(where, "centered", centered, (False, True))
    _check.choice(where, "bias_correction", bias_correction, (False, True))
    if centered and bias_correction:
        _check.fail(where, "bias_correction", "False with centered", bias_correction)

    def init(params):
        mean = zeros(params) if centered else None
        return RMSPropState(jnp.zeros((), jnp.int32), filled(params, initial_scale), mean)

    def update(updates, state, params=None):
        count = optax.safe_increment(state.count)
        mean = None
        if centered:
            # The same as the mean of squares less mean**2, but never below 0 by rounding.
            deviation = linear(-1, state.mean, 1, updates)
            r = linear(decay, state.r, decay * (1 - decay), square(deviation))
            mean = linear(decay, state.mean, 1 - decay, updates)
        else:
            r = linear(decay, state.r, 1 - decay, square(updates))
        r_hat = scaled(1 / one_minus_power(decay, count), r, r) if bias_correction else r
        updates = over_root(updates, r_hat, eps, updates, eps_in_sqrt=eps_in_sqrt)
        return updates, RMSPropState(count, r, mean)

    return optax.GradientTransformation(init, update)


def rmsprop(
    learning_rate: Schedule | ArrayLike,
    *,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    eps_in_sqrt: bool = False,
    initial_scale: ArrayLike = 0.0,
    centered: bool = False,
    bias_correction: bool = False,
    momentum: ArrayLike | None = None,
    form: str = "accumulator",
    nesterov: bool | str = False,
) -> optax.GradientTransformation:
    """Makes RMSProp: `w = w - learning_rate * update`, the update that of `scale_by_rmsprop`.

    With momentum the updates take the place of the gradients in `optim.momentum`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1e-3 is the usual start.
      decay, eps, eps_in_sqrt, initial_scale, centered, bias_correction: as in `scale_by_rmsprop`.
      momentum: None keeps no buffer; else the weight of the past, in [0, 1).
      form, nesterov: as in `optim.momentum`; the rate stands outside the buffer for
        "accumulator", inside for "velocity".

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range or without meaning beside the others.

    Example:
      >>> tx = rmsprop(0.1, decay=0.75)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> updates.round(6).tolist()
      [-0.2..., -0.2...]
    """
    scale = scale_by_rmsprop(
        decay=decay,
        eps=eps,
        eps_in_sqrt=eps_in_sqrt,
        initial_scale=initial_scale,
        centered=centered,
        bias_correction=bias_correction,
    )
    if momentum is None:
        if nesterov or form != "accumulator":
            _check.fail("rmsprop", "momentum", "a number where form or nesterov is given", momentum)
        return optax.chain(scale, scale_by_learning_rate(learning_rate))
    return optax.chain(
        scale,
        _momentum.momentum(learning_rate, momentum=momentum, form=form, nesterov=nesterov),
    )


def rmsprop_nesterov(
    learning_rate: Schedule | ArrayLike,
    *,
    decay: ArrayLike = 0.9,
    momentum: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    eps_in_sqrt: bool = False,
) -> optax.GradientTransformation:
    """Makes RMSProp with Nesterov's momentum, `rmsprop` with the gradient at the point ahead.

    With alpha = `momentum` and lr = `learning_rate`, of which v remembers the past values::

        g = gradient at w + alpha * v, which is optim.grad_params(w, state)
        v = alpha * v - lr * update(g)
        w = w + v

    Args:
      learning_rate: a number > 0, a schedule, or a traced array.
      decay, eps, eps_in_sqrt: as in `scale_by_rmsprop`, whose update this is. The book has no eps
        in this algorithm, and 0 / 0 where the first gradient is 0.
      momentum: alpha, the weight of the past, in [0, 1).

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> from jaxtrain import optim
      >>> tx = rmsprop_nesterov(0.1, decay=0.75)
      >>> w = jnp.ones(2)
      >>> updates, state = tx.update(w, tx.init(w))
      >>> optim.grad_params(w + updates, state).round(4).tolist()
      [0.62..., 0.62...]

    References:
      Goodfellow, Bengio and Courville, Deep Learning, 2016, Algorithm 8.6.
    """
    return rmsprop(
        learning_rate,
        decay=decay,
        eps=eps,
        eps_in_sqrt=eps_in_sqrt,
        momentum=momentum,
        form="velocity",
        nesterov="lookahead",
    )
