"""Activations: functions of one array, each a layer as it is, and those with params.

Those that JAX has right are JAX's own. Where an activation has a kink, its derivative at 0 is that
of the left branch, as in torch: relu 0, leaky_relu and prelu the slope, elu alpha, selu 1.758.
Values and derivatives are finite at +-1e4 in every float type. To set an option in a net:
`functools.partial(nn.leaky_relu, negative_slope=0.1)`.
"""

import jax
import jax.numpy as jnp

from jaxtrain import _check
from jaxtrain.nn._layer import Layer, constructor, on_last_axis, param_dtype
from jaxtrain.nn._stochastic import for_each

relu = jax.nn.relu
selu = jax.nn.selu
sigmoid = jax.nn.sigmoid
silu = jax.nn.silu
softmax = jax.nn.softmax
softplus = jax.nn.softplus
tanh = jnp.tanh


def leaky_relu(x, *, negative_slope: float = 0.01, at_zero: str = "left"):
    """Computes `x` where x > 0, else `negative_slope * x`.

    Args:
        x: array of a floating dtype.
        negative_slope: the slope left of 0, >= 0; some notes use 0.1.
        at_zero: whose derivative holds at 0: "left", that of x < 0, or "right", which is 1.

    Returns:
        An array of the shape and dtype of x.

    Example:
        >>> leaky_relu(jnp.array([-100.0, 0.0, 2.0])).tolist()
        [-1.0, 0.0, 2.0]

    References:
        A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic
        models", 2013.
    """
    _check.nonnegative("leaky_relu", "negative_slope", negative_slope)
    return jnp.where(_right("leaky_relu", x, at_zero), x, negative_slope * x)


def elu(x, *, alpha: float = 1.0, at_zero: str = "left"):
    """Computes `x` where x > 0, else `alpha (exp(x) - 1)`.

    Args:
        x: array of a floating dtype.
        alpha: minus the limit at -inf, > 0.
        at_zero: whose derivative holds at 0: "left", which is alpha, or "right", which is 1.

    Returns:
        An array of the shape and dtype of x.

    Example:
        >>> elu(jnp.array([-1e4, 0.0, 2.0]), alpha=0.5).tolist()
        [-0.5, 0.0, 2.0]

    References:
        D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by
        exponential linear units (ELUs)", 2016.
    """
    _check.positive("elu", "alpha", alpha)
    right = _right("elu", x, at_zero)
    # The exponential that is not chosen must not overflow: 0 * inf is its gradient.
    return jnp.where(right, x, alpha * jnp.expm1(jnp.where(right, 0, x)))


def _right(where, x, at_zero):
    _check.choice(where, "at_zero", at_zero, ("left", "right"))
    return x > 0 if at_zero == "left" else x >= 0


def swish(x, *, beta: float = 1.0):
    """Computes `x sigmoid(beta x)`: for beta = 1 silu, for 0 half of x, for large beta almost relu.

    Args:
        x: array of a floating dtype.
        beta: how sharp the bend is, >= 0; one that is trained is `trainable_swish`.

    Returns:
        An array of the shape and dtype of x.

    Example:
        >>> swish(jnp.array([-1e4, 0.0, 2.0]), beta=100.0).tolist()
        [-0.0, 0.0, 2.0]

    References:
        P. Ramachandran, B. Zoph, Q. Le, "Searching for activation functions", 2017.
    """
    _check.nonnegative("swish", "beta", beta)
    return x * sigmoid(beta * x)


def _one_param(where: str, name: str, value: float, per: str):
    """Returns the `init` of a layer whose one param starts at `value`."""
    _check.choice(where, "per", per, ("channel", "all"))

    def init(key, x):
        shape = x.shape[-1:] if per == "channel" else ()
        return {name: jnp.full(shape, value, param_dtype(where, x))}, {}

    return init


def _like(param, x):
    """Gives a param of shape (channels,) or () the dtype and rank of x."""
    if param.ndim and param.shape != x.shape[-1:]:
        _check.fail("activation", "x", f"of {len(param)} channels", x.shape)
    return on_last_axis(param.astype(x.dtype), x.ndim)


@constructor
def prelu(*, per: str = "channel", init: float = 0.25) -> Layer:
    """Makes a leaky ReLU whose slope left of 0 is trained.

    Args:
        per: "channel", a slope for each entry of the last axis, or "all", one.
        init: their first value, >= 0.

    Returns:
        A layer with the param negative_slope, (channels,) or (). Weight decay would pull it to a
        ReLU's; that of this library leaves it alone, as the paper does.

    Example:
        >>> from jaxtrain import nn
        >>> params, state = prelu().init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> prelu().apply(params, state, jnp.array([[-4.0, 4.0]]), nn.EVAL)[0].tolist()
        [[-1.0, 4.0]]

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015.
    """
    _check.nonnegative("prelu", "init", init)

    def apply(params, state, x, ctx):
        return jnp.where(x > 0, x, _like(params["negative_slope"], x) * x), state

    return Layer(_one_param("prelu", "negative_slope", init, per), apply)


@constructor
def trainable_swish(*, per: str = "all", beta: float = 1.0) -> Layer:
    """Makes a `swish` whose beta is trained.

    Args:
        per: "channel", a beta for each entry of the last axis, or "all", one.
        beta: their first value, >= 0.

    Returns:
        A layer with the param beta, (channels,) or ().

    Example:
        >>> trainable_swish(beta=0.5).init(jax.random.key(0), jnp.zeros((1, 2)))[0]["beta"].item()
        0.5

    References:
        P. Ramachandran, B. Zoph, Q. Le, "Searching for activation functions", 2017.
    """
    _check.nonnegative("trainable_swish", "beta", beta)

    def apply(params, state, x, ctx):
        return x * sigmoid(_like(params["beta"], x) * x), state

    return Layer(_one_param("trainable_swish", "beta", beta, per), apply)


@constructor
def rrelu(*, low: float = 1 / 8, high: float = 1 / 3) -> Layer:
    """Makes a leaky ReLU whose slope left of 0 is random in train mode, for each element anew.

    Args:
        low: the least slope, >= 0.
        high: the greatest slope, >= low. In eval mode the slope is (low + high) / 2.

    Returns:
        A layer without params; in train mode it needs a key.

    Example:
        >>> from jaxtrain import nn
        >>> ctx = nn.Context(train=True, key=jax.random.key(0))
        >>> y, _ = rrelu(low=0.2, high=0.4).apply({}, {}, -jnp.ones((4, 100)), ctx)
        >>> bool((y <= -0.2).all() and (y >= -0.4).all())
        True

    References:
        B. Xu, N. Wang, T. Chen, M. Li, "Empirical evaluation of rectified activations in
        convolutional network", 2015. It draws 1 / slope, uniform in [3, 8], and divides by the mean
        of that in eval mode; this is torch's.
    """
    _check.nonnegative("rrelu", "low", low)
    _check.at_least("rrelu", "high", high, low)

    def apply(params, state, x, ctx):
        if not ctx.train:
            return leaky_relu(x, negative_slope=(low + high) / 2), state

        def draw(key, x):
            return jax.random.uniform(key, x.shape, x.dtype, low, high)

        return jnp.where(x > 0, x, for_each(ctx, draw, x) * x), state

    return Layer(lambda key, x: ({}, {}), apply)
