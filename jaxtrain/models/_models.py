"""Whole networks, made of the layers of `jaxtrain.nn`."""

from collections.abc import Callable, Sequence

import jax

from jaxtrain import _check, nn


def mlp(
    features: Sequence[int],
    *,
    activation: Callable = jax.nn.relu,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Layer:
    """Builds a multi-layer perceptron: dense layers with an activation between them.

    Args:
        features: the width of each dense layer; the last is the number of outputs.
        activation: function between the layers.
        batch_norm: put a BatchNorm before each activation (and then no bias before it).
        dropout: rate after each activation.

    Returns:
        A layer from (batch, ...), flattened, to (batch, features[-1]).

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxtrain import tree
        >>> net = mlp([100, 100, 10])
        >>> params, _ = net.init(jax.random.key(0), jnp.zeros((1, 784)))
        >>> tree.count(params)
        89610
    """
    if not features:
        _check.fail("mlp", "features", "a sequence of at least one width", features)
    layers: list = [nn.flatten()]
    for width in features[:-1]:
        layers.append(nn.dense(width, bias=not batch_norm))
        layers += [nn.batch_norm()] if batch_norm else []
        layers.append(activation)
        layers += [nn.dropout(dropout)] if dropout else []
    return nn.serial(*layers, nn.dense(features[-1]))


def resnet(
    depth: int = 20,
    *,
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    stem_pool: int = 1,
    shortcut: str = "projection",
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
    """
    _check.choice("resnet", "shortcut", shortcut, ("projection", "pad"))
    _check.integer("resnet", "stem_pool", stem_pool)
    blocks, rest = divmod(depth - 2, 2 * len(widths))
    if not isinstance(depth, int) or rest or blocks < 1:
        rule = f"2 + {2 * len(widths)} n for {len(widths)} stages"
        _check.fail("resnet", "depth", rule, depth)
    layers: dict = {"stem": _conv_norm(widths[0], 3), "relu": jax.nn.relu}
    if stem_pool > 1:
        layers["pool"] = nn.max_pool(stem_pool)
    before = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            strides = 2 if i > 0 and j == 0 else 1
            layers[f"block{i}_{j}"] = _block(before, width, strides, shortcut)
            before = width
    layers["global_avg_pool"] = nn.global_avg_pool()
    if dropout:
        layers["dropout"] = nn.dropout(dropout)
    return nn.serial(**layers, head=nn.dense(classes))


def _conv_norm(features, window, strides=1):
    return nn.serial(
        conv=nn.conv(features, window, strides=strides, bias=False), norm=nn.batch_norm()
    )


def _block(before, width, strides, shortcut):
    body = nn.serial(
        first=_conv_norm(width, 3, strides), relu=jax.nn.relu, second=_conv_norm(width, 3)
    )
    if strides == 1 and before == width:
        return nn.serial(residual=nn.residual(body), relu=jax.nn.relu)
    if shortcut == "projection":
        branch = _conv_norm(width, 1, strides)
    else:
        branch = nn.pad_shortcut(width - before, strides=strides)
    return nn.serial(residual=nn.residual(body, shortcut=branch), relu=jax.nn.relu)
