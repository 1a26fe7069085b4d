"""Examples that are there twice, to the bit or nearly."""

import hashlib
from typing import Any

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._report import Report, ranked
from ._table import codes, column, finite, read

BLOCK = 2048  # examples on each side of a table of distances, 32 MB


def digests(x: np.ndarray) -> list[bytes]:
    """Returns 128 bits for each example, the same for equal ones."""
    if x.dtype == object:
        rows = (repr(row.tolist()).encode() for row in x)
    else:
        if _check.is_real(x.dtype):
            x = x + x.dtype.type(0)  # -0 is 0
        rows = (row.tobytes() for row in x)
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def duplicates(x: Any, *, label: Any = None, level: float = 0.01) -> Report:
    """Finds examples that equal an earlier one, by their hash.

    Legitimate repeats are told from copies by chance: in a group of equal examples, of n,

        chance = (n - 1) prod_j (c_j - 1) / (n - 1)

    is the number of copies to expect were features j independent, where c_j examples have this
    value of feature j. Age, education and birthplace repeat by themselves; a height of 176.42 cm
    with the same weight in grams does not.

    Args:
        x: Examples, an array (n, ...) or a frame, of any type.
        label: Their labels, (n,), or the name of a column of the frame. They are no part of what
            must be equal, but of chance; a group with several is said to conflict.
        level: Groups with less than this chance are called suspicious, >= 0.

    Returns:
        The report. An example's score is the number of earlier ones that equal it, so that
        `indices` leaves out the first of each group. The table has a line per group: the names of
        its examples, whether their labels conflict, chance, and whether that is suspicious.

    Raises:
        ConfigError: If there is no such column.
        DataError: If there are no examples, or not one label for each.

    Example:
        >>> x = np.array([[48.0, 176.42], [51.0, 180.03], [48.0, 176.42], [30.0, 165.0]])
        >>> print(duplicates(x))
        1 of 4 examples: number of earlier examples that are equal above 0
        examples  conflict  chance  suspicious
            0, 2     False  0.3333       False
    """
    _check.nonnegative("duplicates", "level", level)
    if isinstance(label, str):
        x, label = column("duplicates", "label", label, x)
    values, _, names = read("duplicates", x, numeric=False)
    n = len(values)
    columns = list(values.T)
    if label is not None:
        label = codes(label)[0]
        if len(label) != n:
            _check.fail("duplicates", "label", f"of length {n}", len(label), error=DataError)
        columns.append(label)

    equal: dict[bytes, list[int]] = {}
    scores = np.zeros(n)
    for i, digest in enumerate(digests(values)):
        group = equal.setdefault(digest, [])
        scores[i] = len(group)
        group.append(i)
    groups = [group for group in equal.values() if len(group) > 1]

    first = [group[0] for group in groups]
    conflict = np.array([label is not None and len(set(label[g])) > 1 for g in groups], bool)
    chance = np.full(len(groups), n - 1.0)
    for feature in columns if groups else ():
        code, count = codes(feature)
        ratio = (count[code[first]] - 1) / (n - 1)
        chance *= np.where(conflict, 1, ratio) if feature is label else ratio
    order = np.argsort(chance, kind="stable")
    table = {
        "examples": [names[groups[k]].tolist() for k in order],
        "conflict": conflict[order],
        "chance": chance[order],
        "suspicious": chance[order] < level,
    }
    return Report("number of earlier examples that are equal", scores, 0, names, table)


def near_duplicates(x: Any, threshold: float) -> Report:
    """Finds examples within a Euclidean distance of an earlier one.

    All pairs are compared, 2,048 by 2,048 examples at a time: 60,000 images of 784 pixels take
    some minutes on two cores, and hardly more memory than they do in float64.

    Args:
        x: Examples, an array (n, ...) or a frame of numbers.
        threshold: Distance, >= 0, in the unit of x: scale features that have different ones.

    Returns:
        The report. An example's score is its distance to the nearest earlier one, inf for the
        first, so that `indices` leaves one of each group out. The table has the pairs.

    Raises:
        DataError: If there are no examples, or one is not finite.

    Example:
        >>> print(near_duplicates(np.array([[0.0, 0.0], [3.0, 4.0], [0.3, 0.4]]), 0.5))
        1 of 3 examples: distance to the nearest earlier example at most 0.5
        example  nearest  distance
              2        0       0.5
    """
    where = "near_duplicates"
    _check.nonnegative(where, "threshold", threshold)
    x, _, names = read(where, x)
    finite(where, x)
    x = x - x.mean(0)  # d2 below loses less to rounding
    square = (x**2).sum(1)
    near = np.zeros(len(x), int)
    for i in range(0, len(x), BLOCK):
        least = np.full(len(x[i : i + BLOCK]), np.inf)
        for j in range(0, i + 1, BLOCK):
            a, b = slice(i, i + BLOCK), slice(j, j + BLOCK)
            d2 = square[a, None] + square[b] - 2 * x[a] @ x[b].T
            if i == j:
                d2[np.triu_indices_from(d2)] = np.inf
            k = d2.argmin(1)
            d2 = np.take_along_axis(d2, k[:, None], 1)[:, 0]
            near[a] = np.where(d2 < least, j + k, near[a])
            least = np.minimum(least, d2)
    scores = np.sqrt(((x - x[near]) ** 2).sum(1))
    scores[0] = np.inf
    found = ranked(-scores, scores <= threshold)
    table = {"example": names[found], "nearest": names[near[found]], "distance": scores[found]}
    meaning = "distance to the nearest earlier example"
    return Report(meaning, scores, threshold, names, table, side="below")
