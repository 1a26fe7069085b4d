"""Recurrent layers: a cell, scanned over time."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check, _compat
from jaxtrain.nn import initializers
from jaxtrain.nn._combine import IDENTITY, _output
from jaxtrain.nn._layer import Layer, as_layer, constructor, fold_name, naming, param_dtype
from jaxtrain.nn._linear import add_bias


@constructor
def rnn(
    features: int,
    *,
    activation: Callable = jnp.tanh,
    norm: Layer | None = None,
    kernel_init=initializers.lecun_normal(),  # noqa: B008
    recurrent_init=initializers.orthogonal(),  # noqa: B008
) -> Layer:
    """Applies the recurrence `h_t = tanh(x_t W + h_{t-1} U + b)`, from h_0 = 0.

    Args:
        features: the length of h.
        activation: the function in the place of tanh.
        norm: a layer without state, such as `layer_norm`, that both `x_t W` and `h_{t-1} U` go
            through at each step, with params of their own: in `norm`, on a leading axis of 2.
        kernel_init: initializer of W, (inputs, features).
        recurrent_init: initializer of U, (features, features).

    Returns:
        A layer from (batch, time, inputs) to all h, (batch, time, features). Its params are
        `kernel` (W), `recurrent/kernel` (U), and `bias` (b). What comes later changes no earlier
        h: short sequences may be padded at their end.

    Raises:
        ConfigError: features is below 1, or norm has state.

    Example:
        >>> from jaxtrain import nn
        >>> params, state = nn.rnn(3).init(jax.random.key(0), jnp.zeros((1, 5, 2)))
        >>> nn.rnn(3).apply(params, state, jnp.ones((4, 7, 2)), nn.EVAL)[0].shape
        (4, 7, 3)

    References:
        J. Elman, "Finding structure in time", 1990. J. Ba, J. Kiros, G. Hinton, "Layer
        normalization", 2016, which normalizes the sum here and the two products in LSTM and GRU.
    """

    def cell(params, carry, a, b):
        return (activation(a + b),)

    return _recurrent("rnn", features, cell, 1, [0.0], norm, kernel_init, recurrent_init)


@constructor
def lstm(
    features: int,
    *,
    forget_bias: float = 1.0,
    norm: Layer | None = None,
    kernel_init=initializers.lecun_normal(),  # noqa: B008
    recurrent_init=initializers.orthogonal(),  # noqa: B008
) -> Layer:
    """Applies long short-term memory, from h_0 = c_0 = 0.

        i, f, g, o = x_t W + h_{t-1} U + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Args:
        features: the length of h and c.
        forget_bias: the initial bias of f; 1 lets what is in c last. 0 in flax.
        norm: a layer without state, such as `layer_norm`, that both `x_t W` and `h_{t-1} U` go
            through at each step, with params of their own: in `norm`, on a leading axis of 2.
        kernel_init: initializer of each of the four parts of W, (inputs, features).
        recurrent_init: initializer of each of the four parts of U, (features, features).

    Returns:
        A layer from (batch, time, inputs) to all h, (batch, time, features). Its params are
        `kernel` (W), `recurrent/kernel` (U) and `bias` (b), the four parts side by side, as in
        torch, which has two biases that add up.

    Raises:
        ConfigError: features is below 1, or norm has state.

    Example:
        >>> params, state = lstm(3).init(jax.random.key(0), jnp.zeros((1, 5, 2)))
        >>> params["bias"].tolist()
        [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

    References:
        S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997. F. Gers, J. Schmidhuber,
        F. Cummins, "Learning to forget: continual prediction with LSTM", 2000 (f).
        R. Jozefowicz, W. Zaremba, I. Sutskever, "An empirical exploration of recurrent network
        architectures", 2015 (its bias). J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016,
        which also normalizes the c_t in the last line.
    """

    def cell(params, carry, a, b):
        _, c = carry
        i, f, g, o = jnp.split(a + b, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    _check.finite("lstm", "forget_bias", forget_bias)
    biases = [0.0, forget_bias, 0.0, 0.0]
    return _recurrent("lstm", features, cell, 2, biases, norm, kernel_init, recurrent_init)


@constructor
def gru(
    features: int,
    *,
    reset_after: bool = True,
    norm: Layer | None = None,
    kernel_init=initializers.lecun_normal(),  # noqa: B008
    recurrent_init=initializers.orthogonal(),  # noqa: B008
) -> Layer:
    """Applies gated recurrent units, from h_0 = 0, with W, U and b in three parts each.

        r = sigmoid(x_t W_r + h_{t-1} U_r + b_r)
        z = sigmoid(x_t W_z + h_{t-1} U_z + b_z)
        n = tanh(x_t W_n + b_n + r (h_{t-1} U_n + b_u))
        h_t = (1 - z) n + z h_{t-1}

    Args:
        features: the length of h.
        reset_after: r acts after U_n, as above and in torch and flax. False lets it act before,
            `n = tanh(x_t W_n + b_n + (r h_{t-1}) U_n)`, as in the paper.
        norm: a layer without state, such as `layer_norm`, that both `x_t W` and `h_{t-1} U` go
            through at each step, with params of their own: in `norm`, on a leading axis of 2.
        kernel_init: initializer of each of the three parts of W, (inputs, features).
        recurrent_init: initializer of each of the three parts of U, (features, features).

    Returns:
        A layer from (batch, time, inputs) to all h, (batch, time, features). Its params are
        `kernel` (W), `recurrent/kernel` (U) and `bias`, the parts r, z, n side by side, and
        `recurrent/bias` (b_u). torch has two biases that add up in r and z.

    Raises:
        ConfigError: features is below 1, norm has state, or there is one with reset_after=False.

    Example:
        >>> params, state = gru(3).init(jax.random.key(0), jnp.zeros((1, 5, 2)))
        >>> params["kernel"].shape, params["recurrent"]["kernel"].shape
        ((2, 9), (3, 9))

    References:
        K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation", 2014. J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.
    """
    if norm is not None and not reset_after:
        fix = "the product (r h) U_n needs a third"
        _check.fail("gru", "norm", "None with reset_after=False", norm, fix)

    def cell(params, carry, a, b):
        (h,) = carry
        a_r, a_z, a_n = jnp.split(a, 3, -1)
        b_r, b_z, b_n = jnp.split(b, 3, -1)
        r, z = jax.nn.sigmoid(a_r + b_r), jax.nn.sigmoid(a_z + b_z)
        if reset_after:
            n = jnp.tanh(a_n + r * add_bias(params["recurrent"], b_n))
        else:
            U_n = params["recurrent"]["kernel"][:, 2 * features :]
            n = jnp.tanh(a_n + (r * h) @ U_n.astype(h.dtype))
        return ((1 - z) * n + z * h,)

    layer = _recurrent("gru", features, cell, 1, [0.0] * 3, norm, kernel_init, recurrent_init)

    def init(key, x):
        params, state = layer.init(key, x)
        if reset_after:
            params["recurrent"]["bias"] = jnp.zeros_like(params["bias"][:features])
        return params, state

    return Layer(init, layer.apply)


def _recurrent(
    where: str,
    features: int,
    cell: Callable,
    carries: int,
    biases: Sequence[float],
    norm: Layer | None,
    kernel_init,
    recurrent_init,
) -> Layer:
    """Scans a cell over time.

    Args:
        where: the constructor's name.
        features: the length of h.
        cell: `cell(params, carry, a, b) -> carry`, for `a = x_t W + bias` and `b = h_{t-1} U`;
            carry is a tuple that begins with h.
        carries: its length.
        biases: the initial bias of each part of W and U.
        norm: what both products go through.
        kernel_init: initializer of each part of W.
        recurrent_init: initializer of each part of U.
    """
    _check.integer(where, "features", features)
    norm_layer = IDENTITY if norm is None else as_layer(norm)

    def init(key, x):
        if x.ndim != 3:
            _check.fail(where, "x", "(batch, time, inputs)", x.shape)
        dtype = param_dtype(where, x)

        def parts(init, key, inputs):
            keys = jax.random.split(key, len(biases))
            return jnp.concatenate([init(k, (inputs, features), dtype) for k in keys], -1)

        k_kernel, k_recurrent = jax.random.split(key)
        params = {
            "kernel": parts(kernel_init, k_kernel, x.shape[-1]),
            "recurrent": {"kernel": parts(recurrent_init, k_recurrent, features)},
            "bias": jnp.asarray(np.repeat(biases, features), dtype),
        }
        z = jax.ShapeDtypeStruct((x.shape[0], len(biases) * features), x.dtype)
        keys = jax.random.split(fold_name(key, "norm"))
        with naming("norm"):
            p, s = jax.vmap(lambda key: norm_layer.init(key, z))(keys)
            first, state = jax.tree.map(lambda leaf: leaf[0], (p, s))
            y = _output(norm_layer, first, state, z)
        if state or y.shape != z.shape:
            rule = "without state and of its input's shape, as layer_norm is"
            _check.fail(where, "norm", rule, norm)
        return params | ({"norm": p} if p else {}), {}

    def apply(params, state, x, ctx):
        W, U = (p["kernel"].astype(x.dtype) for p in (params, params["recurrent"]))
        if x.ndim != 3 or x.shape[-1] != len(W):
            _check.fail(where, "x", f"(batch, time, {len(W)})", x.shape)

        def normalize(p, z):
            with naming("norm"):
                return norm_layer.apply(p, {}, z, ctx.child("norm"))

        def step(carry, a):
            products = jnp.stack([a, carry[0] @ U])
            (a, b), seen = jax.vmap(normalize)(params.get("norm", {}), products)
            carry = cell(params, carry, add_bias(params, a), b)
            return carry, (carry[0], seen)

        zeros = _compat.to_varying(jnp.zeros((x.shape[0], features), x.dtype), ctx.axis_name)
        _, (h, seen) = lax.scan(step, (zeros,) * carries, jnp.moveaxis(x @ W, 1, 0))
        return jnp.moveaxis(h, 0, 1), {"norm": seen} if seen else state  # seen by `nn.tap`

    return Layer(init, apply)
