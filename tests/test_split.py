"""Parts and folds: proportions, groups, determinism, and what a test set is for."""

import pathlib

import numpy as np
import pytest

from jaxtrain import data
from jaxtrain.errors import ConfigError, DataError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "sklearn_data.npz")


def numbered(label, classes=None):
    """A data set whose images are the numbers of the examples."""
    return data.ArrayDataset(np.arange(len(label)), label, classes=classes)


RNG = np.random.default_rng(2)
LABEL = RNG.choice(3, 300, p=[0.6, 0.3, 0.1]).astype(np.int32)
GROUP = np.sort(RNG.integers(0, 40, 300))  # of about 7 examples


@pytest.mark.fast
@pytest.mark.parametrize("stratified", [True, False])
def test_no_group_is_in_two_parts(stratified):
    dataset = numbered(LABEL, 3)
    parts = data.split(dataset, (0.6, 0.2, 0.2), seed=1, stratified=stratified, groups=GROUP)
    together = np.concatenate([part.image for part in parts])
    np.testing.assert_array_equal(np.sort(together), np.arange(300))
    groups = [set(GROUP[part.image]) for part in parts]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    # Groups have 4 to 12 examples, and the small ones come last: each part is off by one of those.
    assert abs(np.array([len(part) for part in parts]) - [180, 60, 60]).max() <= 4
    if stratified:
        counts = np.array([np.bincount(part.label, minlength=3) for part in parts])
        target = np.outer([0.6, 0.2, 0.2], np.bincount(LABEL))
        assert abs(counts - target).max() <= 4
    names = np.array([f"writer {g}" for g in GROUP])
    again = data.split(dataset, (180, 60, 60), seed=1, stratified=stratified, groups=names)
    sizes = [sorted(len(p) for p in each) for each in (parts, again)]
    assert sizes[0] == sizes[1]


def test_groups_of_one_are_examples():
    parts = data.split(numbered(LABEL, 3), (0.5, 0.5), groups=np.arange(300))
    counts = np.array([np.bincount(part.label) for part in parts])
    assert abs(counts[0] - counts[1]).max() <= 1
    other = data.split(numbered(LABEL, 3), (0.5, 0.5), groups=np.arange(300), seed=1)
    assert not np.array_equal(parts[0].image, other[0].image)


@pytest.mark.fast
def test_folds_are_fixed_for_good():
    dataset = numbered(np.arange(9.0))
    folds = data.k_fold(dataset, 3, stratified=False)
    assert [v.image.tolist() for _, v in folds] == [[1, 2, 6], [0, 7, 8], [3, 4, 5]]
    groups = [0, 0, 0, 1, 1, 2, 2, 3, 4]
    folds = data.k_fold(dataset, 3, stratified=False, groups=groups)
    assert [v.image.tolist() for _, v in folds] == [[0, 1, 2], [5, 6, 7], [3, 4, 8]]


@pytest.mark.fast
def test_folds_have_as_many_of_each_class_as_sklearn_s():
    label = VECTORS["label"].astype(np.int32)
    folds = list(data.k_fold(numbered(label, 4), 5, seed=3))
    counts = [np.bincount(validation.label, minlength=4) for _, validation in folds]
    np.testing.assert_array_equal(counts, VECTORS["fold counts"])
    for train, validation in folds:
        np.testing.assert_array_equal(
            np.sort(np.concatenate([train.image, validation.image])), np.arange(103)
        )
        assert (np.diff(train.image) > 0).all()  # in the order of the whole
    validated = np.concatenate([validation.image for _, validation in folds])
    np.testing.assert_array_equal(np.sort(validated), np.arange(103))


def test_folds_depend_on_the_seed_alone():
    def folds(seed):
        return np.concatenate([v.image for _, v in data.k_fold(numbered(LABEL, 3), 4, seed=seed)])

    np.testing.assert_array_equal(folds(1), folds(1))
    assert not np.array_equal(folds(1), folds(2))


@pytest.mark.fast
def test_no_group_is_in_two_folds():
    folds = list(data.k_fold(numbered(LABEL, 3), 5, groups=GROUP))
    for train, validation in folds:
        assert not set(GROUP[train.image]) & set(GROUP[validation.image])
    # As above, by one of the small groups.
    assert abs(np.array([len(validation) for _, validation in folds]) - 60).max() <= 4
    # A class per group: sizes must be balanced too, or a fold stays empty.
    pairs = data.k_fold(numbered(np.array([0, 1], np.int32), 2), 2, groups=["a", "b"])
    assert [len(validation) for _, validation in pairs] == [1, 1]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda d: data.k_fold(d, 1), ConfigError, "k_fold: k must be an int >= 2"),
        (lambda d: data.k_fold(d, 301), DataError, "of 301 examples or groups, got 300"),
        (lambda d: data.k_fold(d, 41, groups=GROUP), DataError, "of 41 examples or groups, got 40"),
        (lambda d: data.k_fold(d, 2, groups=GROUP[1:]), DataError, r"of shape \(300,\), got"),
        (lambda d: data.k_fold(d, 2, seed=-1), ConfigError, "seed must be an int >= 0"),
        (lambda d: data.k_fold(d, 2, stratified=1), TypeError, "stratified must be True or False"),
        (lambda d: data.k_fold(numbered(LABEL), 2), ConfigError, "pass stratified=False"),
        (
            lambda d: data.split(d, (0.5, 0.5), groups=GROUP[1:]),
            DataError,
            "groups must be of shape",
        ),
        (lambda d: data.split(d, (0.99, 0.01), groups=LABEL), DataError, "at least one example"),
        (
            lambda d: data.split(d, (0.5, 0.5), groups=LABEL * 0),
            DataError,
            "split: part 1 must be of",
        ),
        (
            lambda d: data.split(d, (0.999, 0.001)),
            DataError,
            "split: part 1 must be of at least one",
        ),
        (lambda d: data.split(d, (True, 299)), ConfigError, "split: sizes must be > 0, integers"),
        (lambda d: data.split(d, None), ConfigError, "split: sizes must be > 0, integers"),
        (
            lambda d: data.split(d, (0.5, 0.5), groups=np.where(GROUP == 3, np.nan, GROUP)),
            DataError,
            r"split: groups must be without missing values, got \{\d+: nan\}",
        ),
        (
            lambda d: data.k_fold(d, 2, groups=["a", None, *"b" * 298]),
            DataError,
            r"k_fold: groups must be without missing values, got \{1: None\}",
        ),
        (lambda d: data.cross_validate(lambda *_: None, d, 2), DataError, r"got \{0: None\}"),
        (
            lambda d: data.cross_validate(lambda t, v: {"a": 1.0, "b": np.nan}, d, 2),
            DataError,
            r"cross_validate: f must be a function that returns finite numbers, got \{0: \{'a'",
        ),
        (lambda d: data.cross_validate(lambda *_: {}, d, 2), DataError, r"got \{0: \{\}\}"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(numbered(LABEL, 3))


@pytest.mark.fast
def test_cross_validation_by_its_formulas():
    def f(train, validation):
        assert len(train) + len(validation) == 300
        return {"size": len(train), "mean": validation.image.mean()}

    scores = data.cross_validate(f, numbered(LABEL, 3), 7, seed=5)
    v = np.array([val.image.mean() for _, val in data.k_fold(numbered(LABEL, 3), 7, seed=5)])
    np.testing.assert_array_equal(scores.values["mean"], v)
    assert scores.mean["mean"] == v.mean()
    std = (((v - v.mean()) ** 2).sum() / 6) ** 0.5
    # A sum of seven squares, a quotient and a root, in both: some 20 of 2^-53.
    np.testing.assert_allclose(scores.std["mean"], std, rtol=20 * 2**-53)
    np.testing.assert_allclose(scores.error["mean"], std / 7**0.5, rtol=20 * 2**-53)
    number = data.cross_validate(
        lambda train, validation: 3.0, numbered(LABEL), 2, stratified=False, groups=GROUP
    )
    assert number.mean == 3 and number.std == number.error == 0
    np.testing.assert_array_equal(number.values, [3, 3])


def test_usual_ratios():
    dataset = numbered(np.repeat(np.arange(2, dtype=np.int32), 500), 2)
    sizes = {k: [len(p) for p in data.split(dataset, r)] for k, r in data.RATIOS.items()}
    assert sizes == {
        "small": [600, 200, 200],
        "small, fixed model": [700, 300],  # no validation set: nothing can be chosen
        "large": [980, 10, 10],
    }


def test_what_is_chosen_on_the_test_set_looks_too_good_there():
    """Of 200 models that guess, the best on 100 examples, there and on 100 fresh ones."""
    rng = np.random.default_rng(0)
    right = rng.random((50, 2, 200, 100)) < 0.5  # trial, validation and test set, model, example
    validation, test = right.mean(-1).swapaxes(0, 1)
    best = validation.argmax(-1)[:, None]
    chosen = np.take_along_axis(validation, best, -1).mean()
    honest = np.take_along_axis(test, best, -1).mean()
    # The largest of m normal deviates lies near sqrt(2 ln m) - 0.5 = 2.8 of them, here of 0.05;
    # the means are of 50 trials: their standard errors are below 0.05 / sqrt(50) = 0.007.
    assert chosen > 0.5 + 2.3 * 0.05
    assert abs(honest - 0.5) < 4 * 0.007
