"""Penalties: functions of params that return one number, the `penalty` of `train.make_step`.

`optim.l2` adds the gradient of `l2` to those of the loss, `optim.weight_decay` decays beside them,
`optim.proximal_l1` makes the exact zeros that the gradient of `l1` does not, and `optim.max_norm`
limits where these only pull.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.losses import _regression
from jaxtrain.optim import _base, _decay
from jaxtrain.tree import Rule

Penalty = Callable[[Any], jax.Array]


def l2(
    strength: ArrayLike,
    *,
    scale: str = "half",
    examples: int | None = None,
    rule: Rule | None = None,
) -> Penalty:
    """Makes the L2 penalty of params w, also known as Tikhonov's or as weight decay.

    With s = `strength` and m = `examples`::

        "half"         s / 2 sum(w^2)         gradient s w        the default, as in optim.l2
        "sum"          s sum(w^2)             gradient 2 s w
        "half_over_m"  s / (2 m) sum(w^2)     gradient s w / m

    Args:
        strength: s >= 0, a number or a traced array.
        scale: "half", "sum" or "half_over_m".
        examples: m, the size of the training set, >= 1, for "half_over_m" alone.
        rule: Which params, as in `tree.select`; None means `optim.kernels`.

    Returns:
        `f(params)`, shape (), in the default float type.

    Raises:
        ConfigError: If an argument is outside its range or, from f, the rule chooses nothing.

    Example:
        >>> params = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.ones(2)}
        >>> float(l2(2.0)(params)), float(l2(2.0, scale="sum", rule="*")(params))
        (25.0, 54.0)

    References:
        A. Krogh, J. Hertz, A Simple Weight Decay Can Improve Generalization, 1991.
    """
    _check.nonnegative("l2", "strength", strength)
    _check.choice("l2", "scale", scale, ("half", "sum", "half_over_m"))
    if scale == "half_over_m":
        _check.integer("l2", "examples", examples, fix="give the size of the training set")
    elif examples is not None:
        _check.fail("l2", "examples", f"None with scale={scale!r}", examples)
    factor = {"half": 0.5, "sum": 1.0, "half_over_m": 0.5 / (examples or 1)}[scale]
    return _penalty("l2", rule, lambda w: _times(factor * _base.as_float(strength), w**2))


def l1(strength: ArrayLike, *, rule: Rule | None = None) -> Penalty:
    """Makes the L1 penalty of params w, `strength * sum(|w|)`, also known as lasso.

    Its gradient is `strength * sign(w)`, 0 at 0. Descent along it does not stop at zero:
    `optim.proximal_l1` does.

    Args:
        strength: >= 0, a number or a traced array.
        rule: As for `l2`.

    Returns:
        `f(params)`, shape (), in the default float type.

    Raises:
        ConfigError: If strength is negative or, from f, the rule chooses nothing.

    Example:
        >>> float(l1(2.0)({"kernel": jnp.array([3.0, -4.0]), "bias": jnp.ones(2)}))
        14.0

    References:
        R. Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.
    """
    _check.nonnegative("l1", "strength", strength)
    return _penalty("l1", rule, lambda w: _times(strength, _regression.absolute(w)))


def elastic_net(*, l1: ArrayLike, l2: ArrayLike, rule: Rule | None = None) -> Penalty:
    """Makes the sum of both penalties of params w, `l1 * sum(|w|) + l2 * sum(w^2)`.

    The form `s * sum(beta w^2 + |w|)` of some notes is `elastic_net(l1=s, l2=s * beta)`.

    Args:
        l1: The strength of the absolute values, >= 0, a number or a traced array.
        l2: The strength of the squares, likewise.
        rule: As for `l2`.

    Returns:
        `f(params)`, shape (), in the default float type.

    Raises:
        ConfigError: If a strength is negative or, from f, the rule chooses nothing.

    Example:
        >>> float(elastic_net(l1=2.0, l2=0.5)({"kernel": jnp.array([3.0, -4.0])}))
        26.5

    References:
        H. Zou, T. Hastie, Regularization and Variable Selection via the Elastic Net, 2005, where
        it is the "naive" one.
    """
    _check.nonnegative("elastic_net", "l1", l1)
    _check.nonnegative("elastic_net", "l2", l2)
    return _penalty(
        "elastic_net", rule, lambda w: _times(l1, _regression.absolute(w)) + _times(l2, w**2)
    )


def _times(strength, x):
    return jnp.asarray(strength, x.dtype) * x


def _penalty(where: str, rule: Rule | None, of: Callable[[jax.Array], jax.Array]) -> Penalty:
    """Makes the sum of `of` over the entries of the chosen params, in float32 or better."""

    def penalty(params):
        def leaf(w, chosen):
            if chosen and not jnp.issubdtype(dtype := jnp.result_type(w), jnp.floating):
                _check.fail(where, "params", "floating where the rule chooses them", str(dtype))
            return _base.as_float(of(jnp.asarray(w, _base.accumulator(w))).sum() if chosen else 0)

        terms = jax.tree.map(leaf, params, _decay.penalized(where, rule, params))
        return sum(jax.tree.leaves(terms), _base.as_float(0))

    return penalty
