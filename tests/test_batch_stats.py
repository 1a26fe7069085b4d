"""BatchNorm's statistics under averaged params: by hand, in evaluation, in run folders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import LAYERS, key
from jax.sharding import PartitionSpec as P
from training import images, same_bytes, small_net

from jaxtrain import _compat, losses, metrics, models, nn, optim, train
from jaxtrain.data._order import permutation
from jaxtrain.errors import ConfigError

KEY = key(0)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def by_numpy(z, *, unbiased, running):
    """Mean and variance over all axes but the last."""
    z = z.reshape(-1, z.shape[-1])
    var = z.var(0, ddof=int(unbiased))
    return {"mean": z.mean(0), running: var if running == "var" else np.sqrt(var)}


def close(found, expected):
    # Sums of at most 200 numbers of size 10.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
                 found, expected)  # fmt: skip


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("running", ["var", "std"])
def test_a_layer_gets_the_statistics_of_all_batches(unbiased, running, x64):
    """Of three batches of different sizes, far from zero, with means of their own."""
    options = {"unbiased": unbiased, "running": running}
    net = nn.batch_norm(**options)
    batches = [numbers(n, 2, 3, seed=n) * 2 + 100 + n for n in (5, 1, 8)]
    params, state = net.init(KEY, batches[0])
    found = nn.recompute_batch_stats(net, params, state, batches)
    close(found, by_numpy(np.concatenate(batches), **options))
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, state)


def deep_net():
    block = nn.serial(conv=nn.conv(4, 3, bias=False), norm=nn.batch_norm(), relu=jax.nn.relu)
    return nn.serial(
        stem=nn.conv(4, 3),
        blocks=nn.repeat(block, 2),
        again=nn.remat(nn.residual(nn.serial(norm=nn.batch_norm(running="std"), tanh=jnp.tanh))),
        dropout=nn.dropout(0.5),
        fixed=nn.frozen(nn.serial(norm=nn.batch_norm(), dense=nn.dense(4))),
        frozen=nn.batch_norm(frozen=True),
        last=nn.batch_norm(),
    )


@functools.partial(jax.jit, static_argnums=0)
def trained(net, x):
    """Params and a state that a few training steps have moved."""
    params, state = net.init(KEY, x)
    for step in range(2):
        ctx = nn.Context(train=True, key=key(step))
        _, state = net.apply(params, state, x + step, ctx)
    return params, state


def test_all_layers_of_a_net_as_if_written_out(x64):
    """Inside repeat, remat and residual; dropout off; what is frozen stays."""
    net, x = deep_net(), jnp.asarray(numbers(6, 4, 4, 3))
    params, state = trained(net, x)
    found = nn.recompute_batch_stats(net, params, state, [x])

    def normalized(z, name, **options):
        layer, eval_state = nn.batch_norm(**options), by_numpy(z, unbiased=False, running="var")
        return layer.apply(name, eval_state, jnp.asarray(z), nn.EVAL)[0]

    def stats(z, running="var"):
        return by_numpy(np.asarray(z), unbiased=True, running=running)

    expected = dict(state)
    z = nn.conv(4, 3).apply(params["stem"], {}, x, nn.EVAL)[0]
    seen = []
    for i in range(2):
        p = jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
        z = nn.conv(4, 3, bias=False).apply(p["conv"], {}, z, nn.EVAL)[0]
        seen.append(stats(z))
        z = jax.nn.relu(normalized(np.asarray(z), p["norm"]))
    expected["blocks"] = {"norm": jax.tree.map(lambda *a: np.stack(a), *seen)}
    expected["again"] = {"body": {"norm": stats(z, "std")}}
    z = z + jnp.tanh(normalized(np.asarray(z), params["again"]["body"]["norm"]))
    z = deep_net().options["fixed"].apply(params["fixed"], state["fixed"], z, nn.EVAL)[0]
    z = nn.batch_norm(frozen=True).apply(params["frozen"], state["frozen"], z, nn.EVAL)[0]
    expected["last"] = stats(z)
    close(found, expected)
    assert same_bytes(found["fixed"], state["fixed"])
    assert same_bytes(found["frozen"], state["frozen"])


@pytest.mark.parametrize("devices", [None, 2])
def test_masks_and_devices(devices, x64):
    """Padding counts for nothing, and two devices are one."""
    net = nn.serial(nn.dense(3), nn.batch_norm(), jnp.tanh, nn.batch_norm(running="std"))
    x, mask = jnp.asarray(numbers(8, 2, 3) + 3), jnp.array([1.0] * 5 + [0] * 3)
    params, state = trained(net, x)
    expected = nn.recompute_batch_stats(net, params, state, [x[:5]])

    def recompute(x, mask):
        ctx = nn.Context(train=False, mask=mask, axis_name=devices and "data")
        return nn.recompute_batch_stats(net, params, state, [x], ctx=ctx)

    if devices:
        mesh = _compat.make_mesh(jax.devices()[:devices], ("data",))
        recompute = jax.jit(
            jax.shard_map(recompute, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())
        )
    close(recompute(x, mask), expected)


@pytest.mark.fast
def test_a_batch_of_padding_alone_changes_nothing():
    net = nn.batch_norm()
    params, state = trained(net, jnp.asarray(numbers(8, 3), jnp.float32))
    ctx = nn.Context(train=False, mask=jnp.zeros(4))
    found = nn.recompute_batch_stats(net, params, state, [jnp.ones((4, 3))], ctx=ctx)
    assert same_bytes(found, state)


@pytest.mark.fast
def test_a_net_without_batch_norm_reads_nothing():
    frozen = nn.frozen(nn.serial(nn.batch_norm()))
    for net in (nn.serial(nn.dense(3), nn.dropout(0.5)), nn.batch_norm(frozen=True), frozen):
        state = net.init(KEY, jnp.zeros((1, 3)))[1]
        assert nn.recompute_batch_stats(net, None, state, iter(())) is state
    with pytest.raises(ConfigError, match="batches must be at least one, got 0"):
        nn.recompute_batch_stats(
            nn.batch_norm(), {}, nn.batch_norm().init(KEY, jnp.zeros((1, 3)))[1], []
        )


@pytest.mark.fast
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_its_state_s_structure(name):
    layer, shape, _ = LAYERS[name]
    x = jax.ShapeDtypeStruct(shape, np.float32)
    params, state = jax.eval_shape(layer.init, KEY, x)

    def recompute(params, state, x):
        return nn.recompute_batch_stats(layer, params, state, [x])

    found = jax.eval_shape(recompute, params, state, x)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), found) == jax.tree.map(
        lambda s: (s.shape, s.dtype), state
    )


# In training.


def averaging(net, **options):
    tx = optax.chain(optim.momentum(0.05), optim.ema(0.5))
    return train.make_step(net, losses.softmax_cross_entropy, tx, **options)


def mean_loss(net, params, state, dataset):
    outputs, _ = net.apply(params, state, dataset.image, nn.EVAL)
    return float(losses.softmax_cross_entropy(outputs, dataset.label).mean())


@pytest.mark.parametrize(
    "how, devices",
    [("single", 1), ("shard_map", 2), pytest.param("pmap", 2, marks=pytest.mark.nightly)],
)
def test_evaluations_and_run_folders_are_of_averages_and_their_statistics(how, devices, tmp_path):
    net, dataset, test = small_net(), images(22), images(10)
    step = averaging(net, freeze="head/bias")  # whose place in the average is a hole
    options = {"epochs": 2, "batch_size": 8, "how": how, "devices": devices, "progress": False}
    run = train.fit(step, dataset, test=test, directory=tmp_path, **options)

    params = optim.eval_params(run.ts.params, run.ts.opt_state)
    chosen = permutation(22, 0, 0)  # fewer than 8192, and fewer than a batch: all in one
    state = nn.recompute_batch_stats(net, params, run.ts.state, [dataset.image[chosen]])
    loss = mean_loss(net, params, state, test)
    # Float32 programs of other shapes: some roundings of 6e-8.
    close = functools.partial(pytest.approx, rel=1e-5)
    assert run.last("test_loss") == close(loss)
    # The test can fail: the running statistics, or the params that are trained, are others.
    assert mean_loss(net, params, run.ts.state, test) != close(loss)
    assert mean_loss(net, run.ts.params, state, test) != close(loss)

    loaded = train.load(tmp_path, net=net)
    for model in (run.model, loaded):
        assert mean_loss(net, model.params, model.state, test) == close(loss)
    assert same_bytes(jax.device_get(run.model[1:]), loaded[1:])
    with pytest.raises(ConfigError, match="predict: ts must be a state with the statistics of its"):
        train.predict(net, run.ts, test.image)
    measures = {"loss": functools.partial(metrics.mean_loss, loss=losses.softmax_cross_entropy)}
    eval_step = train.make_eval_step(net, measures)
    with pytest.raises(
        ConfigError, match="evaluate: ts must be a state with the statistics of its"
    ):
        train.evaluate(run.run, eval_step, run.ts, test)
    again = train.evaluation_state(run.run, step, dataset)(run.ts)
    outputs, _ = net.apply(params, state, test.image, nn.EVAL)
    assert float(train.evaluate(run.run, eval_step, again, test)["loss"].value) == close(loss)
    for ts in (run.model, again):
        np.testing.assert_allclose(train.predict(net, ts, test.image), outputs, 1e-5, 1e-6)


def test_a_bounded_number_of_examples_in_equal_batches(x64):
    """Seven of the examples, shuffled, in batches of 3, 3 and 1."""
    net, dataset = nn.serial(nn.flatten(), nn.dense(4), nn.batch_norm(), nn.dense(3)), images(22)
    dataset = type(dataset)(dataset.image.astype(float), dataset.label, classes=3)
    step = averaging(net)
    run = train.parallelize(step, how="single")
    ts = run.init(jax.random.key(0), {"image": dataset.image, "label": dataset.label})
    found = train.evaluation_state(run, step, dataset, examples=7, batch_size=3)(ts)
    batches = np.split(dataset.image[permutation(22, 0, 0)[:7]], [3, 6])
    close(found.state, nn.recompute_batch_stats(net, ts.params, ts.state, batches))
    assert found.opt_state == ()


@pytest.mark.fast
def test_without_averages_the_state_is_evaluated_as_it_is():
    net, dataset = models.mlp([4, 3], batch_norm=True), images(22)
    step = train.make_step(net, losses.softmax_cross_entropy, optim.adam(1e-2))
    run = train.fit(step, dataset, epochs=1, batch_size=8, progress=False)
    assert train.evaluation_state(run.run, step, dataset)(run.ts) is run.ts
    assert run.model.params is run.ts.params and run.model.state is run.ts.state
