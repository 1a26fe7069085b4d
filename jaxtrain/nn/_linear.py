"""Dense layers, and what is made of one matrix: maxout, bottleneck, embedding."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check
from jaxtrain.nn import initializers
from jaxtrain.nn._combine import serial
from jaxtrain.nn._layer import Layer, constructor, on_last_axis, param_dtype


def init_affine(key, shape, dtype, bias, kernel_init, bias_init):
    """Returns the params of an affine layer: a kernel of this shape and maybe a bias."""
    k_kernel, k_bias = jax.random.split(key)
    params = {"kernel": kernel_init(k_kernel, shape, dtype)}
    if bias:
        params["bias"] = bias_init(k_bias, shape[-1:], dtype)
    return params


def add_bias(params, y):
    """Adds the bias to the last axis, if there is one."""
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
        >>> params, state = dense(3).init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> dense(3).apply(params, state, jnp.ones((5, 2)), ctx=None)[0].shape
        (5, 3)
    """
    _check.integer("dense", "features", features)

    def init(key, x):
        shape = (x.shape[-1], features)
        dtype = param_dtype("dense", x)
        return init_affine(key, shape, dtype, bias, kernel_init, bias_init), {}

    def apply(params, state, x, ctx):
        kernel = params["kernel"].astype(x.dtype)
        if x.shape[-1] != kernel.shape[0]:
            _check.fail("dense", "x", f"(..., {kernel.shape[0]})", x.shape)
        y = lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return add_bias(params, y), state

    return Layer(init, apply)


@constructor
def maxout(
    features: int,
    *,
    pieces: int = 2,
    bias: bool = True,
    kernel_init=initializers.lecun_normal(),  # noqa: B008
    bias_init=initializers.zeros,
) -> Layer:
    """Takes the largest of several affine maps: `y = max_k (x @ W_k + b_k)`.

    A piecewise linear, convex activation of each unit is learned with it; with as many pieces as
    that takes, ReLU and leaky ReLU are among them. It saturates nowhere and no unit dies, for
    `pieces` times the params of `dense`.

    Args:
        features: the length of the output's last axis.
        pieces: the number of affine maps, k.
        bias: False leaves the b_k out.
        kernel_init: initializer of the (inputs, pieces * features) kernel: W_1, W_2, ... side by
            side.
        bias_init: initializer of the (pieces * features,) bias, likewise.

    Returns:
        A layer from (batch, ..., inputs) to (batch, ..., features). The gradient of a tie is
        shared equally.

    Raises:
        ConfigError: features or pieces is below 1.

    Example:
        >>> size = maxout(2)  # of max(-x, x), for each of two inputs
        >>> params = {"kernel": jnp.concatenate([-jnp.eye(2), jnp.eye(2)], 1)}
        >>> size.apply(params, {}, jnp.array([[3.0, -4.0]]), ctx=None)[0].tolist()
        [[3.0, 4.0]]

    References:
        I. Goodfellow, D. Warde-Farley, M. Mirza, A. Courville, Y. Bengio, "Maxout networks", 2013.
    """
    _check.integer("maxout", "features", features)
    _check.integer("maxout", "pieces", pieces)
    affine = dense(pieces * features, bias=bias, kernel_init=kernel_init, bias_init=bias_init)

    def apply(params, state, x, ctx):
        z, state = affine.apply(params, state, x, ctx)
        return z.reshape(*x.shape[:-1], pieces, features).max(-2), state

    return Layer(affine.init, apply)


def bottleneck(features: int, rank: int, *, bias: bool = True) -> Layer:
    """Builds a dense layer whose kernel has a rank of at most `rank`: `y = x @ A @ B + bias`.

    From D inputs to H = features it has (D + H) rank params instead of D H, and the bias: fewer
    where rank < D H / (D + H).

    Args:
        features: the length of the output's last axis, H.
        rank: that between the two matrices.
        bias: False leaves the bias out, as right before a normalization.

    Returns:
        A `serial` of two dense layers, `reduce` and `expand`, from (batch, ..., inputs) to
        (batch, ..., features).

    Raises:
        ConfigError: features or rank is below 1.

    Example:
        >>> params, _ = bottleneck(20, 3).init(jax.random.key(0), jnp.zeros((1, 50)))
        >>> jax.tree.map(jnp.shape, params)
        {'expand': {'bias': (20,), 'kernel': (3, 20)}, 'reduce': {'kernel': (50, 3)}}
    """
    _check.integer("bottleneck", "rank", rank)
    # Nothing follows the first but the second: no factor 2 for a ReLU between them.
    return serial(
        reduce=dense(rank, bias=False, kernel_init=initializers.lecun_normal()),
        expand=dense(features, bias=bias),
    )


@constructor
def embedding(count: int, features: int, *, embedding_init=initializers.normal(1.0)) -> Layer:  # noqa: B008
    """Looks up a trained vector for each integer: `y = embedding[x]`.

    Args:
        count: the number of vectors: x is in [0, count).
        features: the length of each.
        embedding_init: initializer of the (count, features) table; N(0, 1) as in torch.

    Returns:
        A layer from integers (batch, ...) to (batch, ..., features), in the dtype of its param
        `embedding`: the default float type.

    Raises:
        ConfigError: count or features is below 1; an integer outside [0, count), where it can be
            seen. Inside `jit` it cannot, and the vector of such an integer is NaN.
        TypeError: x is not of an integer dtype.

    Example:
        >>> words = embedding(1000, 16)
        >>> params, state = words.init(jax.random.key(0), jnp.zeros((1, 7), int))
        >>> words.apply(params, state, jnp.array([[1, 5, 1]]), ctx=None)[0].shape
        (1, 3, 16)
    """
    _check.integer("embedding", "count", count)
    _check.integer("embedding", "features", features)

    def init(key, x):
        _check_integers(x)
        return {"embedding": embedding_init(key, (count, features), jnp.zeros(()).dtype)}, {}

    def apply(params, state, x, ctx):
        _check_integers(x)
        table = params["embedding"]
        if not isinstance(x, jax.core.Tracer):
            ids = np.asarray(x)
            outside = ids[(ids < 0) | (ids >= len(table))]
            if outside.size:
                _check.fail("embedding", "x", f"in [0, {len(table)})", outside[0].item())
        rows = table.at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return rows, state

    return Layer(init, apply)


def _check_integers(x):
    if not jnp.issubdtype(x.dtype, jnp.integer):
        name = jnp.dtype(x.dtype).name
        _check.fail("embedding", "x", "of an integer dtype", name, error=TypeError)
