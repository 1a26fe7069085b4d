"""Every public constructor with a call and an input: what the contract tests run over."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

from jaxtrain import augment, data, losses, metrics, models, nn, optim, schedules
from jaxtrain.nn import initializers


def _hash(x):
    """The finalizer of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x


def _split(key, shape):
    numbers = jnp.arange(np.prod(shape), dtype=np.uint32).reshape(*shape, 1)
    return _hash(numbers + _hash(jnp.broadcast_to(key, numbers.shape)))


def _random_bits(key, bit_width, shape):
    words = _split(key, (2, *shape))[..., 0]
    if bit_width == 64:
        return jax.lax.bitcast_convert_type(words.T, np.uint64).T
    return words[0].astype(f"uint{bit_width}")


# Threefry takes half a second to compile, in each program with a dropout; this takes none.
QUICK = define_prng_impl(
    key_shape=(1,),
    seed=lambda seed: _hash(seed.astype(np.uint32)[None] + np.uint32(1)),
    split=_split,
    random_bits=_random_bits,
    fold_in=lambda key, data: _hash(key + _hash(data.astype(np.uint32)[None] + np.uint32(1))),
    name="quick",
)


def key(seed):
    """A key for tests: cheap to compile, random enough for masks and weights."""
    return jax.random.key(seed, impl=QUICK)


class Case(NamedTuple):
    layer: nn.Layer
    shape: tuple[int, ...]  # of the input, a batch of 4
    tolerance: float = 1e-12  # of float64, relative; larger where the layer computes in less


IMAGES, VECTORS = (4, 5, 6, 2), (4, 6)

LAYERS = {
    "dense": Case(nn.dense(3), VECTORS),
    "dense of a sequence, no bias": Case(nn.dense(3, bias=False), (4, 5, 6)),
    "conv": Case(nn.conv(3, 3), IMAGES),
    "conv in one dimension": Case(
        nn.conv(3, 3, strides=2, padding=[(2, 1)], bias=False), (4, 7, 2)
    ),
    "batch_norm": Case(nn.batch_norm(), IMAGES),
    "batch_norm of vectors": Case(nn.batch_norm(running="std", scale=False), VECTORS),
    "batch_norm, frozen": Case(nn.batch_norm(frozen=True), VECTORS),
    "standardize": Case(nn.standardize(np.ones((1, 6)), np.full((1, 6), 2.0)), VECTORS),
    "dropout": Case(nn.dropout(0.5), VECTORS),
    "dropout, vanilla": Case(nn.dropout(0.3, form="vanilla"), IMAGES),
    "dropout of nothing": Case(nn.dropout(0.0), VECTORS),
    "max_pool": Case(nn.max_pool(2), IMAGES),
    "max_pool, overlapping": Case(nn.max_pool(3, strides=2, padding="SAME"), IMAGES),
    "avg_pool": Case(nn.avg_pool((2, 3)), IMAGES),
    "avg_pool, overlapping": Case(nn.avg_pool(3, strides=1, padding="SAME"), IMAGES),
    "global_avg_pool": Case(nn.global_avg_pool(), IMAGES),
    "flatten": Case(nn.flatten(), IMAGES),
    "pad_shortcut": Case(nn.pad_shortcut(3), IMAGES),
    "serial": Case(
        nn.serial(nn.dense(6, bias=False), nn.batch_norm(), jax.nn.relu, nn.dropout(0.5)), VECTORS
    ),
    "parallel": Case(nn.parallel(nn.dense(4), jnp.tanh, nn.batch_norm()), VECTORS),
    "residual": Case(nn.residual(nn.serial(nn.dropout(0.5), nn.dense(6))), VECTORS),
    "repeat": Case(
        nn.repeat(nn.serial(nn.dense(6, bias=False), nn.batch_norm(), nn.dropout(0.5)), 3), VECTORS
    ),
    "remat": Case(nn.remat(nn.serial(nn.dense(6, bias=False), nn.batch_norm())), VECTORS),
    "frozen": Case(
        nn.frozen(nn.serial(nn.dense(6, bias=False), nn.batch_norm(), nn.dropout(0.5))), VECTORS
    ),
    "cast": Case(nn.cast(nn.dense(3), jnp.float32), VECTORS, 1e-5),
}

MODELS = {
    "mlp": Case(models.mlp([4, 3], batch_norm=True, dropout=0.5), IMAGES),
    "resnet": Case(models.resnet(6, widths=(4, 6), classes=3, dropout=0.5), IMAGES),
}

# By a name that begins with the constructor's, a function of the learning rate.
OPTIMIZERS = {
    "sgd": optim.sgd,
    "momentum": optim.momentum,
    "momentum, velocity": lambda lr: optim.momentum(lr, form="velocity"),
    "momentum, lookahead": lambda lr: optim.momentum(lr, nesterov="lookahead"),
    "momentum, shifted": lambda lr: optim.momentum(lr, nesterov="shifted"),
    "momentum, ema": lambda lr: optim.momentum(lr, form="ema", debias=True),
    "adam": optim.adam,
    "adam, amsgrad": lambda lr: optim.adam(lr, amsgrad="corrected", eps_mode="uncorrected"),
}

# The same for what has no learning rate of its own.
TRANSFORMATIONS = {
    "scale_by_learning_rate": optim.scale_by_learning_rate(0.1),
    "scale_by_momentum": optim.scale_by_momentum(),
    "scale_by_adam": optim.scale_by_adam(),
}

SCHEDULES = {
    "constant": schedules.constant(0.1),
    "as_schedule": schedules.as_schedule(0.1),
    "step_decay": schedules.step_decay(0.1, every=3, factor=0.5),
    "cosine": schedules.cosine(0.1, steps=10),
    "warmup": schedules.warmup(schedules.cosine(0.1, steps=10), steps=3),
    "join": schedules.join([0.1, schedules.cosine(0.1, steps=10)], [5]),
}

CLASSES, VALUES = np.array([0, 2, 1, 2], np.int32), np.ones((4, 3), np.float32)

# With the targets that fit outputs of shape (4, 3).
LOSSES = {
    "softmax_cross_entropy": (losses.softmax_cross_entropy, CLASSES),
    "squared_error": (losses.squared_error, VALUES),
}

METRICS = {
    "accuracy": (metrics.accuracy, CLASSES),
    "top_k": (functools.partial(metrics.top_k, k=2), CLASSES),
    "confusion_matrix": (metrics.confusion_matrix, CLASSES),
    "mean_loss": (functools.partial(metrics.mean_loss, loss=losses.squared_error), VALUES),
    "rmse": (metrics.rmse, VALUES),
}

# With the variance of a kernel of 3 * 3 * 40 inputs and 3 * 3 * 50 outputs.
INITIALIZERS = {
    "zeros": (initializers.zeros, 0),
    "ones": (initializers.ones, 0),
    "he_normal": (initializers.he_normal(), 2 / 360),
    "lecun_normal": (initializers.lecun_normal(), 1 / 360),
    "glorot_normal": (initializers.glorot_normal(), 2 / (360 + 450)),
}

PREPROCESSINGS = {"standardize": data.standardize}

AUGMENTATIONS = {
    "random_crop": functools.partial(augment.random_crop, padding=1),
    "random_affine": functools.partial(augment.random_affine, distortion=0.2, shift=1),
}

# Public functions that make none of these.
OTHERS = {
    nn: {"build", "constructor", "describe", "rewrite", "split_taps", "summary", "tap"},
    optim: {"eval_params", "grad_params", "learning_rate"},
    losses: {"at_class", "check_labels"},
    metrics: {"ratio"},
}
