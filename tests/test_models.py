"""Models: their sizes, their shapes, their norms, and what they refuse."""

import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import losses, models, nn, tree


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


@pytest.mark.fast
def test_norms_of_an_mlp():
    for norm in ("layer", "group", "batch"):
        after = models.mlp([8, 2], norm=norm, norm_placement="post", activation=nn.tanh)
        names = ["flatten0", "dense0", "tanh0", f"{norm}_norm0", "dense1"]
        assert list(after.children) == names and "bias" in _shapes(after, 4)["dense0"]
        before = models.mlp([8, 2], norm=norm, activation=nn.tanh)
        assert list(before.children) == [names[i] for i in (0, 1, 3, 2, 4)]
        assert "bias" not in _shapes(before, 4)["dense0"]
    assert models.mlp([70, 2], norm="group").children["group_norm0"].options["groups"] == 1
    assert models.mlp([64, 2], norm="group").children["group_norm0"].options["groups"] == 32
    with pytest.raises(ValueError, match="mlp: norm must be one of .*; did you mean 'batch'"):
        models.mlp([3, 2], norm="batch_norm")
    with pytest.raises(ValueError, match="mlp: norm with batch_norm=True must be one of"):
        models.mlp([3, 2], norm="layer", batch_norm=True)
    with pytest.raises(ValueError, match="mlp: norm_placement must be one of"):
        models.mlp([3, 2], norm_placement="before")


def _shapes(net, *shape):
    return jax.eval_shape(net.init, key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))[0]


@pytest.mark.fast
def test_a_bias_right_before_batch_norm_has_no_gradient(x64):
    """What is the same for all examples leaves with their mean."""
    net = nn.serial(nn.dense(3), nn.batch_norm(), nn.tanh, nn.conv(2, 3), nn.batch_norm(), nn.tanh)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4, 4, 2)))
    params, state = net.init(key(0), x)

    def loss(params):
        return (net.apply(params, state, x, nn.Context(train=True))[0] ** 3).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    for name in ("dense0", "conv0"):
        # Sums of 128 numbers of the size of the kernel's gradients.
        assert (
            jnp.abs(gradient[name]["bias"]).max() < 1e-13 * jnp.abs(gradient[name]["kernel"]).sum()
        )
        assert jnp.abs(gradient[name]["kernel"]).max() > 1e-3
    assert jnp.abs(gradient["batch_norm0"]["bias"]).max() > 1e-3


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


# As torchvision's and Keras's pages of models have them.
@pytest.mark.parametrize(
    "depth, params",
    [
        pytest.param(18, 11_689_512, marks=pytest.mark.fast),
        (34, 21_797_672),
        (50, 25_557_032),
        (101, 44_549_160),
        (152, 60_192_808),
    ],
)
def test_resnet_imagenet(depth, params):
    assert sizes(models.resnet_imagenet(depth), 224, 224, 3)[0] == params
    if depth == 50:
        assert sizes(models.resnet_imagenet(depth, stride_in="1x1"), 224, 224, 3)[0] == params


@pytest.mark.fast
def test_where_a_bottleneck_halves_the_image():
    for stride_in, first, second in (("3x3", 1, 2), ("1x1", 2, 1)):
        net = models.resnet_imagenet(50, stride_in=stride_in)
        body = net.children["block1_0"].children["residual"].children["body"].children
        strides = [body[name].children["conv"].options["strides"] for name in ("first", "second")]
        assert strides == [first, second] and list(body)[-1] == "third"
    with pytest.raises(ValueError, match="resnet_imagenet: depth must be one of .18, 34, 50, 101"):
        models.resnet_imagenet(20)
    with pytest.raises(ValueError, match="resnet_imagenet: stride_in must be one of"):
        models.resnet_imagenet(50, stride_in="1")


@pytest.mark.nightly
def test_resnet_50_is_initialized_in_the_abstract_in_less_than_a_second():
    """Processor time, as other processes may share it; one of three."""

    def seconds():
        start = time.process_time()
        sizes(models.resnet_imagenet(50), 224, 224, 3)
        return time.process_time() - start

    assert any(seconds() < 1 for _ in range(3))


@pytest.mark.parametrize(
    "depth, plain, with_batch_norm",
    [
        pytest.param(11, 132_863_336, 132_868_840, marks=pytest.mark.fast),
        (13, 133_047_848, 133_053_736),
        (16, 138_357_544, 138_365_992),
        (19, 143_667_240, 143_678_248),
    ],
)
def test_vgg(depth, plain, with_batch_norm):
    assert sizes(models.vgg(depth), 224, 224, 3) == (plain, 0)
    # As many statistics as scales and biases.
    more = with_batch_norm - plain
    assert sizes(models.vgg(depth, batch_norm=True), 224, 224, 3) == (with_batch_norm, more)


@pytest.mark.fast
def test_lenet():
    # 156 + 2,416 + 48,120 + 10,164 + 850
    assert sizes(models.lenet(), 28, 28, 1) == (61_706, 0)
    assert list(models.lenet(activation=nn.relu).children)[1] == "relu0"


@pytest.mark.fast
def test_cifar_speed():
    # 9 (3 * 64 + 64 * 128 + 2 * 128^2 + 128 * 256 + 256 * 512 + 2 * 512^2), 5120, and BatchNorm:
    # 2 (64 + 3 * 128 + 256 + 3 * 512).
    assert sizes(models.cifar_speed(), 32, 32, 3)[0] == 6_563_520 + 5_120 + 4_480
    # A bias, 16 + 3 * 32 + 64 + 3 * 128 numbers, where a normalization comes later or not at all.
    small, biases = {"widths": (16, 32, 64, 128), "classes": 7}, 560
    before = sizes(models.cifar_speed(**small), 28, 28, 1)[0]
    assert sizes(models.cifar_speed(**small, norm="group"), 28, 28, 1) == (before, 0)
    assert sizes(models.cifar_speed(**small, norm="none"), 28, 28, 1) == (before - biases, 0)
    after = models.cifar_speed(**small, norm_placement="post")
    assert sizes(after, 28, 28, 1)[0] == before + biases
    assert list(after.children)[:3] == ["conv0", "relu0", "batch_norm0"]
    with pytest.raises(ValueError, match="cifar_speed: widths must be a sequence of at least two"):
        models.cifar_speed(widths=(16,))


@pytest.mark.fast
@pytest.mark.parametrize(
    "net",
    [
        models.mlp([4, 3], norm="layer", norm_placement="post", activation=nn.tanh),
        models.lenet(),
        models.vgg(11),
        models.resnet(8, norm="fixup", shortcut="pad"),
        models.resnet_imagenet(18, norm="group"),
        models.cifar_speed(norm="none"),
    ],
    ids=["mlp", "lenet", "vgg", "resnet", "resnet_imagenet", "cifar_speed"],
)
def test_models_go_to_json_and_back(net):
    again = nn.build(json.loads(json.dumps(nn.describe(net))))
    assert nn.describe(again) == nn.describe(net)
    assert _shapes(again, 32, 32, 3) == _shapes(net, 32, 32, 3)


# Normalization of residual networks.


@pytest.mark.fast
def test_norms_of_a_resnet():
    count = {
        norm: sizes(models.resnet(8, norm=norm), 32, 32, 3)
        for norm in ("batch", "group", "none", "fixup")
    }
    # BatchNorm's scales and biases: stem 16, blocks 2 * (16 + 32 + 64), projections 32 + 64.
    norms = 16 + 2 * (16 + 32 + 64) + 32 + 64
    convolutions = count["batch"][0] - 2 * norms
    assert count["batch"][1] == 2 * norms and count["group"] == (count["batch"][0], 0)
    assert count["none"] == (convolutions + norms, 0)
    # A bias before each of 9 convolutions and the last layer, one after the stem and after each
    # convolution of 3 branches, and 3 multipliers.
    assert count["fixup"] == (convolutions + 10 + 7 + 3, 0)
    with pytest.raises(ValueError, match="resnet: norm must be one of .'batch', 'group', 'none'"):
        models.resnet(8, norm="layer")


@pytest.mark.fast
@pytest.mark.parametrize(
    "net, branches, m",
    [(models.resnet(20, norm="fixup"), 9, 2), (models.resnet_imagenet(50, norm="fixup"), 16, 3)],
)
def test_fixup(net, branches, m):
    """He's weights times branches^(-1 / (2 m - 2)), zeros last."""
    init = jax.jit(lambda: net.init(key(0), jnp.zeros((1, 32, 32, 3)))[0]["block1_0"])
    branch = init()["residual"]
    *inner, last = (branch["body"][name] for name in ("first", "second", "third")[:m])
    for unit in inner:
        kernel = np.asarray(unit["conv"]["kernel"])
        he = math.sqrt(2 / math.prod(kernel.shape[:-1]))
        # Five standard deviations of that of n numbers.
        close = 5 / math.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(he * branches ** (-1 / (2 * m - 2)), rel=close)
        assert set(unit) == {"shift", "conv", "after"} and set(unit["after"]) == {"bias"}
    assert not last["conv"]["kernel"].any() and last["after"] == {"scale": 1, "bias": 0}
    he = math.sqrt(2 / branch["shortcut"]["conv"]["kernel"].shape[-2])
    assert branch["shortcut"]["conv"]["kernel"].std() == pytest.approx(he, rel=0.1)


def test_fixup_learns_at_the_same_pace_at_any_depth():
    """A few steps of SGD change the outputs by about as much at depth 8 as at depth 50."""
    x = jax.random.normal(key(1), (8, 8, 8, 3))
    labels = jnp.arange(8, dtype=jnp.int32) % 4

    def changes(depth, norm):
        net = models.resnet(depth, widths=(4, 6, 8), classes=4, norm=norm)
        params, state = jax.jit(net.init)(key(0), x)

        @jax.jit
        def step(params):
            def loss(params):
                y, _ = net.apply(params, state, x, nn.EVAL)
                return losses.softmax_cross_entropy(y, labels).mean(), y

            gradients, y = jax.grad(loss, has_aux=True)(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), y

        ys = []
        for _ in range(4):
            params, y = step(params)
            ys.append(y)
        return np.abs(np.diff(np.stack(ys), axis=0)).max((1, 2))

    shallow, deep = changes(8, "fixup"), changes(50, "fixup")
    assert np.isfinite(deep).all()
    # Independent of depth up to a small factor; He's init alone grows by sqrt(2) a branch or more.
    assert (0.1 * shallow < deep).all() and (deep < 10 * shallow).all() and deep.max() < 1
