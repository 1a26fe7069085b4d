"""Modules of flax in our step, and their variables there and back."""

import dataclasses
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from flax import linen, nnx, serialization
from jax.sharding import PartitionSpec as P

from jaxtrain import _compat, data, losses, nn, optim, train
from jaxtrain.errors import ConfigError, RunError

KEY = key(0)
TRAIN = nn.Context(train=True, key=key(1))
X = np.random.default_rng(0).normal(size=(8, 3))


class Linen(linen.Module):
    rate: float = 0.0

    @linen.compact
    def __call__(self, x, train):
        x = linen.Dense(4, param_dtype=x.dtype)(x)
        x = linen.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            param_dtype=x.dtype,
            force_float32_reductions=False,
        )(x)
        x = linen.Dropout(self.rate, deterministic=not train)(jnp.tanh(x))
        return linen.Dense(2, param_dtype=x.dtype)(x)


class NNX(nnx.Module):
    def __init__(self, rngs, rate=0.0, dtype=np.float64):
        linear = functools.partial(nnx.Linear, rngs=rngs, param_dtype=dtype)
        norm = nnx.BatchNorm(4, rngs=rngs, momentum=0.9, param_dtype=dtype)
        norm.mean, norm.var = (nnx.BatchStat(v[...].astype(dtype)) for v in (norm.mean, norm.var))
        self.body = nnx.Sequential(linear(3, 4), norm, jnp.tanh)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = linear(4, 2)

    def __call__(self, x):
        return self.head(self.dropout(self.body(x)))


def nets(rate=0.0, dtype=np.float64):
    return {
        "linen": nn.from_flax(Linen(rate)),
        "nnx": nn.from_flax(lambda rngs: NNX(rngs, rate, dtype)),
    }


each = pytest.mark.parametrize("name", ["linen", "nnx"])


def close(a, b, rtol=1e-12):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol / 10), a, b)


def numpy_net(dense0, norm, dense1, x):
    """Dense, batch normalization by the batch, tanh, dense, in NumPy."""
    h = x @ dense0["kernel"] + dense0["bias"]
    h = norm["scale"] * (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) + norm["bias"]
    return np.tanh(h) @ dense1["kernel"] + dense1["bias"]


@functools.cache
def held(name, rate=0.0, dtype=np.float64):
    """A net, its input, params and state."""
    net = nets(rate, dtype)[name]
    x = jnp.asarray(X, dtype)
    return net, x, *jax.jit(net.init)(KEY, x)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax mixes types on its own account."""
    with jax.numpy_dtype_promotion("standard"):
        yield


# One layer: the rules that ours keep.


@each
@pytest.mark.fast
def test_equals_numpy_and_moves_the_statistics(name, x64):
    """In train mode, with a state and params other than the initial ones."""
    net, x, *held_there = held(name)
    params, state = jax.tree.map(lambda leaf: leaf + 0.3, held_there)
    if name == "linen":
        layers = [params[k] for k in ("Dense_0", "BatchNorm_0", "Dense_1")]
        at = ["BatchNorm_0"]
    else:
        layers = [*(params["body"]["layers"][k] for k in "01"), params["head"]]
        at = ["body", "layers", "1"]
    layers = jax.tree.map(np.asarray, layers)
    y, new = jax.jit(net.apply)(params, state, x, TRAIN)
    np.testing.assert_allclose(y, numpy_net(*layers, X), rtol=1e-12, atol=1e-14)
    h = X @ layers[0]["kernel"] + layers[0]["bias"]
    for statistic, batch in (("mean", h.mean(0)), ("var", h.var(0))):
        got, before = (functools.reduce(dict.get, at, s)[statistic] for s in (new, state))
        np.testing.assert_allclose(got, 0.9 * before + 0.1 * batch, rtol=1e-12)


@each
def test_init_depends_on_key_and_shape_alone(name, x64):
    net, _, *held_there = held(name)
    x = jax.ShapeDtypeStruct(X.shape, np.float64)
    close(list(net.init(KEY, x)), held_there, 0)
    # Two of a kind, stacked: each with a key of its own.
    two = nn.repeat(nn.serial(net=net, back=nn.dense(3)), 2)
    params, _ = jax.jit(lambda key: two.init(key, x))(KEY)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 3]
    assert len(kernels) == 3
    for kernel in kernels:
        assert not np.array_equal(*kernel)


@each
def test_eval_leaves_the_state_alone_and_needs_no_key(name):
    net, x, params, state = held(name, 0.5, np.float32)
    apply = jax.jit(net.apply)
    y, after = apply(params, state, x, nn.EVAL)
    close(after, state, 0)
    close(apply(params, state, x, dataclasses.replace(TRAIN, train=False)), (y, state), 0)
    with pytest.raises((ValueError, linen.module.errors.InvalidRngError), match="key|PRNG"):
        net.apply(params, state, x, nn.Context(train=True))


@each
def test_dropout_samples_by_key_layer_and_batch(name):
    net, x, params, state = held(name, 0.5, np.float32)
    apply = jax.jit(net.apply)
    y = apply(params, state, x, TRAIN)[0]
    np.testing.assert_array_equal(y, apply(params, state, x, TRAIN)[0])
    later = dataclasses.replace(TRAIN, index=jnp.arange(8, 16))
    for other in (TRAIN.child("b"), later):
        assert not np.array_equal(y, apply(params, state, x, other)[0])


@each
def test_vmap_remat_scan_and_grad(name, x64):
    """An ensemble of two, each model's first step in a scan, and the derivative of one."""
    net, x, params, state = held(name)
    remat = nn.remat(net)
    models = [(params, state), jax.tree.map(lambda leaf: 0.9 * leaf, (params, state))]
    contexts = [nn.Context(train=True, key=key(i)) for i in (2, 3)]

    def loss(t, model, ctx):
        moved = jax.tree.map(lambda p: p + t * jnp.cos(p), model[0])
        return jnp.sin(remat.apply(moved, model[1], x, ctx)[0]).sum()

    def scanned(model, ctx):
        return jax.lax.scan(lambda s, x: net.apply(model[0], s, x, ctx)[::-1], model[1], x[None])

    @jax.jit
    def program(model, ctx):
        h = 1e-6  # the truncation is some h^2 = 1e-12, the rounding 1e-15 / h = 1e-9
        slope = (loss(h, model, ctx) - loss(-h, model, ctx)) / (2 * h)
        y, state = net.apply(*model, x, ctx)
        return (state, y[None]), scanned(model, ctx), (slope, jax.grad(loss)(0.0, model, ctx))

    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *zip(models, contexts, strict=True))
    once, looped, (slope, grad) = jax.vmap(program)(*both)
    close(looped, once)
    np.testing.assert_allclose(grad, slope, rtol=1e-7)
    close(jax.tree.map(lambda leaf: leaf[1], once), program(models[1], contexts[1])[0])


# Over devices, and with padding.


@each
@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_statistics_are_those_of_all_devices(name, how, x64):
    net, x, params, state = held(name)
    want = jax.jit(net.apply)(params, state, x, TRAIN)

    def part(x):
        return net.apply(params, state, x, dataclasses.replace(TRAIN, axis_name="data"))

    if how == "pmap":
        y, after = jax.pmap(part, "data", out_axes=(0, None), devices=jax.devices()[:2])(
            x.reshape(2, 4, 3)
        )
        got = y.reshape(8, 2), after
    else:
        mesh = _compat.make_mesh(jax.devices()[:2], ("data",))
        specs = dict(in_specs=P("data"), out_specs=(P("data"), P()))
        got = jax.jit(jax.shard_map(part, mesh=mesh, **specs))(x)
    close(got, want, 1e-11)


def test_masks_of_linen_depend_on_the_example_alone():
    net, x = nn.from_flax(linen.Dropout(0.5)), jnp.ones((8, 50))
    index = jnp.arange(8)[::-1]

    @jax.jit
    def masks(x, index):
        return net.apply({}, {}, x, dataclasses.replace(TRAIN, index=index))[0]

    y = masks(x, index)
    np.testing.assert_array_equal(masks(x[2:5], index[2:5]), y[2:5])
    np.testing.assert_array_equal(masks(x, None), y[::-1])
    assert set(np.unique(y)) == {0, 2} and len(np.unique(y, axis=0)) == 8
    # Not by the example where flax drops whole columns, or the leading axis is another.
    columns, _ = nn.from_flax(linen.Dropout(0.5, broadcast_dims=(0,))).apply({}, {}, x, TRAIN)
    np.testing.assert_array_equal(columns, np.broadcast_to(columns[:1], columns.shape))


def test_linen_leaves_padding_out(x64):
    net, x, params, state = held("linen")
    mask = jnp.array([1.0] * 6 + [0.0] * 2)
    apply = jax.jit(net.apply)
    y, after = apply(params, state, x, dataclasses.replace(TRAIN, mask=mask))
    want, wanted = apply(params, state, x[:6], TRAIN)
    close((y[:6], after), (want, wanted))


@pytest.mark.fast
def test_other_state_is_averaged_over_devices():
    class Mean(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            mean = self.variable("batch_stats", "running", lambda: jnp.zeros(3, x.dtype))
            if train:
                mean.value = 0.5 * mean.value + 0.5 * x.mean(0)
            return x

    net, x = nn.from_flax(Mean()), jnp.arange(12.0).reshape(2, 2, 3)
    ctx = nn.Context(train=True, axis_name="data")
    _, state = jax.vmap(
        lambda x: net.apply({}, {"running": jnp.zeros(3)}, x, ctx), axis_name="data"
    )(x)
    close(state["running"], np.broadcast_to(x.mean((0, 1)) / 2, (2, 3)))


class Other(linen.Module):
    """A BatchNorm whose options are not ours, one of a sequence, and collections of one's own."""

    @linen.compact
    def __call__(self, x, is_training, grow=False):
        calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
        if is_training:
            calls.value += 1
        if grow:
            self.sow("counts", "seen", x)
        first = linen.BatchNorm(use_running_average=not is_training, axis=(1, 2))(x)
        norm = linen.BatchNorm(use_running_average=not is_training, use_scale=False)
        return first + norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def test_other_collections_and_batch_norms():
    net = nn.from_flax(Other())
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.float32)
    params, state = net.init(KEY, x)
    assert set(state) == {"@counts", "BatchNorm_0", "BatchNorm_1"}
    ctx = dataclasses.replace(TRAIN, mask=jnp.ones(4))
    y, state = jax.jit(net.apply)(params, state, x, ctx)
    assert int(state["@counts"]["calls"]) == 1
    variables = nn.to_flax(params, state)
    assert set(variables) == {"params", "batch_stats", "counts"}
    want = Other().apply(variables, x, True, mutable=["batch_stats", "counts"])[0]
    np.testing.assert_allclose(y, want, atol=1e-5)  # float32, and flax's variance in one pass
    with pytest.raises(ConfigError, match="from_flax: module must be one whose variables keep"):
        growing = nn.from_flax(Other(), options=lambda ctx: dict(is_training=True, grow=True))
        growing.apply(params, state, x, ctx)


@pytest.mark.fast
def test_the_mode_goes_to_the_argument_of_that_name():
    class Asks(linen.Module):
        flag: bool | None = None

        @linen.compact
        def __call__(self, x, deterministic, *, training):
            return x * (2 if training and not deterministic else 3)

    for ctx, factor in ((TRAIN, 2), (nn.EVAL, 3)):
        y, _ = nn.from_flax(Asks()).apply({}, {}, jnp.ones((2, 1)), ctx)
        assert float(y[0, 0]) == factor
    frozen = nn.from_flax(linen.BatchNorm(use_running_average=True))
    params, state = frozen.init(KEY, jnp.ones((2, 3)))
    assert frozen.apply(params, state, jnp.ones((2, 3)), TRAIN)[1] == state


@pytest.mark.parametrize("bad", [3, Linen, NNX, "Linen"])
@pytest.mark.fast
def test_what_is_no_module_is_refused(bad):
    with pytest.raises(TypeError, match="from_flax: module must be"):
        nn.from_flax(bad)


# Training.


def dataset():
    return data.ArrayDataset(X.astype(np.float32)[:7], (X[:7, 0] > 0).astype(np.int32), classes=2)


@each
def test_training_is_the_same_in_every_mode(name, x64):
    """With padding, and in linen dropout, whose masks are other ones in nnx."""
    net = nets(0.5 if name == "linen" else 0.0)[name]
    step = train.make_step(net, losses.softmax_cross_entropy, optim.momentum(0.1))
    batch = dict(image=X, label=(X[:, 0] > 0).astype(np.int32), index=np.arange(8, dtype=np.int32))
    batch["mask"] = np.array([1.0] * 7 + [0.0])
    seen = {}
    for how in ("single", "jit", "pmap", "shard_map"):
        run = train.parallelize(step, how=how, devices=1 if how == "single" else 2)
        ts = run.init(KEY, batch)
        for _ in range(3):
            ts, _ = run.step(ts, batch)
        seen[how] = jax.device_get((ts.params, ts.state))
    for how in ("jit", "pmap", "shard_map"):
        close(seen[how], seen["single"], 1e-10)


@each
def test_fit_keeps_a_run_and_load_asks_for_the_net(name, tmp_path):
    net = nets(0.5, np.float32)[name]
    step = train.make_step(net, losses.softmax_cross_entropy, optim.adam(1e-2))
    options = dict(epochs=2, batch_size=4, directory=tmp_path, progress=False, how="single")
    result = train.fit(step, dataset(), **options)
    with pytest.raises(RunError, match="net must be given"):
        train.load(tmp_path)
    model = train.load(tmp_path, net=net)
    close(model[1:], jax.device_get(result.model[1:]), 0)
    outputs = train.predict(net, model, dataset().image)
    np.testing.assert_array_equal(outputs, train.predict(net, result.model, dataset().image))


@each
@pytest.mark.fast
def test_describe_says_what_it_cannot(name):
    with pytest.raises(TypeError, match="describe: a layer must be of jaxtrain.nn, got .*_module"):
        nn.describe(nn.serial(nn.dense(2), nets(dtype=np.float32)[name]))


# Variables, there and back.


def test_variables_of_a_linen_module_there_and_back(tmp_path):
    x = jnp.asarray(X, jnp.float32)
    net, _, params, state = held("linen", 0.5, np.float32)
    y, _ = net.apply(params, state, x, nn.EVAL)
    np.testing.assert_array_equal(y, Linen().apply(nn.to_flax(params, state), x, train=False))
    packed = serialization.msgpack_serialize(jax.tree.map(np.asarray, nn.to_flax(params, state)))
    train.save_safetensors(tmp_path / "net", nn.to_flax(params, state))
    for again in (serialization.msgpack_restore(packed), train.load_safetensors(tmp_path / "net")):
        jax.tree.map(np.testing.assert_array_equal, nn.from_variables(again), (params, state))


def test_a_net_of_ours_takes_the_variables_of_the_same_names(x64):
    ours = nn.serial(
        Dense_0=nn.dense(4),
        BatchNorm_0=nn.batch_norm(unbiased=False),
        tanh=jnp.tanh,
        Dense_1=nn.dense(2),
    )
    x = jnp.asarray(X)
    _, _, params, state = held("linen")
    y, after = ours.apply(params, state, x, TRAIN)
    want = Linen().apply(nn.to_flax(params, state), x, train=True, mutable="batch_stats")
    close((y, nn.to_flax({}, after)), want, 1e-11)


@pytest.mark.fast
def test_values_of_an_nnx_module_there_and_back(x64):
    module = NNX(nnx.Rngs(0))
    net = nn.from_flax(module)  # starts from what it holds, whatever the key
    params, state = net.init(KEY, X)
    np.testing.assert_array_equal(params["head"]["kernel"], module.head.kernel[...])
    params, state = jax.tree.map(lambda leaf: 2 * leaf, (params, state))
    values = nnx.state(module)
    nnx.replace_by_pure_dict(values, params)
    nnx.replace_by_pure_dict(values, state)
    nnx.update(module, values)
    module.eval()
    x = jnp.asarray(X)
    np.testing.assert_array_equal(module(x), net.apply(params, state, x, nn.EVAL)[0])


PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "flax.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize("i", range(len(BLOCKS)))
def test_a_block_of_the_page_prints_what_it_says(i, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        exec(compile(BLOCKS[i], f"block {i}", "exec"), {"__name__": "page"})
    said = re.findall(r"^print\(.*\)  # (.*)$", BLOCKS[i], re.M)
    assert said and capsys.readouterr().out.splitlines() == said
