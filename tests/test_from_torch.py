"""A torch ResNet's weights in ours."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import models, nn
from jaxtrain.errors import ConfigError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_resnet.npz")


def vectors(depth):
    """The images, channels last, the logits, and the state_dict in float64."""
    x, y, numbers, shapes = (VECTORS[f"{depth}/{name}"] for name in ("x", "y", "numbers", "shapes"))
    shapes = json.loads(str(shapes))
    parts = np.split(numbers, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    named = zip(shapes.items(), parts, strict=True)
    weights = {name: part.astype(np.float64).reshape(shape) for (name, shape), part in named}
    return np.moveaxis(x, 1, -1).astype(np.float64), y, weights


def abstract(depth, classes):
    net = models.resnet_imagenet(depth, classes=classes)
    x = jax.ShapeDtypeStruct((1, 45, 38, 3), np.float32)
    return net, jax.eval_shape(net.init, key(0), x)


@pytest.mark.parametrize("depth", [18, 50])
def test_logits_equal_torchs(depth, x64):
    """The networks are narrow, which `apply` sees from the params."""
    x, y, state_dict = vectors(depth)
    net, _ = abstract(depth, 5)
    params, state = jax.tree.map(jnp.asarray, models.from_torch(state_dict))
    got = jax.jit(net.apply)(params, state, jnp.asarray(x), nn.EVAL)[0]
    # Sums of at most some hundred products, in fifty layers: some thousand roundings of 1e-16.
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-12 * np.abs(y).max())


@pytest.mark.fast
@pytest.mark.parametrize("depth", [18, 50])
def test_every_param_is_there_and_has_its_rank(depth, x64):
    _, _, state_dict = vectors(depth)
    _, wanted = abstract(depth, 5)
    got = models.from_torch(state_dict)
    assert jax.tree.map(np.ndim, got) == jax.tree.map(lambda leaf: leaf.ndim, wanted)


@pytest.mark.fast
def test_shapes_of_a_whole_resnet_50():
    """At its full width, from what torchvision's names and shapes are."""
    _, _, state_dict = vectors(50)

    def wide(v):
        shape = [n if n in (3, 5) else 32 * n for n in v.shape[:2]]  # but channels and classes
        return np.broadcast_to(np.float32(0), [*shape, *v.shape[2:]])

    _, wanted = abstract(50, 5)
    shapes = jax.tree.map(
        np.shape, models.from_torch({name: wide(v) for name, v in state_dict.items()})
    )
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, wanted)


@pytest.mark.fast
@pytest.mark.parametrize(
    "name", ["layer5.0.conv1.weight", "bn1", "stem.weight", "conv2.weight", "downsample.0.weight"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=f"from_torch: state_dict .* got '{name}'"):
        models.from_torch({name: np.zeros((2, 2, 3, 3))})
