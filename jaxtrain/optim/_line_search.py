"""The strong-Wolfe line search of Moré and Thuente."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule

from ._base import as_float, dot, scale_by_learning_rate, scaled

LONGEST = 1e10  # the largest step tried, as in L-BFGS-B


class _Point(NamedTuple):
    """A step along the line, with the value and the slope there."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    """The best point x with its gradient, the other end y of the interval, and what to try next."""

    x: _Point
    y: _Point
    grad: optax.Updates
    step: jax.Array
    lowest: jax.Array
    highest: jax.Array
    width: jax.Array
    width_before: jax.Array
    bracketed: jax.Array
    first_stage: jax.Array
    evaluations: jax.Array
    done: jax.Array


def _either(condition, a, b):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), a, b)


def _nearer(a, b, to):
    return jnp.where(jnp.abs(a - to) < jnp.abs(b - to), a, b)


def _farther(a, b, to):
    return jnp.where(jnp.abs(a - to) > jnp.abs(b - to), a, b)


def _cubic(a, b):
    """The minimizer of the cubic with the values and slopes of a and b; inf where it has none."""
    theta = 3 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope
    s = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(a.slope), jnp.abs(b.slope)))
    root = jnp.sqrt(jnp.maximum((theta / s) ** 2 - (a.slope / s) * (b.slope / s), 0))
    gamma = jnp.sign(b.step - a.step) * s * root
    r = (gamma - a.slope + theta) / (gamma - a.slope + gamma + b.slope)
    return jnp.where(gamma == 0, jnp.inf, a.step + r * (b.step - a.step))


def _interpolate(x, y, t, bracketed, lowest, highest):
    """The step after trial t, whether t is higher than x, and whether the slope changed its sign.

    MINPACK's `dcstep`; not finite where a value is not.
    """
    higher = ~(t.value <= x.value)
    turned = ~higher & (t.slope * jnp.sign(x.slope) < 0)
    flatter = jnp.abs(t.slope) < jnp.abs(x.slope)

    cubic = _cubic(x, t)
    chord = (x.value - t.value) / (t.step - x.step)
    parabola = x.step + x.slope / (chord + x.slope) / 2 * (t.step - x.step)
    secant = t.step + t.slope / (t.slope - x.slope) * (x.step - t.step)
    end = jnp.where(t.step > x.step, highest, lowest)
    ahead = jnp.isfinite(cubic) & ((cubic - t.step) * (t.step - x.step) > 0)
    onward = jnp.where(ahead, cubic, end)
    limit = t.step + 0.66 * (y.step - t.step)
    step = jnp.select(
        [higher, turned, flatter & bracketed, flatter, bracketed],
        [
            _nearer(cubic, (cubic + parabola) / 2, x.step),
            _farther(cubic, secant, t.step),
            _nearer(_nearer(onward, secant, t.step), limit, t.step),
            jnp.clip(_farther(onward, secant, t.step), lowest, highest),
            _cubic(t, y),
        ],
        end,
    )
    return step, higher, turned


def _search(phi, start, grad, step, c1, c2, max_evaluations):
    """Tries `step` first; MINPACK's `dcsrch`. Returns the last `_Search`, its x the result."""

    def try_step(s):
        t, grad = phi(s.step)
        enough = t.value <= start.value + c1 * t.step * start.slope
        accepted = enough & (jnp.abs(t.slope) <= -c2 * start.slope)
        first_stage = s.first_stage & ~(enough & (t.slope >= 0))

        # Lower, but not by enough: in the first stage the tilted function is interpolated instead.
        tilted = first_stage & (t.value <= s.x.value) & ~enough
        tilt = jnp.where(tilted, c1 * start.slope, 0)

        def lower(p):
            return _Point(p.step, p.value - tilt * p.step, p.slope - tilt)

        step, higher, turned = _interpolate(
            lower(s.x), lower(s.y), lower(t), s.bracketed, s.lowest, s.highest
        )
        bracketed = s.bracketed | higher | turned
        y = _either(higher, t, _either(turned, s.x, s.y))
        x = _either(accepted | ~higher, t, s.x)

        width = jnp.abs(y.step - x.step)
        bisect = ~jnp.isfinite(step) | (bracketed & (width >= 0.66 * s.width_before))
        step = jnp.clip(jnp.where(bisect, (x.step + y.step) / 2, step), 0, LONGEST)
        lowest = jnp.where(bracketed, jnp.minimum(x.step, y.step), step + 1.1 * (step - x.step))
        highest = jnp.where(bracketed, jnp.maximum(x.step, y.step), step + 4 * (step - x.step))
        eps = jnp.finfo(step.dtype).eps
        narrow = (step <= lowest) | (step >= highest) | (highest - lowest <= eps * highest)
        evaluations = s.evaluations + 1
        return _Search(
            x=x,
            y=y,
            grad=_either(x.step == t.step, grad, s.grad),
            step=step,
            lowest=lowest,
            highest=highest,
            width=jnp.where(bracketed, width, s.width),
            width_before=jnp.where(bracketed, s.width, s.width_before),
            bracketed=bracketed,
            first_stage=first_stage,
            evaluations=evaluations,
            done=accepted
            | (bracketed & narrow)
            | (t.step >= LONGEST)
            | (evaluations >= max_evaluations),
        )

    longest, no = jnp.full_like(step, LONGEST), jnp.array(False)
    return jax.lax.while_loop(
        lambda s: ~s.done,
        try_step,
        _Search(
            x=start,
            y=start,
            grad=grad,
            step=step,
            lowest=0 * step,
            highest=5 * step,
            width=longest,
            width_before=2 * longest,
            bracketed=no,
            first_stage=~no,
            evaluations=jnp.zeros((), jnp.int32),
            done=~(start.slope < 0),
        ),
    )


class LineSearchState(NamedTuple):
    """Value and gradient at the new params, the value before, the last step, all evaluations."""

    value: jax.Array
    grad: optax.Updates
    value_before: jax.Array
    step: jax.Array
    evaluations: jax.Array


def strong_wolfe(
    *,
    c1: ArrayLike = 1e-4,
    c2: ArrayLike = 0.9,
    first_trial: str = "one",
    max_evaluations: int = 20,
) -> optax.GradientTransformationExtraArgs:
    """Scales updates d by a step a that satisfies the strong Wolfe conditions.

    With f the function and g its gradient::

        f(w + a * d) <= f(w) + c1 * a * g(w).d        |g(w + a * d).d| <= c2 * |g(w).d|

    The search tries a = 1, then interpolates values and slopes by cubics and parabolas. With
    `first_trial="decrease"` it begins with `min(1, 1.01 * a)`, a the step at which a parabola with
    the slope at 0 would have fallen as much as f fell in the last search, or by |g| / 2 before any.
    An update that points uphill is turned round. Where no step satisfies both conditions, for
    rounding or within `max_evaluations`, the lowest point found is taken; that may be a = 0.
    A value that is not finite counts as too high.

    It stands last in a chain, and its `update` needs three keywords more, as those of optax have:
    `value` and `grad` at the params and `value_fn(params)`. The state holds value and gradient at
    the new params; `optax.value_and_grad_from_state` and `optim.minimize` reuse them, so that no
    point is evaluated twice.

    Args:
      c1: the part of the decrease that the slope promises and the step must reach, in [0, c2].
      c2: the part of the slope that may remain, in [c1, 1).
      first_trial: "one" for updates that know their length, else "decrease".
      max_evaluations: of value and gradient, in each search, >= 1.

    Returns:
      The transformation.

    Raises:
      ConfigError: an argument is out of range; in `update`: `value_fn` is missing.

    Example:
      >>> f = lambda w: ((w - 3.0) ** 2).sum()
      >>> tx, w = optax.chain(scale_by_learning_rate(0.1), strong_wolfe(c2=0.1)), jnp.zeros(2)
      >>> value, grad = jax.value_and_grad(f)(w)
      >>> updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=f)
      >>> optax.apply_updates(w, updates).round(3).tolist()
      [3.0..., 3.0...]

    References:
      Moré and Thuente, Line Search Algorithms with Guaranteed Sufficient Decrease, 1994.
      Nocedal and Wright, Numerical Optimization, 2nd edition, 2006, equation 3.60: "decrease".
    """
    where = "strong_wolfe"
    _check.fraction(where, "c1", c1)
    _check.fraction(where, "c2", c2)
    _check.at_most(where, "c1", c1, "c2", c2)
    _check.choice(where, "first_trial", first_trial, ("one", "decrease"))
    _check.integer(where, "max_evaluations", max_evaluations)

    def init(params):
        grad = jax.tree.map(jnp.zeros_like, params)
        value, before = as_float(jnp.full(2, jnp.inf))
        return LineSearchState(value, grad, before, as_float(0), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, value=None, grad=None, value_fn=None, **_):
        needs(where, params=params, value=value, grad=grad, value_fn=value_fn)
        slope = dot(grad, updates)
        direction = scaled(jnp.where(slope > 0, -1, 1), updates, updates)

        def phi(step):
            trial = optax.apply_updates(params, scaled(step, direction, direction))
            value, grad = jax.value_and_grad(value_fn)(trial)
            slope = dot(grad, direction)
            finite = jnp.isfinite(value) & jnp.isfinite(slope)
            return _Point(step, jnp.where(finite, as_float(value), jnp.inf), slope), grad

        start = _Point(as_float(0), as_float(value), -jnp.abs(slope))
        first = as_float(1)
        if first_trial == "decrease":
            guess = start.value + jnp.sqrt(dot(grad, grad)) / 2
            before = jnp.where(jnp.isfinite(state.value_before), state.value_before, guess)
            a = 2 * (start.value - before) / start.slope
            first = jnp.where(a > 0, jnp.minimum(1, 1.01 * a), 1)
        found = _search(phi, start, grad, first, as_float(c1), as_float(c2), max_evaluations)
        (step, value, _), evaluations = found.x, state.evaluations + found.evaluations
        state = LineSearchState(value, found.grad, start.value, step, evaluations)
        return scaled(step, direction, direction), state

    return optax.GradientTransformationExtraArgs(init, update)


def needs(where: str, **arguments: Any) -> None:
    """Checks that `update` was given what it needs beside gradients and state."""
    for name, value in arguments.items():
        if value is None:
            fix = "call tx.update(grads, state, params, value=, grad=, value_fn=) or optim.minimize"
            _check.fail(where, name, "given to update", value, fix)
    # value_fn would get them without those that are masked.
    masked = [x for x in jax.tree.leaves(arguments, is_leaf=_is_masked) if _is_masked(x)]
    if masked and "value_fn" in arguments:
        fix = "freeze by train.make_step(freeze=), or leave the frozen ones out of value_fn"
        _check.fail(where, "params", "all those of value_fn", masked[0], fix)


def _is_masked(node):
    return isinstance(node, optax.MaskedNode)


def descend(
    where: str,
    scale: optax.GradientTransformation,
    learning_rate: Schedule | ArrayLike,
    line_search: str | None,
    first_trial: str = "one",
) -> optax.GradientTransformationExtraArgs:
    """Chains a direction with the learning rate and, if asked for, the line search."""
    _check.choice(where, "line_search", line_search, ("strong_wolfe", None))
    search = [strong_wolfe(first_trial=first_trial)] if line_search else []
    return optax.chain(scale, scale_by_learning_rate(learning_rate), *search)
