import functools
import hashlib
import importlib.resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import data
from jaxtrain.data import _digits, _order
from jaxtrain.errors import ConfigError, DataError


@pytest.fixture
def source():
    return pytest.importorskip("sklearn.datasets").load_digits()


@pytest.fixture
def standard_scaler():
    return pytest.importorskip("sklearn.preprocessing").StandardScaler()


@pytest.mark.fast
@pytest.mark.parametrize("n, batch_size", [(12, 4), (13, 4), (5, 5), (7, 1)])
def test_every_epoch_has_every_example_once(n, batch_size):
    order = data.Order(n, batch_size, seed=3)
    steps = order.steps_per_epoch
    epochs = [[order.indices(e * steps + i) for i in range(steps)] for e in range(3)]
    for batches in epochs:
        slots = np.concatenate(batches)
        assert slots.dtype == np.int32 and slots.shape == (steps * batch_size,)
        np.testing.assert_array_equal(slots[n:], -1)
        np.testing.assert_array_equal(np.sort(slots[:n]), np.arange(n))
    if n > 5:
        assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.fast
def test_a_run_resumes_at_every_step():
    whole = [data.Order(11, 4, seed=1).indices(step) for step in range(9)]
    for start in range(9):
        _order.permutation.cache_clear()
        order = data.Order(11, 4, seed=1)
        np.testing.assert_array_equal([order.indices(s) for s in range(start, 9)], whole[start:])


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_shards_together_have_every_example(shards):
    order = data.Order(40, 16, seed=2)
    parts = [np.split(order.indices(step), shards) for step in range(order.steps_per_epoch)]
    seen = np.sort(np.concatenate([i for part in parts for i in part]))
    np.testing.assert_array_equal(seen, [-1] * 8 + list(range(40)))


@pytest.mark.fast
def test_weights_say_how_often_an_example_is_drawn():
    weights = np.array([0.0, 1, 2, 0, 5, 0])
    order = data.Order(6, 4, seed=1, weights=weights)
    epochs = 2000
    slots = np.concatenate([order.indices(step) for step in range(2 * epochs)])
    counts = np.bincount(slots[slots >= 0], minlength=6)
    assert counts.sum() == 6 * epochs and not counts[weights == 0].any()
    share = weights / weights.sum()
    # Five standard deviations of a binomial.
    assert (abs(counts - 6 * epochs * share) <= 5 * np.sqrt(6 * epochs * share * (1 - share))).all()
    np.testing.assert_array_equal(
        order.indices(7), data.Order(6, 4, seed=1, weights=weights).indices(7)
    )
    heavy = data.Order(3, 3, weights=np.array([1e-300, 1e300, 0]))
    assert heavy.indices(0).tolist() == [1, 1, 1]


@pytest.mark.fast
def test_the_permutation_never_changes():
    np.testing.assert_array_equal(_order.permutation(8, 0, 0), [0, 2, 1, 5, 4, 3, 6, 7])


def test_orders_differ_by_seed_and_epoch_and_without_shuffle_are_sorted():
    first = [tuple(data.Order(50, 50, seed=s).indices(e)) for s in range(3) for e in range(3)]
    assert len(set(first)) == 9
    np.testing.assert_array_equal(data.Order(5, 3, shuffle=False).indices(3), [3, 4, -1])


def test_a_batch_belongs_to_the_caller():
    order = data.Order(4, 4)
    order.indices(0)[:] = -7
    assert order.indices(0).min() == 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: data.Order(3, 4), "batch_size must be at most the number of examples, 3, got 4"),
        (lambda: data.Order(3, 0), "batch_size must be an int >= 1, got 0"),
        (lambda: data.Order(0, 1), "n must be an int >= 1, got 0"),
        (lambda: data.Order(3, 1, seed=-1), "seed must be an int >= 0, got -1"),
        (lambda: data.Order(3, 1, seed=2**32), "seed must be an int >= 0 and below"),
        (lambda: data.Order(2, 1, weights=[1, 1], shuffle=False), "weights must be None without"),
        (lambda: data.Order(3, 1).indices(-1), "step must be an int >= 0, got -1"),
    ],
)
def test_bad_orders_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.fast
def test_dataset_holds_any_tree_and_selects():
    image = {"left": np.arange(6).reshape(3, 2), "right": np.ones((3, 1), np.float16)}
    dataset = data.ArrayDataset(image, np.array([0.5, 1.5, 2.5]))
    part = dataset[np.array([2, 0])]
    assert len(dataset) == 3 and len(part) == 2 and dataset.classes is None
    np.testing.assert_array_equal(part.image["left"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(part.label, [2.5, 0.5])
    np.testing.assert_array_equal(dataset[-1:].label, [2.5])


@pytest.mark.fast
def test_dataset_narrows_as_jax_would():
    image, label = np.ones((2, 1)), np.array([0, 1], np.uint8)
    dataset = data.ArrayDataset(image, label, classes=2)
    assert dataset.image.dtype == np.float32 and dataset.label.dtype == np.int32
    assert data.ArrayDataset(image, np.array([0, 2**31 - 1])).label.dtype == np.int32
    assert data.ArrayDataset(jnp.ones((2, 1), jnp.bfloat16), label).image.dtype == jnp.bfloat16
    assert data.ArrayDataset(image, label == 1, classes=2).label.dtype == np.int32


def test_dataset_keeps_float64_where_jax_does(x64):
    assert data.ArrayDataset(np.ones((2, 1)), np.arange(2)).image.dtype == np.float64


X, Y = np.zeros((6, 2), np.float32), np.arange(6)
NAN = np.where(np.arange(12).reshape(6, 2) > 8, np.nan, 0)


@pytest.mark.fast
@pytest.mark.parametrize(
    "image, label, classes, message",
    [
        (X, Y[:5], None, r"of one length, got \{'image': 6, 'label': 5\}"),
        (X[:0], Y[:0], None, "of at least one example"),
        ({}, Y, None, "image must be an array or a tree with at least one"),
        ([X, X[:3]], Y, None, r"\{'image\[0\]': 6, 'image\[1\]': 3, 'label': 6\}"),
        (X.astype(object), Y, None, "image must be of bool, integer or float type, got 'object'"),
        (X.astype(str), Y, None, "got '<U"),
        (X.astype(complex), Y, None, "got 'complex128'"),
        (np.zeros(6, "M8[s]"), Y, None, "got 'datetime64"),
        ({"a": 1.0}, Y, None, r"image\['a'\] must be an array with one row per example, got 1.0"),
        (NAN, Y, None, r"finite, got \{\(4, 1\): nan\}; the first of 3 such values"),
        (np.full((6, 1), 1e300), Y, None, "image must be finite"),
        (X, NAN[:, 0], None, r"label must be finite, got \{5: nan\}"),
        (X, Y - 1, 6, r"label must be in \[0, 6\), got \{0: -1\}"),
        (X, Y + 6, 6, r"\{0: 6, 1: 7, 2: 8, 3: 9, 4: 10\}; the first of 6 such labels"),
        (X, Y.astype(float), 6, "integers where classes is given, got 'float32'"),
        (X, Y + 2**31, None, r"in the range of int32, got \{0: 2147483648"),
    ],
)
def test_bad_data_are_refused(image, label, classes, message):
    with pytest.raises(DataError, match=message):
        data.ArrayDataset(image, label, classes=classes)


@pytest.mark.parametrize("indices", [3, np.array([0, -1]), np.array([6]), np.ones(6, bool)])
def test_bad_indices_are_refused(indices):
    with pytest.raises(DataError, match="indices must be"):
        data.ArrayDataset(X, Y)[indices]


@pytest.mark.fast
def test_split_is_stratified_disjoint_and_repeatable():
    label = np.repeat([0, 1, 2], [50, 30, 20])
    dataset = data.ArrayDataset(np.arange(100), label, classes=3)
    parts = data.split(dataset, (0.6, 0.2, 0.2), seed=4)
    expected = [[30, 18, 12], [10, 6, 4], [10, 6, 4]]
    np.testing.assert_array_equal([np.bincount(part.label) for part in parts], expected)
    together = np.concatenate([part.image for part in parts])
    np.testing.assert_array_equal(np.sort(together), np.arange(100))
    again = data.split(dataset, (60, 20, 20), seed=4)
    other = data.split(dataset, (60, 20, 20), seed=5)
    for a, b, c in zip(parts, again, other, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert not np.array_equal(a.image, c.image)


def test_split_is_stratified_to_one_example_in_any_proportion():
    label = np.random.default_rng(0).choice(4, 203, p=[0.55, 0.3, 0.1, 0.05]).astype(np.int32)
    dataset = data.ArrayDataset(np.arange(203), label, classes=4)
    for size in (1, 7, 50, 101, 202):
        first, second = data.split(dataset, (size, 203 - size))
        assert (len(first), len(second)) == (size, 203 - size)
        share = np.bincount(label) * size / 203
        assert abs(np.bincount(first.label, minlength=4) - share).max() <= 1


def test_split_without_classes():
    dataset = data.ArrayDataset(np.arange(10), np.arange(10.0))
    a, b = data.split(dataset, (7, 3), stratified=False)
    assert sorted([*a.image, *b.image]) == list(range(10))
    with pytest.raises(ConfigError, match="pass stratified=False"):
        data.split(dataset, (7, 3))
    for sizes in ((7, 4), (0.5, 0.4), (11, -1), ()):
        with pytest.raises(ConfigError, match="sizes must be > 0"):
            data.split(dataset, sizes, stratified=False)
    with pytest.raises(DataError, match="at least one example"):
        data.split(dataset, (0.01, 0.99), stratified=False)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_standardize_equals_sklearn(standard_scaler, dtype):
    x = np.random.default_rng(0).uniform(0, 200, (3000, 4)).astype(dtype)
    x[:, 3] = 7
    scaler = standard_scaler.fit(x)
    stats = data.standardize.fit(x)
    wide = np.float64 if dtype == np.float64 else np.float32
    assert stats.mean.dtype == stats.std.dtype == wide and stats.mean.shape == (1, 4)
    # Computed in float64, a mean of 3000 to some 1e-14, then rounded once.
    rtol = 2**-24 if wide == np.float32 else 1e-14
    np.testing.assert_allclose(stats.mean[0], scaler.mean_, rtol=rtol)
    np.testing.assert_allclose(stats.std[0, :3], scaler.scale_[:3], rtol=rtol)
    assert stats.std[0, 3] == wide(1e-8)  # the constant feature
    y = data.standardize.apply(stats, x)
    assert y.dtype == wide
    # Values below 2: a mean below 128 and a difference below it round by 2^-18, on a scale of 57;
    # the scale and the quotient by 2^-24.
    np.testing.assert_allclose(y, scaler.transform(x), atol=4e-7, rtol=0)
    # The same, a product and a sum below 256, of 2^-17.
    back = data.standardize.invert(stats, y)
    np.testing.assert_allclose(back, x, rtol=0, atol=58 * 4e-7 + 2**-16)


@pytest.mark.fast
def test_standardize_divides_by_sigma_not_its_square():
    x = np.array([[1.0, 10.0], [3.0, 50.0]])
    y = data.standardize.apply(data.standardize.fit(x), x)
    np.testing.assert_array_equal(y, [[-1, -1], [1, 1]])


@pytest.mark.parametrize(
    "per, shape, axes",
    [("feature", (1, 4, 4, 3), 0), ("channel", (1, 1, 1, 3), (0, 1, 2)), ("all", (1,) * 4, None)],
)
def test_standardize_by_feature_channel_and_all(per, shape, axes):
    x = np.random.default_rng(1).integers(0, 256, (50, 4, 4, 3), np.uint8)
    stats = data.standardize.fit(x, per=per)
    assert stats.mean.shape == stats.std.shape == shape
    # Rounded to float32 once.
    np.testing.assert_allclose(stats.mean, x.mean(axes, keepdims=True), rtol=2**-24)
    np.testing.assert_allclose(stats.std, x.std(axes, keepdims=True), rtol=2**-24)
    centred = data.standardize.fit(x, per=per, scale=False)
    np.testing.assert_array_equal(data.standardize.apply(centred, x), x - stats.mean)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "bfloat16", "float32"])
def test_standardize_is_a_layer_under_jit(standard_scaler, dtype):
    x = jnp.arange(24).reshape(4, 6).astype(dtype)
    layer = functools.partial(data.standardize.apply, data.standardize.fit(x))
    y = jax.jit(layer)(x)
    assert y.dtype == (x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32)
    expected = standard_scaler.fit_transform(np.arange(24.0).reshape(4, 6))
    # Values below 2: half a unit in the last place of the result's type, and in float32 three of
    # 2^-24 before: the scale, the difference and the quotient.
    atol = float(jnp.finfo(y.dtype).eps) / 2 + 2 * 3 * 2**-24
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=atol, rtol=0)


def test_standardize_in_float64(x64):
    x = 1e8 + jnp.arange(3.0)[:, None]  # a float32 mean would be 4 off
    y = data.standardize.apply(data.standardize.fit(x), x)
    # 1e8 has a unit of 1.5e-8 in the last place, on a scale of 0.82.
    np.testing.assert_allclose(y[:, 0], np.array([-1, 0, 1]) * 1.5**0.5, rtol=0, atol=2e-8)


def test_standardize_refuses():
    with pytest.raises(DataError, match="x must be an array with at least one example"):
        data.standardize.fit(X[:0])
    with pytest.raises(ConfigError, match="per must be one of"):
        data.standardize.fit(X, per="pixel")
    with pytest.raises(ConfigError, match="eps must be a finite number > 0"):
        data.standardize.fit(X, eps=0)


@pytest.mark.fast
def test_digits_are_those_of_sklearn(source):
    train, test = data.digits(split="writers")
    assert train.image.dtype == np.uint8 and train.image.shape == (1415, 8, 8, 1)
    np.testing.assert_array_equal(train.image[..., 0], source.images[:1415])
    np.testing.assert_array_equal(test.image[..., 0], source.images[-360:])
    np.testing.assert_array_equal(train.label, source.target[:1415])
    np.testing.assert_array_equal(test.label, source.target[-360:])


def test_digits_by_writer_are_cut_between_two_writers(source):
    # Every writer begins with 0..9 twice or more; the next begins at 1545.
    label = source.target
    starts = [i for i in range(1400, 1778) if np.array_equal(label[i : i + 10], range(10))]
    assert 1415 in starts and not [i for i in starts if 1437 <= i < 1545]


@pytest.mark.fast
def test_digits_stratified_are_fixed_for_good(source):
    train, test = data.digits()
    assert (len(train), len(test)) == (1437, 360)
    share = np.bincount(source.target) * 360 / 1797
    assert abs(np.bincount(test.label) - share).max() <= 1
    rows = lambda *images: sorted(x.tobytes() for image in images for x in image)  # noqa: E731
    assert rows(train.image, test.image) == rows(source.images.astype(np.uint8))
    assert hashlib.sha256(test.image.tobytes()).hexdigest()[:16] == "a243fa22090fe17f"


def test_changed_digits_are_refused(monkeypatch, tmp_path):
    packed = (importlib.resources.files("jaxtrain.data") / "digits.npz").read_bytes()
    (tmp_path / "digits.npz").write_bytes(packed[:-1] + b"!")
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match=f"digits.npz must be of SHA-256 {_digits.SHA256}"):
        data.digits()
    with pytest.raises(ConfigError, match="split must be one of"):
        data.digits(split="random")
