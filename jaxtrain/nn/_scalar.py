"""One trained number for a whole layer."""

import jax.numpy as jnp

from jaxtrain.nn._layer import Layer, constructor, param_dtype


@constructor
def scalar(*, scale: bool = True, bias: bool = True) -> Layer:
    """Multiplies all elements by one trained number and adds another: `y = scale * x + bias`.

    What takes the place of normalization in `models.resnet(norm="fixup")`.

    Args:
        scale: whether there is a factor, initially 1.
        bias: whether there is a summand, initially 0.

    Returns:
        A layer with params scale and bias of shape ().

    Example:
        >>> params = {"scale": jnp.array(2.0), "bias": jnp.array(1.0)}
        >>> scalar().apply(params, {}, jnp.array([[3.0, 4.0]]), ctx=None)[0].tolist()
        [[7.0, 9.0]]

    References:
        H. Zhang, Y. Dauphin, T. Ma, "Fixup initialization: residual learning without
        normalization", 2019.
    """

    def init(key, x):
        dtype = param_dtype("scalar", x)
        params = {"scale": jnp.ones((), dtype)} if scale else {}
        return params | ({"bias": jnp.zeros((), dtype)} if bias else {}), {}

    def apply(params, state, x, ctx):
        if "scale" in params:
            x = x * params["scale"].astype(x.dtype)
        return x + params["bias"].astype(x.dtype) if "bias" in params else x, state

    return Layer(init, apply)
