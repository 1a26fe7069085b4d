"""The sum over devices, differentiable as what it is: a function of replicated values."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxtrain import _compat


def global_sum(f: Callable[..., Any], axis_name: str | None) -> Callable[..., Any]:
    """Sums a function of replicated values over the devices of a mapped axis.

    Differentiating `psum(f(x))` itself gives each device a part of the gradient under `pmap` and a
    multiple of it elsewhere. Here the pull-back is the sum of the devices' own pull-backs, and is
    such a sum itself: reverse mode is right to any order. Forward mode is refused.

    Args:
        f: a function of arrays that are the same on all devices; what differs between them, such as
            this device's part of the batch, it closes over.
        axis_name: the mapped axis; None returns `f` itself.

    Returns:
        The function with the same arguments; its values and derivatives are replicated.

    Example:
        >>> import numpy as np
        >>> def slope(x):
        ...     return jax.grad(global_sum(lambda w: (w * x).sum(), "data"))(2.0)
        >>> jax.vmap(slope, axis_name="data")(np.arange(4.0)).tolist()
        [6.0, 6.0, 6.0, 6.0]
    """
    if axis_name is None:
        return f

    @jax.custom_vjp
    def total(*args):
        return lax.psum(f(*_compat.to_varying(args, axis_name)), axis_name)

    def forward(*args):
        return total(*args), args

    def backward(args, cotangent):
        def pull(*args_and_cotangent):
            *args, cotangent = args_and_cotangent
            return jax.vjp(f, *args)[1](cotangent)

        return global_sum(pull, axis_name)(*args, cotangent)

    total.defvjp(forward, backward)
    return total
