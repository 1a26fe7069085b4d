"""The loop: what it compiles, what it counts, when it stops, and what it shows."""

import collections
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training import compiles, images, same_bytes, small_net

from jaxtrain import losses, metrics, models, nn, optim, schedules, train
from jaxtrain.data import ArrayDataset
from jaxtrain.errors import ConfigError, NonFinite
from jaxtrain.train import _fit


def make_step(net=None, tx=None, **options):
    tx = optim.momentum(schedules.cosine(0.05, steps=20)) if tx is None else tx
    return train.make_step(net or small_net(), losses.softmax_cross_entropy, tx, **options)


def fit(step, dataset=None, **options):
    defaults = {"epochs": 3, "batch_size": 8, "progress": False, "devices": 2}
    return train.fit(step, dataset or images(22), **{**defaults, **options})


# The names in the compile log: `init`, `place` (a lambda), `steps` and evaluation (one).
FOUR = {"init": 1, "<lambda>": 1, "steps": 1, "one": 1}


def test_a_run_compiles_four_programs_once_each(tmp_path):
    """Through saves, evaluations, a padded batch, changing rates; and three when resumed."""
    options = {"test": images(10), "directory": tmp_path, "save_every": 2, "steps_per_call": 3}
    jax.clear_caches()  # or small programs of earlier tests would hide here
    with compiles() as names:
        fit(make_step(guard=7), **options)  # 9 steps
    assert collections.Counter(names) == FOUR
    (tmp_path / "checkpoints" / "9.json").unlink()
    jax.clear_caches()
    with compiles() as names:
        fit(make_step(guard=7), resume=True, **options)
    assert collections.Counter(names) == {k: v for k, v in FOUR.items() if k != "init"}


def test_a_remainder_shorter_than_k_compiles_one_more():
    jax.clear_caches()
    with compiles() as names:
        fit(make_step(), steps_per_call=4, test=images(10))  # 4 + 4 + 1
    assert collections.Counter(names) == FOUR | {"steps": 2}


AVERAGED = optim.momentum(0.05, nesterov="shifted")


@pytest.mark.parametrize(
    "net, more",
    [
        (small_net(), {"_averaged": 1, "add_up": 1}),
        (nn.serial(nn.conv(2, 3), nn.global_avg_pool(), nn.dense(3)), {"_averaged": 1}),
    ],
    ids=["batch_norm", "no batch_norm"],
)
def test_averaged_params_are_one_program_more_and_statistics_another(net, more, tmp_path):
    options = {"directory": tmp_path, "save_every": 3, "steps_per_call": 3, "test": images(10)}
    jax.clear_caches()
    with compiles() as names:
        fit(make_step(net, AVERAGED), **options)
    assert collections.Counter(names) == FOUR | more


@pytest.mark.parametrize("how", ["shard_map", "jit"])
def test_statistics_of_groups_of_devices_need_a_mapped_axis(how):
    net = nn.serial(nn.flatten(), nn.batch_norm(group_size=1), nn.dense(3))
    if how == "shard_map":
        assert np.isfinite(fit(make_step(net), how=how).history[-1]["loss"])
    else:
        with pytest.raises(ConfigError, match="group_size must be None .* use how='shard_map'"):
            fit(make_step(net), how=how)


def plateau(**options):
    tx = optax.chain(optim.momentum(0.05), optim.reduce_on_plateau(**options), optim.ema(0.5))
    return make_step(models.mlp([4, 3], batch_norm=True), tx)


def test_the_loss_on_validation_examples_is_reported_to_the_plateau(tmp_path):
    """Whatever is not a tenth of the best cuts the rate; a resumed run knows what was reported."""
    step = plateau(patience=1, threshold=0.9, factor=0.5)
    options = {"validation": images(12), "epochs": 6, "directory": tmp_path, "save_every": 3}
    run = fit(step, **options)
    rows = [row for row in run.history if "validation_loss" in row]
    assert len(rows) == 6 and all(0 <= row["validation_accuracy"] <= 1 for row in rows)
    state = optim.reduce_on_plateau(patience=1, threshold=0.9, factor=0.5).init(0.0)
    for row in rows:
        state = optim.report(state, row["validation_loss"])
    found = run.ts.opt_state[1]
    assert jax.device_get(found) == jax.device_get(state)
    assert 0 < float(found.learning_rate_scale) < 1
    (tmp_path / "checkpoints" / "18.json").unlink()
    again = fit(step, **options, resume=True)
    assert same_bytes(again.ts.opt_state, run.ts.opt_state) and again.history == run.history


@pytest.mark.fast
def test_a_plateau_needs_a_validation_loss():
    with pytest.raises(
        ConfigError, match="fit: validation and its loss must be given .*None; pass"
    ):
        fit(plateau())
    with pytest.raises(ConfigError, match=r"got \['accuracy'\]; .* a measure \"loss\""):
        fit(plateau(), validation=images(12), measures={"accuracy": metrics.accuracy})


@pytest.fixture(scope="module")
def trained():
    return fit(make_step(), epochs=1).ts


@pytest.mark.parametrize("how, n", [("single", 1), ("shard_map", 2), ("jit", 4), ("pmap", 8)])
@pytest.mark.parametrize("size", [1, 7, 22, 100])
def test_evaluation_counts_every_example_once(how, n, size, trained):
    net, test = small_net(), images(22)
    outputs, _ = net.apply(trained.params, trained.state, test.image, nn.EVAL)
    right = np.argmax(outputs, 1) == test.label
    ts = jax.device_get(trained._replace(key=jax.random.key_data(trained.key)))
    run = train.parallelize(make_step(), how=how, devices=n)
    step = train.make_eval_step(net, {"accuracy": metrics.accuracy})
    record = train.evaluate(run, step, ts, test, batch_size=size)["accuracy"]
    assert (record.total, record.count) == (right.sum(), 22)


@pytest.mark.parametrize("how, n", [(None, 1), ("shard_map", 2), ("pmap", 4), ("jit", 8)])
def test_predictions_keep_the_order_and_length(how, n, trained):
    net, x = small_net(), images(22).image
    expected, _ = net.apply(trained.params, trained.state, x, nn.EVAL)
    ts = jax.device_get(trained._replace(key=jax.random.key_data(trained.key)))
    run = how and train.parallelize(make_step(), how=how, devices=n)
    for rows, size in ((1, 1024), (22, 1024), (22, 8), (21, 5)):
        y = train.predict(net, ts, x[:rows], batch_size=size, run=run)
        np.testing.assert_allclose(y, expected[:rows], rtol=1e-5, atol=1e-6)


def test_rows_hold_the_mean_of_their_steps(tmp_path):
    """K = 2 does not divide the rows' 3 steps: a row comes with the call that passes them."""
    options = {"steps_per_call": 2, "log_every": 3, "eval_every": 4, "test": images(10)}
    run = fit(make_step(), epochs=4, directory=tmp_path, **options)  # 12 steps
    assert [row["step"] for row in run.history] == [4, 4, 6, 8, 10, 12, 12]
    singly = fit(make_step(), epochs=4, steps_per_call=1, log_every=1).history
    # 6 real examples of 8 in each third step: means weigh examples, not batches.
    weights = np.array([8, 8, 6] * 4)
    losses = np.array([row["loss"] for row in singly])
    train_rows = [row for row in run.history if "loss" in row]
    first = np.average(losses[:4], weights=weights[:4])
    assert train_rows[0]["loss"] == pytest.approx(first, rel=1e-5)
    assert train_rows[0]["skipped"] == 0
    # Update 3 is the last of the first four.
    rate = float(schedules.cosine(0.05, steps=20)(3))
    assert train_rows[0]["learning_rate"] == pytest.approx(rate, rel=1e-6)
    assert run.last("test_accuracy") == run.history[-1]["test_accuracy"]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == run.history


def test_steps_in_flight_are_bounded(monkeypatch):
    """No more than eight results wait: XLA on CPU aborts when too many collectives do."""
    dispatched, fetched, most = 0, 0, 0
    parallelize, device_get = _fit.parallelize, jax.device_get

    def counting(*args, **kwargs):
        run = parallelize(*args, **kwargs)

        def steps(*args):
            nonlocal dispatched, most
            dispatched += 1
            most = max(most, dispatched - fetched)
            return run.steps(*args)

        return dataclasses.replace(run, steps=steps)

    def fetching(x):
        nonlocal fetched
        fetched += isinstance(x, dict) and "skipped_in_a_row" in x
        return device_get(x)

    monkeypatch.setattr(_fit, "parallelize", counting)
    monkeypatch.setattr(jax, "device_get", fetching)
    net = models.mlp([3])
    fit(make_step(net), epochs=20, steps_per_call=1, log_every=60, eval_every=60)
    assert dispatched == fetched == 60 and most == _fit.IN_FLIGHT + 1


def exploding(x):
    """inf for the large images of `too_large`, whatever the params are."""
    return jnp.where(jnp.abs(x) > 1e3, jnp.inf, x)


def too_large(at):
    dataset = images(22)
    dataset.image[at:] = 1e4
    return dataset


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_a_run_that_is_not_finite_stops_and_names_step_and_layer(steps_per_call):
    net = nn.serial(flat=nn.flatten(), first=nn.dense(4), explode=exploding, second=nn.dense(3))
    step = make_step(net, guard=3)
    with pytest.raises(NonFinite) as caught:
        fit(step, too_large(0), steps_per_call=steps_per_call)
    message = str(caught.value)
    steps = int(re.search(r"up to step (\d+)", message)[1])
    assert steps == (3 if steps_per_call == 1 else 4)
    assert "first not finite: layer 'explode'" in message and "lower learning rate" in message


def test_a_run_goes_on_after_a_step_that_is_not_finite():
    net = nn.serial(nn.flatten(), nn.dense(4), exploding, nn.dense(3))
    run = fit(make_step(net, guard=3), too_large(20), log_every=1, steps_per_call=1)
    assert sum(row["skipped"] for row in run.history) >= 3  # one batch of each epoch at least
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.ts.params))
    assert int(run.ts.guard.skipped) == sum(row["skipped"] for row in run.history)


@pytest.mark.fast
def test_no_progress_prints_nothing(capfd):
    fit(make_step(models.mlp([3])), progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.fast
def test_progress_shows_the_numbers(capfd):
    fit(make_step(models.mlp([3])), progress=True, test=images(10))
    text = capfd.readouterr().out
    for word in ("epoch 3", "loss", "lr", "acc", "images/s", "ETA"):
        assert word in text


@pytest.mark.fast
def test_regression_on_a_tree_of_inputs():
    rng = np.random.default_rng(0)
    image = {"a": rng.normal(size=(22, 2)), "b": rng.normal(size=(22, 1))}
    dataset = ArrayDataset(image, (image["a"] - image["b"])[:, :1])
    net = nn.serial(lambda x: jnp.concatenate([x["a"], x["b"]], -1), nn.dense(1))
    step = train.make_step(net, losses.squared_error, optim.adam(0.1))
    run = fit(step, dataset, epochs=60, test=dataset)
    assert run.last("test_loss") < 1e-2 and "accuracy" not in run.history[0]
