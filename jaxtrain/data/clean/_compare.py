"""Whether two samples can be of one population."""

from typing import Any

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._report import Report, ranked
from ._table import codes, column, read


def compare(
    train: Any,
    test: Any,
    *,
    labels: Any = None,
    level: float = 0.01,
    correction: str | None = "holm",
) -> Report:
    """Tests whether two data sets are samples of one population, feature by feature.

    For each feature it is the Kolmogorov-Smirnov test, whose statistic is the largest distance of
    the two distribution functions; for labels the chi-square test of the counts of classes,

        chi2 = sum_{s, c} (n_sc - e_sc)^2 / e_sc,   e_sc = n_s n_c / n

    With many features some look different by chance, hence the correction of the probabilities.
    Values that recur, such as pixels, make the first test cautious; counts e below 5 the second
    inexact. No test of single features sees a difference in how they are related.

    Args:
        train: Examples, an array (n, ...) or a frame of numbers. Missing values are left out.
        test: More of them, of the same features.
        labels: The pair of their labels, of any type, or the name of a column of both
            frames. None leaves the classes out.
        level: Corrected probabilities up to this are reported, in [0, 1).
        correction: "holm" bounds the probability of any false report by level, "bh" (Benjamini
            and Hochberg) the expected share of false ones among the reported; None does nothing.

    Returns:
        The report, of features; the labels are the last. A score is a corrected probability. The
        table has each feature that differs, its statistic and its probability before correction.

    Raises:
        ConfigError: If there is no such column.
        DataError: If the features differ, there are no examples, or not one label for each.

    Example:
        >>> a, b = np.arange(40.0).reshape(20, 2), np.arange(40.0).reshape(20, 2)
        >>> print(compare(a, b + np.array([0.0, 30.0])))
        1 of 2 features: probability of such a difference by chance at most 0.01
        feature  statistic          p
              1       0.75  9.547e-06

    References:
        A. Kolmogorov, Sulla determinazione empirica di una legge di distribuzione, 1933.
        S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
        Y. Benjamini, Y. Hochberg, Controlling the False Discovery Rate, 1995.
    """
    from scipy import stats

    where = "compare"
    _check.choice(where, "correction", correction, ("holm", "bh", None))
    _check.fraction(where, "level", level)
    if isinstance(labels, str):
        train, y = column(where, "labels", labels, train)
        test, z = column(where, "labels", labels, test)
        labels = y, z
    a, features, _ = read(where, train, argument="train")
    b, others, _ = read(where, test, argument="test")
    if labels is not None:
        _check_pair(where, labels, ((len(a),), (len(b),)))
    if features != others:
        _check.fail(where, "test", f"of the features {features}", others, error=DataError)
    results = []
    for feature, u, v in zip(features, a.T, b.T, strict=True):
        u, v = u[~np.isnan(u)], v[~np.isnan(v)]
        if not (len(u) and len(v)):
            rule = f"with values of feature {feature} in both sets"
            _check.fail(where, "x", rule, (len(u), len(v)), error=DataError)
        method = "auto" if len(u) + len(v) <= 1000 else "asymp"  # else exact, which takes long
        results.append(stats.ks_2samp(u, v, method=method)[:2])
    if labels is not None:
        code, total = codes(np.concatenate(labels))
        counts = [np.bincount(c, minlength=len(total)) for c in np.split(code, [len(labels[0])])]
        results.append(stats.chi2_contingency(counts, correction=False)[:2])
        features = [*features, "labels"]
    statistic, p = np.array(results).T
    scores = _corrected(p, correction)
    found = ranked(-p, scores <= level)
    table = {
        "feature": [features[j] for j in found],
        "statistic": statistic[found],
        "p": p[found],
    }
    meaning = "probability of such a difference by chance"
    names = np.array(features)
    return Report(meaning, scores, level, names, table, side="below", of="features")


def _check_pair(where, labels, shapes):
    try:
        y, z = labels
        found: Any = np.shape(y), np.shape(z)
    except (TypeError, ValueError):
        found = type(labels).__name__
    if found != shapes:
        rule = f"a pair of shapes {shapes[0]} and {shapes[1]}"
        _check.fail(where, "labels", rule, found, error=DataError)


def _corrected(p, correction):
    if correction is None:
        return p
    order, m = np.argsort(p, kind="stable"), len(p)
    rank = np.arange(1, m + 1)
    if correction == "holm":
        sorted_p = np.maximum.accumulate(p[order] * (m + 1 - rank))
    else:
        sorted_p = np.minimum.accumulate((p[order] * m / rank)[::-1])[::-1]
    out = np.empty(m)
    out[order] = np.minimum(sorted_p, 1)
    return out
