"""Residual networks, for small images and for ImageNet."""

import functools
import math
from collections.abc import Sequence

import jax

from jaxtrain import _check, nn
from jaxtrain.models._unit import normalization
from jaxtrain.nn import initializers

# The number of blocks in each of the four stages; from 50 on these are bottlenecks.
STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
NORMS = ("batch", "group", "none", "fixup")
HE = initializers.he_normal()
SHIFT = nn.scalar(scale=False)


def resnet(
    depth: int = 20,
    *,
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    stem_pool: int = 1,
    shortcut: str = "projection",
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Layer:
    """Builds a residual network in the form for small images (CIFAR).

    A 3x3 stem, then one stage per width, each of (depth - 2) / (2 stages) blocks of two 3x3
    convolutions with BatchNorm; every stage but the first halves the image; global average pooling
    and a dense layer.

    Args:
        depth: number of layers with weights, 2 + 2 n stages: 8, 20, 32, 44, 56, 110 for three.
        classes: number of outputs.
        widths: channels of each stage.
        stem_pool: window of a max-pooling after the stem; 1 means none. 2 makes a network several
            times cheaper on images where little is lost at half the resolution.
        shortcut: where the shape changes: "projection", a strided 1x1 convolution with BatchNorm,
            or "pad", every second pixel with zeros for the new channels.
        norm: "batch"; "group", in up to 32 groups; "none"; or "fixup", scalars in place of a
            normalization, the first convolution of a branch times (number of branches)^(-1/2) and
            the last, as well as the last layer, from zero.
        dropout: rate before the last layer.

    Returns:
        A layer from (batch, height, width, channels) to (batch, classes) logits.

    Raises:
        ValueError: no number of blocks gives this depth.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxtrain import tree
        >>> params = jax.eval_shape(
        ...     resnet(20, shortcut="pad").init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))[0]
        >>> tree.count(params)
        269722

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
        H. Zhang, Y. Dauphin, T. Ma, "Fixup initialization: residual learning without
        normalization", 2019.
    """
    _check.choice("resnet", "shortcut", shortcut, ("projection", "pad"))
    _check.choice("resnet", "norm", norm, NORMS)
    _check.integer("resnet", "stem_pool", stem_pool)
    if not isinstance(widths, Sequence) or not widths:
        _check.fail("resnet", "widths", "a sequence of at least one width", widths)
    blocks, rest = divmod((_check.whole(depth) or 0) - 2, 2 * len(widths))
    if rest or blocks < 1:
        rule = f"2 + {2 * len(widths)} n for {len(widths)} stages"
        _check.fail("resnet", "depth", rule, depth)
    conv = functools.partial(_conv, norm=norm, same=True)
    stem = {"stem": conv(widths[0], 3, 1, after=SHIFT), "relu": jax.nn.relu}
    if stem_pool > 1:
        stem["pool"] = nn.max_pool(stem_pool)
    stages = [(width, blocks) for width in widths]
    blocks = _blocks(widths[0], stages, _basic, shortcut, conv, norm)
    return nn.serial(**stem, **blocks, **_head(classes, norm, dropout))


def resnet_imagenet(
    depth: int = 50,
    *,
    classes: int = 1000,
    stride_in: str = "3x3",
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Layer:
    """Builds a residual network in the form for large images (ImageNet).

    A 7x7 stem of stride 2 and a 3x3 max-pooling of stride 2; four stages of 64, 128, 256 and 512
    channels, of blocks of two 3x3 convolutions or, from depth 50 on, of bottlenecks: 1x1, 3x3, and
    1x1 of four times the channels. Padding is that of torch, (window - 1) / 2 on both sides.

    Args:
        depth: number of layers with weights: 18, 34, 50, 101 or 152.
        classes: number of outputs.
        stride_in: which convolution of a bottleneck halves the image: "3x3", as in torch, or "1x1",
            the first, as in the paper.
        norm: as in `resnet`; in a bottleneck "fixup" multiplies the first two convolutions by
            (number of branches)^(-1/4).
        dropout: rate before the last layer.

    Returns:
        A layer from (batch, height, width, channels) to (batch, classes) logits.

    Example:
        >>> from jaxtrain import tree
        >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
        >>> tree.count(jax.eval_shape(resnet_imagenet(50).init, jax.random.key(0), x)[0])
        25557032

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
    """
    _check.choice("resnet_imagenet", "depth", depth, STAGES)
    _check.choice("resnet_imagenet", "stride_in", stride_in, ("3x3", "1x1"))
    _check.choice("resnet_imagenet", "norm", norm, NORMS)
    conv = functools.partial(_conv, norm=norm, same=False)
    pool = nn.max_pool(3, strides=2, padding=[(1, 1), (1, 1)])
    stem = {"stem": conv(64, 7, 2, after=SHIFT), "relu": jax.nn.relu, "pool": pool}
    convs = _basic if depth < 50 else functools.partial(_bottleneck, stride_in=stride_in)
    stages = list(zip((64, 128, 256, 512), STAGES[depth], strict=True))
    blocks = _blocks(64, stages, convs, "projection", conv, norm)
    return nn.serial(**stem, **blocks, **_head(classes, norm, dropout))


def _basic(width, strides):
    """Returns the convolutions of a block, each (features, window, strides)."""
    return [(width, 3, strides), (width, 3, 1)]


def _bottleneck(width, strides, *, stride_in):
    first, second = (1, strides) if stride_in == "3x3" else (strides, 1)
    return [(width, 1, first), (width, 3, second), (4 * width, 1, 1)]


def _blocks(before, stages, convs, shortcut, conv, norm):
    """Returns the blocks of stages (width, number of blocks), all but the first halving images."""
    blocks = {}
    branches = sum(n for _, n in stages)
    for i, (width, n) in enumerate(stages):
        for j in range(n):
            sizes = convs(width, 2 if i > 0 and j == 0 else 1)
            blocks[f"block{i}_{j}"] = _block(before, sizes, shortcut, conv, norm, branches)
            before = sizes[-1][0]
    return blocks


def _conv(features, window, strides, *, norm, same, kernel_init=HE, after=None):
    """Returns a convolution with its normalization or, for Fixup, a shift before and `after`."""
    padding = "SAME" if same else [(window // 2, window // 2)] * 2
    options = {"strides": strides, "padding": padding, "kernel_init": kernel_init}
    if norm == "fixup":
        layers = {"shift": SHIFT, "conv": nn.conv(features, window, bias=False, **options)}
        return nn.serial(**layers, **({"after": after} if after else {}))
    norms = normalization("resnet", norm, features)
    conv = nn.conv(features, window, bias=not norms, **options)
    return nn.serial(conv=conv, **norms)


def _block(before, convs, shortcut, conv, norm, branches):
    """Returns a residual block of the convolutions, with ReLUs between them and after the sum."""
    m, features, strides = len(convs), convs[-1][0], math.prod(s for _, _, s in convs)
    inits = _fixup(branches, m) if norm == "fixup" else [HE] * m
    *inner, last = zip(("first", "second", "third")[:m], convs, inits, strict=True)
    body: dict = {}
    for name, sizes, init in inner:
        body[name] = conv(*sizes, kernel_init=init, after=SHIFT)
        body[f"{name}_relu"] = jax.nn.relu
    name, sizes, init = last
    body[name] = conv(*sizes, kernel_init=init, after=nn.scalar())
    if strides == 1 and before == features:
        other = {}
    elif shortcut == "projection":
        other = {"shortcut": conv(features, 1, strides)}
    else:
        other = {"shortcut": nn.pad_shortcut(features - before, strides=strides)}
    return nn.serial(residual=nn.residual(nn.serial(**body), **other), relu=jax.nn.relu)


def _fixup(branches, m):
    """Returns the initializers of a branch of m convolutions: He's, smaller, and zeros."""

    def smaller(key, shape, dtype):
        return branches ** (-1 / (2 * m - 2)) * HE(key, shape, dtype)

    return [smaller] * (m - 1) + [initializers.zeros]


def _head(classes, norm, dropout):
    """Returns the layers after the last stage."""
    layers: dict = {"global_avg_pool": nn.global_avg_pool()}
    if dropout:
        layers["dropout"] = nn.dropout(dropout)
    if norm == "fixup":
        layers["shift"] = SHIFT
        return layers | {"head": nn.dense(classes, kernel_init=initializers.zeros)}
    return layers | {"head": nn.dense(classes)}
