"""Every public constructor with a call and an input: what the contract tests run over."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.random import define_prng_impl

from jaxtrain import augment, data, losses, metrics, models, nn, optim, penalties, schedules
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
    "conv, in groups and dilated": Case(nn.conv(4, (3, 2), dilation=2, groups=2), IMAGES),
    "depthwise_conv": Case(nn.depthwise_conv(3, multiplier=2, strides=2), IMAGES),
    "conv_transpose": Case(nn.conv_transpose(3, 3, strides=2, padding=[(1, 0)] * 2), IMAGES),
    "maxout": Case(nn.maxout(3), VECTORS),
    "rnn": Case(nn.rnn(6, norm=nn.layer_norm()), (4, 3, 6)),
    "lstm": Case(nn.lstm(3), (4, 3, 2)),
    "gru": Case(nn.gru(3), (4, 3, 2)),
    "batch_norm": Case(nn.batch_norm(), IMAGES),
    "batch_norm of vectors": Case(nn.batch_norm(running="std", scale=False), VECTORS),
    "batch_norm, frozen": Case(nn.batch_norm(frozen=True), VECTORS),
    "layer_norm": Case(nn.layer_norm(), (4, 3, 6)),
    "layer_norm of images": Case(nn.layer_norm(per="example", params="feature"), IMAGES),
    "instance_norm": Case(nn.instance_norm(), IMAGES),
    "group_norm": Case(nn.group_norm(2, bias=False), (4, 5, 6)),
    "rms_norm": Case(nn.rms_norm(), VECTORS),
    "decorrelated_batch_norm": Case(nn.decorrelated_batch_norm(2), (4, 5, 4)),
    "weight_norm": Case(nn.weight_norm(nn.conv(2, 3)), IMAGES),
    "standardize": Case(nn.standardize(np.ones((1, 6)), np.full((1, 6), 2.0)), VECTORS),
    "dropout": Case(nn.dropout(0.5), VECTORS),
    "dropout, vanilla": Case(nn.dropout(0.3, form="vanilla"), IMAGES),
    "dropout of nothing": Case(nn.dropout(0.0), VECTORS),
    "alpha_dropout": Case(nn.alpha_dropout(0.5), VECTORS),
    "gaussian_noise": Case(nn.gaussian_noise(0.5), VECTORS),
    "drop_connect": Case(nn.drop_connect(3, 0.5, activation=nn.tanh), VECTORS),
    "stochastic_depth": Case(nn.stochastic_depth(nn.dense(6), 0.5), VECTORS),
    "stochastic_depth, per batch": Case(
        nn.stochastic_depth(nn.dropout(0.5), 0.5, per="batch", form="inverted"), VECTORS
    ),
    "prelu": Case(nn.prelu(), IMAGES),
    "trainable_swish": Case(nn.trainable_swish(), VECTORS),
    "rrelu": Case(nn.rrelu(), VECTORS),
    "max_pool": Case(nn.max_pool(2), IMAGES),
    "max_pool, overlapping": Case(nn.max_pool(3, strides=2, padding="SAME"), IMAGES),
    "fractional_max_pool": Case(nn.fractional_max_pool(1.5, sequence="random"), IMAGES),
    "avg_pool": Case(nn.avg_pool((2, 3)), IMAGES),
    "avg_pool, overlapping": Case(nn.avg_pool(3, strides=1, padding="SAME"), IMAGES),
    "global_avg_pool": Case(nn.global_avg_pool(), IMAGES),
    "flatten": Case(nn.flatten(), IMAGES),
    "pad_shortcut": Case(nn.pad_shortcut(3), IMAGES),
    "scalar": Case(nn.scalar(), IMAGES),
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
    "lenet": Case(models.lenet(), (4, 14, 12, 1)),
    "vgg": Case(models.vgg(11, batch_norm=True), (4, 32, 33, 3)),
    "resnet": Case(models.resnet(6, widths=(4, 6), classes=3, dropout=0.5), IMAGES),
    "resnet_imagenet": Case(models.resnet_imagenet(18, norm="fixup"), (4, 33, 32, 3)),
    "cifar_speed": Case(models.cifar_speed(widths=(3, 4, 5)), IMAGES),
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
    # Any more decay moves params without a gradient.
    "adamw": lambda lr: optim.adamw(lr, weight_decay=0.0),
    "adamax": optim.adamax,
    "nadam": optim.nadam,
    "nadam, constant": lambda lr: optim.nadam(lr, momentum_decay=None),
    "radam": optim.radam,
    "adagrad": optim.adagrad,
    "adadelta": optim.adadelta,
    "rmsprop": optim.rmsprop,
    "rmsprop, centered": lambda lr: optim.rmsprop(lr, centered=True, momentum=0.9),
    "rmsprop_nesterov": optim.rmsprop_nesterov,
    "rprop": optim.rprop,
    "rprop, irprop-": lambda lr: optim.rprop(lr, variant="irprop-"),
    "rprop, rprop+": lambda lr: optim.rprop(lr, variant="rprop+"),
}

# The same for what has no learning rate of its own.
TRANSFORMATIONS = {
    "scale_by_learning_rate": optim.scale_by_learning_rate(0.1),
    "scale_by_momentum": optim.scale_by_momentum(),
    "scale_by_adam": optim.scale_by_adam(),
    "ema": optim.ema(0.9, debias=True),
    "polyak": optim.polyak(start=1),
    "swa": optim.swa(start=1, every=2),
    "scale_by_adamax": optim.scale_by_adamax(),
    "scale_by_nadam": optim.scale_by_nadam(),
    "scale_by_radam": optim.scale_by_radam(),
    "scale_by_adagrad": optim.scale_by_adagrad(),
    "scale_by_adadelta": optim.scale_by_adadelta(),
    "scale_by_rmsprop": optim.scale_by_rmsprop(),
    "scale_by_rprop": optim.scale_by_rprop(),
    "weight_decay": optim.weight_decay(0.1),
    "weight_decay, scheduled": optim.weight_decay(schedules.cosine(0.1, steps=10), rule="a*"),
    "l2": optim.l2(0.1, scale="sum"),
    "proximal_l1": optim.proximal_l1(optim.adam(0.1), 0.1),
    "max_norm": optim.max_norm(1.0),
    "clip_by_global_norm": optim.clip_by_global_norm(1.0, eps=1e-6),
    "clip_by_value": optim.clip_by_value(1.0),
    "clip_per_parameter": optim.clip_per_parameter(1.0),
    "clip_adaptive": optim.clip_adaptive(0.01),
    "freeze": optim.freeze(optim.adam(0.1), "a*"),
    "lr_multipliers": optim.lr_multipliers({"a*": 2.0}),
    "scale_by_bfgs": optim.scale_by_bfgs(),
    "scale_by_lbfgs": optim.scale_by_lbfgs(memory=3),
    "reduce_on_plateau": optim.reduce_on_plateau(),
    "guard": optim.guard(optim.adam(0.1)),
    "accumulate": optim.accumulate(optim.adam(0.1), 2),
}

# What also needs the function itself, as `value_fn`, or is made for it.
FULL_BATCH = {
    "newton": lambda lr: optim.newton(lr, damping=1e-3),
    "newton, saddle-free": lambda lr: optim.newton(
        lr, saddle_free=True, line_search="strong_wolfe"
    ),
    "bfgs": optim.bfgs,
    "bfgs, scaled": lambda lr: optim.bfgs(lr, scale_initial=True, line_search=None),
    "lbfgs": optim.lbfgs,
    "lbfgs, no line search": lambda lr: optim.lbfgs(lr, memory=3, line_search=None),
    "strong_wolfe": lambda lr: optax.chain(
        optim.scale_by_learning_rate(lr), optim.strong_wolfe(first_trial="decrease")
    ),
    "scale_by_newton": lambda lr: optax.chain(
        optim.scale_by_newton(), optim.scale_by_learning_rate(lr)
    ),
}

SCHEDULES = {
    "constant": schedules.constant(0.1),
    "as_schedule": schedules.as_schedule(0.1),
    "step_decay": schedules.step_decay(0.1, every=3, factor=0.5),
    "multi_step": schedules.multi_step(0.1, boundaries=[3, 6], factor=0.1),
    "exponential": schedules.exponential(0.1, rate=0.1),
    "inverse_time": schedules.inverse_time(0.1, rate=0.1),
    "inverse_power": schedules.inverse_power(0.1, power=0.75),
    "inverse_sqrt": schedules.inverse_sqrt(0.1),
    "linear": schedules.linear(0.1, steps=10),
    "linear_to": schedules.linear_to(0.1, steps=10, end=0.001),
    "polynomial": schedules.polynomial(0.1, steps=10, power=2),
    "cosine": schedules.cosine(0.1, steps=10),
    "triangular": schedules.triangular(0.01, peak=0.1, steps=5),
    "cyclic": schedules.cyclic(0.01, peak=0.1, steps=5, mode="exp_range", rate=0.01),
    "sgdr": schedules.sgdr(0.1, first_cycle=5, mult=2, decay=0.9),
    "snapshot": schedules.snapshot(0.1, steps=20, cycles=4),
    "one_cycle": schedules.one_cycle(0.1, steps=20),
    "warmup": schedules.warmup(schedules.cosine(0.1, steps=10), steps=3),
    "goyal_warmup": schedules.goyal_warmup(0.1, 8, steps=5),
    "join": schedules.join([0.1, schedules.cosine(0.1, steps=10)], [5]),
    "stretch": schedules.stretch(schedules.cosine(0.1, steps=10), 2.5),
    "scale_with_batch": schedules.scale_with_batch(schedules.cosine(0.1, steps=10), 512),
}

CLASSES, VALUES = np.array([0, 2, 1, 2], np.int32), np.ones((4, 3), np.float32)
BITS, WEIGHTS = np.eye(4, 3, dtype=bool), np.ones(4, np.float32)

# With the targets that fit outputs of shape (4, 3).
LOSSES = {
    "softmax_cross_entropy": (losses.softmax_cross_entropy, CLASSES),
    "hinge": (losses.hinge, CLASSES),
    "focal": (losses.focal, CLASSES),
    "sigmoid_cross_entropy": (losses.sigmoid_cross_entropy, BITS),
    "sigmoid_focal": (losses.sigmoid_focal, BITS),
    "binary_hinge": (losses.binary_hinge, BITS),
    "squared_error": (losses.squared_error, VALUES),
    "absolute_error": (losses.absolute_error, VALUES),
    "huber": (losses.huber, VALUES),
    "minkowski": (losses.minkowski, VALUES),
    "class_weighted": (losses.class_weighted(losses.hinge, [1.0, 2.0, 0.5]), CLASSES),
    "sample_weighted": (losses.sample_weighted(losses.hinge), (CLASSES, WEIGHTS)),
}

PENALTIES = {
    "l2": penalties.l2(0.1),
    "l1": penalties.l1(0.1),
    "elastic_net": penalties.elastic_net(l1=0.1, l2=0.2),
}

METRICS = {
    "accuracy": (metrics.accuracy, CLASSES),
    "top_k": (functools.partial(metrics.top_k, k=2), CLASSES),
    "confusion_matrix": (metrics.confusion_matrix, CLASSES),
    "mean_loss": (functools.partial(metrics.mean_loss, loss=losses.squared_error), VALUES),
    "rmse": (metrics.rmse, VALUES),
}

# Of n examples and a seed.
GENERATORS = {
    "polynomial": data.synthetic.polynomial,
    "projectile": data.synthetic.projectile,
    "spirals": data.synthetic.spirals,
    "ill_conditioned_regression": data.synthetic.ill_conditioned_regression,
    "signals": data.synthetic.signals,
    "linear_teacher": data.synthetic.linear_teacher,
}

# With the variance of a kernel of 3 * 3 * 40 inputs and 3 * 3 * 50 outputs.
INITIALIZERS = {
    "zeros": (initializers.zeros, 0),
    "ones": (initializers.ones, 0),
    "he_normal": (initializers.he_normal(), 2 / 360),
    "he_uniform": (initializers.he_uniform(negative_slope=0.5), 2 / (1.25 * 360)),
    "lecun_normal": (initializers.lecun_normal(), 1 / 360),
    "lecun_uniform": (initializers.lecun_uniform(), 1 / 360),
    "glorot_normal": (initializers.glorot_normal(), 2 / (360 + 450)),
    "glorot_uniform": (initializers.glorot_uniform(), 2 / (360 + 450)),
    "classical_uniform": (initializers.classical_uniform(), 1 / (3 * 360)),
    "constant": (initializers.constant(0.01), 0),
    "normal": (initializers.normal(0.01), 0.01**2),
    "orthogonal": (initializers.orthogonal(gain=2.0), 4 / 360),
    "sparse": (initializers.sparse(std=2.0), 4 * 15 / 360),
    "random_walk": (initializers.random_walk(activation="linear"), np.exp(1 / 360) / 360),
}

PREPROCESSINGS = {
    "standardize": data.standardize,
    "min_max": data.min_max,
    "robust": data.robust,
    "pca": data.pca,
    "whiten": data.whiten,
}

# The name before a comma is the function's. Here all keep the shape of an image of 8 x 7 x 3.
# Of functions of the examples, which 20 of shape (2, 2, 1) are enough for.
CHECKS = {
    "compare": lambda x: data.clean.compare(x, x[:8]),
    "duplicates": data.clean.duplicates,
    "label_noise": lambda x: data.clean.label_noise(np.full((len(x), 2), 0.5), np.arange(20) % 2),
    "mahalanobis": data.clean.mahalanobis,
    "near_duplicates": functools.partial(data.clean.near_duplicates, threshold=1.0),
    "nulls": data.clean.nulls,
    "outliers": functools.partial(data.clean.outliers, method="mad"),
}

AUGMENTATIONS = {
    "random_crop": functools.partial(augment.random_crop, padding=1),
    "random_crop, reflect": functools.partial(augment.random_crop, padding=2, mode="reflect"),
    "random_flip": functools.partial(augment.random_flip, axis="both"),
    "random_affine": functools.partial(augment.random_affine, distortion=0.2, shift=1),
    "random_rotation": functools.partial(augment.random_rotation, degrees=30.0),
    "random_translation": functools.partial(augment.random_translation, shift=1.5),
    "random_scale": functools.partial(augment.random_scale, scale=(0.7, 1.4)),
    "random_stretch": functools.partial(augment.random_stretch, stretch=(0.7, 1.4)),
    "random_shear": functools.partial(augment.random_shear, shear=0.3, order=0),
    "random_lens_distortion": functools.partial(augment.random_lens_distortion, strength=0.3),
    "elastic": functools.partial(augment.elastic, alpha=8.0, sigma=2.0),
    "color_jitter": functools.partial(
        augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    ),
    "exchange_channels": augment.exchange_channels,
    "pca_lighting": augment.pca_lighting,
    "gaussian_noise": functools.partial(augment.gaussian_noise, std=0.2),
    "salt_and_pepper": functools.partial(augment.salt_and_pepper, probability=0.2),
    "random_blur": augment.random_blur,
    "cutout": functools.partial(augment.cutout, size=4),
    "random_erasing": augment.random_erasing,
    "auto_augment": functools.partial(augment.auto_augment, policy="imagenet"),
    "rand_augment": functools.partial(augment.rand_augment, magnitude=20),
    "trivial_augment": functools.partial(augment.trivial_augment, operations=augment.OPERATIONS),
}

# The same without a key.
IMAGE_FUNCTIONS = {
    "flip": augment.flip,
    "crop": functools.partial(augment.crop, corner=(0, 0), shape=(8, 7)),
    "center_crop": functools.partial(augment.center_crop, shape=(8, 7)),
    "resize": functools.partial(augment.resize, shape=(8, 7)),
    "resample": functools.partial(augment.resample, at=np.indices((8, 7)) * 0.9),
    "affine": functools.partial(
        augment.affine, matrix=np.array([[1, 0.2], [0.1, 0.9]]), shift=(0.5, 0)
    ),
    "rotate": functools.partial(augment.rotate, degrees=30.0),
    "lens_distortion": functools.partial(augment.lens_distortion, strength=0.2),
    "blend": functools.partial(augment.blend, other=0.5, factor=1.5),
    "brightness": functools.partial(augment.brightness, factor=1.5),
    "contrast": functools.partial(augment.contrast, factor=1.5),
    "saturation": functools.partial(augment.saturation, factor=1.5),
    "hue": functools.partial(augment.hue, shift=0.2),
    "grayscale": augment.grayscale,
    "gaussian_blur": functools.partial(augment.gaussian_blur, sigma=1.0),
    "sharpen": functools.partial(augment.sharpen, factor=2.0),
    "invert": augment.invert,
    "solarize": functools.partial(augment.solarize, threshold=0.5),
    "posterize": functools.partial(augment.posterize, bits=3),
    "equalize": augment.equalize,
    "autocontrast": functools.partial(augment.autocontrast, cutoff=1.0),
}

MIXINGS = {
    "mixup": augment.mixup,
    "mixup, per example": functools.partial(augment.mixup, per="example"),
    "cutmix": augment.cutmix,
    "mix_same_class": augment.mix_same_class,
}

# Public functions that make none of these.
OTHERS = {
    nn: {
        *("bn_vjp", "build", "constructor", "describe", "fold_batch_norm"),
        *("recompute_batch_stats", "rewrite", "split_taps"),
        *("summary", "tap"),
        *("bottleneck", "embedding"),  # a serial, and a layer of integers: test_linear.py
        *("elu", "identity", "leaky_relu", "swish"),  # functions of one array: test_activations.py
        *("predict_mc", "survival"),
        *("from_flax", "from_variables", "to_flax"),  # flax promotes dtypes: test_flax.py
        *("data_dependent", "lsuv", "unit_stats"),
    },
    optim: {
        *("check_gradients", "eval_params", "grad_params", "kernels", "learning_rate", "report"),
        *("kfac", "kfac_factors", "minimize", "scale_by_kfac"),  # kfac needs a net: test_kfac.py
    },
    models: {"from_torch"},
    schedules: {"check_robbins_monro"},
    initializers: {"gain", "lecture", "orthonormal", "torch_default"},
    losses: {"at_class", "check_labels", "class_weights"},
    metrics: {"ratio"},
    data.synthetic: {"powers", "random_features", "three_examples"},
    augment: {
        "random_resized_crop",  # another shape: test_geometry.py
        *("fit_lighting", "compose", "maybe"),
        *("random_policy", "search_policy"),
        # Several images, signals and tokens: test_views.py, test_audio_text.py
        *("five_crop", "flips", "multi_scale_crops", "predict_views", "ten_crop"),
        *("audio_gain", "audio_noise", "audio_shift"),
        *("insert_words", "random_swap", "synonyms", "token_dropout"),
    },
    data.synthetic: {"powers", "random_features", "mismatched_scales"},
}
