"""A small residual network for training runs of minutes."""

import functools
from collections.abc import Callable, Sequence

import jax

from jaxtrain import _check, nn
from jaxtrain.models._unit import unit


def cifar_speed(
    *,
    classes: int = 10,
    widths: Sequence[int] = (64, 128, 256, 512),
    activation: Callable = jax.nn.relu,
    norm: str = "batch",
    norm_placement: str = "pre",
) -> nn.Layer:
    """Builds a network of nine layers that is fast to train on small images.

    A 3x3 convolution of the first width; for each further one a 3x3 convolution and a max-pooling,
    then, for every other of them from the first on, a residual block of two convolutions. The
    mean over what is left of the image goes to a dense layer without a bias.

    Args:
        classes: number of outputs.
        widths: channels of the first convolution and of each stage after it; half of them make a
            quarter of the work.
        activation: function after each convolution.
        norm: "batch", "group", "layer" or "none".
        norm_placement: "pre" normalizes what enters the activation, "post" what leaves it.

    Returns:
        A layer from (batch, height, width, channels) to (batch, classes) logits.

    Example:
        >>> from jaxtrain import tree
        >>> x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
        >>> tree.count(jax.eval_shape(cifar_speed().init, jax.random.key(0), x)[0])
        6573120

    References:
        D. Page, "How to train your ResNet", 2018, whose network this is, but that it takes the
        maximum over the image and an eighth of the logits.
    """
    if len(widths) < 2:
        _check.fail("cifar_speed", "widths", "a sequence of at least two", widths)

    def block(width):
        conv = functools.partial(nn.conv, window=3)
        return unit("cifar_speed", conv, width, activation, norm, norm_placement)

    layers = block(widths[0])
    for i, width in enumerate(widths[1:]):
        layers += [*block(width), nn.max_pool(2)]
        if i % 2 == 0:
            layers.append(nn.residual(nn.serial(*block(width), *block(width))))
    return nn.serial(*layers, nn.global_avg_pool(), nn.dense(classes, bias=False))
