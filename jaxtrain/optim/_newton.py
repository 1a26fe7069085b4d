"""Newton's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule

from ._base import accumulator, ratio, scaled
from ._line_search import descend, needs


def ravel(tree: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Joins all leaves in one vector of the widest of their moments' types; and undoes it."""
    dtype = np.result_type(np.float32, *map(accumulator, jax.tree.leaves(tree)))
    vector, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, dtype), tree))
    return vector, lambda v: scaled(1, unravel(v), tree)


def scale_by_newton(
    *, damping: ArrayLike = 0.0, saddle_free: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Multiplies gradients g by the inverse of the Hessian H = Q diag(h) Q'.

    ::

        update = Q (Q'g / (h + damping))

    `saddle_free=True` divides by `|h| + damping`, so that a direction of negative curvature is
    descended instead of climbed. Divisors below `n * eps` times the largest, eps the machine's,
    count as zero, and there the update is zero: the least-squares solution where H is singular.

    For n params H takes n**2 numbers and n times the memory of a gradient, Q about 10 n**3
    operations. `update` needs the keyword `value_fn(params)`, which must be twice differentiable
    in reverse mode.

    Args:
      damping: added to each curvature, >= 0.
      saddle_free: whether to take the curvatures' magnitudes.

    Returns:
      The transformation; its updates have the gradients' dtype.

    Raises:
      ConfigError: an argument is out of range; in `update`: `value_fn` is missing.

    Example:
      >>> f = lambda w: (w**2 * jnp.array([1.0, -50.0])).sum()
      >>> tx, w = scale_by_newton(saddle_free=True), jnp.array([2.0, 1.0])
      >>> tx.update(jax.grad(f)(w), tx.init(w), w, value_fn=f)[0].round(3).tolist()
      [2.0, -1.0]

    References:
      Dauphin et al., Identifying and Attacking the Saddle Point Problem in High-Dimensional
      Non-Convex Optimization, 2014.
    """
    where = "scale_by_newton"
    _check.nonnegative(where, "damping", damping)
    _check.choice(where, "saddle_free", saddle_free, (False, True))

    @jax.default_matmul_precision("highest")
    def update(updates, state, params=None, *, value_fn=None, **_):
        needs(where, params=params, value_fn=value_fn)
        w, unravel = ravel(params)
        H = jax.jacrev(jax.grad(lambda w: value_fn(unravel(w))))(w)
        h, Q = jnp.linalg.eigh(H)
        divisor = (jnp.abs(h) if saddle_free else h) + jnp.asarray(damping, h.dtype)
        least = h.size * jnp.finfo(h.dtype).eps * jnp.abs(divisor).max(initial=0)
        divisor = jnp.where(jnp.abs(divisor) > least, divisor, 0)
        g, unravel = ravel(updates)
        return unravel(Q @ ratio(Q.T @ g, divisor)), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def newton(
    learning_rate: Schedule | ArrayLike = 1.0,
    *,
    damping: ArrayLike = 0.0,
    saddle_free: bool = False,
    line_search: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes Newton's method: `w = w - learning_rate * update` with that of `scale_by_newton`.

    As it stands it goes to any point without slope, a saddle or a maximum too. `saddle_free`, or
    `damping` beyond the most negative curvature, makes it descend; a line search keeps it from
    ending higher than it began.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1 is Newton's step.
      damping, saddle_free: as in `scale_by_newton`.
      line_search: "strong_wolfe", for which `update` needs `value` and `grad` too, or None.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> f = lambda w: ((w - 3.0) ** 2 * jnp.array([1.0, 100.0])).sum()
      >>> tx, w = newton(), jnp.zeros(2)
      >>> updates, state = tx.update(jax.grad(f)(w), tx.init(w), w, value_fn=f)
      >>> optax.apply_updates(w, updates).round(3).tolist()
      [3.0..., 3.0...]
    """
    scale = scale_by_newton(damping=damping, saddle_free=saddle_free)
    return descend("newton", scale, learning_rate, line_search)
