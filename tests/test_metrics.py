import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import losses, metrics
from jaxtrain.errors import ConfigError

CROSS_ENTROPY = functools.partial(metrics.mean_loss, loss=losses.softmax_cross_entropy)
CLASSIFICATION = {
    "accuracy": metrics.accuracy,
    "top_k": functools.partial(metrics.top_k, k=2),
    "mean_loss": CROSS_ENTROPY,
    "confusion_matrix": metrics.confusion_matrix,
}


@pytest.fixture
def sklearn_metrics():
    return pytest.importorskip("sklearn.metrics")


def example(n=24, classes=5):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, classes)).round(1).astype(np.float32)
    return z, rng.integers(0, classes, n).astype(np.int32), rng.random(n) < 0.7


def assert_equal(record, expected):
    # Sums of at most 24 losses, below 64: 24 half-units in the last place.
    close = functools.partial(np.testing.assert_allclose, atol=24 * 2**-19, rtol=0)
    jax.tree.map(close, record, expected)


@pytest.mark.fast
def test_accuracy_and_top_k_equal_sklearn(sklearn_metrics):
    z, y, mask = example()
    z += 1e-3 * np.arange(z.size, dtype=np.float32).reshape(
        z.shape
    )  # no ties: sklearn's rule differs
    accuracy = metrics.accuracy(z, y, mask)
    assert int(accuracy.total) == (z.argmax(1) == y)[mask].sum()
    assert int(accuracy.count) == mask.sum()
    for k in range(1, 6):
        expected = (
            sklearn_metrics.top_k_accuracy_score(
                y[mask], z[mask], k=k, labels=range(5), normalize=False
            )
            if k < 5
            else mask.sum()
        )
        assert int(metrics.top_k(z, y, mask, k=k).total) == expected


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_ties_go_to_the_first_class(k):
    z, y, _ = example(200)
    z = z.round(0)
    order = np.argsort(-z, axis=1, kind="stable")[:, :k]
    right = (order == y[:, None]).any(1).sum()
    assert int(metrics.top_k(z, y, None, k=k).total) == right


def test_soft_labels_count_as_their_largest():
    soft = jnp.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert metrics.accuracy(jnp.eye(3)[:2], soft, None).total == 0
    assert metrics.accuracy(jnp.eye(3)[jnp.array([1, 0])], soft, None).total == 2


@pytest.mark.fast
def test_nan_outputs_and_labels_that_are_no_class_are_wrong():
    z = jnp.array([[jnp.nan] * 3, [jnp.nan, 0, 1], [0, 1, jnp.nan], [1, 0, 0], [1, 0, 0]])
    y = jnp.array([0, 2, 2, -1, 3])
    record = metrics.accuracy(z, y, None)
    assert (record.total, record.count) == (0, 5)
    assert metrics.top_k(z, y, None, k=2).total == 1  # row 1: only the NaN is above
    confusion = metrics.confusion_matrix(z, y, None)
    np.testing.assert_array_equal(confusion.counts, np.zeros((3, 3)))
    np.testing.assert_array_equal(confusion.missed, [1, 0, 2])


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_masked_examples_do_not_matter(name):
    metric = CLASSIFICATION[name]
    z, y, mask = example()
    dirty = np.where(mask[:, None], z, np.nan)
    for m in (mask, mask.astype(np.int32), mask.astype(np.float32)):
        assert_equal(metric(dirty, y, m), metric(z[mask], y[mask], None))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_records_add_over_batches_and_devices(name):
    metric = CLASSIFICATION[name]
    z, y, mask = example()
    whole = metric(z, y, mask)
    parts = [metric(z[i : i + 7], y[i : i + 7], mask[i : i + 7]) for i in range(0, 24, 7)]
    assert_equal(functools.reduce(operator.add, parts), whole)
    shards = jax.tree.map(lambda x: x.reshape(4, 6, *x.shape[1:]), (z, y, mask))
    summed = jax.vmap(lambda *a: jax.lax.psum(metric(*a), "i"), axis_name="i", out_axes=None)
    assert_equal(summed(*shards), whole)


def test_means_of_uneven_batches_are_not_averaged():
    z, y = jnp.eye(2)[jnp.array([0, 0, 0, 1])], jnp.zeros(4, jnp.int32)
    record = metrics.accuracy(z[:3], y[:3], None) + metrics.accuracy(z[3:], y[3:], None)
    assert record.value == 0.75


def test_counts_are_exact_beyond_float32():
    # 2**24 + 1 is not a float32: the sum would stay at 2**24.
    one = metrics.accuracy(jnp.eye(2), jnp.array([0, 0]), jnp.array([True, False]))
    many = metrics.Mean(jnp.int32(2**24), jnp.int32(2**24)) + one
    assert int(many.total) == int(many.count) == 2**24 + 1


def test_floating_masks_are_weights():
    record = metrics.rmse(jnp.array([1.0, 3.0]), jnp.zeros(2), jnp.array([0.25, 0.5]))
    assert record.value == np.float32(np.sqrt(4.75 / 0.75))
    half = jnp.full(2, 0.5, jnp.bfloat16)
    assert metrics.accuracy(jnp.eye(2), jnp.arange(2), half).count.dtype == jnp.float32


def test_masks_of_sequences():
    z, y = jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), jnp.int32)
    assert metrics.accuracy(z, y, jnp.array([True, False])).count == 3
    assert metrics.confusion_matrix(z, y, jnp.ones((2, 3), bool)).counts[0, 0] == 6
    with pytest.raises(
        ConfigError, match=r"mask must be of the leading axes of \(2, 3\), got \(3,\)"
    ):
        metrics.accuracy(z, y, jnp.ones(3, bool))


@pytest.mark.fast
def test_rmse(sklearn_metrics):
    rng = np.random.default_rng(1)
    y, v = rng.normal(size=(2, 6, 3)).astype(np.float32)
    expected = sklearn_metrics.mean_squared_error(v.ravel(), y.ravel()) ** 0.5
    # 18 positive terms, each rounded a few times: 20 half-units.
    np.testing.assert_allclose(metrics.rmse(y, v, None).value, expected, rtol=1.2e-6)


@pytest.mark.fast
def test_confusion_matrix_equals_sklearn(sklearn_metrics):
    z, y, mask = example(200, 4)
    y[y == 3] = 1  # no example of class 3
    z[:, 0] = -9  # nobody says class 0
    record = jax.jit(metrics.confusion_matrix)(z, y, mask)
    prediction = z.argmax(1)
    expected = sklearn_metrics.confusion_matrix(y[mask], prediction[mask], labels=range(4))
    np.testing.assert_array_equal(record.counts, expected)
    for zero in (0.0, np.nan):
        scores = sklearn_metrics.precision_recall_fscore_support(
            y[mask], prediction[mask], labels=range(4), zero_division=zero
        )
        # One division of whole numbers in float32.
        for ours, theirs in zip(
            (record.precision, record.recall, record.f1), scores[:3], strict=True
        ):
            np.testing.assert_allclose(ours(zero_division=zero), theirs, rtol=1.2e-7)
        np.testing.assert_array_equal(record.support, scores[3])


def test_nothing_counted_is_nan():
    record = metrics.accuracy(jnp.eye(2), jnp.arange(2), jnp.zeros(2, bool))
    assert jnp.isnan(record.value)
    assert jnp.isnan(jax.device_get(record).value)


def test_records_keep_their_types_under_x64(x64):
    z, y, mask = example()
    for metric in CLASSIFICATION.values():
        types = [{x.dtype for x in jax.tree.leaves(metric(z, y, m))} for m in (mask, None)]
        assert types[0] == types[1] <= {jnp.dtype("int32"), jnp.dtype("float32")}


def test_bad_arguments_are_refused():
    z, y, mask = example()
    with pytest.raises(ConfigError, match="k must be at most the number of classes, 5, got 6"):
        metrics.top_k(z, y, mask, k=6)
    with pytest.raises(ConfigError, match="accuracy|top_k: labels must be of shape"):
        metrics.accuracy(z, y[:3], mask)
