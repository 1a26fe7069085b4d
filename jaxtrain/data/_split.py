"""The division of a data set: into parts, and into folds for cross-validation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset, check_in_memory
from ._order import check_seed, permutation
from .clean._table import missing

_SPLIT = 2**63  # a stream of its own: no epoch gets that far

# Usual sizes of training, validation and test set. Without the second nothing can be chosen, not
# even when to stop: the error of whatever is best on the test set is too good there.
RATIOS: Mapping[str, tuple[float, ...]] = {
    "small": (0.6, 0.2, 0.2),
    "small, fixed model": (0.7, 0.3),
    "large": (0.98, 0.01, 0.01),  # of a million examples or so
}


def split(
    dataset: ArrayDataset,
    sizes: Sequence[int] | Sequence[float],
    *,
    seed: int = 0,
    stratified: bool = True,
    groups: Any = None,
) -> tuple[ArrayDataset, ...]:
    """Divides a data set at random into parts, the same ones on every machine.

    Each part keeps the order of the whole. In a stratified split example r of the n_c of its
    class, in random order, is placed at (r + 1/2) / n_c, and the parts are cut from the examples
    sorted by place: each class is in each part in proportion, to about one example.

    The parts of `ArrayDataset(np.arange(n), labels, classes=K)` are numbers of examples, `.image`,
    to divide by them what is no ArrayDataset, a Source's examples or a table, and groups too.

    Args:
        dataset: The examples.
        sizes: Either the numbers of examples, integers with the sum len(dataset), or fractions,
            floats with the sum 1.
        seed: Integer in [0, 2**32).
        stratified: Whether to keep the proportions of the classes; needs `dataset.classes`.
        groups: What each example belongs to, (n,), such as its writer or patient, integers or
            strings, none missing. No group is in two parts; sizes and proportions are then met as
            well as the groups allow, the largest ones placed first.

    Returns:
        One data set per size.

    Raises:
        ConfigError: If the sizes do not add up or there are no classes to stratify by.
        DataError: If a part would be empty, or there is not one group for each example.

    Example:
        >>> dataset = ArrayDataset(np.zeros((100, 2)), np.arange(100) % 4, classes=4)
        >>> train, validation = split(dataset, (0.8, 0.2))
        >>> np.bincount(validation.label)
        array([5, 5, 5, 5])
    """
    check_in_memory("split", "dataset", dataset)
    n = len(dataset)
    check_seed("split", seed)
    fractions = np.asarray(sizes, float)
    if np.issubdtype(np.asarray(sizes).dtype, np.integer):
        fractions = fractions / n
    flags = [isinstance(size, bool) for size in np.asarray(sizes, object).flat]
    if any(flags) or not abs(fractions.sum() - 1) < 1e-9 or fractions.min() <= 0:
        _check.fail("split", "sizes", f"> 0, integers of sum {n} or floats of sum 1", sizes)
    label = _label("split", dataset, stratified)
    order = permutation(n, seed, _SPLIT)
    if groups is not None:
        number = _place_groups("split", groups, order, label, fractions)
        parts = [np.flatnonzero(number == i) for i in range(len(fractions))]
    else:
        place = np.empty(n)
        for c in np.unique(label):
            (members,) = np.nonzero(label[order] == c)
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(place, kind="stable")]
        cuts = np.rint(np.cumsum(fractions)[:-1] * n).astype(int)
        parts = [np.sort(part) for part in np.split(order, cuts)]
    for i, part in enumerate(parts):
        if not len(part):
            fix = f"sizes {sizes} need more examples or groups"
            _check.fail("split", f"part {i}", "of at least one example", 0, fix, DataError)
    return tuple(dataset[part] for part in parts)


def k_fold(
    dataset: ArrayDataset, k: int, *, seed: int = 0, stratified: bool = True, groups: Any = None
) -> Iterator[tuple[ArrayDataset, ArrayDataset]]:
    """Divides a data set at random into k folds, each of them once the validation set.

    The folds are the same on every machine. They differ by at most one example, in a stratified
    division by at most one of each class.

    Args:
        dataset: The examples.
        k: Number of folds, at least 2.
        seed: Integer in [0, 2**32).
        stratified: Whether to keep the proportions of the classes; needs `dataset.classes`.
        groups: What each example belongs to, as for `split`: no group is in two folds, and folds
            are as equal as the groups allow.

    Returns:
        An iterator over k pairs (train, validation), each in the order of the whole.

    Raises:
        ConfigError: If k is out of range or there are no classes to stratify by.
        DataError: If there are fewer than k examples or groups.

    Example:
        >>> dataset = ArrayDataset(np.zeros((30, 2)), np.arange(30) % 3, classes=3)
        >>> [np.bincount(validation.label).tolist() for _, validation in k_fold(dataset, 3)]
        [[4, 3, 3], [3, 4, 3], [3, 3, 4]]

    References:
        M. Stone, Cross-Validatory Choice and Assessment of Statistical Predictions, 1974.
    """
    check_in_memory("k_fold", "dataset", dataset)
    n = len(dataset)
    check_seed("k_fold", seed)
    _check.integer("k_fold", "k", k, least=2)
    label = _label("k_fold", dataset, stratified)
    order = permutation(n, seed, _SPLIT)
    if groups is not None:
        number = _place_groups("k_fold", groups, order, label, np.full(k, 1 / k))
    else:
        number = np.empty(n, int)
        number[order[np.argsort(label[order], kind="stable")]] = np.arange(n) % k
    found = len(np.unique(number))
    if found < k:
        _check.fail("k_fold", "dataset", f"of {k} examples or groups", found, error=DataError)
    pairs = ((np.flatnonzero(number != i), np.flatnonzero(number == i)) for i in range(k))
    return ((dataset[train], dataset[validation]) for train, validation in pairs)


class Scores(NamedTuple):
    """What `cross_validate` found: a number for each fold, or the same tree of them.

    Attributes:
        values: (k,), in the order of the folds.
        mean: Their mean.
        std: Their standard deviation, sqrt(sum (v - mean)^2 / (k - 1)).
        error: The standard error of the mean, std / sqrt(k), as if the folds were independent:
            they share training examples, and it is too small by some unknown factor.
    """

    values: Any
    mean: Any
    std: Any
    error: Any


def cross_validate(
    f: Callable[[ArrayDataset, ArrayDataset], Any],
    dataset: ArrayDataset,
    k: int,
    *,
    seed: int = 0,
    stratified: bool = True,
    groups: Any = None,
) -> Scores:
    """Trains and validates k times, on the folds of `k_fold`.

    Args:
        f: Called with a training and a validation set, returns a finite number, or a dict or
            another tree of them. Whatever is fitted, preprocessing too, is fitted in here.
        dataset: The examples; a test set is kept apart from them.
        k: Number of folds, at least 2.
        seed: As for `k_fold`.
        stratified: As for `k_fold`.
        groups: As for `k_fold`.

    Returns:
        All numbers, with mean, standard deviation and standard error, each as f returns them.

    Raises:
        DataError: If f returns no number or one that is not finite.

    Example:
        >>> dataset = ArrayDataset(np.zeros((6, 2)), np.arange(6.0))
        >>> def error(train, validation):
        ...     return {"mse": ((validation.label - train.label.mean()) ** 2).mean()}
        >>> scores = cross_validate(error, dataset, 3, stratified=False)
        >>> scores.values["mse"].round(2).tolist(), round(float(scores.mean["mse"]), 2)
        ([6.06, 9.25, 1.56], 5.62)
    """
    pairs = k_fold(dataset, k, seed=seed, stratified=stratified, groups=groups)
    found = []
    for i, (train, validation) in enumerate(pairs):
        score = f(train, validation)
        numbers = jax.tree.leaves(score, is_leaf=lambda leaf: leaf is None)
        if not (numbers and np.isfinite(np.array(numbers, np.float64)).all()):  # None becomes NaN
            rule, value = "a function that returns finite numbers", {i: score}
            _check.fail("cross_validate", "f", rule, value, "shown as {fold: value}", DataError)
        found.append(score)
    values = jax.tree.map(lambda *v: np.array(v, np.float64), *found)
    mean = jax.tree.map(lambda v: float(v.mean()), values)
    std = jax.tree.map(lambda v: float(v.std(ddof=1)), values)
    return Scores(values, mean, std, jax.tree.map(lambda s: s / k**0.5, std))


def _label(where, dataset, stratified):
    """Returns what to stratify by: the classes, or zeros."""
    _check.flag(where, "stratified", stratified)
    if stratified and dataset.classes is None:
        _check.fail(where, "dataset", "one with classes", None, "pass stratified=False")
    return dataset.label if stratified else np.zeros(len(dataset), int)


def _place_groups(where, groups, order, label, fractions):
    """Returns the part of each example, the same for all of a group.

    With targets t_pc = fraction_p * (examples of class c), and all examples as one more class, each
    group goes where it lowers sum_pc (n_pc - t_pc)^2 / t_pc most; those of many examples first.
    """
    groups = np.asarray(groups)
    if groups.shape != label.shape:
        _check.fail(where, "groups", f"of shape {label.shape}", groups.shape, error=DataError)
    null = missing(groups)
    if null.any():
        value = {int(null.argmax()): groups[null].tolist()[0]}
        _check.fail(where, "groups", "without missing values", value, error=DataError)
    _, first, group = np.unique(groups[order], return_index=True, return_inverse=True)
    classes, code = np.unique(label[order], return_inverse=True)
    counts = np.zeros((len(first), len(classes) + 1))
    np.add.at(counts, (group, code), 1)
    counts[:, -1] = counts.sum(1)
    target = fractions[:, None] * counts.sum(0)
    filled, part = np.zeros_like(target), np.empty(len(first), int)
    for g in np.lexsort((first, -counts[:, -1])):
        change = (filled + counts[g] - target) ** 2 - (filled - target) ** 2
        part[g] = (change / target).sum(1).argmin()
        filled[part[g]] += counts[g]
    number = np.empty(len(order), int)
    number[order] = part[group]
    return number
