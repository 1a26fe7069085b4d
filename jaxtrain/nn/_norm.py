"""Normalization by fixed statistics and by those of the batch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.data import standardize as preprocess
from jaxtrain.nn._layer import Context, Layer, constructor, on_last_axis, param_dtype


@constructor
def standardize(mean, std) -> Layer:
    """Subtracts a mean and divides by a standard deviation: the first layer of a net on raw data.

    Args:
        mean: array that broadcasts against x, of its rank, as from `data.standardize.fit`.
        std: likewise.

    Example:
        >>> import numpy as np
        >>> images = np.array([[0], [255]], np.uint8)
        >>> layer = standardize(*preprocess.fit(images))
        >>> layer.apply({}, {}, jnp.asarray(images), ctx=None)[0].tolist()
        [[-1.0], [1.0]]
    """
    stats = preprocess.Stats(np.asarray(mean), np.asarray(std))
    return Layer(
        lambda key, x: ({}, {}),
        lambda params, state, x, ctx: (preprocess.apply(stats, x), state),
    )


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
) -> Layer:
    """Normalizes each feature over the batch, and over space for images.

        y = scale (x - mean) / sqrt(var + eps) + bias

    In train mode mean and (biased) var are the batch's, over all devices under `ctx.axis_name` and
    without the examples that `ctx.mask` marks as padding. In eval mode they are the running
    averages, `running <- decay running + (1 - decay) batch`, that stand in the state.

    Args:
        decay: weight of the past in the running averages (torch's momentum is 1 - decay).
        eps: added to the variance.
        scale: whether there is a trained scale, initially 1.
        bias: whether there is a trained bias, initially 0.
        unbiased: whether the running variance is n / (n - 1) times the batch's, as in the paper and
            in torch; False as in flax and Keras.
        running: "var" averages the variance, "std" the standard deviation.
        frozen: use the running averages in train mode too, and leave them as they are.

    Returns:
        A layer with params scale, bias and state mean, var (or std), each (features,). A batch of
        padding alone leaves the state unchanged.

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

    def init(key, x):
        dtype = param_dtype("batch_norm", x)
        zeros, ones = jnp.zeros(x.shape[-1:], dtype), jnp.ones(x.shape[-1:], dtype)
        params = {"scale": ones} if scale else {}
        return params | ({"bias": zeros} if bias else {}), {"mean": zeros, running: ones}

    def apply(params, state, x, ctx):
        z = x.astype(np.promote_types(x.dtype, jnp.float32))
        if ctx.train and not frozen:
            count, mean, m2 = moments(z, ctx)
            var = m2 / jnp.maximum(count, 1)
            new = statistics(count, mean, m2, unbiased=unbiased, running=running)
            state = {k: _average(state[k], new[k], decay, count) for k in state}
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


def _average(old, new, decay, count):
    new = lax.stop_gradient(new).astype(old.dtype)
    return jnp.where(count > 0, decay * old + (1 - decay) * new, old)


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
        ctx: its `mask` leaves examples out, its `axis_name` joins devices. Padding stands last: a
            device's first example is the shift even where it is masked.

    References:
        T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing
        sample variances", 1979.
    """
    axes = tuple(range(x.ndim - 1))
    shift = lax.stop_gradient(x[:1].mean(axes, keepdims=True))
    d = x - shift
    positions = math.prod(x.shape[1:-1])
    if ctx.mask is None:
        count = jnp.asarray(x.shape[0] * positions, x.dtype)
    else:
        real = ctx.mask.reshape(ctx.mask.shape + (1,) * (x.ndim - 1)) > 0
        d = jnp.where(real, d, 0)
        count = (ctx.mask > 0).sum(dtype=x.dtype) * positions
    total = d.sum(axes)
    mean = total / jnp.maximum(count, 1)
    m2 = jnp.maximum((d * d).sum(axes) - total * mean, 0)
    mean = mean + shift.reshape(-1)
    if ctx.axis_name is None:
        return count, mean, m2
    devices = lax.axis_size(ctx.axis_name)
    here = jnp.arange(devices, dtype=jnp.int32) == lax.axis_index(ctx.axis_name)
    row = jnp.stack([jnp.broadcast_to(count, mean.shape), mean, m2])
    rows = lax.psum(jnp.where(here[:, None, None], row[None], 0), ctx.axis_name)
    counts, mean, m2 = combine(rows[:, 0], rows[:, 1], rows[:, 2])
    return counts[0], mean, m2


def combine(n: jax.Array, mean: jax.Array, m2: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Joins the counts, means and m2s of parts, each (parts, ..., features), by Chan's formula."""
    count = n.sum(0)
    delta = mean - mean[:1]
    mean_delta = (n * delta).sum(0) / jnp.maximum(count, 1)
    m2 = (m2 + n * (delta - mean_delta[None]) ** 2).sum(0)
    return count, mean[0] + mean_delta, m2
