"""Rprop, in its four variants."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check

from ._base import accumulator, as_float, filled


class RpropState(NamedTuple):
    """The first step size, all steps with the sign last compared, where it is void, the last loss.

    A sign is void at first, after a zero gradient and, but for "rprop-", where it has turned. The
    loss is kept for "irprop+" only.
    """

    learning_rate: jax.Array
    steps: optax.Updates
    free: optax.Updates
    value: jax.Array | None


def scale_by_rprop(
    *,
    first_step: ArrayLike = 0.1,
    variant: str = "rprop-",
    eta_minus: ArrayLike = 0.5,
    eta_plus: ArrayLike = 1.2,
    min_step: ArrayLike = 1e-6,
    max_step: ArrayLike = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """Replaces gradients g by their signs times step sizes d, one for every number in the params.

    With d_0 = `first_step` and the sign s of the gradient before (at first 0)::

        d = d * (eta_plus if sign(g) * s > 0 else eta_minus if sign(g) * s < 0 else 1)
        d = min(max(d, min_step), max_step)
        s = sign(g)
        update = s * d

    The variants differ where the sign has turned. "rprop-" is the above. The others then set
    s = 0, so that the next update changes no step size, and

    - "irprop-" does not move;
    - "rprop+" takes back the update before;
    - "irprop+" takes it back only if the loss has risen.

    For "irprop+" `update` wants the loss at the params: `tx.update(grads, state, value=loss)`.
    Signs of a few examples' gradients do not average out: use it with whole-batch gradients.

    Args:
      first_step: d_0, > 0.
      variant: "rprop-", "rprop+", "irprop-" or "irprop+".
      eta_minus: the factor where the sign has turned, in [0, 1).
      eta_plus: the factor where it has not, >= 1; not 1 / eta_minus, which goes in circles.
      min_step: the smallest step, >= 0.
      max_step: the largest step, > 0.

    Returns:
      The transformation; its updates have the gradients' dtype, its steps at least float32.

    Raises:
      ConfigError: an argument is out of range; from update: "irprop+" was given no loss.

    Example:
      >>> tx = scale_by_rprop()
      >>> updates, state = tx.update(jnp.array([3.0, -1.0]), tx.init(jnp.zeros(2)))
      >>> tx.update(jnp.array([3.0, 1.0]), state)[0].round(3).tolist()
      [0.12..., 0.05...]

    References:
      Riedmiller and Braun, A Direct Adaptive Method for Faster Backpropagation Learning: The
      RPROP Algorithm, 1993. Igel and Huesken, Empirical Evaluation of the Improved Rprop Learning
      Algorithms, 2003.
    """
    where = "scale_by_rprop"
    _check.positive(where, "first_step", first_step)
    _check.choice(where, "variant", variant, ("rprop-", "rprop+", "irprop-", "irprop+"))
    _check.fraction(where, "eta_minus", eta_minus)
    _check.at_least(where, "eta_plus", eta_plus, 1)
    _check.nonnegative(where, "min_step", min_step)
    _check.positive(where, "max_step", max_step)
    _check.at_most(where, "min_step", min_step, "max_step", max_step)

    def init(params):
        return RpropState(
            as_float(first_step),
            filled(params, first_step),
            jax.tree.map(lambda p: jnp.ones_like(p, bool), params),
            as_float(jnp.inf) if variant == "irprop+" else None,
        )

    def update(updates, state, params=None, *, value=None, **extra):
        if variant == "irprop+" and value is None:
            fix = "call update(grads, state, params, value=loss)"
            _check.fail(where, "value", "the loss, for variant='irprop+'", value, fix)

        value = as_float(value) if variant == "irprop+" else None
        back = value > state.value if variant == "irprop+" else variant == "rprop+"

        def sign(g):
            return jnp.sign(g).astype(accumulator(g))

        def resize(g, x, free):
            plus, minus, one, low, high = (
                jnp.asarray(c, x.dtype) for c in (eta_plus, eta_minus, 1, min_step, max_step)
            )
            turn = jnp.where(free, 0, sign(g) * x)
            eta = jnp.where(turn > 0, plus, jnp.where(turn < 0, minus, one))
            d = jnp.clip(jnp.abs(x) * eta, low, high)
            # With a step of the sign before, an opposite gradient still shows that it has turned.
            s = sign(g) if variant == "rprop-" else jnp.where(turn < 0, x, sign(g))
            return jnp.copysign(d, s)

        def move(g, x, before):
            step = sign(g) * jnp.abs(x)
            if variant != "rprop-":
                step = jnp.where(sign(g) * x < 0, jnp.where(back, -before, 0), step)
            return step.astype(g.dtype)

        steps = jax.tree.map(resize, updates, state.steps, state.free)
        free = jax.tree.map(lambda g, x: sign(g) * x <= 0, updates, steps)
        updates = jax.tree.map(move, updates, steps, state.steps)
        return updates, RpropState(state.learning_rate, steps, free, value)

    return optax.GradientTransformationExtraArgs(init, update)


def rprop(
    learning_rate: ArrayLike,
    *,
    variant: str = "rprop-",
    eta_minus: ArrayLike = 0.5,
    eta_plus: ArrayLike = 1.2,
    min_step: ArrayLike = 1e-6,
    max_step: ArrayLike = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """Makes Rprop: `w = w - update`, the update that of `scale_by_rprop`.

    Args:
      learning_rate: the first step size, a number > 0 or a traced array; not a schedule, since
        later step sizes follow from the gradients' signs. The paper's is 0.1.
      variant, eta_minus, eta_plus, min_step, max_step: as in `scale_by_rprop`.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.
      TypeError: the learning rate is a schedule.

    Example:
      >>> tx = rprop(0.5)
      >>> updates, state = tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))
      >>> updates.tolist()
      [-0.5, 0.5]
    """
    if callable(learning_rate):
        rule, fix = "a number, the first step size", "a schedule has no meaning for rprop"
        _check.fail("rprop", "learning_rate", rule, learning_rate, fix, TypeError)
    _check.positive("rprop", "learning_rate", learning_rate)
    scale = scale_by_rprop(
        first_step=learning_rate,
        variant=variant,
        eta_minus=eta_minus,
        eta_plus=eta_plus,
        min_step=min_step,
        max_step=max_step,
    )
    return optax.chain(scale, optax.scale(-1.0))
