"""BFGS, the quasi-Newton method with a whole matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule

from ._base import dot
from ._line_search import descend, needs
from ._newton import ravel


class BFGSState(NamedTuple):
    """The numbers of updates and of pairs kept, the last params and gradients, and H, n by n."""

    count: jax.Array  # type: ignore[assignment]
    pairs: jax.Array
    params: jax.Array
    grads: jax.Array
    inverse_hessian: jax.Array


def is_curved(s: Any, y: Any) -> jax.Array:
    """Whether gradients change by y along a step s as those of a convex function do."""
    cosine_times_lengths, s2, y2 = dot(s, y), dot(s, s), dot(y, y)
    return cosine_times_lengths > jnp.finfo(s2.dtype).eps * jnp.sqrt(s2) * jnp.sqrt(y2)


def first_scale(g: Any) -> jax.Array:
    """What shortens the first step, of which nothing is known, to a length of at most 1."""
    return jnp.minimum(1, 1 / jnp.sqrt(dot(g, g)))


def scale_by_bfgs(*, scale_initial: bool = False) -> optax.GradientTransformation:
    """Multiplies gradients g by an inverse Hessian H learnt from how gradients change.

    With s the last change of params, y that of the gradients and rho = 1 / y's::

        H = (I - rho * s y') H (I - rho * y s') + rho * s s'
        update = H g

    H_0 = I. With `scale_initial` the first update is shortened to a length of at most 1, and the
    first pair is applied to `H_0 = (y's / y'y) * I`.
    A pair is skipped unless `s'y > eps * |s| * |y|`, eps the machine's, so that H stays positive
    definite. H takes n**2 numbers for n params, an update O(n**3) operations.

    Args:
      scale_initial: whether H_0 is scaled; False, as in SciPy, leaves that to the line search.

    Returns:
      The transformation. It needs params in `update`; its updates have the gradients' dtype, its
      state at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx, w, curvature = scale_by_bfgs(scale_initial=True), jnp.array([0.6, 0.8]), 2.0
      >>> _, state = tx.update(curvature * w, tx.init(w), w)
      >>> tx.update(curvature * w / 2, state, w / 2)[0].round(3).tolist()
      [0.3..., 0.4...]

    References:
      Nocedal and Wright, Numerical Optimization, 2nd edition, 2006, algorithm 6.1: after Broyden,
      Fletcher, Goldfarb and Shanno, 1970.
    """
    where = "scale_by_bfgs"
    _check.choice(where, "scale_initial", scale_initial, (False, True))

    def init(params):
        count, pairs = jnp.zeros(2, jnp.int32)
        w = jnp.array(ravel(params)[0])  # a copy: a step may donate both the params and the state
        return BFGSState(count, pairs, w, jnp.zeros_like(w), jnp.eye(w.size, dtype=w.dtype))

    @jax.default_matmul_precision("highest")
    def update(updates, state, params=None):
        needs(where, params=params)
        (w, _), (g, unravel) = ravel(params), ravel(updates)
        s, y, H = w - state.params, g - state.grads, state.inverse_hessian
        keep = (state.count > 0) & is_curved(s, y)
        sy = jnp.where(keep, s @ y, 1)
        if scale_initial:
            H = jnp.where(state.pairs == 0, sy / (y @ y), 1).astype(H.dtype) * H
        # Expanded, in O(n**2), the product cancels and leaves an ill-conditioned H indefinite.
        A = jnp.eye(s.size, dtype=s.dtype) - jnp.outer(s, y) / sy
        H = jnp.where(keep, A @ H @ A.T + jnp.outer(s, s) / sy, state.inverse_hessian)
        pairs = jnp.where(keep, optax.safe_increment(state.pairs), state.pairs)
        d = H @ g
        if scale_initial:
            d = jnp.where(pairs == 0, first_scale(g), 1).astype(d.dtype) * d
        return unravel(d), BFGSState(optax.safe_increment(state.count), pairs, w, g, H)

    return optax.GradientTransformation(init, update)


def bfgs(
    learning_rate: Schedule | ArrayLike = 1.0,
    *,
    scale_initial: bool = False,
    line_search: str | None = "strong_wolfe",
) -> optax.GradientTransformationExtraArgs:
    """Makes BFGS: `w = w - a * learning_rate * update`, the update that of `scale_by_bfgs`.

    The step a is found by `strong_wolfe`, or is 1 without line search.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1 is the quasi-Newton step.
      scale_initial: as in `scale_by_bfgs`.
      line_search: "strong_wolfe", for which `update` needs `value`, `grad` and `value_fn`, or None.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> from jaxtrain.optim import minimize
      >>> f = lambda w: ((w - 3.0) ** 2 * jnp.array([1.0, 100.0])).sum()
      >>> minimize(f, jnp.zeros(2), bfgs(), progress=False).params.round(3).tolist()
      [3.0..., 3.0...]
    """
    scale = scale_by_bfgs(scale_initial=scale_initial)
    return descend("bfgs", scale, learning_rate, line_search, "decrease")
