"""Nets as JSON, and a trained network loaded without its optimizer."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import data, losses, metrics, models, nn, optim, train
from jaxtrain.errors import CheckpointNotFound, RunError
from jaxtrain.train import _load

NETS = {
    "mlp": (models.mlp([5, 3], batch_norm=True, dropout=0.1), (2, 4)),
    "resnet": (models.resnet(8, widths=(2, 3, 4), shortcut="pad"), (2, 8, 8, 1)),
    "wrappers": (
        nn.serial(
            nn.standardize(np.full((1, 1), 2.0, np.float32), np.full((1, 1), 3.0, np.float32)),
            nn.parallel(nn.dense(2), jnp.tanh),
            again=nn.repeat(nn.cast(nn.remat(nn.frozen(nn.dense(6))), jnp.bfloat16), 2),
        ),
        (2, 4),
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", NETS)
def test_a_net_is_rebuilt_from_its_json(name):
    net, shape = NETS[name]
    again = nn.build(json.loads(json.dumps(nn.describe(net))))
    assert nn.describe(again) == nn.describe(net)
    x = jax.random.normal(jax.random.key(0), shape)
    params, state = net.init(jax.random.key(1), x)
    y, z = (f.apply(params, state, x, nn.EVAL)[0] for f in (net, again))
    np.testing.assert_array_equal(y, z)


@pytest.mark.parametrize(
    "net",
    [
        nn.serial(nn.dense(2), inner=nn.serial(lambda x: 2 * x)),
        nn.serial(inner=nn.serial(nn.Layer(lambda key, x: ({}, {}), lambda *a: a[2:0:-1]))),
        nn.parallel(nn.dense(2), combine=lambda ys: ys[0]),
    ],
)
def test_a_net_with_layers_of_ones_own_has_no_json(net):
    with pytest.raises(TypeError, match="must be"):
        nn.describe(net)


@pytest.mark.parametrize("description", [{"eval": {}}, {"__import__": {}}, {"tap": {}}, "open"])
def test_only_layers_are_built(description):
    with pytest.raises((TypeError, ValueError), match="build"):
        nn.build(description)


def _run(directory, tx, net):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    dataset = data.ArrayDataset(x, (x[:, 0] > 0).astype(np.int32), classes=2)
    step = train.make_step(net, losses.softmax_cross_entropy, tx)
    options = dict(epochs=2, batch_size=16, directory=directory, progress=False)
    return dataset, train.fit(step, dataset, test=dataset, **options)


@pytest.mark.parametrize(
    "tx", [optim.adam(1e-2), optim.momentum(0.5, nesterov="shifted")], ids=["adam", "nesterov"]
)
def test_load_gives_the_network_that_was_evaluated(tx, tmp_path):
    dataset, result = _run(tmp_path, tx, models.mlp([8, 2], batch_norm=True))
    model = train.load(tmp_path)
    outputs = train.predict(model.net, model, dataset.image, batch_size=16)
    mean = functools.partial(metrics.mean_loss, loss=losses.softmax_cross_entropy)
    loss = mean(jnp.asarray(outputs), jnp.asarray(dataset.label), None).value
    # The same float32 program but for its batch size: some roundings of 6e-8.
    assert float(loss) == pytest.approx(result.last("test_loss"), rel=1e-5)


def test_load_leaves_a_save_in_progress_alone(tmp_path):
    _run(tmp_path, optim.adam(1e-2), models.mlp([8, 2]))
    unfinished = tmp_path / "checkpoints" / "999"
    unfinished.mkdir()
    train.load(tmp_path)
    assert unfinished.is_dir()
    with train.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        with pytest.raises(ValueError, match="read_only"):
            checkpoints.save(1000, {}, {})


def test_load_asks_for_a_net_that_has_no_json(tmp_path):
    scaled = nn.Layer(
        lambda key, x: ({"factors": [jnp.full((), 3.0), jnp.full((), 1.0)]}, {}),
        lambda params, state, x, ctx: (params["factors"][0] * x - params["factors"][1], state),
    )
    net = nn.serial(nn.dense(2), scaled)
    dataset, result = _run(tmp_path, optim.sgd(0.1), net)
    with pytest.raises(RunError, match="net must be given"):
        train.load(tmp_path)
    model = train.load(tmp_path, net=net)
    assert jax.tree.structure(model.params) == jax.tree.structure(result.ts.params)
    outputs = train.predict(net, model, dataset.image)
    np.testing.assert_allclose(outputs, train.predict(net, result.ts, dataset.image), rtol=0)


@pytest.mark.fast
def test_a_list_keeps_the_places_of_what_has_no_leaves():
    assert _load._with_lists({"a": {1: 2.0, 3: {"b": {0: 4.0}}}}) == {
        "a": [{}, 2.0, {}, {"b": [4.0]}]
    }


def test_load_names_what_is_missing(tmp_path):
    with pytest.raises(RunError, match="config.json"):
        train.load(tmp_path)
    (tmp_path / "config.json").write_text('{"net": {"dense": {"features": 2}}}')
    with pytest.raises(CheckpointNotFound, match="checkpoint"):
        train.load(tmp_path)
