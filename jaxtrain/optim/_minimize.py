"""Minimization of a function by any optimizer, in one call."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxtrain import _check, tree

from ._base import _having, eval_params, extended, grad_params


class Minimum(NamedTuple):
    """What `minimize` found, and how.

    `value` and `grad_norm` are those at `params`; `evaluations` counts values with gradients, those
    of line searches included; `history` has arrays "value" and "grad_norm" with a number for the
    start and for each step.
    """

    params: optax.Params
    value: float
    grad_norm: float
    steps: int
    evaluations: int
    reason: str
    history: dict[str, np.ndarray]


class _State(NamedTuple):
    params: optax.Params
    opt_state: optax.OptState
    value: jax.Array
    grad: optax.Updates
    grad_norm: jax.Array
    change: jax.Array
    step: jax.Array
    evaluations: jax.Array
    stop: jax.Array


ROWS = 1000  # the most steps per dispatch
GOING_ON, BAD_START, NOT_FINITE, FLAT, UNCHANGED, NOT_LOWER = range(6)


def minimize(
    fun: Callable[[Any], ArrayLike],
    params: optax.Params,
    tx: optax.GradientTransformation,
    *,
    steps: int = 1000,
    tolerance: float = 1e-5,
    value_tolerance: float | None = None,
    progress: bool = True,
) -> Minimum:
    """Minimizes a function of params, with as many steps per dispatch as fit in a part of a second.

    It stops when the gradient's norm is at most `tolerance`, when a step changes the value by at
    most `value_tolerance`, when a line search finds no lower value, when value or gradient is not
    finite, or after `steps` steps; `reason` says which. Values and gradients are taken at
    `optim.grad_params`, where the rules apply; the params returned are `optim.eval_params`.

    A line search is run by its `update`; its last value and gradient are used again, so that each
    of its trials costs one evaluation and nothing else does.

    Args:
      fun: the function of params alone that gives a scalar, differentiable.
      params: where to start; they are not changed.
      tx: any optimizer, of this package or of optax.
      steps: the largest number of updates, >= 1.
      tolerance: the gradient's Euclidean norm to reach, >= 0.
      value_tolerance: the change of the value that counts as none, >= 0; None means no such rule.
      progress: shows steps, value, gradient norm and the time left.

    Returns:
      The minimum, its `reason` an English phrase.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> from jaxtrain.optim import lbfgs
      >>> f = lambda w: ((w - 3.0) ** 2).sum()
      >>> found = minimize(f, jnp.zeros(2), lbfgs(), progress=False)
      >>> found.params.round(3).tolist(), found.steps, found.reason
      ([3.0..., 3.0...], 2, 'gradient norm 0 <= tolerance 1e-05')
    """
    if not callable(fun):
        _check.fail("minimize", "fun", "a function of params", fun, error=TypeError)
    tx = extended("minimize", tx)
    _check.integer("minimize", "steps", steps)
    _check.nonnegative("minimize", "tolerance", tolerance)
    if value_tolerance is not None:
        _check.nonnegative("minimize", "value_tolerance", value_tolerance)
    measure, begin, advance = _programs(fun, tx, tolerance, value_tolerance)

    state = begin(params)
    at, n, rows = 0, 1, [(state.value[None], state.grad_norm[None])]
    with _bar(steps, shown=progress) as show:
        show(state)
        while state.stop == GOING_ON and at < steps:
            began, first = time.monotonic(), at
            state, new = advance(state, min(at + n, steps))
            at = int(state.step)
            rows.append(tuple(column[: at - first] for column in new))
            show(state)
            if time.monotonic() - began < 0.2:
                n = min(2 * n, ROWS)

    params, evaluations = eval_params(state.params, state.opt_state), int(state.evaluations)
    value, norm, change = map(float, (state.value, state.grad_norm, state.change))
    reason = {
        GOING_ON: f"all {steps} steps made",
        NOT_FINITE: f"not finite at step {at + 1}; params are those before it",
        BAD_START: "not finite at the start",
        FLAT: f"gradient norm {norm:.3g} <= tolerance {tolerance:.3g}",
        UNCHANGED: f"value changed by {change:.3g} <= value_tolerance {value_tolerance}",
        NOT_LOWER: "line search found no lower value",
    }[int(state.stop)]
    if params is not grad_params(state.params, state.opt_state):
        value, norm = map(float, measure(params)[::2])
        evaluations += 1
        if int(state.stop) == FLAT:
            reason += " where gradients are taken, which is not at `params`"
    values, norms = map(np.concatenate, zip(*rows, strict=True))
    history = {"value": values, "grad_norm": norms}
    return Minimum(params, value, norm, at, evaluations, reason, history)


def _programs(fun, tx, tolerance, value_tolerance):
    """What `minimize` compiles: the measurement of params, the first state, a number of steps."""

    def measure(params):
        value, grad = jax.value_and_grad(fun)(params)
        return value, grad, tree.global_norm(grad)

    def begin(params):
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.result_type(p)), params)
        opt_state = tx.init(params)
        value, grad, norm = measure(grad_params(params, opt_state))
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        stop = jnp.where(finite, jnp.where(norm <= tolerance, FLAT, GOING_ON), BAD_START)
        numbers = (jnp.asarray(x, jnp.int32) for x in (0, 1, stop))
        return _State(params, opt_state, value, grad, norm, jnp.zeros_like(value), *numbers)

    def take_step(old):
        updates, opt_state = tx.update(
            old.grad, old.opt_state, old.params, value=old.value, grad=old.grad, value_fn=fun
        )
        params = optax.apply_updates(old.params, updates)
        search = _line_search(opt_state)
        if search is None:
            value, grad, norm = measure(grad_params(params, opt_state))
            spent, lower = 1, jnp.array(True)
        else:
            value, grad = search.value.astype(old.value.dtype), search.grad
            norm = tree.global_norm(grad)
            spent, lower = _spent(_line_search(old.opt_state), search), value < old.value
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        change = jnp.abs(value - old.value)
        unchanged = change <= (-1 if value_tolerance is None else value_tolerance)
        stop = jnp.select(
            [~finite, norm <= tolerance, unchanged, ~lower],
            [NOT_FINITE, FLAT, UNCHANGED, NOT_LOWER],
            GOING_ON,
        )
        new = _State(
            params, opt_state, value, grad, norm, change, old.step + 1, old.evaluations, old.stop
        )
        state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        return state._replace(evaluations=old.evaluations + spent, stop=stop.astype(jnp.int32))

    def advance(state, until):
        def body(carry):
            state, rows = carry
            state = take_step(state)
            values, norms = rows
            at = state.step - first - 1
            return state, (values.at[at].set(state.value), norms.at[at].set(state.grad_norm))

        first = state.step
        rows = tuple(jnp.zeros(ROWS, x.dtype) for x in (state.value, state.grad_norm))
        return jax.lax.while_loop(
            lambda carry: (carry[0].stop == GOING_ON) & (carry[0].step < until), body, (state, rows)
        )

    return jax.jit(measure), jax.jit(begin), jax.jit(advance, donate_argnums=0)


def _line_search(opt_state):
    """The state of the line search that keeps value and gradient at the new params, or None."""
    found = [node for node in _having("grad", opt_state) if hasattr(node, "value")]
    return found[0] if found and found[0].grad is not None else None


def _spent(before, after):
    """The evaluations of one line search, of this package or of optax."""
    if hasattr(after, "evaluations"):
        return after.evaluations - before.evaluations
    return after.info.num_linesearch_steps


@contextlib.contextmanager
def _bar(total, *, shown):
    """Gives a function that shows a `_State` in a progress bar."""
    if not shown:
        yield lambda state: None
        return
    from rich import progress

    columns = (
        progress.TextColumn("step {task.completed}/{task.total}"),
        progress.BarColumn(bar_width=8),
        progress.TextColumn("value {task.fields[value]:.6g} gradient {task.fields[norm]:.3g} ETA"),
        progress.TimeRemainingColumn(compact=True),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task("", total=total, value=math.nan, norm=math.nan)

        def show(state):
            value, norm = float(state.value), float(state.grad_norm)
            bar.update(task, completed=int(state.step), value=value, norm=norm)

        yield show
