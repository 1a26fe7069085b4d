"""Averages of the params to evaluate with: exponential, of all iterates, of every n-th."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.schedules import Schedule
from jaxtrain.schedules._base import as_count

from ._base import accumulator, as_float, ratio, require_params, unmasked


class AverageState(NamedTuple):
    """The number of updates, the average of the params, and the sum of its weights for `ema`."""

    count: jax.Array  # type: ignore[assignment]
    average: optax.Params
    total: jax.Array | None

    def eval_params(self, params):
        """Gives the average, in the types of the params."""
        return unmasked(lambda a, p: a.astype(jnp.result_type(p)), self.average, params)


def _averaging(where: str, weigh: Callable, total: float | None) -> optax.GradientTransformation:
    """Moves the average by `weight * (params - average)`, `weight, total = weigh(count, total)`."""

    def init(params):
        # A copy, so that a step may donate both the params and the state.
        average = jax.tree.map(lambda p: jnp.array(p, accumulator(p)), params)
        sum_of_weights = None if total is None else as_float(total)
        return AverageState(jnp.zeros((), jnp.int32), average, sum_of_weights)

    def update(updates, state, params=None):
        require_params(where, params)
        weight, total = weigh(state.count, state.total)

        def toward(a, p):
            w, p = weight.astype(a.dtype), p.astype(a.dtype)
            return jnp.where(w == 1, p, a + w * (p - a))

        new_params = optax.apply_updates(params, updates)
        average = jax.tree.map(toward, state.average, new_params)
        return updates, AverageState(optax.safe_increment(state.count), average, total)

    return optax.GradientTransformation(init, update)


def ema(decay: Schedule | ArrayLike, *, debias: bool = False) -> optax.GradientTransformation:
    """Keeps the exponential moving average a of the params w, for `optim.eval_params`.

    After update t, from 1, with a_0 = w_0 or, if `debias`, m_0 = 0::

        a = decay * a + (1 - decay) * w
        m = decay * m + (1 - decay) * w        a = m / (1 - decay**t)

    It stands last in a chain and leaves the updates as they are.

    Args:
      decay: the weight of the past, a number in [0, 1), a schedule, or a traced array; about
        1 / (1 - decay) updates are averaged.
      debias: whether the weights are those of a start from zero, divided by their sum: the
        initial params then count for nothing.

    Returns:
      The transformation; its average is at least float32, what `eval_params` gives has the
      params' dtype.

    Raises:
      ConfigError: an argument is out of range, or `update` got no params.

    Example:
      >>> tx = optax.chain(optax.sgd(1.0), ema(0.75))
      >>> params = jnp.zeros(())
      >>> _, state = tx.update(jnp.array(-4.0), tx.init(params), params)  # params become 4
      >>> state[1].eval_params(params).item()
      1.0

    References:
      Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992, for the
      average of all iterates; Tarvainen and Valpola, Mean Teachers Are Better Role Models, 2017.
    """
    if not callable(decay):
        _check.fraction("ema", "decay", decay)
    _check.choice("ema", "debias", debias, (False, True))

    def weigh(count, total):
        # The difference before the cast: in float32 1 - 0.9999 is off by 2e-4.
        new = as_float(1 - (decay(count) if callable(decay) else decay))
        total = total + new * (1 - total)
        # A schedule may begin with decay 1: no params have a weight yet.
        return jnp.where(total == 0, 1, ratio(new, total)), total

    return _averaging("ema", weigh, 0 if debias else 1)


def polyak(*, start: int = 0) -> optax.GradientTransformation:
    """Keeps the mean of all params since an update, for `optim.eval_params`.

    `a = (w_(start+1) + ... + w_t) / (t - start)` after update t, from 1; w_t until then. It
    stands last in a chain and leaves the updates as they are.

    Args:
      start: the number of updates, >= 0, whose params are left out.

    Returns:
      The transformation, as `ema`.

    Raises:
      ConfigError: an argument is out of range, or `update` got no params.

    Example:
      >>> tx = optax.chain(optax.sgd(1.0), polyak())
      >>> params = jnp.zeros(())
      >>> _, state = tx.update(jnp.array(-4.0), tx.init(params), params)
      >>> _, state = tx.update(jnp.array(-2.0), state, jnp.array(4.0))
      >>> state[1].eval_params(params).item()  # of 4 and 6
      5.0

    References:
      Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.
    """
    return _mean("polyak", start, 1)


def swa(*, start: int, every: int) -> optax.GradientTransformation:
    """Keeps the mean of the params at the ends of cycles, for `optim.eval_params`.

    The mean of w_t for t = start + every, start + 2 * every, ..., with w_t the params after
    update t, from 1; w_t until there is one. It stands last in a chain and leaves the updates as
    they are. Its paper also counts the params it starts from, those after update s:
    `swa(start=s - every, every=every)`.

    Args:
      start: the number of updates before the first cycle, >= 0.
      every: the number of updates in a cycle, >= 1.

    Returns:
      The transformation, as `ema`.

    Raises:
      ConfigError: an argument is out of range, or `update` got no params.

    Example:
      >>> tx = optax.chain(optax.sgd(1.0), swa(start=0, every=2))
      >>> params, state = jnp.zeros(()), tx.init(jnp.zeros(()))
      >>> for _ in range(5):
      ...     updates, state = tx.update(jnp.array(-1.0), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> state[1].eval_params(params).item()  # of 2 and 4
      3.0

    References:
      Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, Averaging Weights Leads to Wider Optima
      and Better Generalization, 2018.
    """
    return _mean("swa", start, every)


def _mean(where, start, every):
    _check.integer(where, "start", start, least=0)
    _check.integer(where, "every", every)

    def weigh(count, total):
        n, rest = jnp.divmod(optax.safe_increment(count) - as_count(start), as_count(every))
        weight = jnp.where((n < 1) | (rest == 0), 1 / as_float(jnp.maximum(n, 1)), 0)
        return weight, total

    return _averaging(where, weigh, None)


def check_averages_stand_last(opt_state: optax.OptState) -> None:
    """Checks that nothing follows an average in its `optax.chain`.

    Args:
      opt_state: the optimizer's state, arrays or shapes.

    Raises:
      ConfigError: something does: it would change updates that are in the average already.
    """

    def is_average(node):
        return isinstance(node, AverageState)

    def is_chain(node):
        return type(node) is tuple

    for chain in filter(is_chain, jax.tree.leaves(opt_state, is_leaf=is_chain)):
        for i, member in enumerate(chain, 1):
            check_averages_stand_last(member)
            if i < len(chain) and any(map(is_average, jax.tree.leaves(member, is_leaf=is_average))):
                fix = "put it at the end, it averages the params that all updates lead to"
                got = f"number {i} of {len(chain)}"
                _check.fail("chain", "ema, polyak or swa", "the last transformation", got, fix)
