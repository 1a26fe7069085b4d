"""Multi-layer perceptrons."""

from collections.abc import Callable, Sequence

import jax

from jaxtrain import _check, nn
from jaxtrain.models._unit import unit


def mlp(
    features: Sequence[int],
    *,
    activation: Callable = jax.nn.relu,
    norm: str = "none",
    norm_placement: str = "pre",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Layer:
    """Builds a multi-layer perceptron: dense layers with an activation between them.

    Args:
        features: the width of each dense layer; the last is the number of outputs.
        activation: function between the layers.
        norm: "none", "batch", "layer" or "group", for each layer but the last.
        norm_placement: "pre" normalizes what enters the activation, with no bias before it; "post"
            what leaves it.
        batch_norm: short for `norm="batch"`.
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
    _check.flag("mlp", "batch_norm", batch_norm)
    if not isinstance(features, Sequence) or not features:
        _check.fail("mlp", "features", "a sequence of at least one width", features)
    if batch_norm:
        _check.choice("mlp", "norm with batch_norm=True", norm, ("none", "batch"))
        norm = "batch"
    layers: list = [nn.flatten()]
    for width in features[:-1]:
        layers += unit("mlp", nn.dense, width, activation, norm, norm_placement)
        layers += [nn.dropout(dropout)] if dropout else []
    return nn.serial(*layers, nn.dense(features[-1]))
