"""Values that are missing, and values far from the others."""

from typing import Any

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from .. import whiten
from ._report import Report, ranked
from ._table import finite, missing, read

NORMAL_QUARTILE = 0.6744897501960817  # MAD / sigma of a normal distribution


def nulls(x: Any) -> Report:
    """Finds examples with missing values: NaN, None, NaT, pandas' NA.

    Args:
        x: Examples, an array (n, ...) or a frame, of any type.

    Returns:
        The report. An example's score is the number of its missing values. The table has a line
        for each feature that has any.

    Raises:
        DataError: If there are no examples.

    Example:
        >>> print(nulls(np.array([[1.0, np.nan], [2.0, 3.0]])))
        1 of 2 examples: number of missing values above 0
        feature  missing
              1        1
    """
    values, features, names = read("nulls", x, numeric=False)
    if hasattr(x, "isna"):
        null = x.isna().to_numpy().reshape(values.shape)
    else:
        null = missing(values)
    count = null.sum(0)
    found = ranked(count, count > 0)
    table = {"feature": [features[j] for j in found], "missing": count[found]}
    return Report("number of missing values", null.sum(1).astype(float), 0, names, table)


def outliers(x: Any, *, method: str = "z", threshold: float | None = None) -> Report:
    """Finds values far from the others of their feature.

        z:    |x - mean| / std,   std = sqrt((1/n) sum_i (x_i - mean)^2)
        mad:  q |x - median| / MAD,   MAD = median |x - median|,   q = 0.6745, so that MAD / q is
              the standard deviation of a normal distribution
        iqr:  how far x is below the first quartile or above the third, in interquartile ranges

    z is blind to several outliers at once, and to one among few: of n values none is further than
    sqrt(n - 1). Where a feature has no spread, what differs has the score inf.

    Args:
        x: Examples, an array (n, ...) or a frame of numbers. Missing values are left out.
        method: "z", "mad" or "iqr".
        threshold: Scores above it are reported, >= 0. None is 3 for z, 3.5 for mad, 1.5 for iqr.

    Returns:
        The report. An example's score is the largest of its values'. The table has a line for
        each value that is reported.

    Raises:
        DataError: If there are no examples, or a column does not hold numbers.

    Example:
        >>> heights = np.array([1.71, 1.65, 1.80, 1.75, 1.68, 1.78, 2.51])
        >>> print(outliers(heights, method="mad"))
        1 of 7 examples: largest 0.6745 |x - median| / MAD above 3.5
        example  feature  value  score
              6        0   2.51   10.25

    References:
        B. Iglewicz, D. Hoaglin, How to Detect and Handle Outliers, 1993 (mad, 3.5).
        J. Tukey, Exploratory Data Analysis, 1977 (iqr).
    """
    _check.choice("outliers", "method", method, METHODS)
    default, meaning, spread = METHODS[method]
    threshold = default if threshold is None else threshold
    _check.nonnegative("outliers", "threshold", threshold)
    values, features, names = read("outliers", x)
    score = np.zeros_like(values)
    for j, v in enumerate(values.T):
        known = v[np.isfinite(v)]
        if known.size:
            low, high, scale = spread(known)
            away = np.maximum(low - v, v - high)
            with np.errstate(divide="ignore", invalid="ignore"):
                score[:, j] = np.where(away > 0, away / scale, 0)
    at = np.argwhere(score > threshold)
    i, j = at[np.argsort(-score[tuple(at.T)], kind="stable")].T
    feature = [features[k] for k in j]
    table = {"example": names[i], "feature": feature, "value": values[i, j], "score": score[i, j]}
    return Report(f"largest {meaning}", score.max(1), threshold, names, table)


def _z(v):
    return v.mean(), v.mean(), v.std()


def _mad(v):
    median = np.median(v)
    return median, median, np.median(abs(v - median)) / NORMAL_QUARTILE


def _iqr(v):
    low, high = np.quantile(v, [0.25, 0.75])
    return low, high, high - low


# Of each method: its usual threshold, what a score is, and the function of the values of a feature
# that returns from where to where nothing is far, and the unit of what is beyond.
METHODS = {
    "z": (3.0, "|x - mean| / std", _z),
    "mad": (3.5, "0.6745 |x - median| / MAD", _mad),
    "iqr": (1.5, "distance to the quartiles / IQR", _iqr),
}


def mahalanobis(x: Any, *, level: float = 0.001, robust: bool = False, ddof: int = 1) -> Report:
    """Finds examples that are unusual as a whole, though each of their values need not be.

        d2 = (x - mean)^T C^-1 (x - mean)

    For a normal distribution of d features, d2 is distributed as chi-square with d degrees of
    freedom. Features that are constant, or linear in others, do not count.

    Args:
        x: Examples, an array (n, ...) or a frame of numbers; more of them than features.
        level: The share of a normal population that is reported, in [0, 1).
        robust: Whether mean and covariance are those of the densest half, reweighted: several
            outliers together cannot hide behind the covariance that they make themselves. It is
            the minimum covariance determinant of scikit-learn, which must be installed, on x
            whitened, since there it depends on units and fails on what is linear in others.
        ddof: The covariance is divided by n - ddof: 1 is unbiased, 0 as scikit-learn has it.

    Returns:
        The report. An example's score is d2. The table has a line for each one reported.

    Raises:
        DataError: If there are no more examples than features, or one is not finite.
        ImportError: If robust and scikit-learn is not installed.

    Example:
        >>> height = np.linspace(1.55, 1.95, 30)
        >>> weight = 24 * height**2 + 6 * np.cos(9 * np.arange(30))
        >>> height[20], weight[20] = 1.82, 24.0
        >>> mahalanobis(np.stack([height, weight], 1)).indices
        array([20])

    References:
        P. Mahalanobis, On the Generalized Distance in Statistics, 1936.
        P. Rousseeuw, K. Van Driessen, A Fast Algorithm for the Minimum Covariance Determinant
        Estimator, 1999.
    """
    from scipy.special import chdtrc, chdtri  # of chi-square, 1 - F and its inverse

    where = "mahalanobis"
    _check.flag(where, "robust", robust)
    _check.choice(where, "ddof", ddof, (0, 1))
    _check.fraction(where, "level", level)
    x, _, names = read(where, x)
    finite(where, x)
    n, d = x.shape
    if n <= d:
        _check.fail(where, "x", f"of more examples than features, {d}", n, error=DataError)
    # Distances do not depend on the units; what counts as no variance should not either.
    z = x / np.where(np.ptp(x, 0) > 0, x.std(0), 1)
    stats = whiten.fit(z, eps=0.0, ddof=ddof)
    y = whiten.apply(stats, z)[:, stats.matrix.any(1)]
    rank = max(1, y.shape[1])
    scores = _robust(y) if robust and y.size else (y**2).sum(1)
    threshold = chdtri(rank, level)
    found = ranked(scores, scores > threshold)
    table = {"example": names[found], "d2": scores[found], "p": chdtrc(rank, scores[found])}
    return Report("squared Mahalanobis distance", scores, threshold, names, table)


def _robust(y):
    try:
        from sklearn.covariance import MinCovDet
    except ImportError:
        fix = "pip install scikit-learn"
        _check.fail("mahalanobis", "robust", "False without it", True, fix, ImportError)
    return MinCovDet(random_state=0).fit(y).mahalanobis(y)
