"""Dense and convolutional layers."""

from collections.abc import Sequence

import jax
from jax import lax

from jaxtrain import _check
from jaxtrain.nn import initializers
from jaxtrain.nn._layer import Layer, constructor, on_last_axis, param_dtype


def _init_affine(key, shape, dtype, bias, kernel_init, bias_init):
    k_kernel, k_bias = jax.random.split(key)
    params = {"kernel": kernel_init(k_kernel, shape, dtype)}
    if bias:
        params["bias"] = bias_init(k_bias, shape[-1:], dtype)
    return params


def _add_bias(params, y):
    return y + on_last_axis(params["bias"].astype(y.dtype), y.ndim) if "bias" in params else y


@constructor
def dense(
    features: int,
    *,
    bias: bool = True,
    kernel_init=initializers.he_normal(),  # noqa: B008
    bias_init=initializers.zeros,
) -> Layer:
    """Multiplies the last axis by a matrix: `y = x @ kernel + bias`.

    Args:
        features: the length of the output's last axis.
        bias: False leaves the bias out, as right before a normalization.
        kernel_init: initializer of the (inputs, features) kernel.
        bias_init: initializer of the (features,) bias.

    Returns:
        A layer from (batch, ..., inputs) to (batch, ..., features).

    Example:
        >>> import jax.numpy as jnp
        >>> params, state = dense(3).init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> dense(3).apply(params, state, jnp.ones((5, 2)), ctx=None)[0].shape
        (5, 3)
    """
    _check.integer("dense", "features", features)

    def init(key, x):
        shape = (x.shape[-1], features)
        dtype = param_dtype("dense", x)
        return _init_affine(key, shape, dtype, bias, kernel_init, bias_init), {}

    def apply(params, state, x, ctx):
        kernel = params["kernel"].astype(x.dtype)
        if x.shape[-1] != kernel.shape[0]:
            _check.fail("dense", "x", f"(..., {kernel.shape[0]})", x.shape)
        y = lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return _add_bias(params, y), state

    return Layer(init, apply)


@constructor
def conv(
    features: int,
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    bias: bool = True,
    kernel_init=initializers.he_normal(),  # noqa: B008
    bias_init=initializers.zeros,
) -> Layer:
    """Convolves the axes between the first (batch) and the last (channels): NHWC for images.

    Args:
        features: output channels.
        window: size of the kernel, one int for all spatial axes or one for each.
        strides: step between windows, likewise.
        padding: "SAME", "VALID" or (before, after) pairs, one for each spatial axis. "SAME" with
            stride 2 on an even size pads (0, 1), as TensorFlow does; torch's padding=1 is (1, 1).
        bias: False leaves the bias out, as right before a normalization.
        kernel_init: initializer of the (*window, inputs, features) kernel.
        bias_init: initializer of the (features,) bias.

    Returns:
        A layer from (batch, *spatial, inputs) to (batch, *spatial', features).

    Example:
        >>> import jax.numpy as jnp
        >>> params, state = conv(8, 3).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> params["kernel"].shape
        (3, 3, 1, 8)
    """
    _check.integer("conv", "features", features)

    def init(key, x):
        size = per_axis("conv", "window", window, x.ndim - 2)
        per_axis("conv", "strides", strides, x.ndim - 2)
        check_padding("conv", padding, x.ndim - 2)
        shape = (*size, x.shape[-1], features)
        dtype = param_dtype("conv", x)
        return _init_affine(key, shape, dtype, bias, kernel_init, bias_init), {}

    def apply(params, state, x, ctx):
        kernel = params["kernel"].astype(x.dtype)
        if x.ndim != kernel.ndim or x.shape[-1] != kernel.shape[-2]:
            rule = f"(batch, {kernel.ndim - 2} spatial axes, {kernel.shape[-2]} channels)"
            _check.fail("conv", "x", rule, x.shape)
        step = per_axis("conv", "strides", strides, x.ndim - 2)
        spatial = "DHW"[-(x.ndim - 2) :]
        layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        y = lax.conv_general_dilated(x, kernel, step, padding, dimension_numbers=layout)
        return _add_bias(params, y), state

    return Layer(init, apply)


def per_axis(where: str, argument: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Returns `value` as one int for each spatial axis."""
    sizes = (value,) * axes if isinstance(value, int) else tuple(value)
    if axes < 1:
        _check.fail(where, "x", "(batch, *spatial, channels)", f"{axes + 2} axes")
    if len(sizes) != axes or any(not isinstance(s, int) or s < 1 for s in sizes):
        _check.fail(where, argument, f"an int >= 1 or {axes} of them", value)
    return sizes


def check_padding(where: str, padding: str | Sequence[tuple[int, int]], axes: int) -> None:
    """Checks that `padding` is "SAME", "VALID" or one (before, after) pair for each axis."""
    if padding in ("SAME", "VALID"):
        return
    pairs = [] if isinstance(padding, str) else padding
    if len(pairs) != axes or any(len(pair) != 2 for pair in pairs):
        rule = f"'SAME', 'VALID' or {axes} pairs (before, after)"
        _check.fail(where, "padding", rule, padding)
