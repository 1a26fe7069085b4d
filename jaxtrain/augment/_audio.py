"""Augmentations of a signal, which is 0 where it is silent: noise, shift and gain."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment._image import narrowed, widened


def audio_noise(
    key: jax.Array,
    signal: Any,
    *,
    snr: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> jax.Array:
    """Adds Gaussian noise: y = x + s n, n ~ N(0, 1).

        s = std,   or   s = sqrt(mean(x^2)) 10^(-snr / 20)

    Args:
        key: the random key of this signal.
        signal: x, (samples,) or (samples, channels).
        snr: the ratio of the powers of signal and noise, in decibels; of two, one has to be given.
        std: the standard deviation of the noise in the unit of the signal, >= 0.

    Returns:
        y, of the same shape and dtype, rounded and kept within its range where it is an integer.

    Raises:
        ConfigError: If not exactly one of snr and std is given.

    Example:
        >>> audio_noise(jax.random.key(0), jnp.ones(4), std=0.0).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    signal = _checked("audio_noise", signal)
    if (snr is None) == (std is None):
        _check.fail("audio_noise", "snr and std", "one number and one None", (snr, std))
    x = widened(signal)
    if std is not None:
        _check.nonnegative("audio_noise", "std", std)
        s = jnp.asarray(std, x.dtype)
    else:
        _check.within("audio_noise", "snr", snr, -math.inf, math.inf)
        s = jnp.sqrt((x * x).mean()) * 10 ** (-jnp.asarray(snr, x.dtype) / 20)
    return narrowed(x + s * jax.random.normal(key, x.shape, x.dtype), signal.dtype)


def audio_shift(key: jax.Array, signal: Any, *, limit: int, circular: bool = False) -> jax.Array:
    """Shifts a signal in time by a whole number of samples ~ U{-limit, ..., limit}.

    Args:
        key: the random key of this signal.
        signal: (samples,) or (samples, channels).
        limit: the largest shift in samples, at least 0.
        circular: whether what leaves at one end enters at the other; else zeros do.

    Returns:
        A signal of the same shape and dtype.

    Example:
        >>> audio_shift(jax.random.key(0), jnp.arange(3), limit=0).tolist()
        [0, 1, 2]
    """
    _check.integer("audio_shift", "limit", limit, least=0)
    _check.flag("audio_shift", "circular", circular)
    signal = _checked("audio_shift", signal)
    shift = jax.random.randint(key, (), -limit, limit + 1, np.int32)
    source = jnp.arange(len(signal), dtype=np.int32) - shift
    if circular:
        return signal[source % len(signal)]
    return signal.at[jnp.where(source < 0, len(signal), source)].get(mode="fill", fill_value=0)


def audio_gain(key: jax.Array, signal: Any, *, decibels: ArrayLike) -> jax.Array:
    """Changes the volume: y = 10^(g / 20) x, g ~ U(-decibels, decibels).

    Args:
        key: the random key of this signal.
        signal: x, (samples,) or (samples, channels).
        decibels: the largest gain and loss, >= 0.

    Returns:
        y, of the same shape and dtype, rounded and kept within its range where it is an integer.

    Example:
        >>> audio_gain(jax.random.key(0), jnp.ones(2), decibels=0.0).tolist()
        [1.0, 1.0]
    """
    _check.nonnegative("audio_gain", "decibels", decibels)
    signal = _checked("audio_gain", signal)
    x = widened(signal)
    most = jnp.asarray(decibels, x.dtype)
    g = jax.random.uniform(key, (), x.dtype, -most, most)
    return narrowed(10 ** (g / 20) * x, signal.dtype)


def _checked(where, signal):
    signal = _check.array(where, "signal", signal)
    if signal.ndim not in (1, 2) or signal.size == 0:
        fix = "jax.vmap takes a batch" if signal.ndim == 3 else ""
        rule = "of shape (samples,) or (samples, channels)"
        _check.fail(where, "signal", rule, signal.shape, fix)
    if not any(jnp.issubdtype(signal.dtype, kind) for kind in (np.signedinteger, np.floating)):
        fix = "take 128 from uint8, whose silence it is"
        rule = "of signed integers or floats"
        _check.fail(where, "signal", rule, str(signal.dtype), fix, TypeError)
    return signal
