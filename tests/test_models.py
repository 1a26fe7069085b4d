"""Models: their sizes, their shapes and what they refuse."""

import jax
import numpy as np
import pytest
from catalogue import key

from jaxtrain import models, tree


def sizes(net, *shape):
    """The numbers of params and of state, without computing either."""
    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return tuple(map(tree.count, jax.eval_shape(net.init, key(0), x)))


@pytest.mark.fast
def test_mlp():
    # 784 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10
    assert sizes(models.mlp([100, 100, 10]), 28, 28) == (89_610, 0)
    # BatchNorm: a scale and a bias instead of the bias, and two statistics.
    assert sizes(models.mlp([100, 100, 10], batch_norm=True), 784) == (89_810, 400)
    net = models.mlp([5, 2], batch_norm=True, dropout=0.5, activation=jax.nn.elu)
    names = ["flatten0", "dense0", "batch_norm0", "elu0", "dropout0", "dense1"]
    assert list(net.children) == names
    assert list(models.mlp([2]).children) == ["flatten0", "dense0"]
    with pytest.raises(ValueError, match="mlp: features must be a sequence of at least one width"):
        models.mlp([])


# He et al., 2016, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million; "projection" adds the 1x1
# convolutions 16 * 32 + 32 * 64 and two BatchNorms of 2 * 32 and 2 * 64 params.
@pytest.mark.parametrize(
    "depth, pad, projection",
    [
        pytest.param(20, 269_722, 272_474, marks=pytest.mark.fast),
        (32, 464_154, 466_906),
        (44, 658_586, 661_338),
        (56, 853_018, 855_770),
        (110, 1_727_962, 1_730_714),
    ],
)
def test_resnet(depth, pad, projection):
    assert sizes(models.resnet(depth, shortcut="pad"), 32, 32, 3)[0] == pad
    assert sizes(models.resnet(depth), 32, 32, 3)[0] == projection == pad + 512 + 2048 + 192


@pytest.mark.fast
def test_resnet_shapes():
    x = jax.ShapeDtypeStruct((5, 9, 8, 1), np.float32)
    for shortcut in ("pad", "projection"):
        net = models.resnet(10, widths=(4, 6), classes=7, stem_pool=2, shortcut=shortcut)
        params, state = jax.eval_shape(net.init, key(0), x)
        assert params["head"]["kernel"].shape == (6, 7)
        assert sum(name.startswith("block") for name in params) == 4
    assert list(models.resnet(8, dropout=0.5).children)[-3:] == [
        "global_avg_pool",
        "dropout",
        "head",
    ]


@pytest.mark.fast
@pytest.mark.parametrize("depth", [0, 2, 7, 21, 19])
def test_resnet_refuses_a_depth_that_no_number_of_blocks_gives(depth):
    with pytest.raises(ValueError, match=r"resnet: depth must be 2 \+ 6 n for 3 stages, got"):
        models.resnet(depth)


@pytest.mark.fast
def test_resnet_refuses_another_shortcut():
    with pytest.raises(ValueError, match="shortcut must be one of .* did you mean 'pad'"):
        models.resnet(8, shortcut="pads")
