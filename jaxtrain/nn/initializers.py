"""Initializers `f(key, shape, dtype) -> array` of kernels of shape (*window, inputs, outputs)."""

import math

import jax
import jax.numpy as jnp

from jaxtrain import _check


def _fans(shape):
    """Returns fan_in, fan_out: the window's size times the input, or output, channels."""
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _normal(variance):
    """Returns the initializer N(0, variance(fan_in, fan_out)), sampled in the kernel's dtype."""

    def init(key, shape, dtype=jnp.float32):
        std = math.sqrt(variance(*_fans(shape)))
        return std * jax.random.normal(key, shape, dtype)

    return init


def zeros(key, shape, dtype=jnp.float32):
    """Returns zeros."""
    return jnp.zeros(shape, dtype)


def ones(key, shape, dtype=jnp.float32):
    """Returns ones."""
    return jnp.ones(shape, dtype)


def he_normal(*, negative_slope: float = 0.0):
    """Returns the initializer N(0, 2 / ((1 + a^2) fan_in)), a the slope of a leaky ReLU.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015. The normal is not
        truncated, as in the paper.
    """
    _check.nonnegative("he_normal", "negative_slope", negative_slope)
    return _normal(lambda fan_in, fan_out: 2 / ((1 + negative_slope**2) * fan_in))


def lecun_normal():
    """Returns the initializer N(0, 1 / fan_in).

    References:
        Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, "Efficient backprop", 1998.
    """
    return _normal(lambda fan_in, fan_out: 1 / fan_in)


def glorot_normal():
    """Returns the initializer N(0, 2 / (fan_in + fan_out)).

    References:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010.
    """
    return _normal(lambda fan_in, fan_out: 2 / (fan_in + fan_out))
