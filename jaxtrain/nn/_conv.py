"""Convolutions, and their transpose."""

from collections.abc import Sequence

import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.nn import initializers
from jaxtrain.nn._layer import Layer, constructor, param_dtype
from jaxtrain.nn._linear import add_bias, init_affine


@constructor
def conv(
    features: int,
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
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
        dilation: distance between the elements of a window, one int or one for each axis.
        groups: number of equal parts of the input channels, each convolved to its own
            features / groups output channels.
        bias: False leaves the bias out, as right before a normalization.
        kernel_init: initializer of the (*window, inputs / groups, features) kernel.
        bias_init: initializer of the (features,) bias.

    Returns:
        A layer from (batch, *spatial, inputs) to (batch, *spatial', features).

    Raises:
        ConfigError: an argument is out of range, or groups does not divide both kinds of channels.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> params, state = conv(8, 3).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> params["kernel"].shape
        (3, 3, 1, 8)

    References:
        F. Yu, V. Koltun, "Multi-scale context aggregation by dilated convolutions", 2016.
        A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional
        neural networks", 2012 (groups).
    """
    _check.integer("conv", "features", features)
    _check.integer("conv", "groups", groups)
    if features % groups:
        _check.fail("conv", "features", f"a multiple of groups, {groups}", features)

    def init(key, x):
        size = per_axis("conv", "window", window, x.ndim - 2)
        per_axis("conv", "strides", strides, x.ndim - 2)
        per_axis("conv", "dilation", dilation, x.ndim - 2)
        check_padding("conv", padding, x.ndim - 2)
        if x.shape[-1] % groups:
            _check.fail("conv", "x", f"of a multiple of groups, {groups}, channels", x.shape)
        shape = (*size, x.shape[-1] // groups, features)
        dtype = param_dtype("conv", x)
        return init_affine(key, shape, dtype, bias, kernel_init, bias_init), {}

    def apply(params, state, x, ctx):
        kernel = params["kernel"].astype(x.dtype)
        axes = _spatial_axes("conv", x, kernel, kernel.shape[-2] * groups)
        y = lax.conv_general_dilated(
            x,
            kernel,
            per_axis("conv", "strides", strides, axes),
            padding,
            rhs_dilation=per_axis("conv", "dilation", dilation, axes),
            dimension_numbers=_layout(axes),
            feature_group_count=groups,
        )
        if 0 in y.shape[1:-1]:
            _check.fail(
                "conv", "x", f"at least as large as the window {kernel.shape[:-2]}", x.shape
            )
        return add_bias(params, y), state

    return Layer(init, apply)


@constructor
def depthwise_conv(
    window: int | Sequence[int],
    *,
    multiplier: int = 1,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    dilation: int | Sequence[int] = 1,
    bias: bool = True,
    kernel_init=initializers.he_normal(),  # noqa: B008
    bias_init=initializers.zeros,
) -> Layer:
    """Convolves each channel by itself: `conv` with as many groups as there are channels.

    Args:
        window: size of the kernel, one int for all spatial axes or one for each.
        multiplier: output channels for each input channel, next to each other.
        strides: step between windows, as in `conv`.
        padding: as in `conv`.
        dilation: distance between the elements of a window, as in `conv`.
        bias: False leaves the bias out, as right before a normalization.
        kernel_init: initializer of the (*window, 1, multiplier * inputs) kernel.
        bias_init: initializer of the (multiplier * inputs,) bias.

    Returns:
        A layer from (batch, *spatial, inputs) to (batch, *spatial', multiplier * inputs).

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> separable = depthwise_conv(3, multiplier=2)
        >>> params, state = separable.init(jax.random.key(0), jnp.zeros((1, 8, 8, 5)))
        >>> params["kernel"].shape
        (3, 3, 1, 10)

    References:
        A. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
        applications", 2017.
    """
    _check.integer("depthwise_conv", "multiplier", multiplier)

    def of(channels):
        return conv(
            multiplier * channels,
            window,
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=channels,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )

    def init(key, x):
        return of(x.shape[-1]).init(key, x)

    def apply(params, state, x, ctx):
        return of(params["kernel"].shape[-1] // multiplier).apply(params, state, x, ctx)

    return Layer(init, apply)


@constructor
def conv_transpose(
    features: int,
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    bias: bool = True,
    kernel_init=initializers.he_normal(),  # noqa: B008
    bias_init=initializers.zeros,
) -> Layer:
    """Convolves after spreading the input apart: the gradient of a `conv` that goes the other way.

    For a conv with this window, these strides and this padding, and a kernel K, the gradient with
    respect to its input is this layer with the kernel `flip(K).swapaxes(-1, -2)`, flipped along
    its spatial axes. With w = window and s = strides, n elements along an axis become

    - "SAME": n s,
    - "VALID": n s + max(w - s, 0),
    - (before, after): (n - 1) s + w - before - after.

    Args:
        features: output channels.
        window: size of the kernel, one int for all spatial axes or one for each.
        strides: factor by which the input is spread, likewise.
        padding: what the conv pads and this layer cuts off: "SAME", "VALID" or (before, after)
            pairs. torch's padding p and output_padding q are (p, p - q).
        bias: False leaves the bias out, as right before a normalization.
        kernel_init: initializer of the (*window, inputs, features) kernel, which is flax's and the
            spatially flipped one of torch.
        bias_init: initializer of the (features,) bias.

    Returns:
        A layer from (batch, *spatial, inputs) to (batch, *spatial', features).

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> double, x = conv_transpose(3, 4, strides=2), jnp.zeros((1, 7, 7, 8))
        >>> params, state = double.init(jax.random.key(0), x)
        >>> double.apply(params, state, x, ctx=None)[0].shape
        (1, 14, 14, 3)

    References:
        V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """
    where = "conv_transpose"
    _check.integer(where, "features", features)

    def init(key, x):
        size = per_axis(where, "window", window, x.ndim - 2)
        per_axis(where, "strides", strides, x.ndim - 2)
        check_padding(where, padding, x.ndim - 2)
        shape = (*size, x.shape[-1], features)
        return init_affine(key, shape, param_dtype(where, x), bias, kernel_init, bias_init), {}

    def apply(params, state, x, ctx):
        kernel = params["kernel"].astype(x.dtype)
        axes = _spatial_axes(where, x, kernel, kernel.shape[-2])
        pads = padding
        if not isinstance(padding, str):  # to those of the convolution of the spread input
            window_and_cut = zip(kernel.shape[:axes], padding, strict=True)
            pads = [(w - 1 - a, w - 1 - b) for w, (a, b) in window_and_cut]
        step = per_axis(where, "strides", strides, axes)
        y = lax.conv_transpose(x, kernel, step, pads, dimension_numbers=_layout(axes))
        return add_bias(params, y), state

    return Layer(init, apply)


def per_axis(where: str, argument: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Returns `value` as one int for each spatial axis."""
    if axes < 1:
        _check.fail(where, "x", "(batch, *spatial, channels)", f"{axes + 2} axes")
    each: list = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * axes
    sizes = [_check.whole(size) for size in each]
    found = tuple(size for size in sizes if size is not None and size >= 1)
    if not len(found) == len(sizes) == axes:
        _check.fail(where, argument, f"an int >= 1 or {axes} of them", value)
    return found


def check_padding(where: str, padding: str | Sequence[tuple[int, int]], axes: int) -> None:
    """Checks that `padding` is "SAME", "VALID" or one (before, after) pair for each axis."""
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return
    pairs = list(padding) if _is_sequence(padding) else []
    if (
        len(pairs) != axes
        or not all(_is_sequence(p) and len(p) == 2 for p in pairs)
        or None in (_check.whole(n) for pair in pairs for n in pair)
    ):
        rule = f"'SAME', 'VALID' or {axes} pairs (before, after)"
        fix = f"torch's padding=1 is {[(1, 1)] * axes}"
        _check.fail(where, "padding", rule, padding, fix)


def _is_sequence(value):
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _spatial_axes(where, x, kernel, channels):
    """Returns the number of spatial axes, after a check of x against the kernel."""
    if x.ndim != kernel.ndim or x.shape[-1] != channels:
        rule = f"(batch, {kernel.ndim - 2} spatial axes, {channels} channels)"
        _check.fail(where, "x", rule, x.shape)
    return x.ndim - 2


def _layout(axes):
    spatial = "DHW"[-axes:]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"
