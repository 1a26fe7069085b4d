"""Single, jit, pmap and shard_map compute the same step on any number of devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from training import compiles, distance, images, same_bytes, small_net

from jaxtrain import _compat, losses, nn, optim, train
from jaxtrain.data import Order
from jaxtrain.errors import ConfigError
from jaxtrain.nn import _norm
from jaxtrain.train import _step

STEPS = 40
OPTIMIZERS = {
    "momentum": lambda: optim.momentum(0.05),
    "adam": lambda: optim.adam(3e-3),
}


def noise(key, image):
    return image + 0.1 * jax.random.normal(key, image.shape, image.dtype)


def make_step(optimizer="momentum", **options):
    tx = OPTIMIZERS[optimizer]()
    options = {"augment": noise, **options}
    return train.make_step(small_net(), losses.softmax_cross_entropy, tx, **options)


def batches(steps=STEPS):
    """22 examples in batches of 16: of eight devices the last batch leaves five all padding."""
    dataset = images(dtype=np.float64)
    order = Order(len(dataset), 16, seed=1)
    for i in range(steps):
        index = order.indices(i)
        real = np.maximum(index, 0)
        image = np.where(index[:, None, None, None] < 0, 1e3, dataset.image[real])
        label, mask = dataset.label[real], (index >= 0).astype(np.float32)
        yield {"image": image, "label": label, "index": real, "mask": mask}


def trajectory(how, n, *, step=None, steps=STEPS, check_vma=True):
    """Returns the last state and the metrics of every step, in float64."""
    with _compat.enable_x64(True):
        run = train.parallelize(step or make_step(), how=how, devices=n, check_vma=check_vma)
        ts = run.place(run.init(jax.random.key(3), next(batches(1))))
        seen = []
        for batch in batches(steps):
            ts, metrics = run.step(ts, batch)
            seen.append(jax.device_get(metrics))
        return ts, jax.tree.map(lambda *rows: np.stack(rows), *seen)


@pytest.fixture(scope="module")
def reference():
    return {name: trajectory("single", 1, step=make_step(name)) for name in OPTIMIZERS}


def ways(*often):
    """All modes on 1, 2, 4 and 8 devices; those that are not run often are nightly."""
    return [
        pytest.param(how, n, marks=[] if (how, n) in often else pytest.mark.nightly)
        for how, n in itertools.product(("jit", "pmap", "shard_map"), (1, 2, 4, 8))
    ]


@pytest.mark.parametrize(
    "how, n", ways(("jit", 2), ("pmap", 2), ("shard_map", 2), ("shard_map", 8))
)
def test_all_ways_are_one_in_float64(how, n, reference):
    # 40 steps of sums of a few hundred terms, in another order: some hundred roundings of 1e-16.
    assert distance(trajectory(how, n), reference["momentum"]) <= 1e-12


@pytest.mark.parametrize("how, n", ways(("shard_map", 2)))
def test_all_ways_are_one_with_adam(how, n, reference):
    # Adam divides by the root of a moment, which magnifies the rounding of small gradients.
    assert distance(trajectory(how, n, step=make_step("adam")), reference["adam"]) <= 1e-9


def halves(key, images, labels):
    """Mixes each image with another one of the batch, in a share of its own."""
    n = len(labels)
    share = jax.random.uniform(key, (n,), labels.dtype)
    partner = (jnp.arange(n) + n // 2) % n

    def mixed(x):
        s = share.reshape(-1, *[1] * (x.ndim - 1))
        return s * x + (1 - s) * x[partner]

    return mixed(images), mixed(labels)


def squares(params):
    return 0.01 * sum((p * p).sum() for p in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def mixed_and_penalized():
    def run(how, n):
        step = make_step(mix=halves, penalty=squares, accumulate=2)
        return trajectory(how, n, step=step, steps=4)

    return run, run("single", 1)


@pytest.mark.parametrize("how, n", ways(("shard_map", 2)))
def test_mixing_and_penalties_are_those_of_the_whole_batch(how, n, mixed_and_penalized):
    run, reference = mixed_and_penalized
    # Padding of 1e3 is mixed into the images: terms a thousand times as large as those above.
    assert distance(run(how, n), reference) <= 1e-10


class Without:
    """`jax.lax` whose psum leaves out what `part` names; all else is as it was."""

    def __init__(self, part):
        self.part = part

    def __getattr__(self, name):
        return getattr(lax, name)

    def psum(self, x, axis_name):
        total = lax.psum(x, axis_name)
        if self.part == "rows" or (self.part == "count" and not isinstance(x, tuple)):
            return x
        if isinstance(x, tuple):
            (grads, seen), (all_grads, all_seen) = x, total
            if self.part == "gradients":
                return grads, all_seen
            if self.part == "loss":
                return all_grads, all_seen | {"loss": seen["loss"]}
        return total


def differs(seen, reference):
    """Whether the metrics of a few steps are off by more than rounding; NaN is."""
    steps = len(seen["skipped_in_a_row"])
    return not distance(seen, jax.tree.map(lambda x: x[:steps], reference)) < 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["shard_map", pytest.param("pmap", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("part", ["gradients", "loss", "count", "rows"])
def test_without_one_psum_the_ways_differ(part, how, reference, monkeypatch):
    monkeypatch.setattr(_norm if part == "rows" else _step, "lax", Without(part))
    _, seen = trajectory(how, 2, steps=4, check_vma=False)
    assert differs(seen, reference["momentum"][1])


@pytest.mark.parametrize("part", ["gradients", "loss", "rows"])
def test_shard_map_proves_that_a_psum_is_missing(part, monkeypatch):
    monkeypatch.setattr(_norm if part == "rows" else _step, "lax", Without(part))
    with pytest.raises(ValueError, match="out_specs"):
        trajectory("shard_map", 2, steps=1)


@pytest.mark.nightly
def test_without_the_cast_to_varying_gradients_are_summed_twice(reference, monkeypatch):
    monkeypatch.setattr(_step._compat, "to_varying", lambda tree, axis_name: tree)
    _, seen = trajectory("shard_map", 2, steps=4)
    assert differs(seen, reference["momentum"][1])


@pytest.mark.nightly
def test_with_keys_by_position_the_masks_follow_the_device(reference, monkeypatch):
    def keys(ctx, n):
        return jax.vmap(jax.random.fold_in, (None, 0))(ctx.key, jnp.arange(n))

    monkeypatch.setattr(nn.Context, "keys", keys)
    _, seen = trajectory("shard_map", 2, steps=4)
    assert differs(seen, reference["momentum"][1])


WHOLE_BATCH = {
    "lbfgs": lambda: optim.lbfgs(),
    "bfgs": lambda: optim.bfgs(),
    "newton": lambda: optim.newton(damping=1.0),
    "newton with a line search": lambda: optim.newton(damping=1.0, line_search="strong_wolfe"),
    "saddle-free newton": lambda: optim.newton(damping=1.0, saddle_free=True),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "newton" else pytest.mark.nightly)
        for name in WHOLE_BATCH
    ],
)
def test_line_searches_and_hessians_are_those_of_the_whole_batch(name):
    norm = [nn.batch_norm()] if name == "lbfgs" else []
    net = nn.serial(nn.flatten(), nn.dense(2, bias=not norm), *norm, jnp.tanh, nn.dense(3))
    step = train.make_step(net, losses.softmax_cross_entropy, WHOLE_BATCH[name]())
    one = trajectory("single", 1, step=step, steps=4)
    assert (np.diff(one[1]["loss"].value) != 0).all()
    # A search stops where its tests say; up to there, rounding times a condition of a thousand.
    assert distance(trajectory("shard_map", 8, step=step, steps=4), one) <= 1e-9


def dense_step(**options):
    net = nn.serial(nn.flatten(), nn.dense(5), jax.nn.relu, nn.dropout(0.2), nn.dense(3))
    return train.make_step(net, losses.softmax_cross_entropy, optim.momentum(0.05), **options)


@pytest.mark.fast
def test_accumulated_parts_are_one_big_batch():
    one = trajectory("single", 1, step=dense_step(), steps=4)
    # A sum of 16 gradients in four partial sums: roundings of 1e-16 in each of four steps.
    parts = trajectory("single", 1, step=dense_step(accumulate=4), steps=4)
    assert distance(parts, one) <= 1e-12


def test_accumulated_parts_are_the_same_on_any_number_of_devices():
    one, two = (
        trajectory(how, n, step=make_step(accumulate=2), steps=4)
        for how, n in [("single", 1), ("shard_map", 2)]
    )
    assert distance(two, one) <= 1e-12
    # BatchNorm normalizes each part by itself: not what one big batch gives.
    assert differs(two[1], trajectory("single", 1, steps=4)[1])


@pytest.mark.fast
def test_place_leaves_the_callers_arrays_alone():
    step, batch = dense_step(), next(batches(1))
    run = train.parallelize(step, how="shard_map", devices=2)
    # On one device, whose buffers jax.device_put would share with the replicated state. Not looked
    # at before: a view on the host would keep them from being donated.
    mine, same = (jax.jit(step.init)(jax.random.key(0), batch) for _ in range(2))
    ts, _ = run.step(run.place(mine), batch)
    run.step(ts, batch)
    assert same_bytes(mine, same)
    assert ts.step.is_deleted() and not mine.step.is_deleted()


@pytest.mark.fast
@pytest.mark.parametrize("unroll", [True, False])
def test_three_steps_in_one_call_are_three_steps(unroll):
    with _compat.enable_x64(True):
        dataset = images(dtype=np.float64)
        run = train.parallelize(dense_step(), how="shard_map", devices=2, unroll=unroll)
        data = run.put({"image": dataset.image, "label": dataset.label})
        order = Order(len(dataset), 16, seed=1)
        index = np.stack([order.indices(i) for i in range(3)])
        batch = next(batches(1))
        ts, seen = run.steps(run.place(run.init(jax.random.key(3), batch)), data, index)
        singly = run.place(run.init(jax.random.key(3), batch))
        rows = []
        for i in range(3):
            singly, row = run.steps(singly, data, index[i : i + 1])
            rows.append(jax.device_get(row))
        joined = jax.tree.map(lambda *x: np.concatenate(x), *rows)
        # Another program, in which XLA may fuse otherwise.
        assert distance((ts, seen), (singly, joined)) <= 1e-13
    assert ts.step.sharding.is_fully_replicated and seen["loss"].total.shape == (3,)


@pytest.mark.fast
def test_unrolled_steps_have_no_loop():
    net = nn.serial(nn.flatten(), nn.dense(3))  # without dropout: hashing keys loops on CPU
    step = train.make_step(net, losses.softmax_cross_entropy, optim.sgd(0.1))
    dataset = images()
    data = {"image": dataset.image, "label": dataset.label}
    index = np.zeros((3, 16), np.int32)
    loops = {}
    for unroll in (False, True):
        run = train.parallelize(step, how="shard_map", devices=2, unroll=unroll)
        ts = run.init(jax.random.key(0), next(batches(1)))
        text = run.steps.lower(run.place(ts), data, index).compile().as_text()
        loops[unroll] = " while(" in text
    assert loops == {False: True, True: False}


@pytest.mark.fast
def test_the_second_step_compiles_nothing():
    run = train.parallelize(dense_step(), how="shard_map", devices=2)
    first, second = batches(2)
    ts, _ = run.step(run.place(run.init(jax.random.key(0), first)), first)
    with compiles() as names:
        run.step(ts, second)
    assert names == []


@pytest.mark.fast
def test_devices_and_modes_that_are_not_there_are_refused():
    step = dense_step()
    with pytest.raises(ConfigError, match="devices must be between 1 and the 8 cpu devices .* 9"):
        train.parallelize(step, devices=9)
    with pytest.raises(ConfigError, match="how must be one of .* 'shardmap'; did you mean 'shard_"):
        train.parallelize(step, how="shardmap")
    with pytest.raises(ConfigError, match='one for how="single", got 2'):
        train.parallelize(step, how="single", devices=2)
