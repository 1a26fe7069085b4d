"""Normalization by the whole covariance of the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.nn._layer import Context, Layer, constructor, on_last_axis, param_dtype
from jaxtrain.nn._layer_norm import split_channels
from jaxtrain.nn._norm import (
    average,
    check_shape,
    combine,
    init_scale_and_bias,
    over_devices,
    scale_and_bias,
    shifted,
)

_einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
_split = functools.partial(split_channels, "decorrelated_batch_norm")


@constructor
def decorrelated_batch_norm(
    groups: int = 1,
    *,
    decay: float = 0.9,
    eps: float = 1e-5,
    scale: bool = True,
    bias: bool = True,
    frozen: bool = False,
) -> Layer:
    """Normalizes features over the batch and removes the correlations within each group of them.

        y = scale (cov + eps I)^(-1/2) (x - mean) + bias

    The symmetric root (ZCA whitening) changes x least. In train mode mean and (biased) cov are the
    batch's, over all devices and without padding, as in `batch_norm`. In eval mode mean and the
    whitening matrix are running averages. A batch should be many times as large as a group: cov is
    singular below, and the average of its inverse roots too large.

    Args:
        groups: the number of groups of neighbouring features, a divisor of the features. With a
            feature per group this is `batch_norm`.
        decay: weight of the past in the running averages.
        eps: added to the eigenvalues of the covariance.
        scale: whether there is a trained scale, initially 1.
        bias: whether there is a trained bias, initially 0.
        frozen: use the running averages in train mode too, and leave them as they are.

    Returns:
        A layer with params scale, bias, each (features,), and state mean, (features,), and
        whitening, (groups, features / groups, features / groups), initially the identity. The
        gradient is finite where eigenvalues are equal.

    Example:
        >>> net = decorrelated_batch_norm()
        >>> x = jnp.array([[1.0, 1], [-1, -1], [2, -2], [-2, 2]])
        >>> params, state = net.init(jax.random.key(0), x)
        >>> y, state = net.apply(params, state, x, Context(train=True))
        >>> bool(jnp.allclose(y.T @ y / 4, jnp.eye(2), atol=1e-3))
        True

    References:
        L. Huang, D. Yang, B. Lang, J. Deng, "Decorrelated batch normalization", 2018.
    """
    where = "decorrelated_batch_norm"
    _check.integer(where, "groups", groups)
    _check.fraction(where, "decay", decay)
    _check.positive(where, "eps", eps)

    def init(key, x):
        params = init_scale_and_bias(where, x, x.shape[-1:], scale=scale, bias=bias)
        mean = jnp.zeros(x.shape[-1:], param_dtype(where, x))
        _, size = _split(mean, groups).shape
        identity = jnp.eye(size, dtype=mean.dtype)[None]
        return params, {"mean": mean, "whitening": jnp.repeat(identity, groups, axis=0)}

    def apply(params, state, x, ctx):
        check_shape(where, x, state["mean"].shape)
        z = x.astype(np.promote_types(x.dtype, jnp.float32))
        if ctx.train and not frozen:
            batch = comoments(z, ctx, groups)
            used = statistics(*batch, eps=eps)
            state = average(state, used, decay, batch[0])
        else:
            used = jax.tree.map(lambda s: s.astype(z.dtype), state)
        d = _split(z - on_last_axis(used["mean"], z.ndim), groups)
        y = _einsum("...gi,gij->...gj", d, used["whitening"]).reshape(z.shape)
        return scale_and_bias(where, params, y).astype(x.dtype), state

    return Layer(init, apply)


def comoments(x: jax.Array, ctx: Context, groups: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns what `moments` does, with m2 = sum (x - mean) (x - mean)^T of each group."""
    count, shift, d = shifted(x, ctx)
    d = d.reshape(-1, d.shape[-1])
    delta = d.sum(0) / jnp.maximum(count, 1)
    by_group = _split(d, groups)
    m2 = _einsum("ngi,ngj->gij", by_group, by_group) - products(groups)(count * delta, delta)
    local = count, shift + delta, m2
    if ctx.axis_name is None:
        return local
    return combine(*over_devices(local, ctx.axis_name), product=products(groups))


def products(groups: int):
    """Returns the function from two vectors (..., features) to the outer products by group."""

    def product(a, b):
        return _split(a, groups)[..., :, None] * _split(b, groups)[..., None, :]

    return product


def statistics(count, mean, m2, *, eps) -> dict[str, jax.Array]:
    """Returns what the state averages: the mean, and the whitening matrix of each group."""
    return {"mean": mean, "whitening": inverse_sqrt(m2 / jnp.maximum(count, 1), eps)}


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def inverse_sqrt(cov: jax.Array, eps: float) -> jax.Array:
    """Returns W = (cov + eps I)^(-1/2) of symmetric matrices (..., c, c).

    Its derivative solves dW W^-1 + W^-1 dW = -W dcov W, not dividing by differences of eigenvalues:
    in the eigenbasis, with r = 1 / sqrt(eigenvalue), dW_ij = -(r_i r_j)^2 / (r_i + r_j) dcov_ij.
    """
    r, basis = _roots(cov, eps)
    return _einsum("...ik,...k,...jk->...ij", basis, r, basis)


@inverse_sqrt.defjvp
def _inverse_sqrt_jvp(eps, primals, tangents):
    (cov,), (dcov,) = primals, tangents
    r, basis = _roots(cov, eps)
    ri, rj = r[..., :, None], r[..., None, :]
    dcov = _einsum("...ki,...kl,...lj->...ij", basis, dcov, basis)
    dw = -((ri * rj) ** 2) / (ri + rj) * dcov
    w = _einsum("...ik,...k,...jk->...ij", basis, r, basis)
    return w, _einsum("...ik,...kl,...jl->...ij", basis, dw, basis)


def _roots(cov, eps):
    eigenvalues, basis = jnp.linalg.eigh(cov)
    return lax.rsqrt(jnp.maximum(eigenvalues, 0) + eps), basis
