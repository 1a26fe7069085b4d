"""LeNet-5."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxtrain import nn


def lenet(*, classes: int = 10, activation: Callable = jnp.tanh) -> nn.Layer:
    """Builds LeNet-5: two 5x5 convolutions, each averaged over 2x2, and three dense layers.

    The first convolution pads images of 28x28; the second sees all six channels, the last layer is
    dense, and the averages have no params of their own, unlike in the paper.

    Args:
        classes: number of outputs.
        activation: function after each layer but the last.

    Returns:
        A layer from (batch, 28, 28, channels) to (batch, classes) logits.

    Example:
        >>> import jax
        >>> from jaxtrain import tree
        >>> x = jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
        >>> tree.count(jax.eval_shape(lenet().init, jax.random.key(0), x)[0])
        61706

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
        recognition", 1998.
    """
    layers: list = [nn.conv(6, 5), activation, nn.avg_pool(2)]
    layers += [nn.conv(16, 5, padding="VALID"), activation, nn.avg_pool(2), nn.flatten()]
    layers += [nn.dense(120), activation, nn.dense(84), activation, nn.dense(classes)]
    return nn.serial(*layers)
