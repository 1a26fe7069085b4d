"""Examples that are read when they are needed: what is read, and that training is the same."""

import collections
import threading

import jax
import numpy as np
import pytest
from training import compiles, distance, images, same_bytes, small_net

from jaxtrain import data, losses, optim, train
from jaxtrain.data import Order, Source
from jaxtrain.errors import ConfigError, DataError
from jaxtrain.train import _feed

DATASET = images(22)
STEP = train.make_step(small_net(), losses.softmax_cross_entropy, optim.momentum(0.05))


class Counted:
    """The examples of a data set, with a list of the numbers that were asked for."""

    def __init__(self, dataset=DATASET):
        self.dataset, self.read = dataset, []

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        self.read.append(i)
        return {"image": self.dataset.image[i], "label": self.dataset.label[i]}


def fit(dataset, **options):
    defaults = dict(epochs=3, batch_size=8, progress=False, devices=2, steps_per_call=1)
    return train.fit(STEP, dataset, **{**defaults, **options})


@pytest.mark.fast
def test_a_source_reads_what_it_is_asked_for_in_order():
    counted = Counted()
    part = Source(counted, classes=3)[np.array([5, 0, 5])]
    assert collections.Counter(counted.read) == {5: 2, 0: 1}
    np.testing.assert_array_equal(part.image, DATASET.image[[5, 0, 5]])
    np.testing.assert_array_equal(part.label, DATASET.label[[5, 0, 5]])
    pairs = Source([({"x": np.ones(2, np.uint8)}, 0.5), ({"x": np.zeros(2, np.uint8)}, 1.5)])
    part = pairs[1:]
    assert part.image["x"].dtype == np.uint8 and part.label.tolist() == [1.5]


def test_reading_is_shared_by_threads():
    barrier = threading.Barrier(4, timeout=20)  # passes only with four at once

    class Slow(list):
        def __getitem__(self, i):
            barrier.wait()
            return np.full(2, i), i

    assert Source(Slow(range(4)), threads=4)[:].label.tolist() == [0, 1, 2, 3]


@pytest.mark.fast
def test_training_is_that_on_the_data_set_with_one_program():
    resident = fit(DATASET)
    counted = Counted()
    jax.clear_caches()
    with compiles() as names:
        streamed = fit(Source(counted, classes=3), test=DATASET)
    assert collections.Counter(names) == {"init": 1, "<lambda>": 1, "stream": 1, "one": 1}
    # The same arithmetic, compiled in another program: 9 steps of roundings of 6e-8.
    assert distance(streamed.ts, resident.ts) < 1e-5
    per_epoch = collections.Counter({i: 1 for i in range(22)})
    padding = collections.Counter({0: 3 * 2})
    extra = collections.Counter(counted.read) - collections.Counter(
        {i: 3 * per_epoch[i] + padding[i] for i in range(22)}
    )
    assert sum(extra.values()) <= 8 + 1 + 8 + 16  # shapes, labels, the first batch, the fingerprint


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    source = Source(Counted(), classes=3)
    whole = fit(source)

    class Interrupted(Exception):
        pass

    class Breaking(Counted):
        def __getitem__(self, i):
            if len(self.read) > 90:
                raise Interrupted
            return super().__getitem__(i)

    with pytest.raises(Interrupted) as error:
        fit(Source(Breaking(), classes=3), directory=tmp_path, save_every=2)
    assert any("while example" in note for note in error.value.__notes__)
    assert list((tmp_path / "checkpoints").glob("*.json"))
    again = fit(source, directory=tmp_path, save_every=2, resume=True)
    assert same_bytes(whole.ts, again.ts)


def test_no_more_than_two_batches_are_read_ahead(monkeypatch):
    counted, seen = Counted(), []
    source = Source(counted, classes=3)
    run = train.parallelize(STEP, how="single")

    def stream(ts, batches):
        seen.append(len(counted.read))
        return ts, {}

    object.__setattr__(run, "stream", stream)
    order = Order(22, 8)
    feed = _feed.dispatches(run, source, order, at=0, total=60, k=1)
    for done in range(1, 6):
        _, dispatch = next(feed)
        dispatch(None)
        assert 8 * done <= seen[-1] <= 8 * (done + _feed.AHEAD)
    feed.close()


def test_each_process_asks_for_its_rows_alone():
    run = train.parallelize(STEP, how="shard_map", devices=4)
    asked = []

    def read(rows):
        asked.append(rows)
        return {"index": rows[None]}

    shared = run.share(8, read)["index"]
    np.testing.assert_array_equal(asked[0], np.arange(8))
    assert shared.shape == (1, 8) and len(shared.addressable_shards) == 4


@pytest.mark.fast
@pytest.mark.parametrize(
    "examples, message",
    [
        ([(np.ones(2), 0), (np.ones(3), 0)], "of one structure, shape and type"),
        ([(np.ones(2), 0), ([np.ones(2)], 0)], "of one structure, shape and type"),
        ([(np.ones(2), 0), (np.ones(2, np.uint8), 0)], "of one structure, shape and type"),
        ([(np.ones(2), 0), (np.full(2, np.nan), 0)], "image must be finite"),
        ([(np.ones(2), 0), (np.ones(2), 7)], r"label must be in \[0, 3\)"),
        ([np.ones(2), np.ones(2)], r"examples\[0\] must be \(image, label\) or a mapping"),
        ([{"x": 1}, {"x": 1}], r"got \['x'\]"),
        ([None, None], "got 'NoneType'"),
    ],
)
def test_bad_examples_are_refused(examples, message):
    with pytest.raises(DataError, match=message):
        Source(examples, classes=3)[:]


@pytest.mark.fast
def test_a_bad_value_is_traced_to_its_example():
    with pytest.raises(DataError, match=r"label must be in \[0, 3\), got \{0: 9\}") as error:
        Source([(1.0, i) for i in range(12)], classes=3)[np.array([2, 9])]
    assert error.value.__notes__ == ["Source: while example 9 was read"]


@pytest.mark.fast
def test_bad_sources_are_refused():
    with pytest.raises(TypeError, match="examples must be a sequence of examples, got 'generator'"):
        Source(x for x in [])
    with pytest.raises(DataError, match="examples must be 1 to 2.* leave repeat"):
        Source(range(2**31))
    with pytest.raises(DataError, match="got 0"):
        Source([])
    with pytest.raises(DataError, match=r"indices must be in \[0, 22\)"):
        Source(Counted())[np.array([22])]
    with pytest.raises(DataError, match="dataset.classes must be at most the network's number of"):
        fit(Source(Counted(), classes=4))


def test_a_grain_map_dataset_is_a_source():
    grain = pytest.importorskip("grain")
    raw = grain.MapDataset.source(list(range(22)))
    decoded = raw.map(lambda i: (DATASET.image[i], DATASET.label[i]))
    part = Source(decoded, classes=3)[np.array([3, 21])]
    np.testing.assert_array_equal(part.image, DATASET.image[[3, 21]])
    with pytest.raises(DataError, match="leave repeat"):
        Source(decoded.repeat())
    with pytest.raises(DataError, match="got 'NoneType'"):
        Source(decoded.filter(lambda pair: pair[1] > 0), classes=3)[:1]


@pytest.mark.fast
def test_what_is_no_data_set_is_refused_with_what_makes_one():
    with pytest.raises(TypeError, match=r"Source, got 'Counted'; data.Source\(dataset\) reads"):
        fit(Counted())
    source = Source(Counted(), classes=3)
    assert repr(source) == "Source(classes=3, threads=8)"
    for divide in (
        lambda: data.split(source, (0.5, 0.5)),
        lambda: data.k_fold(source, 2),
        lambda: data.prepare(data.standardize, source),
    ):
        with pytest.raises(TypeError, match=r"an ArrayDataset, got 'Source'; .*np.arange\(n\)"):
            divide()
    with pytest.raises(ConfigError, match="directory must be the folder .*, got None"):
        fit(source, resume=True)


def test_what_is_not_on_the_devices_is_no_test_set():
    with pytest.raises(TypeError, match=r"test must be an ArrayDataset, got 'Source'; of a Source"):
        fit(DATASET, test=Source(Counted()))
    with pytest.raises(
        TypeError, match="weights must be 22 finite numbers >= 0, not all 0, got 'b"
    ):
        fit(DATASET, weights="balanced")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weights": np.ones(3)}, "weights must be 22 finite numbers >= 0, not all 0"),
        ({"weights": np.full(22, -1.0)}, "weights must be 22 finite numbers"),
        ({"weights": np.zeros(22)}, "weights must be 22 finite numbers"),
    ],
)
def test_bad_weights_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        fit(DATASET, **options)
