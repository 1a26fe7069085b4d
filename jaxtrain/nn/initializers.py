"""Initializers `f(key, shape, dtype) -> array` of kernels of shape (*window, inputs, outputs).

Those of `jax.nn.initializers`, flax's among them, have this signature too and serve as well. What
a layer multiplies the mean square of its inputs by is fan_in times the variance of its weights: 1
for `lecun_*`, 2 for `he_*`, which makes up for ReLUs; `glorot_*` stands between this and the same
for the gradients, with fan_out.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn._layer import Layer


def _fans(shape):
    """Returns fan_in, fan_out: the window's size times the input, or output, channels."""
    if len(shape) < 2:
        fix = "a bias has no fan_in: see torch_default"
        _check.fail("initializers", "shape", "(*window, inputs, outputs)", shape, fix)
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _normal(variance):
    """Returns the initializer N(0, variance(fan_in, fan_out)), sampled in the kernel's dtype."""

    def init(key, shape, dtype=jnp.float32):
        std = math.sqrt(variance(*_fans(shape)))
        return std * jax.random.normal(key, shape, dtype)

    return init


def _uniform(variance):
    """Returns the initializer U(-b, b) of this variance, which is b^2 / 3."""

    def init(key, shape, dtype=jnp.float32):
        b = math.sqrt(3 * variance(*_fans(shape)))
        return jax.random.uniform(key, shape, dtype, -b, b)

    return init


def zeros(key, shape, dtype=jnp.float32):
    """Returns zeros."""
    return jnp.zeros(shape, dtype)


def ones(key, shape, dtype=jnp.float32):
    """Returns ones."""
    return jnp.ones(shape, dtype)


def constant(value: float):
    """Returns the initializer of one number everywhere.

    For biases, such as 0.01 before a ReLU. As a kernel it never breaks the symmetry between units.
    """
    _check.finite("constant", "value", value)
    return lambda key, shape, dtype=jnp.float32: jnp.full(shape, value, dtype)


def normal(std: float):
    """Returns the initializer N(0, std^2), whatever the fans: 0.01 for the "small numbers"."""
    _check.nonnegative("normal", "std", std)
    return lambda key, shape, dtype=jnp.float32: std * jax.random.normal(key, shape, dtype)


def lecun_normal():
    """Returns the initializer N(0, 1 / fan_in), which lecture notes and Caffe call Xavier's.

    References:
        Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, "Efficient backprop", 1998.
    """
    return _normal(lambda fan_in, fan_out: 1 / fan_in)


def lecun_uniform():
    """Returns the initializer U(-b, b), b = sqrt(3 / fan_in), of `lecun_normal`'s variance."""
    return _uniform(lambda fan_in, fan_out: 1 / fan_in)


def glorot_normal():
    """Returns the initializer N(0, 2 / (fan_in + fan_out)).

    References:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010.
    """
    return _normal(lambda fan_in, fan_out: 2 / (fan_in + fan_out))


def glorot_uniform():
    """Returns the initializer U(-b, b), b = sqrt(6 / (fan_in + fan_out)): "Xavier".

    References:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010, equation 16. Printed as 6 / sqrt(fan_in + fan_out) in some notes.
    """
    return _uniform(lambda fan_in, fan_out: 2 / (fan_in + fan_out))


def he_normal(*, negative_slope: float = 0.0):
    """Returns the initializer N(0, 2 / ((1 + a^2) fan_in)), a the slope of a leaky ReLU.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015. The normal is not
        truncated, as in the paper. Printed as a division by sqrt(2 / fan_in) in some notes.
    """
    _check.nonnegative("he_normal", "negative_slope", negative_slope)
    return _normal(lambda fan_in, fan_out: 2 / ((1 + negative_slope**2) * fan_in))


def he_uniform(*, negative_slope: float = 0.0):
    """Returns the initializer U(-b, b), b = sqrt(6 / ((1 + a^2) fan_in)), a as in `he_normal`."""
    _check.nonnegative("he_uniform", "negative_slope", negative_slope)
    return _uniform(lambda fan_in, fan_out: 2 / ((1 + negative_slope**2) * fan_in))


def classical_uniform():
    """Returns the initializer U(-b, b), b = 1 / sqrt(fan_in): the heuristic before Glorot's.

    References:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010, equation 1.
    """
    return _uniform(lambda fan_in, fan_out: 1 / (3 * fan_in))


def orthogonal(*, gain: float = 1.0):
    """Returns the initializer of kernels W with orthogonal columns or rows of length `gain`.

    A kernel is a matrix of window * inputs rows and outputs columns: `W' W = gain^2 I` where it has
    at least as many rows as columns, `W W' = gain^2 I` otherwise. W is uniform among these.

    Args:
        gain: 1 preserves norms through linear layers, `gain("relu")` makes up for ReLUs.

    Example:
        >>> w = orthogonal(gain=2.0)(jax.random.key(0), (3, 3, 4, 2)).reshape(36, 2)
        >>> jnp.abs(w.T @ w - 4 * jnp.eye(2)).max().item() < 1e-5
        True

    References:
        A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning
        in deep linear neural networks", 2013.
    """
    _check.positive("orthogonal", "gain", gain)

    def init(key, shape, dtype=jnp.float32):
        _fans(shape)
        w = jax.random.normal(key, shape, np.promote_types(dtype, np.float32))
        return (gain * orthonormal(w)).astype(dtype)

    return init


def orthonormal(kernel: jax.Array) -> jax.Array:
    """Returns the Q of the QR decomposition of a kernel as a matrix, for the R of diagonal > 0."""
    w = kernel.reshape(-1, kernel.shape[-1])
    tall = w if w.shape[0] >= w.shape[1] else w.T
    q, r = jnp.linalg.qr(tall)
    # Q alone is not uniform: LAPACK chooses the signs.
    q = q * jnp.sign(jnp.diag(r))[None]
    return (q if tall is w else q.T).reshape(kernel.shape)


def sparse(*, k: int = 15, std: float = 1.0):
    """Returns the initializer in which each unit has k inputs of weight N(0, std^2), the rest 0.

    Args:
        k: non-zero weights per unit; all of them where fan_in is smaller.
        std: their standard deviation. What arrives at a unit does not depend on fan_in.

    References:
        J. Martens, "Deep learning via Hessian-free optimization", 2010, section 5.
    """
    _check.integer("sparse", "k", k)
    _check.nonnegative("sparse", "std", std)

    def init(key, shape, dtype=jnp.float32):
        k_weights, k_inputs = jax.random.split(key)
        fan_in, _ = _fans(shape)
        inputs = jnp.broadcast_to(jnp.arange(fan_in)[:, None], (fan_in, shape[-1]))
        chosen = jax.random.permutation(k_inputs, inputs, independent=True).reshape(shape) < k
        return jnp.where(chosen, std * jax.random.normal(k_weights, shape, dtype), 0)

    return init


def random_walk(*, activation: str = "relu"):
    """Returns the initializer N(0, g^2 / N), N = fan_in, for very deep nets of equal widths.

    The logarithm of the gradient's norm then makes a random walk without drift from layer to layer:
    `g = sqrt(2) exp(1.2 / (max(N, 6) - 2.4))` for ReLUs, `exp(1 / (2 N))` for linear layers.

    Args:
        activation: "relu" or "linear".

    References:
        D. Sussillo, L. Abbott, "Random walk initialization for training very deep feedforward
        networks", 2014.
    """
    g = {
        "relu": lambda n: math.sqrt(2) * math.exp(1.2 / (max(n, 6) - 2.4)),
        "linear": lambda n: math.exp(1 / (2 * n)),
    }
    _check.choice("random_walk", "activation", activation, g)
    return _normal(lambda fan_in, fan_out: g[activation](fan_in) ** 2 / fan_in)


def gain(activation: str | Callable, *, negative_slope: float = 0.01) -> float:
    """Returns what weights of variance 1 / fan_in are multiplied by to make up for an activation.

    `1 / sqrt(E f(z)^2)`, z ~ N(0, 1), keeps the mean square of the activations: sqrt(2) for relu
    and sqrt(2 / (1 + negative_slope^2)) for leaky_relu. By convention it is 1 for linear and
    sigmoid, 5/3 for tanh (1.59 by the formula; Saxe et al. take 1) and 3/4 for selu (1).

    Args:
        activation: "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", or any function of
            one array; one of these names counts by the convention.
        negative_slope: of "leaky_relu".

    Example:
        >>> round(gain("tanh"), 4), round(gain(jax.nn.relu), 4), round(gain(jax.nn.gelu), 4)
        (1.6667, 1.4142, 1.533...)
    """
    _check.finite("gain", "negative_slope", negative_slope)
    known = {
        **{"linear": 1.0, "identity": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "selu": 3 / 4},
        **{"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + negative_slope**2))},
    }
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    if isinstance(activation, str) or name in known:
        _check.choice("gain", "activation", name, known)
        return known[name]
    _check.function("gain", "activation", activation)
    # The trapezoidal rule: errors of 1e-6 at the kink, far below the tail that is cut off.
    z = np.linspace(-8, 8, 16001)
    with jax.ensure_compile_time_eval():
        f = np.asarray(activation(jnp.asarray(z)), float)
    return 1 / math.sqrt(np.average(f**2, weights=np.exp(-(z**2) / 2)))


def lecture(path: tuple[str, ...], layer: Layer) -> Layer:
    """Gives a layer the kernel N(0, 0.01^2) and the bias 0: a rule for `nn.rewrite`.

    Enough for small nets, whose first outputs are close to uniform; ten layers of tanh vanish.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.rewrite(nn.serial(nn.dense(8), jax.nn.relu, nn.dense(2)), lecture)
    """
    return layer.replace(kernel_init=normal(0.01), bias_init=zeros) if _affine(layer) else layer


def torch_default(path: tuple[str, ...], layer: Layer) -> Layer:
    """Gives a layer kernel and bias U(-b, b), b = 1 / sqrt(fan_in): a rule for `nn.rewrite`.

    This is what torch's Linear and Conv do; `kaiming_uniform_(a=sqrt(5))` is its name for it. What
    it takes for the fan_in of a transposed convolution is window * outputs.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.rewrite(nn.serial(nn.dense(8), jax.nn.relu, nn.dense(2)), torch_default)
        >>> params, _ = net.init(jax.random.key(0), jnp.zeros((1, 100)))
        >>> 0.05 < jnp.abs(params["dense0"]["bias"]).max().item() < 0.1
        True
    """
    if not _affine(layer):
        return layer

    def init(key, x):
        fan_in, fan_out = _fans(jax.eval_shape(layer.init, key, x)[0]["kernel"].shape)
        b = 1 / math.sqrt(fan_out if layer.kind == "conv_transpose" else fan_in)

        def uniform(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -b, b)

        return layer.replace(kernel_init=uniform, bias_init=uniform).init(key, x)

    return dataclasses.replace(layer, init=init)


def _affine(layer):
    return {"kernel_init", "bias_init"} <= set(layer.options)
