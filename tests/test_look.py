"""What looks inside a net: the summary, and the statistics of its units."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import models, nn

RNG = np.random.default_rng(0)


@pytest.mark.fast
def test_summary():
    branch = nn.residual(nn.serial(nn.dropout(0.5), inner=nn.dense(4)))
    body = nn.serial(nn.dense(4, bias=False), nn.batch_norm(), jnp.tanh)
    net = nn.serial(stem=nn.dense(4), blocks=nn.repeat(nn.remat(body), 3), skip=branch)
    x = jax.ShapeDtypeStruct((8, 3), np.float32)
    assert nn.summary(nn.serial(a=net, head=nn.cast(nn.dense(2), jnp.bfloat16)), x) == "\n".join(
        [
            "path                  kind        output  params  state  multiply-adds  activations",
            "a/stem                dense       8x4         16      0             96        128 B",
            "a/blocks/dense0       dense       3x8x4       48      0            384        384 B",
            "a/blocks/batch_norm0  batch_norm  3x8x4       24     24              0        384 B",
            "a/blocks/tanh0        tanh        3x8x4        0      0              0        384 B",
            "a/skip/body/dropout0  dropout     8x4          0      0              0        128 B",
            "a/skip/body/inner     dense       8x4         20      0            128        128 B",
            "a/skip/shortcut       identity    8x4          0      0              0        128 B",
            "head                  dense       8x2         10      0             64         32 B",
            "total                 serial      8x2        118     24            672       1.7 kB",
            "memory of params 472 B, of state 96 B",
        ]
    )


def products(net, *shape):
    """The multiply-adds of the whole net for one example."""
    total = nn.summary(net, jax.ShapeDtypeStruct((1, *shape), np.float32)).splitlines()[-2]
    return int(total.split()[-3].replace(",", ""))


@pytest.mark.fast
def test_multiply_adds():
    # Outputs * window * inputs for each; of a transposed one inputs * window * outputs.
    assert products(nn.conv(6, 3, groups=2), 8, 8, 4) == 64 * 6 * 9 * 2
    assert products(nn.conv(6, (3, 1), strides=2, dilation=2), 8, 8, 4) == 16 * 6 * 3 * 4
    assert products(nn.depthwise_conv(3, multiplier=2), 8, 8, 4) == 64 * 8 * 9
    assert products(nn.conv_transpose(6, 2, strides=2), 8, 8, 4) == 64 * 4 * 4 * 6
    assert products(nn.dense(6), 5, 4) == 5 * 4 * 6
    assert products(nn.repeat(nn.repeat(nn.dense(4), 2), 3), 4) == 6 * 16
    # A loop over 7 steps of 4 + 5 inputs and 5 outputs.
    assert products(nn.rnn(5), 7, 4) == 7 * (4 + 5) * 5


# In billions, as torchvision's pages of models have them.
@pytest.mark.parametrize(
    "net, billions",
    [
        pytest.param(models.resnet_imagenet(18), "1.814", marks=pytest.mark.fast),
        (models.resnet_imagenet(50), "4.089"),
        (models.vgg(16), "15.470"),
    ],
    ids=["18", "50", "vgg"],
)
def test_multiply_adds_of_known_models(net, billions):
    assert f"{products(net, 224, 224, 3) / 1e9:.3f}" == billions


@pytest.mark.fast
def test_multiply_adds_are_half_the_compilers_operations():
    net, x = nn.dense(30, bias=False), jnp.zeros((20, 40))
    params, state = net.init(key(0), x)
    compiled = jax.jit(lambda p, x: net.apply(p, state, x, nn.EVAL)[0]).lower(params, x).compile()
    assert compiled.cost_analysis()["flops"] == 2 * 20 * products(net, 40) == 2 * 20 * 30 * 40


# Statistics of units.


def reference(y, g=None):
    """Mean, std, dead and constant units of one layer in NumPy, and those of the gradient."""
    rows = np.reshape(y, (-1, y.shape[-1]))
    dead, constant = (rows == 0).all(0).mean(), (rows == rows[:1]).all(0).mean()
    own = (y.mean(), y.std(), dead, constant)
    return own if g is None else (own, reference(g))


def numbers(stats):
    return stats.mean, stats.std, stats.dead, stats.constant


def test_unit_stats_equal_numpy(x64):
    x = jnp.asarray(RNG.normal(size=(6, 5, 4, 3)))
    v = RNG.normal(size=(6, 2))
    net = nn.serial(nn.conv(4, 3), nn.relu, nn.flatten(), nn.dense(5), nn.sigmoid, nn.dense(2))
    params, state = jax.jit(net.init)(key(0), x)
    params["conv0"]["kernel"] = params["conv0"]["kernel"].at[..., 0].set(0)
    params["conv0"]["bias"] = jnp.array([-1.0, 0.1, 0.1, -99.0])
    loss = lambda y: (y * v).sum()  # noqa: E731
    found = nn.unit_stats(net, params, state, x, loss=loss)
    assert list(found) == list(net.children)
    y, ys, steps = x, {}, list(net.children.items())
    for name, layer in steps:
        y = ys[name] = layer.apply(params.get(name, {}), {}, y, nn.EVAL)[0]
    for i, (name, _) in enumerate(steps):

        def rest(y):
            for after, layer in steps[i + 1 :]:  # noqa: B023
                y = layer.apply(params.get(after, {}), {}, y, nn.EVAL)[0]
            return loss(y)

        own, gradient = reference(np.asarray(ys[name]), np.asarray(jax.grad(rest)(ys[name])))
        # Some hundred numbers summed, one after the other or as squares.
        np.testing.assert_allclose(numbers(found[name]), own, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(numbers(found[name].gradient), gradient, rtol=1e-12, atol=1e-14)
    assert (found["relu0"].dead, found["conv0"].constant, found["conv0"].dead) == (0.5, 0.25, 0)
    assert found["dense0"].gradient.gradient is found["dense0"].saturated is None
    relu, s = np.asarray(ys["conv0"]) <= 0, np.asarray(ys["sigmoid0"])
    assert found["relu0"].saturated == pytest.approx(relu.mean(), rel=1e-12)
    assert found["sigmoid0"].saturated == pytest.approx((s * (1 - s) < 0.05).mean(), rel=1e-12)


@pytest.mark.fast
def test_unit_stats_of_repeats_and_sums():
    twice = nn.repeat(nn.cast(nn.dense(3), jnp.bfloat16), 2)
    net = nn.serial(nn.repeat(nn.residual(nn.serial(twice, nn.relu)), 4), nn.remat(nn.dense(3)))
    x = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
    params, state = jax.jit(net.init)(key(0), x)
    found = nn.unit_stats(net, params, state, x, loss=lambda y: (y**2).mean())
    names = ["repeat0", "repeat0/body/repeat0", "repeat0/body/relu0", "repeat0/shortcut", "remat0"]
    assert list(found) == names
    shapes = {name: stats.mean.shape for name, stats in found.items()}
    assert shapes == dict(zip(names, [(4,), (4, 2), (4,), (4,), ()], strict=True))
    for stats in found.values():
        assert stats.gradient.mean.shape == stats.mean.shape
        assert (stats.gradient.std > 0).all() and (stats.std > 0).all()
    # The last sum's gradient, by hand.
    y = found["repeat0"]
    own, _ = net.children["repeat0"].apply(params["repeat0"], {}, x, nn.EVAL)
    assert float(y.mean[-1]) == pytest.approx(float(own.mean()), rel=1e-5)
    g = jax.grad(lambda h: ((h @ params["remat0"]["kernel"]) ** 2).mean())(own)
    assert float(y.gradient.std[-1]) == pytest.approx(float(g.std()), rel=1e-4)


@pytest.mark.fast
def test_unit_stats_leave_padding_out_and_take_a_context():
    net = nn.serial(nn.batch_norm(), nn.relu, nn.dropout(0.5))
    x = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32).at[:, 1].set(-5.0).at[4:].set(99.0)
    params, state = net.init(key(0), x)
    params["batch_norm0"]["bias"] = jnp.array([0.0, -1.0, 9.0])
    ctx = nn.Context(train=True, key=key(1), mask=jnp.array([1.0, 1, 1, 1, 0, 0]))
    loss = lambda y: (y[:4] ** 2).sum()  # noqa: E731
    masked = nn.unit_stats(net, params, state, x, ctx=ctx, loss=loss)
    bare_ctx = nn.Context(train=True, key=key(1))
    bare = nn.unit_stats(net, params, state, x[:4], ctx=bare_ctx, loss=loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), masked, bare)
    assert masked["relu0"].dead == masked["batch_norm0"].constant == np.float32(1 / 3)


@pytest.mark.fast
def test_unit_stats_at_the_extremes():
    net = nn.serial(nn.tanh, nn.relu)
    for x in (1e4 * jnp.array([[1.0, -1.0], [-1.0, -1.0]]), jnp.zeros((3, 2)), jnp.ones((1, 1))):
        found = nn.unit_stats(net, {}, {}, x, loss=lambda y: y.sum())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        assert found["tanh0"].saturated == (abs(x) > 10).mean()
    large = nn.unit_stats(nn.serial(f=nn.identity), {}, {}, 1e4 + 0.5 * jnp.eye(2), loss=None)["f"]
    # Values of which float32 knows 1e-3.
    assert float(large.std) == pytest.approx(0.25, rel=1e-2) and large.gradient is None
    half = nn.unit_stats(net, {}, {}, jnp.ones((4, 2), jnp.float16))
    pixels = nn.serial(lambda x: x.astype(jnp.float32) / 255, nn.relu)
    found = jax.jit(lambda x: nn.unit_stats(pixels, {}, {}, x))(jnp.full((2, 3), 255, jnp.uint8))
    assert found["lambda0"].saturated is None and found["relu0"].mean == 1
    assert half["relu0"].mean == np.float32(np.float16(math.tanh(1)))


@pytest.mark.fast
def test_repeat_keeps_the_program_small():
    """50 blocks are one body in a loop: as many instructions as 5."""

    def instructions(n):
        net = nn.repeat(nn.residual(nn.serial(nn.dense(8), nn.batch_norm(), nn.relu)), n)
        x = jax.ShapeDtypeStruct((4, 8), np.float32)
        params, state = jax.eval_shape(net.init, key(0), x)
        f = lambda p, s, x: net.apply(p, s, x, nn.Context(train=True))[0].sum()  # noqa: E731
        return jax.jit(jax.grad(f)).lower(params, state, x).as_text().count("\n")

    assert instructions(50) == instructions(5)
