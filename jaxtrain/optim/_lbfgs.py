"""BFGS with a limited memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule

from ._base import as_float, linear, ratio, scaled, widened, zeros
from ._bfgs import first_scale, is_curved
from ._line_search import descend, needs


class LBFGSState(NamedTuple):
    """The last params and gradients, and pairs (s, y) of their differences in rows of a ring.

    `count` updates have been made and `pairs` pairs kept; pair k is in row `k % memory` of the
    leaves of s and y. `sy[i, j] = s_i'y_j` where j is not older than i, `yy[i, j] = y_i'y_j`.
    """

    count: jax.Array  # type: ignore[assignment]
    pairs: jax.Array
    params: optax.Params
    grads: optax.Updates
    s: optax.Params
    y: optax.Updates
    sy: jax.Array
    yy: jax.Array


def _products(rows, x, memory):
    """The inner products of each of the rows with x."""

    def leaf(rows, x):
        return as_float(jnp.dot(rows.reshape(memory, -1), x.reshape(-1)))

    return sum(jax.tree.leaves(jax.tree.map(leaf, rows, x)), as_float(jnp.zeros(memory)))


def _combination(a, s, b, y, c, g):
    """`c * g` and the sums of `a[i] * s[i]` and `b[i] * y[i]`, in one pass over all."""

    def leaf(s, y, g):
        a_, b_, c_ = (jnp.asarray(z, s.dtype) for z in (a, b, c))
        # A matrix product would pass once over s and once over y, and write and read the sums.
        return sum((a_[i] * s[i] + b_[i] * y[i] for i in range(len(s))), c_ * g)

    return jax.tree.map(leaf, s, y, g)


def scale_by_lbfgs(*, memory: int = 10, scale_initial: bool = True) -> optax.GradientTransformation:
    """Multiplies gradients g by an inverse Hessian made of the last pairs of differences.

    With the pairs s_i = w_(i+1) - w_i and y_i = g_(i+1) - g_i, oldest first, as columns of S and
    Y, the update is the two-loop recursion's, in its compact form::

        R = the upper triangle of S'Y, D = its diagonal, gamma = s'y / y'y of the newest pair
        alpha = R^-1 S'g
        beta = R^-T (D alpha - gamma * (Y'g - Y'Y alpha))
        update = gamma * g + S beta - gamma * Y alpha

    A pair is skipped unless `s'y > eps * |s| * |y|`, eps the machine's. Before the first pair
    gamma is `min(1, 1 / |g|)`: that update has at most length 1.

    Args:
      memory: the largest number of pairs, >= 1; 5 to 20 are usual.
      scale_initial: False takes gamma = 1 always.

    Returns:
      The transformation. It needs params in `update`; its updates have the gradients' dtype, its
      pairs at least float32.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> tx, w, curvature = scale_by_lbfgs(), jnp.array([0.6, 0.8]), 2.0
      >>> _, state = tx.update(curvature * w, tx.init(w), w)
      >>> tx.update(curvature * w / 2, state, w / 2)[0].round(3).tolist()
      [0.3..., 0.4...]

    References:
      Liu and Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization, 1989.
      Byrd, Nocedal and Schnabel, Representations of Quasi-Newton Matrices and Their Use in
      Limited Memory Methods, 1994.
    """
    where = "scale_by_lbfgs"
    _check.integer(where, "memory", memory)
    if isinstance(memory, jax.core.Tracer):
        fix = "pass static_args='memory' to optax.inject_hyperparams"
        _check.fail(where, "memory", "an int and not traced", memory, fix, TypeError)
    _check.choice(where, "scale_initial", scale_initial, (False, True))

    def init(params):
        # No array stands twice, so that a step may donate the state.
        count, pairs = jnp.zeros(2, jnp.int32)
        w, g, s, y = (zeros(params) for _ in range(4))
        s, y = jax.tree.map(lambda x: jnp.zeros((memory, *x.shape), x.dtype), (s, y))
        sy, yy = jnp.zeros((2, memory, memory), as_float(0).dtype)
        return LBFGSState(count, pairs, w, g, s, y, sy, yy)

    @jax.default_matmul_precision("highest")
    def update(updates, state, params=None):
        needs(where, params=params)
        w, g = widened(params), widened(updates)
        s, y = linear(1, w, -1, state.params), linear(1, g, -1, state.grads)
        keep = (state.count > 0) & is_curved(s, y)
        row = state.pairs % memory

        def put(rows, new):
            return rows.at[row].set(jnp.where(keep, new, rows[row]))

        S, Y = jax.tree.map(put, state.s, s), jax.tree.map(put, state.y, y)
        pairs = jnp.where(keep, optax.safe_increment(state.pairs), state.pairs)
        yy_new = _products(Y, y, memory)
        sy = jnp.where(keep, state.sy.at[:, row].set(_products(S, y, memory)), state.sy)
        yy = jnp.where(keep, state.yy.at[:, row].set(yy_new).at[row].set(yy_new), state.yy)

        # Oldest first; rows never filled are zero.
        order = (pairs + jnp.arange(memory, dtype=jnp.int32)) % memory
        back = jnp.argsort(order)
        R, yy_ = jnp.triu(sy[order][:, order]), yy[order][:, order]
        D = jnp.diag(R)
        R = R + jnp.diag(jnp.where(D == 0, 1, 0))
        gamma = jnp.where(pairs > 0, ratio(D[-1], yy_[-1, -1]), first_scale(g))
        gamma = gamma if scale_initial else as_float(1)
        alpha = solve_triangular(R, _products(S, g, memory)[order])
        rest = D * alpha - gamma * (_products(Y, g, memory)[order] - yy_ @ alpha)
        beta = solve_triangular(R, rest, trans="T")
        d = _combination(beta[back], S, -gamma * alpha[back], Y, gamma, g)
        count = optax.safe_increment(state.count)
        return scaled(1, d, updates), LBFGSState(count, pairs, w, g, S, Y, sy, yy)

    return optax.GradientTransformation(init, update)


def lbfgs(
    learning_rate: Schedule | ArrayLike = 1.0,
    *,
    memory: int = 10,
    scale_initial: bool = True,
    line_search: str | None = "strong_wolfe",
) -> optax.GradientTransformationExtraArgs:
    """Makes L-BFGS: `w = w - a * learning_rate * update`, the update that of `scale_by_lbfgs`.

    The step a is found by `strong_wolfe`, or is 1 without line search. For whole losses: the
    differences of mini-batch gradients are mostly noise.

    Args:
      learning_rate: a number > 0, a schedule, or a traced array; 1 is the quasi-Newton step.
      memory, scale_initial: as in `scale_by_lbfgs`.
      line_search: "strong_wolfe", for which `update` needs `value`, `grad` and `value_fn`, or None.

    Returns:
      The optimizer.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> from jaxtrain.optim import minimize
      >>> f = lambda w: ((w - 3.0) ** 2 * jnp.array([1.0, 100.0])).sum()
      >>> minimize(f, jnp.zeros(2), lbfgs(), progress=False).params.round(3).tolist()
      [3.0..., 3.0...]
    """
    scale = scale_by_lbfgs(memory=memory, scale_initial=scale_initial)
    return descend("lbfgs", scale, learning_rate, line_search)
