"""For training loops of your own: skipping updates that are not finite, adding up gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtrain import _check
from jaxtrain.tree import all_finite

from ._base import extended, linear, scaled, zeros


class GuardState(NamedTuple):
    """How many updates were skipped, how many in a row until now, and the optimizer's state."""

    skipped: jax.Array
    in_a_row: jax.Array
    inner: optax.OptState


def guard(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Skips an update whole where the gradients, the updates or the new state are not finite.

    Then the updates are exactly zero and the optimizer's state stays, its count too. A loop reads
    `in_a_row` of the state to know when to give up. `train.make_step` has a guard of its own, which
    watches the loss and the net's state too: do not use both.

    Args:
      tx: an optimizer.

    Returns:
      The optimizer.

    Example:
      >>> from jaxtrain import optim
      >>> tx = guard(optim.sgd(0.1))
      >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
      >>> updates.tolist(), state.skipped.item(), state.inner.count.item()
      ([0.0, 0.0], 1, 0)
    """
    tx = extended("guard", tx)

    def init(params):
        return GuardState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), tx.init(params))

    def update(updates, state, params=None, **extra):
        new_updates, inner = tx.update(updates, state.inner, params, **extra)
        ok = all_finite((updates, new_updates, inner))

        def select(new, old):
            return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, old)

        state = GuardState(
            skipped=jnp.where(ok, state.skipped, optax.safe_increment(state.skipped)),
            in_a_row=jnp.where(ok, 0, optax.safe_increment(state.in_a_row)),
            inner=select(inner, state.inner),
        )
        return select(new_updates, jax.tree.map(jnp.zeros_like, new_updates)), state

    return optax.GradientTransformationExtraArgs(init, update)


class AccumulateState(NamedTuple):
    """How many gradients have been added up, their sum, and the optimizer's state."""

    count: jax.Array  # type: ignore[assignment]
    total: optax.Updates
    inner: optax.OptState


def accumulate(
    tx: optax.GradientTransformation, steps: int
) -> optax.GradientTransformationExtraArgs:
    """Updates once in `steps` calls, with the mean of their gradients; in between by zero.

    Schedules and moments of the optimizer count real updates. With `train.make_step` use its
    `accumulate=`, which adds up within one step.

    Args:
      tx: an optimizer.
      steps: the number of gradients, >= 1.

    Returns:
      The optimizer.

    Raises:
      ConfigError: steps is out of range.

    Example:
      >>> from jaxtrain import optim
      >>> tx = accumulate(optim.sgd(0.5), 2)
      >>> w = jnp.zeros(2)
      >>> first, state = tx.update(jnp.array([1.0, 0.0]), tx.init(w), w)
      >>> second, state = tx.update(jnp.array([1.0, 4.0]), state, w)
      >>> first.tolist(), second.tolist()
      ([0.0, 0.0], [-0.5, -1.0])
    """
    _check.integer("accumulate", "steps", steps)
    tx = extended("accumulate", tx)

    def init(params):
        return AccumulateState(jnp.zeros((), jnp.int32), zeros(params), tx.init(params))

    def update(updates, state, params=None, **extra):
        total = linear(1, state.total, 1, updates)

        def step():
            mean = scaled(1 / steps, total, updates)
            new, inner = tx.update(mean, state.inner, params, **extra)
            return new, AccumulateState(jnp.zeros_like(state.count), zeros(total), inner)

        def wait():
            like = jax.eval_shape(step)[0]
            new = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
            return new, AccumulateState(state.count + 1, total, state.inner)

        return jax.lax.cond(state.count + 1 == steps, step, wait)

    return optax.GradientTransformationExtraArgs(init, update)
