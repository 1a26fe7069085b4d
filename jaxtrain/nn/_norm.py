"""Normalization by fixed statistics and by those of the batch."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.data import standardize as preprocess
from jaxtrain.nn._layer import Context, Layer, constructor, on_last_axis, param_dtype
from jaxtrain.nn._linear import add_bias


@constructor
def standardize(mean, std) -> Layer:
    """Subtracts a mean and divides by a standard deviation: the first layer of a net on raw data.

    Args:
        mean: as from `data.standardize.fit`, of the rank of x with 1 for the examples; or a number
            for each channel, (channels,), or one for all.
        std: likewise, in the unit of x.

    Example:
        >>> import numpy as np
        >>> images = np.array([[0], [255]], np.uint8)
        >>> layer = standardize(*preprocess.fit(images))
        >>> layer.apply({}, {}, jnp.asarray(images), ctx=None)[0].tolist()
        [[-1.0], [1.0]]
    """
    stats = preprocess.Stats(np.asarray(mean), np.asarray(std))
    for name, values in stats._asdict().items():
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            _check.fail("standardize", name, "an array of finite numbers", values)
    if not (stats.std > 0).all():
        fix = "data.standardize.fit(x, eps=) bounds it from below"
        _check.fail("standardize", "std", "positive everywhere", stats.std, fix)

    def apply(params, state, x, ctx):
        whole = (on_last_axis(values, x.ndim) for values in stats)
        return preprocess.apply(preprocess.Stats(*whole), x), state

    return Layer(lambda key, x: ({}, {}), apply)


@constructor
def batch_norm(
    *,
    decay: float = 0.9,
    eps: float = 1e-5,
    scale: bool = True,
    bias: bool = True,
    unbiased: bool = True,
    running: str = "var",
    frozen: bool = False,
    group_size: int | None = None,
) -> Layer:
    """Normalizes each feature over the batch, and over space for images.

        y = scale (x - mean) / sqrt(var + eps) + bias

    It is computed as a x + b: a channel whose mean is 1e4 times its standard deviation keeps three
    digits of float32. In train mode mean and (biased) var are the batch's, over all devices under
    `ctx.axis_name` and without the examples that `ctx.mask` marks as padding. In eval mode they are
    the running averages, `running <- decay running + (1 - decay) batch`, that stand in the state.

    So one net is two functions. They differ most in the first 1 / (1 - decay) steps, while params
    change fast, and for small batches: of a single vector, train mode returns the bias. Whether the
    averages are what is wrong with an evaluation, `recompute_batch_stats` tells.

    Args:
        decay: weight of the past in the running averages (torch's momentum is 1 - decay).
        eps: added to the variance.
        scale: whether there is a trained scale, initially 1.
        bias: whether there is a trained bias, initially 0.
        unbiased: whether the running variance is n / (n - 1) times the batch's, as in the paper and
            in torch; False as in flax and Keras.
        running: "var" averages the variance, "std" the standard deviation.
        frozen: use the running averages in train mode too, and leave them as they are.
        group_size: normalize by the statistics of this many consecutive devices, a divisor of their
            number; None means of all. The running averages are those of all devices either way.

    Returns:
        A layer with params scale, bias and state mean, var (or std), each (features,). A batch of
        padding alone leaves the state unchanged.

    Raises:
        ConfigError: in train mode, there is a `group_size` but no `ctx.axis_name`, or it does not
            divide the number of devices.

    Example:
        >>> net = batch_norm()
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> y, state = net.apply(params, state, jnp.array([[1.0, 5], [3, 5]]), Context(train=True))
        >>> y.round(3).tolist(), state["mean"].round(3).tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [0.2..., 0.5])

    References:
        S. Ioffe, C. Szegedy, "Batch normalization", 2015.
    """
    _check.fraction("batch_norm", "decay", decay)
    _check.positive("batch_norm", "eps", eps)
    _check.choice("batch_norm", "running", running, ("var", "std"))
    if group_size is not None:
        _check.integer("batch_norm", "group_size", group_size)

    def init(key, x):
        shape = x.shape[-1:]
        dtype = param_dtype("batch_norm", x)
        state = {"mean": jnp.zeros(shape, dtype), running: jnp.ones(shape, dtype)}
        return init_scale_and_bias("batch_norm", x, shape, scale=scale, bias=bias), state

    def apply(params, state, x, ctx):
        check_shape("batch_norm", x, state["mean"].shape)
        z = x.astype(np.promote_types(x.dtype, jnp.float32))
        if ctx.train and not frozen:
            if group_size is None:
                count, mean, m2 = batch = moments(z, ctx)
            else:
                count, mean, m2, *batch = _group_moments(z, ctx, group_size)
            var = m2 / jnp.maximum(count, 1)
            new = statistics(*batch, unbiased=unbiased, running=running)
            state = average(state, new, decay, batch[0])
        else:
            mean, var = state["mean"], state["var"] if "var" in state else state["std"] ** 2
        # One multiply and one add on the large array: XLA fuses (x - mean) * a + bias less well.
        a = lax.rsqrt(var + eps)
        if "scale" in params:
            a = a * params["scale"].astype(a.dtype)
        b = -mean * a
        if "bias" in params:
            b = b + params["bias"].astype(b.dtype)
        a, b = (on_last_axis(v.astype(z.dtype), z.ndim) for v in (a, b))
        return (z * a + b).astype(x.dtype), state

    return Layer(init, apply)


def bn_vjp(
    x: jax.Array, scale: jax.Array, dy: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of BatchNorm in closed form: what backpropagation through it computes.

    With u = (x - mean) / sigma, sigma = sqrt(var + eps), y = scale u + bias and delta = scale dy,

        dx = (delta - mean(delta) - u mean(u delta)) / sigma
        dscale = sum(u dy)
        dbias = sum(dy)

    means and sums over all axes but the last. So sum(dx) = 0: no step along it moves the mean of x;
    and sum(u dx) = eps / sigma^3 sum(u delta), next to 0: none stretches x either.

    Args:
        x: (batch, ..., features), the input, at least float32.
        scale: (features,).
        dy: the gradient with respect to the output y, of the shape of x.
        eps: added to the variance, > 0.

    Returns:
        The gradients with respect to x, scale and bias.

    Example:
        >>> dx, dscale, dbias = bn_vjp(jnp.eye(2), jnp.ones(2), jnp.ones((2, 2)))
        >>> dx.tolist(), dbias.tolist()
        ([[0.0, 0.0], [0.0, 0.0]], [2.0, 2.0])

    References:
        S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3.
    """
    _check.positive("bn_vjp", "eps", eps)
    for name, array, shape in (("dy", dy, x.shape), ("scale", scale, x.shape[-1:])):
        if array.shape != shape:
            _check.fail("bn_vjp", name, f"of shape {shape}", array.shape)
    axes = tuple(range(x.ndim - 1))

    def mean(a):
        return a.mean(axes, keepdims=True)

    d = x - mean(x)
    sigma = jnp.sqrt(mean(d * d) + eps)
    u = d / sigma
    delta = on_last_axis(scale, x.ndim) * dy
    dx = (delta - mean(delta) - u * mean(u * delta)) / sigma
    return dx, (u * dy).sum(axes), dy.sum(axes)


def init_scale_and_bias(where: str, x, shape: tuple[int, ...], *, scale: bool, bias: bool):
    """Returns the params of a normalization's output: a scale of ones and a bias of zeros."""
    dtype = param_dtype(where, x)
    params = {"scale": jnp.ones(shape, dtype)} if scale else {}
    return params | ({"bias": jnp.zeros(shape, dtype)} if bias else {})


def scale_and_bias(where: str, params, y: jax.Array) -> jax.Array:
    """Returns `scale y + bias`, with those of the two that are in params."""
    for p in params.values():
        check_shape(where, y, p.shape)
    if "scale" in params:
        y = y * on_last_axis(params["scale"].astype(y.dtype), y.ndim)
    return add_bias(params, y)


def check_shape(where: str, x: jax.Array, shape: tuple[int, ...]) -> None:
    """Checks that the last axes of x are those that params and state were made for."""
    if x.shape[-len(shape) :] != shape:
        _check.fail(where, "x", f"(batch, ..., {', '.join(map(str, shape))})", x.shape)


def average(state, new, decay, count):
    """Averages the statistics of a batch of `count` examples into the state."""

    def leaf(old, new):
        new = decay * old + (1 - decay) * lax.stop_gradient(new).astype(old.dtype)
        return jnp.where(count > 0, new, old)

    return {name: leaf(old, new[name]) for name, old in state.items()}


def statistics(count, mean, m2, *, unbiased: bool, running: str) -> dict[str, jax.Array]:
    """Returns what the state averages: the mean, and the variance or standard deviation."""
    var = m2 / jnp.maximum(count - 1 if unbiased else count, 1)
    return {"mean": mean, running: var if running == "var" else jnp.sqrt(var)}


def moments(x: jax.Array, ctx: Context) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns count (), mean and m2 = sum (x - mean)^2, over all axes but the last.

    One pass over x. It is shifted by the mean of the first example, so that a large common offset
    does not cancel the variance; devices are combined by Chan's formula after one psum.

    Args:
        x: (batch, ..., features), at least float32.
        ctx: its `mask` leaves examples out, its `axis_name` joins devices. Where a device's first
            example is masked nothing is subtracted, and an offset does cancel.

    References:
        T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing
        sample variances", 1979.
    """
    local = _local_moments(x, ctx)
    if ctx.axis_name is None:
        return local
    return combine(*over_devices(local, ctx.axis_name))


def _local_moments(x, ctx):
    count, shift, d = shifted(x, ctx)
    axes = tuple(range(x.ndim - 1))
    total = d.sum(axes)
    mean = total / jnp.maximum(count, 1)
    m2 = jnp.maximum((d * d).sum(axes) - total * mean, 0)
    return count, shift + mean, m2


def _group_moments(x, ctx, size):
    """Returns the moments of this device's group of devices, and then those of all devices."""
    if ctx.axis_name is None:
        fix = "use how='shard_map' or how='pmap', or batch_norm without it"
        _check.fail("batch_norm", "group_size", "None where no axis is mapped", size, fix)
    devices = lax.axis_size(ctx.axis_name)
    if devices % size:
        _check.fail("batch_norm", "group_size", f"a divisor of the {devices} devices", size)
    rows = over_devices(_local_moments(x, ctx), ctx.axis_name)
    first = lax.axis_index(ctx.axis_name) // size * size
    group = (lax.dynamic_slice_in_dim(row, first, size) for row in rows)
    return *combine(*group), *combine(*rows)


def shifted(x: jax.Array, ctx: Context) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns count (), shift (features,), and x - shift with 0 for the examples left out."""
    shift = lax.stop_gradient(x[:1].mean(tuple(range(x.ndim - 1))))
    if ctx.mask is not None:
        if ctx.mask.shape != x.shape[:1]:
            _check.fail("Context", "mask", f"of shape {x.shape[:1]}", ctx.mask.shape)
        shift = jnp.where(ctx.mask[0] > 0, shift, 0)
    d = x - on_last_axis(shift, x.ndim)
    positions = math.prod(x.shape[1:-1])
    if ctx.mask is None:
        return jnp.asarray(x.shape[0] * positions, x.dtype), shift, d
    real = ctx.mask.reshape(ctx.mask.shape + (1,) * (x.ndim - 1)) > 0
    return (ctx.mask > 0).sum(dtype=x.dtype) * positions, shift, jnp.where(real, d, 0)


def over_devices(parts: Sequence[jax.Array], axis_name: str) -> list[jax.Array]:
    """Stacks each part over the devices, by one psum of one-hot rows.

    Unlike what an all_gather returns, it is known to be the same on all devices.
    """
    row = jnp.concatenate([part.ravel() for part in parts])
    here = jnp.arange(lax.axis_size(axis_name), dtype=jnp.int32) == lax.axis_index(axis_name)
    rows = lax.psum(jnp.where(here[:, None], row[None], 0), axis_name)
    columns = jnp.split(rows, np.cumsum([part.size for part in parts])[:-1], axis=1)
    return [c.reshape(-1, *part.shape) for c, part in zip(columns, parts, strict=True)]


def combine(
    n: jax.Array, mean: jax.Array, m2: jax.Array, *, product: Callable = jnp.multiply
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Joins the counts, means and m2s of parts by Chan's formula.

    Args:
        n: (parts,).
        mean: (parts, features).
        m2: (parts, ...), sums of `product(d, d)`, d the distance from the part's mean.
        product: function of two arrays like `mean`; the default if m2 are sums of squares.
    """
    count = n.sum()
    delta = mean - mean[:1]
    shift = (n[:, None] * delta).sum(0) / jnp.maximum(count, 1)
    delta = delta - shift[None]
    m2 = m2 + product(n[:, None] * delta, delta)
    return count, mean[0] + shift, m2.sum(0)
