"""Other updates for other params: those that stay, and those that move faster or slower."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import optax
from jax.typing import ArrayLike

from jaxtrain import _check, tree
from jaxtrain.tree import Rule

from ._base import extended, scaled


def freeze(tx: optax.GradientTransformation, rule: Rule) -> optax.GradientTransformationExtraArgs:
    """Leaves the chosen params as they are: the optimizer does not see them.

    Their updates are exactly zero, and there is no moment for them in the state. This is for
    training loops of your own: `train.make_step(freeze=rule)` does not compute their gradients.

    Args:
      tx: an optimizer.
      rule: the params that stay, as in `tree.select`.

    Returns:
      The optimizer of the other params.

    Raises:
      ConfigError: from init, a glob matches no param.

    Example:
      >>> from jaxtrain import optim
      >>> tx = freeze(optim.momentum(0.1), "*bias")
      >>> params = {"kernel": jax.numpy.ones(1), "bias": jax.numpy.ones(1)}
      >>> tx.update(params, tx.init(params), params)[0]
      {'bias': Array([0.], dtype=float32), 'kernel': Array([-0.1], dtype=float32)}
    """
    tx = extended("freeze", tx)

    def frozen(params):
        return tree.select(rule, params)

    def free(params):
        return jax.tree.map(lambda chosen: not chosen, frozen(params))

    return optax.chain(optax.masked(tx, free), optax.masked(optax.set_to_zero(), frozen))


def lr_multipliers(multipliers: Mapping[Rule, ArrayLike]) -> optax.GradientTransformation:
    """Multiplies the updates of the params that a rule chooses, as with a rate of their own.

    The first rule that chooses a param counts; a param that none chooses keeps its update.
    It stands after an optimizer, as in `optax.chain(adam(lr), lr_multipliers({"head/*": 10.0}))`.
    With `momentum(nesterov="lookahead")` it stands before, so that the look-ahead knows of it.

    Args:
      multipliers: rules, as in `tree.select`, and factors >= 0, numbers or traced arrays. A factor
        of 0 moves nothing but keeps moments, unlike `freeze`.

    Returns:
      The transformation, without state.

    Raises:
      ConfigError: a factor is out of range or, from init, a glob matches no param.

    Example:
      >>> tx = lr_multipliers({"head/*": 10.0, "*/bias": 2.0})
      >>> updates = {"body": {"bias": 1.0, "kernel": 1.0}, "head": {"bias": 1.0}}
      >>> jax.tree.map(float, tx.update(updates, tx.init(updates))[0])
      {'body': {'bias': 2.0, 'kernel': 1.0}, 'head': {'bias': 10.0}}
    """
    if not isinstance(multipliers, Mapping):
        rule = "a mapping of rules to factors"
        _check.fail("lr_multipliers", "multipliers", rule, multipliers, error=TypeError)
    for factor in multipliers.values():
        _check.nonnegative("lr_multipliers", "multipliers", factor)

    def chosen_by_each(params):
        return [tree.select(rule, params) for rule in multipliers]

    def init(params):
        chosen_by_each(params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        def leaf(u, *chosen):
            factors = [f for f, c in zip(multipliers.values(), chosen, strict=True) if c]
            return scaled(factors[0], u, u) if factors else u

        return jax.tree.map(leaf, updates, *chosen_by_each(updates)), state

    return optax.GradientTransformation(init, update)
