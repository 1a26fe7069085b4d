"""BatchNorm folded into the layer before it: the same outputs in evaluation, in any net."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import models, nn

KEY = key(0)
IMAGES = (2, 6, 6, 4)


def block(**options):
    return nn.serial(
        conv=nn.conv(4, 3, bias=False), norm=nn.batch_norm(**options), relu=jax.nn.relu
    )


def deep_net():
    return nn.serial(
        stem=nn.serial(conv=nn.conv(4, 3, groups=2), norm=nn.batch_norm(running="std")),
        blocks=nn.repeat(nn.residual(block(scale=False, bias=False)), 2),
        twice=nn.repeat(nn.serial(inner=nn.repeat(block(), 2), tanh=jnp.tanh), 3),
        again=nn.remat(nn.parallel(a=block(frozen=True), b=nn.frozen(block(bias=False)))),
        before=nn.batch_norm(),
        separable=nn.depthwise_conv(3, bias=False),
        norm=nn.batch_norm(scale=False),
        up=nn.conv_transpose(3, 2, strides=2),
        up_norm=nn.batch_norm(eps=0.1),
        second=nn.batch_norm(),
        flatten=nn.flatten(),
        head=nn.serial(nn.dense(3), nn.batch_norm(), nn.dropout(0.5), nn.dense(2)),
    )


def random_variables(net, x):
    """Params and a state that are not the initial ones, and no variance near 0."""
    rng = np.random.default_rng(0)

    def numbers(path, leaf):
        kernel = path[-1].key == "kernel"
        return 0.3 * rng.normal(size=leaf.shape) if kernel else rng.uniform(0.3, 1, leaf.shape)

    return jax.tree_util.tree_map_with_path(numbers, jax.eval_shape(net.init, KEY, x))


# With the shape of an input, and the paths of the BatchNorms that cannot be folded.
NETS = {
    "all kinds": (deep_net(), IMAGES, ["before", "second"]),
    "mlp": (models.mlp([5, 4, 3], batch_norm=True), (3, 6), []),
    "resnet": (models.resnet(6, widths=(2, 3), classes=3), (2, 8, 8, 1), []),
    "a layer alone": (nn.batch_norm(), (3, 6), [""]),
    "not neighbours": (
        nn.serial(
            *(nn.dense(3), jax.nn.relu, nn.batch_norm(), nn.remat(nn.dense(3)), nn.batch_norm()),
            *(nn.dense(3), nn.repeat(nn.batch_norm(), 2), nn.weight_norm(nn.dense(3))),
            last=nn.batch_norm(),
        ),
        (3, 6),
        ["batch_norm0", "batch_norm1", "repeat0", "last"],
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_evaluation_stays_the_same(name, x64):
    net, shape, expected_left = NETS[name]
    x, found = np.random.default_rng(1).normal(size=shape), []

    @jax.jit
    def both(params, state, x):
        folded, p, s, left = nn.fold_batch_norm(net, params, state)
        found.append((folded, left))
        ys = folded.apply(p, s, x, nn.EVAL)[0], net.apply(params, state, x, nn.EVAL)[0]
        return ys, (p, s)

    (y, expected), variables = both(*random_variables(net, x), x)
    ((folded, left),) = found
    assert left == expected_left
    # Some 20 layers of sums of 50 terms, of random sign: four deviations sqrt(1000) of 2^-53.
    np.testing.assert_allclose(y, expected, rtol=0, atol=128 * 2**-53 * abs(expected).max())
    # A net like any other: its own init makes the same tree, and it can be saved.
    for layer in (folded, nn.build(json.loads(json.dumps(nn.describe(folded))))):
        fresh = jax.eval_shape(layer.init, KEY, x)
        assert jax.tree.structure(fresh) == jax.tree.structure(variables)
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), fresh, variables)
        assert all(jax.tree.leaves(same))


@pytest.mark.fast
def test_a_layer_of_three_numbers():
    """(w x + c - mean) / sqrt(var + eps) scale + bias by hand; what was given stays as it is."""
    net = nn.serial(nn.dense(1), nn.batch_norm(eps=0.25))
    params = {
        "dense0": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([1.0])},
        "batch_norm0": {"scale": jnp.array([6.0]), "bias": jnp.array([5.0])},
    }
    state = {"batch_norm0": {"mean": jnp.array([2.0]), "var": jnp.array([2.0])}}
    folded, p, s, left = nn.fold_batch_norm(net, params, state)
    # 6 / sqrt(2.25) = 4: a kernel of 3 * 4, a bias of (1 - 2) * 4 + 5.
    # The factor to three roundings, of numbers below 16 and 8.
    np.testing.assert_allclose(p["dense0"]["kernel"], [[12]], rtol=0, atol=4 * 2**-21)
    np.testing.assert_allclose(p["dense0"]["bias"], [1], rtol=0, atol=5 * 2**-22)
    assert (list(folded.children), set(p), s, left) == (["dense0"], {"dense0"}, {}, [])
    assert set(params) == {"dense0", "batch_norm0"} and list(net.children) == list(params)


@pytest.mark.fast
def test_names_and_so_dropout_masks_stay():
    net = nn.serial(nn.dense(64), nn.batch_norm(), nn.dropout(0.5))
    x = jnp.ones((1, 3))
    frozen = nn.serial(nn.dense(64), nn.batch_norm(frozen=True), nn.dropout(0.5))

    @jax.jit
    def both():
        params, state = net.init(KEY, x)
        folded, p, s, _ = nn.fold_batch_norm(net, params, state)
        ctx = nn.Context(train=True, key=KEY)
        return folded.apply(p, s, x, ctx)[0], frozen.apply(params, state, x, ctx)[0]

    y, expected = both()
    # Three products, two sums and two factors below 8, in another order.
    np.testing.assert_allclose(y, expected, rtol=0, atol=7 * 2**-22)
    # Four deviations of 64 coins.
    assert 16 < (y == 0).sum() < 48
