"""Cutting the learning rate when a validation value no longer improves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.errors import StateError

from ._base import as_float, scaled

_THRESHOLD_MODES = ("rel", "torch_rel", "abs")


class PlateauOptions(NamedTuple):
    """The arguments of `reduce_on_plateau` as arrays; `sign` is 1 for "min", -1 for "max"."""

    sign: jax.Array
    factor: jax.Array
    patience: jax.Array
    threshold: jax.Array
    threshold_mode: jax.Array
    cooldown: jax.Array
    min_scale: jax.Array


class PlateauState(NamedTuple):
    """The scale, the best value, the reports since then, and the reports of cooldown left."""

    learning_rate_scale: jax.Array
    best: jax.Array
    bad: jax.Array
    cooldown: jax.Array
    options: PlateauOptions

    def report(self, value: ArrayLike) -> PlateauState:
        """Takes in one validation value."""
        o, best, value = self.options, self.best, as_float(value)
        t = o.sign * o.threshold
        # In the order of _THRESHOLD_MODES.
        bounds = jnp.stack([best * (1 - t * jnp.sign(best)), best * (1 - t), best - t])
        better = jnp.isfinite(value) & (o.sign * value < o.sign * bounds[o.threshold_mode])
        bad = jnp.where(better | (self.cooldown > 0), 0, self.bad + 1)
        cut = bad > o.patience
        scale = jnp.maximum(self.learning_rate_scale * o.factor, o.min_scale)
        return PlateauState(
            learning_rate_scale=jnp.where(cut, scale, self.learning_rate_scale),
            best=jnp.where(better, value, best),
            bad=jnp.where(cut, 0, bad),
            cooldown=jnp.where(cut, o.cooldown, jnp.maximum(self.cooldown - 1, 0)),
            options=o,
        )


def reduce_on_plateau(
    *,
    mode: str = "min",
    factor: ArrayLike = 0.1,
    patience: ArrayLike = 10,
    threshold: ArrayLike = 1e-4,
    threshold_mode: str = "rel",
    cooldown: ArrayLike = 0,
    min_scale: ArrayLike = 0.0,
) -> optax.GradientTransformation:
    """Multiplies the updates by a scale that falls when a reported value no longer improves.

    It stands after an optimizer, as in `optax.chain(adam(lr), reduce_on_plateau())`, and the
    training loop tells it the validation loss, say once per epoch, by `optim.report`. When more
    than `patience` reports in a row have been no improvement, the scale is multiplied by `factor`.
    For "min" a value improves on the best one so far if

    - "rel": `value < best - threshold * |best|`;
    - "torch_rel": `value < best * (1 - threshold)`, which for a negative best a worse value meets;
    - "abs": `value < best - threshold`;

    for "max" if it is larger by as much. A value that is not finite is no improvement.

    Args:
      mode: "min" for values that should fall, "max" for those that should rise.
      factor: what remains of the scale at a cut, in [0, 1).
      patience: how many reports without improvement are accepted, >= 0.
      threshold: the least improvement that counts, in [0, 1); for "abs" >= 0.
      threshold_mode: "rel", "torch_rel" or "abs".
      cooldown: how many reports after a cut are not counted, >= 0.
      min_scale: the smallest scale, in [0, 1).

    Returns:
      The transformation; `optim.learning_rate` gives the rate times its scale.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx = reduce_on_plateau(patience=1)
      >>> state = tx.init(jnp.zeros(2))
      >>> for loss in (1.0, 0.5, 0.5, 0.6):
      ...     state = report(state, loss)
      >>> round(float(state.learning_rate_scale), 6)
      0.1
    """
    where = "reduce_on_plateau"
    _check.choice(where, "mode", mode, ("min", "max"))
    _check.fraction(where, "factor", factor)
    _check.integer(where, "patience", patience, least=0)
    _check.choice(where, "threshold_mode", threshold_mode, _THRESHOLD_MODES)
    check = _check.nonnegative if threshold_mode == "abs" else _check.fraction
    check(where, "threshold", threshold)
    _check.integer(where, "cooldown", cooldown, least=0)
    _check.fraction(where, "min_scale", min_scale)

    def options():
        return PlateauOptions(
            sign=as_float(1 if mode == "min" else -1),
            factor=as_float(factor),
            patience=jnp.asarray(patience, jnp.int32),
            threshold=as_float(threshold),
            threshold_mode=jnp.int32(_THRESHOLD_MODES.index(threshold_mode)),
            cooldown=jnp.asarray(cooldown, jnp.int32),
            min_scale=as_float(min_scale),
        )

    def init(params):
        o, (bad, cooldown) = options(), jnp.zeros(2, jnp.int32)
        # The worst finite number: what guards the state need not make an exception for it.
        worst = o.sign * jnp.finfo(o.sign.dtype).max
        return PlateauState(as_float(1), worst, bad, cooldown, o)

    def update(updates, state, params=None):
        updates = scaled(state.learning_rate_scale, updates, updates)
        # The options of a resumed run are those of today's call.
        return updates, state._replace(options=options())

    return optax.GradientTransformation(init, update)


def report(opt_state: optax.OptState, value: ArrayLike) -> optax.OptState:
    """Tells every `reduce_on_plateau` in a state of a validation value, say once per epoch.

    Args:
      opt_state: the optimizer's state, however it is wrapped.
      value: the validation loss, or whatever `mode` fits; shape ().

    Returns:
      The state, changed only where a `reduce_on_plateau` keeps its own.

    Raises:
      StateError: there is none.

    Example:
      >>> state = reduce_on_plateau().init(jnp.zeros(2))
      >>> report(state, 0.5).best.item()
      0.5
    """

    def is_plateau(node):
        return isinstance(node, PlateauState)

    if value is None or np.ndim(value):
        _check.fail("report", "value", "a number", value, error=TypeError)
    if not any(map(is_plateau, jax.tree.leaves(opt_state, is_leaf=is_plateau))):
        fix = "chain reduce_on_plateau() after the optimizer"
        rule = "a state with a reduce_on_plateau"
        _check.fail("report", "opt_state", rule, type(opt_state), fix, StateError)
    return jax.tree.map(
        lambda node: node.report(value) if is_plateau(node) else node, opt_state, is_leaf=is_plateau
    )
