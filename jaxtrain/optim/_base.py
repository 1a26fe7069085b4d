"""What all optimizers share: the learning rate, read-outs of the state, and mixed-type sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.errors import StateError
from jaxtrain.schedules import Schedule, as_schedule
from jaxtrain.schedules._base import as_float


class LearningRateState(NamedTuple):
    """The number of updates made, and the rate of the last one (before any: of the first)."""

    count: jax.Array  # type: ignore[assignment]
    learning_rate: jax.Array


def as_rate(where: str, learning_rate: Schedule | ArrayLike) -> Schedule:
    """Makes a schedule of a learning rate, which as a number must be > 0."""
    if not callable(learning_rate):
        _check.positive(where, "learning_rate", learning_rate)
    return as_schedule(learning_rate)


def scale_by_learning_rate(
    learning_rate: Schedule | ArrayLike,
) -> optax.GradientTransformation:
    """Multiplies by minus the learning rate; update k, from 0, uses `learning_rate(k)`.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; the state is the same for all.

    Returns:
      The transformation.

    Raises:
      ConfigError: a number is not finite and > 0.

    Example:
      >>> tx = scale_by_learning_rate(0.5)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> updates.tolist(), state.count.item(), state.learning_rate.item()
      ([-0.5, -0.5], 1, 0.5)
    """
    schedule = as_rate("scale_by_learning_rate", learning_rate)

    def init(params):
        count = jnp.zeros((), jnp.int32)
        return LearningRateState(count, as_float(schedule(count)))

    def update(updates, state, params=None):
        rate = as_float(schedule(state.count))
        state = LearningRateState(optax.safe_increment(state.count), rate)
        return scaled(-rate, updates, updates), state

    return optax.GradientTransformation(init, update)


def _having(name, opt_state):
    """The nodes of the state tree with an attribute `name`, in tree order."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: hasattr(node, name))
    return [node for node in leaves if hasattr(node, name)]


def learning_rate(opt_state: optax.OptState) -> jax.Array:
    """Reads the rate of the last update; before any, that of the first.

    What `reduce_on_plateau` has cut it to, where that stands beside the optimizer.

    Args:
      opt_state: the state of one optimizer, however it is wrapped.

    Returns:
      The rate, shape (), in the default float type.

    Raises:
      StateError: the state holds no learning rate, or several.

    Example:
      >>> learning_rate(scale_by_learning_rate(0.5).init(jnp.zeros(2))).item()
      0.5
    """
    found = _having("learning_rate", opt_state)
    if len(found) != 1:
        fix = "pass the state of one jaxtrain optimizer"
        rule = "a state with one learning rate"
        _check.fail("learning_rate", "opt_state", rule, len(found), fix, StateError)
    rate = found[0].learning_rate
    for state in _having("learning_rate_scale", opt_state):
        rate = rate * state.learning_rate_scale
    return rate


def grad_params(params: optax.Params, opt_state: optax.OptState) -> optax.Params:
    """Gives the params at which the next gradient is to be evaluated.

    Applies the method `grad_params` of every NamedTuple in the state that has one.

    Args:
      params: the params to be updated.
      opt_state: the optimizer's state.

    Returns:
      The params to differentiate at; `params` itself where the optimizer does not look ahead.

    Raises:
      StateError: the state was made for params of another structure.

    Example:
      >>> params = {"kernel": jnp.ones(2)}
      >>> grad_params(params, scale_by_learning_rate(0.5).init(params)) is params
      True
    """
    for state in _having("grad_params", opt_state):
        params = state.grad_params(params)
    return params


def eval_params(params: optax.Params, opt_state: optax.OptState) -> optax.Params:
    """Gives the params with which to evaluate the model.

    Applies the method `eval_params` of every NamedTuple in the state that has one.

    Args:
      params: the params that are trained.
      opt_state: the optimizer's state.

    Returns:
      The params to evaluate with; `params` itself where the optimizer asks for no others.

    Raises:
      StateError: the state was made for params of another structure.

    Example:
      >>> params = {"kernel": jnp.ones(2)}
      >>> eval_params(params, scale_by_learning_rate(0.5).init(params)) is params
      True
    """
    for state in _having("eval_params", opt_state):
        params = state.eval_params(params)
    return params


def extended(where: str, tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Checks that tx is a transformation, and lets its update take any keyword."""
    if not hasattr(tx, "init") or not hasattr(tx, "update"):
        fix = "call it to make one" if callable(tx) else ""
        _check.fail(where, "tx", "an optax transformation", tx, fix, TypeError)
    return optax.with_extra_args_support(tx)


def require_params(where: str, params: optax.Params | None) -> None:
    """Checks that an update was given the params, which optax leaves optional."""
    if params is None:
        _check.fail(where, "params", "given to update", None, "call update(updates, state, params)")


def accumulator(x: Any) -> Any:
    """Gives the type in which moments of x are kept: its own, but at least float32."""
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.inexact):
        fix = "leave the others out of the params"
        _check.fail("optim", "params and gradients", "of a floating-point type", dtype, fix)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def widened(tree: Any) -> Any:
    """Casts every leaf to the type of its moments."""
    return jax.tree.map(lambda x: jnp.asarray(x, accumulator(x)), tree)


def filled(params: optax.Params, value: ArrayLike) -> optax.Params:
    """Gives moments of one value."""
    return jax.tree.map(
        lambda p: jnp.full_like(p, jnp.asarray(value, accumulator(p)), dtype=accumulator(p)), params
    )


def zeros(params: optax.Params) -> optax.Params:
    """Gives moments of value 0."""
    return filled(params, 0)


def square(tree: Any) -> Any:
    """Squares every leaf, in the type of its moments."""
    return jax.tree.map(jnp.square, widened(tree))


def scaled(a: ArrayLike, x: Any, like: Any) -> Any:
    """Computes `a * x` leaf by leaf for a scalar a, in the types of `like`."""

    def leaf(x, like):
        return (jnp.asarray(a, x.dtype) * x).astype(jnp.result_type(like))

    return jax.tree.map(leaf, widened(x), like)


def linear(a: ArrayLike, x: Any, b: ArrayLike, y: Any) -> Any:
    """Computes `a * x + b * y` leaf by leaf for scalars a and b, in the types of x."""

    def leaf(x, y):
        a_, x_, b_, y_ = (jnp.asarray(z, accumulator(x)) for z in (a, x, b, y))
        return (a_ * x_ + b_ * y_).astype(jnp.result_type(x))

    return jax.tree.map(leaf, x, y)


def dot(x: Any, y: Any) -> jax.Array:
    """Computes the inner product of two trees, in the default float type."""

    def leaf(x, y):
        return as_float(jnp.vdot(x, y, precision="highest"))

    return sum(jax.tree.leaves(jax.tree.map(leaf, widened(x), widened(y))), as_float(0))


def ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes `x / y`, 0 where y is 0: eps = 0 is allowed, and a zero gradient moves nothing."""
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))


def over_root(
    x: Any, v: Any, eps: ArrayLike, like: Any, *, eps_in_sqrt: bool = False
) -> optax.Updates:
    """Computes `x / (sqrt(v) + eps)` or `x / sqrt(v + eps)` leaf by leaf, in types of `like`."""

    def leaf(x, v, like):
        e = jnp.asarray(eps, v.dtype)
        root = jnp.sqrt(v + e) if eps_in_sqrt else jnp.sqrt(v) + e
        return ratio(x, root).astype(jnp.result_type(like))

    return jax.tree.map(leaf, widened(x), v, like)


def unmasked(f: Callable, tree: Any, params: optax.Params) -> optax.Params:
    """Maps `f(leaf, param)`, leaving params alone where the tree is masked or has a hole."""

    def is_masked(node):
        return node is None or isinstance(node, optax.MaskedNode)

    try:
        return jax.tree.map(
            lambda leaf, p: p if is_masked(leaf) else f(leaf, p), tree, params, is_leaf=is_masked
        )
    except ValueError as error:
        raise StateError(
            "grad_params, eval_params: params must be the tree that the optimizer was initialized "
            "with, got another structure; do not hide it with optax.flatten"
        ) from error


def move(params: optax.Params, step: jax.Array, direction: optax.Params) -> optax.Params:
    """Computes `params + step * direction`, leaving params alone where the direction is masked."""
    return unmasked(lambda d, p: linear(1, p, step, d), direction, params)


def one_minus_power(decay: ArrayLike, count: jax.Array) -> jax.Array:
    """Computes `1 - decay**count`, what the weights of a zero-initialized average sum to."""
    # The plain form is off by 1e-5 in float32 for decay = 0.999, which is no float32 number.
    return -jnp.expm1(as_float(count) * jnp.log1p(as_float(decay - 1)))
