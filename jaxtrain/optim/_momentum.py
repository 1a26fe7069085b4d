"""Gradient descent, with momentum in its three forms and Nesterov's in its two."""

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
    move,
    one_minus_power,
    scale_by_learning_rate,
    scaled,
    zeros,
)


def sgd(learning_rate: Schedule | ArrayLike) -> optax.GradientTransformation:
    """Makes gradient descent: `w = w - learning_rate * g`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array.

    Returns:
      The optimizer.

    Example:
      >>> tx = sgd(0.1)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> optax.apply_updates(jnp.zeros(2), updates).round(3).tolist()
      [-0.1..., -0.1...]

    References:
      Robbins and Monro, A Stochastic Approximation Method, 1951.
    """
    return scale_by_learning_rate(learning_rate)


class MomentumState(NamedTuple):
    """The number of updates, the buffer, and `lead`, which takes it to Nesterov's distance."""

    count: jax.Array  # type: ignore[assignment]
    lead: jax.Array
    buffer: optax.Updates


class LookaheadState(MomentumState):
    """The momentum of params whose gradient belongs a step further on."""

    def grad_params(self, params):
        """Gives the look-ahead point, `w + lead * buffer`."""
        return move(params, self.lead, self.buffer)


class ShiftedState(MomentumState):
    """The momentum of params that are themselves the look-ahead point."""

    def eval_params(self, params):
        """Gives Nesterov's iterate, `w - lead * buffer`."""
        return move(params, -self.lead, self.buffer)


_STATES = {False: MomentumState, "lookahead": LookaheadState, "shifted": ShiftedState}


def scale_by_momentum(
    *,
    momentum: ArrayLike = 0.9,
    form: str = "accumulator",
    nesterov: bool | str = False,
    dampening: ArrayLike = 0.0,
    debias: bool = False,
) -> optax.GradientTransformation:
    """Replaces gradients g by a decaying sum or mean b of them.

    With mu = `momentum`, b_0 = 0 and t from 1:

    - "accumulator": `b = mu * b + (1 - dampening) * g`, the first gradient undamped;
    - "ema": `b = mu * b + (1 - mu) * g`, divided by `1 - mu**t` on the way out if `debias`;
    - `nesterov="shifted"` returns `mu * b + g` (for "ema" `mu * b + (1 - mu) * g`);
    - `nesterov="lookahead"` returns b, for gradients taken at `optim.grad_params(params, state)`.

    Nesterov's distance is `mu * b` where the learning rate was applied before, as in
    `optax.chain(scale_by_learning_rate(0.1), scale_by_momentum(nesterov="lookahead"))`.

    Args:
      momentum: mu, the weight of the past, in [0, 1).
      form: "accumulator" or "ema".
      nesterov: False, "shifted" or "lookahead".
      dampening: in [0, 1), for "accumulator" without Nesterov.
      debias: divides out the weight of the initial zero, for "ema" without Nesterov.

    Returns:
      The transformation; its updates have the gradients' dtype, its buffer at least float32.

    Raises:
      ConfigError: an argument is out of range or without meaning beside the others.

    Example:
      >>> tx = scale_by_momentum(momentum=0.5)
      >>> _, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> tx.update(jnp.ones(2), state)[0].tolist()
      [1.5, 1.5]

    References:
      Polyak, Some Methods of Speeding Up the Convergence of Iteration Methods, 1964.
      Nesterov, A Method of Solving a Convex Programming Problem with Convergence Rate
      O(1/k^2), 1983. Sutskever, Martens, Dahl and Hinton, On the Importance of Initialization
      and Momentum in Deep Learning, 2013.
    """
    where = "scale_by_momentum"
    _check.fraction(where, "momentum", momentum)
    _check.choice(where, "form", form, ("accumulator", "ema"))
    _check.choice(where, "nesterov", nesterov, _STATES)
    _check.fraction(where, "dampening", dampening)
    _check.choice(where, "debias", debias, (False, True))
    if form == "ema" or nesterov:
        if not isinstance(dampening, jax.core.Tracer) and dampening != 0:
            _check.fail(where, "dampening", "0 with form='ema' and with nesterov", dampening)
    if debias and (form != "ema" or nesterov):
        _check.fail(where, "debias", "False but for form='ema' without nesterov", debias)

    def init(params):
        return _STATES[nesterov](jnp.zeros((), jnp.int32), as_float(0), zeros(params))

    def update(updates, state, params=None):
        count = optax.safe_increment(state.count)
        damped = 1 - (momentum if form == "ema" else dampening)
        gain = jnp.where(state.count == 0, 1.0, damped) if form == "accumulator" else damped
        buffer = linear(momentum, state.buffer, gain, updates)
        state = type(state)(count, as_float(momentum), buffer)
        if nesterov == "shifted":
            return linear(gain, updates, momentum, buffer), state
        sum_of_weights = one_minus_power(momentum, count) if debias else 1
        return scaled(1 / sum_of_weights, buffer, updates), state

    return optax.GradientTransformation(init, update)


def momentum(
    learning_rate: Schedule | ArrayLike,
    *,
    momentum: ArrayLike = 0.9,
    form: str = "accumulator",
    nesterov: bool | str = False,
    dampening: ArrayLike = 0.0,
    debias: bool = False,
) -> optax.GradientTransformation:
    """Makes gradient descent with momentum.

    With the buffer b of `scale_by_momentum` and the rate lr, which may change:

    - "accumulator": `w = w - lr * b`; a new rate acts at once on the whole buffer;
    - "velocity": `v = mu * v - lr * g; w = w + v`; a new rate acts on new gradients only;
    - "ema": `w = w - lr * b`, b a mean: the same steps as "accumulator" at `lr / (1 - mu)`.

    At a constant rate the first two give the same params. Nesterov's methods look ahead by
    mu times the last step: with "lookahead" differentiate at `optim.grad_params(params, state)`;
    with "shifted" params are the points looked ahead to, and `optim.eval_params(params, state)`
    gives the iterates. In the velocity form both make exactly the same iterates at any rates.

    Args:
      learning_rate: lr, a number > 0, a schedule, or a traced array.
      momentum, nesterov, dampening, debias: as in `scale_by_momentum`.
      form: "accumulator", "velocity" or "ema".

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range or without meaning beside the others.

    Example:
      >>> tx = momentum(0.5, momentum=0.5)
      >>> _, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> tx.update(jnp.ones(2), state)[0].tolist()
      [-0.75, -0.75]
    """
    _check.choice("momentum", "form", form, ("accumulator", "velocity", "ema"))
    rate = scale_by_learning_rate(learning_rate)
    scale = scale_by_momentum(
        momentum=momentum,
        form="ema" if form == "ema" else "accumulator",
        nesterov=nesterov,
        dampening=dampening,
        debias=debias,
    )
    if form == "velocity":
        return optax.chain(rate, scale)
    outside = optax.chain(scale, rate)

    def update(updates, state, params=None):
        updates, (scale_state, rate_state) = outside.update(updates, state, params)
        # The rate stands outside the buffer, so the way from buffer to step must be told it.
        lead = -rate_state.learning_rate * scale_state.lead
        return updates, (scale_state._replace(lead=lead), rate_state)

    return optax.GradientTransformation(outside.init, update)
