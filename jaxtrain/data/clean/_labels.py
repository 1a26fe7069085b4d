"""Labels that a model would not have given."""

from typing import Any

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._report import Report, ranked
from ._table import finite, read


def label_noise(probabilities: Any, labels: Any) -> Report:
    """Finds examples whose label may be wrong, by confident learning.

        t_j = mean of p_j over the examples with label j,   q_j = p_j where p_j >= t_j, else 0
        score = max_{j != label} q_j - q_label

    A class is likely where its probability is at least what it is on average for its own
    examples. Candidates have a score > 0: the likeliest such class is not their label.

    Args:
        probabilities: p, (n, K), of models that were not trained on the example in question:
            `k_fold` gives such models, one for each fold. A model knows the labels it was trained
            on by heart.
        labels: (n,), integers in [0, K), or a series of them.

    Returns:
        The report. The table has a line per candidate: its label, the class suggested, and the
        probabilities of the two.

    Raises:
        DataError: If shapes, probabilities or labels are not as above.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]])
        >>> print(label_noise(p, np.array([0, 0, 1, 1, 0])))
        1 of 5 examples: lead of the likeliest other class above 0
        example  label  suggested  p_label  p_suggested
              4      0          1     0.05         0.95

    References:
        C. Northcutt, L. Jiang, I. Chuang, Confident Learning: Estimating Uncertainty in Dataset
        Labels, 2021.
    """
    where = "label_noise"
    p, _, names = read(where, probabilities, argument="probabilities")
    finite(where, p, "probabilities")
    labels = np.asarray(labels)
    n, classes = p.shape
    wrong = (p < 0).any(1) | (abs(p.sum(1) - 1) > 0.01)
    if wrong.any():
        value = {int(wrong.argmax()): p[wrong.argmax()].tolist()}
        rule = "at least 0, and of sum 1 for each example"
        _check.fail(where, "probabilities", rule, value, error=DataError)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        got = labels.shape, str(labels.dtype)
        _check.fail(where, "labels", f"{n} integers", got, error=DataError)
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        value = {int(wrong.argmax()): int(labels[wrong.argmax()])}
        _check.fail(where, "labels", f"in [0, {classes})", value, error=DataError)
    own = np.eye(classes, dtype=bool)[labels]
    count = own.sum(0)
    t = np.where(count > 0, (p * own).sum(0) / np.maximum(count, 1), np.inf)
    q = np.where(p >= t, p, 0)
    other = np.where(own, -np.inf, q)
    scores, suggested = other.max(1) - q[own], other.argmax(1)
    found = ranked(scores, scores > 0)
    table = {
        "example": names[found],
        "label": labels[found],
        "suggested": suggested[found],
        "p_label": p[found, labels[found]],
        "p_suggested": p[found, suggested[found]],
    }
    return Report("lead of the likeliest other class", scores, 0, names, table)
