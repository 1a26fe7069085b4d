"""The contract: what holds for every layer, and for whatever else the catalogue lists."""

import dataclasses
import functools
import inspect

import catalogue
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import LAYERS, MODELS, VECTORS, key
from jax.sharding import PartitionSpec as P

from jaxtrain import (
    _compat,
    augment,
    data,
    losses,
    metrics,
    models,
    nn,
    optim,
    penalties,
    schedules,
    tree,
)

CASES = LAYERS | MODELS
TRANSFORMATIONS = catalogue.TRANSFORMATIONS | {
    name: make(0.1) for name, make in catalogue.OPTIMIZERS.items()
}
KEY = key(0)
TRAIN = nn.Context(train=True, key=key(1))
each_case = pytest.mark.parametrize("name", CASES)
each_layer = pytest.mark.parametrize("name", LAYERS)


def struct(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def images(shape, dtype=np.float64, seed=0):
    """Small numbers of both signs without ties."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def signature(pytree):
    """Structure, shapes and dtypes."""
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), pytree)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)  # another structure raises


def kernels_of(params):
    """The leaves that start at random."""
    return jax.tree.leaves(tree.partition(params, lambda path, leaf: path.endswith("kernel"))[0])


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(pytree, i):
    return jax.tree.map(lambda leaf: leaf[i], pytree)


def close(a, b, tolerance):
    """Compares leaf by leaf, relative to the leaf's largest element."""

    def leaf(path, x, y):
        scale = np.max(np.abs(y), initial=1e-3)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale, err_msg=str(path))

    jax.tree_util.tree_map_with_path(leaf, a, b)


# The catalogue.


def public(module):
    return {
        name
        for name, f in vars(module).items()
        if inspect.isfunction(f) and not name.startswith("_") and "jaxtrain" in f.__module__
    } - catalogue.OTHERS.get(module, set())


@pytest.mark.fast
@pytest.mark.parametrize(
    "module, listed",
    [
        (nn, {case.layer.kind for case in LAYERS.values()}),
        (models, set(MODELS)),
        (optim, {name.split(",")[0] for name in TRANSFORMATIONS | catalogue.FULL_BATCH}),
        (schedules, set(catalogue.SCHEDULES)),
        (losses, set(catalogue.LOSSES)),
        (penalties, set(catalogue.PENALTIES)),
        (metrics, set(catalogue.METRICS)),
        (nn.initializers, set(catalogue.INITIALIZERS)),
        (augment, set(catalogue.AUGMENTATIONS)),
        (data.clean, set(catalogue.CHECKS)),
    ],
    ids=lambda value: value.__name__.split(".")[-1] if inspect.ismodule(value) else "",
)
def test_the_catalogue_lists_every_public_constructor(module, listed):
    assert public(module) == listed


@pytest.mark.fast
def test_the_catalogue_lists_every_preprocessing():
    found = {k for k, v in vars(data).items() if inspect.ismodule(v) and hasattr(v, "fit")}
    assert found == set(catalogue.PREPROCESSINGS)


# Layers: what shapes and dtypes alone tell.


@each_case
@pytest.mark.fast
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_shapes_and_dtypes(name, dtype):
    layer, shape, _ = CASES[name]
    with _compat.enable_x64(dtype == "float64"):
        x = struct(shape, jnp.dtype(dtype))
        params, state = jax.eval_shape(layer.init, KEY, x)
        results = {
            train: jax.eval_shape(
                lambda p, s, x: layer.apply(p, s, x, TRAIN if train else nn.EVAL),  # noqa: B023
                params,
                state,
                x,
            )
            for train in (True, False)
        }
    # `cast` computes in its own dtype, and its output is float32 at least.
    inside = np.dtype("float32") if layer.kind == "cast" else x.dtype
    at_least = np.promote_types(inside, np.float32)
    assert all(leaf.dtype == at_least for leaf in jax.tree.leaves((params, state)))
    for y, new_state in results.values():
        assert signature(new_state) == signature(state)
        assert y.dtype == inside
        assert y.shape == results[False][0].shape and y.shape[0] == 4


@each_case
@pytest.mark.fast
def test_a_layer_with_nothing_to_hold_leaves_no_entry(name):
    layer, shape, _ = CASES[name]

    def dicts(node):
        if isinstance(node, dict):
            yield node
            for child in node.values():
                yield from dicts(child)

    params, state = jax.eval_shape(layer.init, KEY, struct(shape, np.float32))
    assert all(inner for part in (params, state) for inner in list(dicts(part))[1:])
    assert isinstance(params, dict) and isinstance(state, dict)
    net = nn.serial(a=layer, b=nn.flatten())
    whole = jax.eval_shape(net.init, KEY, struct(shape, np.float32))
    assert [set(part) for part in whole] == [{"a"} if part else set() for part in (params, state)]


@pytest.mark.fast
def test_a_mistake_names_the_layer_and_keeps_its_type():
    class Planted(LookupError):
        pass

    def fail(*args):
        raise Planted("here")

    def raised(f, *args):
        with pytest.raises(Planted) as caught:
            jax.eval_shape(f, *args)
        return [note for note in caught.value.__notes__ if note.startswith("in layer")]

    def net(bad):
        branch = nn.repeat(nn.residual(nn.serial(nn.dense(6), bad=bad)), 2)
        return nn.serial(outer=nn.remat(nn.parallel(a=nn.dense(3), b=nn.cast(branch, jnp.float32))))

    x = struct(VECTORS, np.float32)
    notes = [f"in layer {name!r}" for name in ("bad", "body", "b", "outer")]
    assert raised(net(nn.Layer(fail, fail)).init, KEY, x) == notes
    in_training = nn.Layer(
        lambda key, x: ({}, {}), lambda p, s, x, ctx: fail() if ctx.train else (x, s)
    )
    params, state = jax.eval_shape(net(in_training).init, KEY, x)
    assert raised(lambda *args: net(in_training).apply(*args, TRAIN), params, state, x) == notes


# Layers: values, in float64. What compiles is shared between the tests.


@functools.cache
def held(name):
    """The input of a layer, its params, and a state other than the initial one."""
    layer, shape, _ = CASES[name]
    x = images(shape)
    params, state = layer.init(KEY, x)
    return x, params, jax.tree.map(lambda s: s + 0.5, state)


@functools.cache
def jitted(name):
    return jax.jit(CASES[name].layer.apply)


@each_layer
def test_init_depends_on_key_name_path_and_shape_alone(name, x64):
    layer, shape, _ = CASES[name]
    x, params, _ = held(name)
    same_bits(layer.init(KEY, struct(shape, x.dtype))[0], params)
    alone, other_name, sibling = (
        nn.serial(**layers).init(KEY, x)[0]
        for layers in (
            {"a": layer},
            {"b": layer},
            {"other": nn.batch_norm(), "a": layer, "last": nn.flatten()},
        )
    )
    same_bits(sibling.get("a"), alone.get("a"))
    kernels = map(kernels_of, (alone, other_name))
    for a, b in zip(*kernels, strict=True):
        assert not np.array_equal(a, b)


@each_layer
def test_eval_leaves_the_state_alone_and_needs_no_key(name, x64):
    x, params, state = held(name)
    y, new_state = jitted(name)(params, state, x, nn.EVAL)
    same_bits(new_state, state)
    with_key = CASES[name].layer.apply(params, state, x, dataclasses.replace(TRAIN, train=False))
    # Compiled and not, with a key and without: the same sums, at most in another order.
    close(with_key, (y, state), CASES[name].tolerance)


@each_layer
def test_ensemble_scan_remat_and_grad(name, x64):
    """A vmap over two models, a scan over two batches, and the derivative of the remat layer."""
    layer, shape, tolerance = CASES[name]
    apply = jitted(name)
    x, p, s = held(name)
    other, dx = images(shape, seed=1), images(shape, seed=2)
    # `frozen` stops the gradient of its params on purpose: they stay where they are.
    dp = jax.tree.map(lambda leaf: 0 * leaf if layer.kind == "frozen" else jnp.cos(leaf), p)
    h = tolerance**0.5

    def f(t, apply):
        moved = jax.tree.map(
            lambda a, d: a + (t * d.astype(float)).astype(a.dtype), (p, x), (dp, dx)
        )
        return jnp.sin(apply(moved[0], s, moved[1], TRAIN)[0]).sum()

    def program(two, contexts, xs):
        ensemble = jax.vmap(layer.apply, (0, 0, None, nn.Context(train=True, key=0)))
        scanned = jax.lax.scan(lambda s, x: layer.apply(p, s, x, TRAIN)[::-1], s, xs)
        slope = jax.grad(f)(jnp.zeros(()), nn.remat(layer).apply)
        return ensemble(*two, x, contexts), scanned, slope

    models = [(p, s), jax.tree.map(lambda leaf: 0.9 * leaf, (p, s))]
    contexts = [TRAIN, dataclasses.replace(TRAIN, key=KEY)]
    together, scanned, slope = jax.jit(program)(
        stack(models), stack(contexts), jnp.stack([x, other])
    )
    apart = [apply(*model, x, ctx) for model, ctx in zip(models, contexts, strict=True)]
    close(together, stack(apart), tolerance)
    y0, s1 = apart[0]
    y1, s2 = apply(p, s1, other, TRAIN)
    close(scanned, (s2, jnp.stack([y0, y1])), tolerance)
    # The rounding of f, some 20 eps / h, and the truncation, h^2 f''' / 6, are below h.
    slope_of_f = (f(h, apply) - f(-h, apply)) / (2 * h)
    assert float(slope) == pytest.approx(float(slope_of_f), rel=h, abs=h)


@each_layer
def test_repeat_is_the_layer_again_and_again(name, x64):
    layer, shape, tolerance = CASES[name]
    twice = nn.repeat(layer, 2)
    x, params, state = held(name)
    if jax.eval_shape(jitted(name), params, state, x, nn.EVAL)[0].shape != shape:
        with pytest.raises(ValueError, match="repeat: layer's output must be of its input's shape"):
            jax.eval_shape(twice.init, KEY, x)
        return
    params, state = twice.init(KEY, x)
    for kernels in kernels_of(params):
        assert not np.array_equal(*kernels)
    y, states = x, []
    for i in range(2):
        y, s = jitted(name)(*unstack((params, state), i), y, TRAIN.child(i))
        states.append(s)
    # The second layer multiplies the rounding of the first: by less than 100.
    close(jax.jit(twice.apply)(params, state, x, TRAIN), (y, stack(states)), 100 * tolerance)


@pytest.mark.parametrize("how", ["shard_map", pytest.param("pmap", marks=pytest.mark.nightly)])
def test_two_devices_equal_one(how, x64):
    """All layers at once: outputs, states and summed gradients."""
    # The second device has one real example fewer than the first.
    mask = jnp.array([1, 1, 1, 0], jnp.float64)
    layers = {name: case.layer for name, case in LAYERS.items()}
    xs = {name: held(name)[0] for name in layers}
    params, state = ({name: held(name)[i] for name in layers} for i in (1, 2))

    def program(params, xs, mask, axis_name=None):
        ctx = dataclasses.replace(TRAIN, mask=mask, axis_name=axis_name)

        def loss(params, xs):
            out = {
                name: layer.apply(params[name], state[name], xs[name], ctx)
                for name, layer in layers.items()
            }
            ys, states = ({name: pair[i] for name, pair in out.items()} for i in range(2))
            real = [(y.astype(float), mask.reshape(-1, *(1,) * (y.ndim - 1))) for y in ys.values()]
            return sum((jnp.sin(y) * m).sum() for y, m in real), (ys, states)

        params = _compat.to_varying(params, axis_name)
        (_, (ys, states)), (dp, dx) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)
        return (ys, dx, jax.tree.map(lambda g: g[None], dp)), states

    want = jax.jit(program)(params, xs, mask)
    parted = functools.partial(program, axis_name="data")
    if how == "shard_map":
        mesh = _compat.make_mesh(jax.devices()[:2], ("data",))
        specs = dict(in_specs=(P(), P("data"), P("data")), out_specs=(P("data"), P()))
        found = jax.jit(jax.shard_map(parted, mesh=mesh, **specs))(params, xs, mask)
    else:
        axes = dict(in_axes=(None, 0, 0), out_axes=(0, None), devices=jax.devices()[:2])
        halves = jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), (xs, mask))
        rows, whole = jax.pmap(parted, "data", **axes)(params, *halves)
        found = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), rows), whole
    jax.block_until_ready(found)

    def parts_of(name, result):
        (ys, dx, dp), states = result
        return ys[name], dx[name], jax.tree.map(lambda g: g.sum(0), dp[name]), states[name]

    for name, case in LAYERS.items():
        # Sums in another order, through a few layers: 1e-12 is thousands of roundings.
        close(parts_of(name, found), parts_of(name, want), case.tolerance)


# Optimizers, schedules, losses, metrics, initializers, preprocessings, augmentations.

OUTPUTS = struct((4, 3), np.float32)


@pytest.mark.fast
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_keep_structure_shapes_and_dtypes(name):
    tx = TRANSFORMATIONS[name]
    params = {"a": struct((3, 2), np.float32), "b": [struct((), jnp.bfloat16), {}]}
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert signature(updates) == signature(params) and signature(after) == signature(state)
    moments = [s for s in jax.tree.leaves(state) if jnp.issubdtype(s.dtype, jnp.floating)]
    assert all(m.dtype == np.float32 for m in moments)


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.SCHEDULES)
def test_schedules_take_any_count_in_the_default_float_type(name):
    f = catalogue.SCHEDULES[name]
    for x64, dtype in ((False, "float32"), (True, "float64")):
        with _compat.enable_x64(x64):
            assert signature(jax.eval_shape(f, struct((), np.int32))) == ((), dtype)
            assert signature(jax.eval_shape(jax.vmap(f), struct((5,), np.int32))) == ((5,), dtype)
            assert np.isfinite(float(f(0))) and np.isfinite(float(f(2**31 - 1)))


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.LOSSES)
def test_losses_give_a_number_per_example_in_float32_or_better(name):
    f, targets = catalogue.LOSSES[name]
    for dtype in (jnp.bfloat16, np.float32):
        loss = jax.eval_shape(f, struct(OUTPUTS.shape, dtype), targets)
        assert signature(loss) == ((4,), "float32")


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.PENALTIES)
def test_penalties_give_one_number_of_the_kernels(name):
    f = catalogue.PENALTIES[name]
    for dtype in (jnp.bfloat16, np.float32):
        params = {"dense": {"kernel": struct((2, 3), dtype), "bias": struct((3,), dtype)}}
        value, slope = jax.eval_shape(jax.value_and_grad(f), params)
        assert signature(value) == ((), "float32") and signature(slope) == signature(params)
    zero = {"kernel": np.zeros(3, np.float32), "bias": np.ones(3, np.float32)}
    assert f(zero) == 0 and not jax.grad(f)(zero)["kernel"].any()


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.METRICS)
def test_metrics_add_up(name):
    f, targets = catalogue.METRICS[name]
    for mask in (None, struct((4,), bool), struct((4,), np.float32)):
        record = jax.eval_shape(f, OUTPUTS, targets, mask)
        assert signature(jax.eval_shape(lambda a, b: a + b, record, record)) == signature(record)
        assert type(record) is type(jax.eval_shape(lambda a, b: a + b, record, record))


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.PREPROCESSINGS)
def test_preprocessings_go_there_and_back(name):
    module = catalogue.PREPROCESSINGS[name]
    x = np.random.default_rng(0).normal(5, 2, size=(20, 4))
    stats = module.fit(x)
    y = module.apply(stats, x)
    # Some ten roundings in float64, on numbers below 20.
    np.testing.assert_allclose(module.invert(stats, y), x, rtol=0, atol=1e-13)
    in_a_program = jax.jit(module.apply)(stats, x.astype(np.float32))
    # And in float32, where also what stands near 0 was made of such numbers.
    np.testing.assert_allclose(in_a_program, y, rtol=0, atol=2e-5)


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.AUGMENTATIONS)
def test_augmentations_keep_shape_and_dtype(name):
    f = catalogue.AUGMENTATIONS[name]
    for dtype in (np.uint8, np.float32):
        keys = jax.eval_shape(lambda key: jax.random.split(key, 4), KEY)
        x = struct((4, 8, 7, 3), dtype)
        assert signature(jax.eval_shape(jax.vmap(f), keys, x)) == signature(x)
