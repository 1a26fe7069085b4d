"""What keeps params small: decoupled and coupled decay, soft thresholds, limits of norms."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check, tree
from jaxtrain.schedules import Schedule, as_schedule
from jaxtrain.tree import Rule

from ._base import accumulator, as_float, extended, learning_rate, linear, require_params


class DecayState(NamedTuple):
    """The number of updates."""

    count: jax.Array  # type: ignore[assignment]


def kernels(path: str, leaf: Any) -> bool:
    """Chooses what the penalties take by default: weights, not biases nor the norms' scales.

    Args:
      path: the '/'-joined path; an end "/value", which flax nnx adds, is left out.
      leaf: not read.

    Returns:
      Whether the path ends in kernel, embedding, weight or w, or in no name at all (the element
      of a list, or a tree that is one array).

    Example:
      >>> params = {"dense0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
      >>> tree.select(kernels, params)
      {'dense0': {'bias': False, 'kernel': True}}
    """
    name = path.removesuffix("/value").rpartition("/")[2]
    return name in ("kernel", "embedding", "weight", "w", "") or name.isdigit()


def penalized(where, rule, params):
    """The tree of bools that tells which params are penalized."""
    require_params(where, params)
    mask = tree.select(kernels if rule is None else rule, params)
    chosen = jax.tree.leaves(mask)
    if chosen and not any(chosen):
        fix = "pass rule='*' to take all params"
        _check.fail(where, "rule", "one that chooses a param", rule, fix)
    return mask


def _add_multiple_of_params(where, argument, strength, times, rule):
    if not callable(strength):
        _check.nonnegative(where, argument, strength)
    schedule = as_schedule(strength)

    def init(params):
        penalized(where, rule, params)
        return DecayState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        c = times * as_float(schedule(state.count))
        mask = penalized(where, rule, params)
        updates = jax.tree.map(
            lambda u, w, chosen: linear(1, u, c, w) if chosen else u, updates, params, mask
        )
        return updates, DecayState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def weight_decay(
    decay: Schedule | ArrayLike, *, rule: Rule | None = None
) -> optax.GradientTransformation:
    """Adds `decay * w` to the updates: decoupled decay, which no moment sees.

    It stands between the direction and the learning rate, as in
    `optax.chain(scale_by_adam(), weight_decay(0.01), scale_by_learning_rate(lr))`, and so shrinks
    params w by the factor `1 - lr * decay` whatever their gradients have been.

    Args:
      decay: >= 0, a number, a schedule, or a traced array; the state is the same for all.
      rule: which params, as in `tree.select`; None means `kernels`. Under
        `optax.inject_hyperparams` a function needs `static_args="rule"`.

    Returns:
      The transformation.

    Raises:
      ConfigError: decay is out of range or, from init, the rule chooses nothing.

    Example:
      >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
      >>> tx = optax.chain(weight_decay(0.5), optax.scale(-0.5))
      >>> zero = jax.tree.map(jnp.zeros_like, params)
      >>> optax.apply_updates(params, tx.update(zero, tx.init(params), params)[0])
      {'bias': Array([1., 1.], dtype=float32), 'kernel': Array([0.75, 0.75], dtype=float32)}

    References:
      Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019: there the decay is
      multiplied by the schedule of the rate, not by the rate itself.
    """
    return _add_multiple_of_params("weight_decay", "decay", decay, 1, rule)


def l2(
    strength: Schedule | ArrayLike, *, scale: str = "half", rule: Rule | None = None
) -> optax.GradientTransformation:
    """Adds the gradient of an L2 penalty to the gradients, before an optimizer sees them.

    With params w and s = `strength`:

    - "half": the penalty `s / 2 * sum(w**2)`, the gradient `s * w`;
    - "sum": the penalty `s * sum(w**2)`, the gradient `2 * s * w`.

    Before `sgd` it equals `weight_decay`. Before a method that divides by the size of past
    gradients, such as Adam, it does not: there params with large gradients are hardly decayed.

    Args:
      strength: s >= 0, a number, a schedule, or a traced array; the state is the same for all.
      scale: "half" or "sum".
      rule: as in `weight_decay`.

    Returns:
      The transformation.

    Raises:
      ConfigError: an argument is out of range or, from init, the rule chooses nothing.

    Example:
      >>> tx = optax.chain(l2(0.5, scale="sum"), optax.sgd(0.25))
      >>> params = {"kernel": jnp.ones(2)}
      >>> tx.update({"kernel": jnp.zeros(2)}, tx.init(params), params)[0]
      {'kernel': Array([-0.25, -0.25], dtype=float32)}
    """
    _check.choice("l2", "scale", scale, ("half", "sum"))
    return _add_multiple_of_params("l2", "strength", strength, {"half": 1, "sum": 2}[scale], rule)


def proximal_l1(
    tx: optax.GradientTransformation, strength: ArrayLike, *, rule: Rule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Soft-thresholds the params after each update of an optimizer, for an L1 penalty.

    Each param w that the optimizer would move to z goes to::

        sign(z) * max(|z| - learning_rate * strength, 0)

    the minimum of `(w - z)**2 / 2 + learning_rate * strength * |w|`. Params reach zero exactly and
    stay there while `strength` is larger than their gradients, which the gradient of |w| added to
    the others cannot do: with that they jump across zero for ever.

    Args:
      tx: an optimizer whose rate `optim.learning_rate` finds; its state is kept as it is.
      strength: >= 0, the factor of the penalty `sum(|w|)`; a number or a traced array.
      rule: as in `weight_decay`.

    Returns:
      The optimizer; the updates of the chosen params have the params' dtype.

    Raises:
      ConfigError: strength is out of range or, from init, the rule chooses nothing.

    Example:
      >>> from jaxtrain import optim
      >>> tx = proximal_l1(optim.sgd(0.5), 1.0)
      >>> w = jnp.array([0.3, 2.0])
      >>> optax.apply_updates(w, tx.update(jnp.zeros(2), tx.init(w), w)[0]).tolist()
      [0.0, 1.5]

    References:
      Daubechies, Defrise and De Mol, An Iterative Thresholding Algorithm for Linear Inverse
      Problems with a Sparsity Constraint, 2004.
    """
    _check.nonnegative("proximal_l1", "strength", strength)
    tx = extended("proximal_l1", tx)

    def init(params):
        penalized("proximal_l1", rule, params)
        return tx.init(params)

    def update(updates, state, params=None, **extra):
        mask = penalized("proximal_l1", rule, params)
        updates, state = tx.update(updates, state, params, **extra)
        threshold = learning_rate(state) * as_float(strength)

        def leaf(u, w, chosen):
            if not chosen:
                return u
            w_, u_, t = (jnp.asarray(x, accumulator(w)) for x in (w, u, threshold))
            z = w_ + u_
            # sign(z) * max(|z| - t, 0) - w, without the rounding of z: w - w is exactly 0.
            return jnp.where(jnp.abs(z) <= t, -w_, u_ - t * jnp.sign(z)).astype(jnp.result_type(w))

        return jax.tree.map(leaf, updates, params, mask), state

    return optax.GradientTransformationExtraArgs(init, update)


def max_norm(
    limit: ArrayLike, *, axis: int | tuple[int, ...] | None = None, rule: Rule | None = None
) -> optax.GradientTransformation:
    """Shortens the weights of each unit to a limit after each update.

    Weights w that the updates so far would move to z go to `z * min(1, limit / |z|)`, the nearest
    ones whose norm is at most the limit. It stands last in a chain, before an average if there is
    one: what follows would change the updates again.

    Args:
      limit: > 0, a number or a traced array; the paper takes 3 to 4.
      axis: the axes that a norm is taken over. None means all but the last, as what leads to one
        output in dense kernels (input, output) and in those of convolutions (height, width, input,
        output); leaves of one axis are one unit. An embedding (tokens, features) takes -1.
      rule: as in `weight_decay`.

    Returns:
      The transformation, without state; the updates of the chosen params have the params' dtype.

    Raises:
      ConfigError: limit is out of range or, from init, the rule chooses nothing.

    Example:
      >>> tx = optax.chain(optax.sgd(1.0), max_norm(2.5))
      >>> params = {"kernel": jnp.array([[3.0, 0.5], [4.0, 1.0]])}
      >>> zero = jax.tree.map(jnp.zeros_like, params)
      >>> optax.apply_updates(params, tx.update(zero, tx.init(params), params)[0])["kernel"]
      Array([[1.5, 0.5],
             [2. , 1. ]], dtype=float32)

    References:
      Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: A Simple Way to Prevent
      Neural Networks from Overfitting, 2014.
    """
    _check.positive("max_norm", "limit", limit)

    def init(params):
        penalized("max_norm", rule, params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        def leaf(u, w, chosen):
            if not chosen:
                return u
            w_, u_, c = (jnp.asarray(x, accumulator(w)) for x in (w, u, limit))
            z = w_ + u_
            axes = axis if axis is not None else tuple(range(z.ndim - 1)) or None
            norm = jnp.sqrt((z * z).sum(axes, keepdims=True))
            return jnp.where(norm <= c, u_, z * (c / norm) - w_).astype(jnp.result_type(w))

        mask = penalized("max_norm", rule, params)
        return jax.tree.map(leaf, updates, params, mask), state

    return optax.GradientTransformation(init, update)
