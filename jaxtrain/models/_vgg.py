"""The networks of the Visual Geometry Group."""

import jax

from jaxtrain import _check, nn

# The number of 3x3 convolutions in each of the five stages.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    depth: int = 16, *, classes: int = 1000, batch_norm: bool = False, dropout: float = 0.5
) -> nn.Layer:
    """Builds VGG: five stages of 3x3 convolutions, each halved by a max-pooling, and three dense.

    Args:
        depth: layers with weights: 11, 13, 16 or 19.
        classes: number of outputs.
        batch_norm: put a BatchNorm after each convolution. As in torch's, whose weights then fit,
            these keep their biases, though their gradients are zero.
        dropout: rate after each of the two hidden dense layers.

    Returns:
        A layer from (batch, height, width, channels), 224x224x3 in the paper and 32x32 at least, to
        (batch, classes) logits.

    Example:
        >>> from jaxtrain import tree
        >>> x = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
        >>> tree.count(jax.eval_shape(vgg(16).init, jax.random.key(0), x)[0])
        138357544

    References:
        K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image
        recognition", 2015.
    """
    _check.choice("vgg", "depth", depth, STAGES)
    _check.flag("vgg", "batch_norm", batch_norm)
    layers: list = []
    for convolutions, width in zip(STAGES[depth], (64, 128, 256, 512, 512), strict=True):
        for _ in range(convolutions):
            layers += [nn.conv(width, 3), *([nn.batch_norm()] if batch_norm else []), jax.nn.relu]
        layers.append(nn.max_pool(2))
    layers.append(nn.flatten())
    for _ in range(2):
        layers += [nn.dense(4096), jax.nn.relu, *([nn.dropout(dropout)] if dropout else [])]
    return nn.serial(*layers, nn.dense(classes))
