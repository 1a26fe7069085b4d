"""Principal components: decorrelated coordinates, the few with the largest variance.

The functions are those of `standardize`.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._blocks import average, blocks, first, multiply, promote, stats_dtype

HELD = 2**21  # numbers that are decomposed in one piece


class Stats(NamedTuple):
    """Mean (1, ...), k components (k, ...) of norm 1, variances (k,) and their shares (k,)."""

    mean: Any
    components: Any
    variance: Any
    share: Any


def fit(x: Any, *, components: int | float | None = None, ddof: int = 1) -> Stats:
    """Computes the principal components of a training set, in float64.

        C = (1/(n - ddof)) sum_i (x_i - mean) (x_i - mean)^T = U diag(variance) U^T

    The components are the columns of U with the largest variances, in descending order, each with
    the sign that makes its largest entry positive. share is their part of the sum of all. Up to 2
    million numbers, or d examples, it is a singular value decomposition of the examples, which
    keeps small variances to full precision; beyond that, C is summed up and decomposed.

    Args:
        x: Examples, (n, ...), flattened to d features; or a function that returns an iterator over
            such arrays, as for `standardize.fit`.
        components: Their number k, an int in [1, min(n, d)]; or a float in [0, 1), a share of the
            variance, and k the least number that keeps more. None keeps min(n, d).
        ddof: 1 divides by n - 1, as scikit-learn does, 0 by n. The components are the same.

    Returns:
        NumPy arrays, float64 if x is, else float32.

    Raises:
        ConfigError: If `components` is out of range.
        DataError: If x has no more than `ddof` examples, or one that is not finite.

    Example:
        >>> stats = fit(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), components=1)
        >>> apply(stats, np.array([[2.0, 2.0]])).round(3)
        array([[1.414]])
        >>> invert(stats, np.array([[2.0**0.5]])).round(3)
        array([[2., 2.]])

    References:
        K. Pearson, On Lines and Planes of Closest Fit to Systems of Points in Space, 1901.
    """
    dtype = stats_dtype(first("pca.fit", x))
    return Stats(*(array.astype(dtype) for array in eigen("pca.fit", x, components, ddof)))


def apply(stats: Stats, x: Any) -> Any:
    """Computes the coordinates of examples: y = U^T (x - mean).

    Args:
        stats: What `fit` returned for the training set.
        x: Examples, (n, ...), NumPy or JAX, traced or not.

    Returns:
        y, (n, k), computed in float32 or better; of the dtype of x, float32 where that is an
        integer.
    """
    stats, x, dtype = promote("pca.apply", stats, x, stats.mean.shape[1:])
    return multiply(stats.components, x - stats.mean).astype(dtype)


def invert(stats: Stats, x: Any) -> Any:
    """Reconstructs examples: x = U y + mean, what `apply` had where all components are kept.

    Args:
        stats: What `apply` had.
        x: Coordinates, (n, k).

    Returns:
        Examples of the shape of those fitted, of the dtype of y.
    """
    stats, y, dtype = promote("pca.invert", stats, x, stats.components.shape[:1])
    k, *example = stats.components.shape
    x = multiply(stats.components.reshape(k, -1).T, y)
    return (x.reshape(-1, *example) + stats.mean).astype(dtype)


def eigen(where: str, x: Any, components: int | float | None, ddof: int) -> tuple[np.ndarray, ...]:
    """Returns mean, k components, their variances and the share of each in the sum of all."""
    _check.choice(where, "ddof", ddof, (0, 1))
    origin = first(where, x)[:1].astype(np.float64)  # so that a constant's mean is exact
    mean = origin + average(where, x, lambda x: x - origin, (0,))
    n, d = 0, mean.size
    rows: list[np.ndarray] = []
    scatter = np.float64(0)
    for block in blocks(where, x):
        rows.append((block.astype(np.float64) - mean).reshape(-1, d))
        n += len(block)
        if n > d and n * d > HELD:
            scatter = scatter + sum(row.T @ row for row in rows)
            rows = []
    if n <= ddof:
        _check.fail(where, "x", f"more than {ddof} example", n, "ddof=0 divides by n", DataError)
    tiny = max(n, d) * np.finfo(np.float64).eps
    if rows:
        _, s, u = np.linalg.svd(np.concatenate(rows), full_matrices=False)
        s, tiny = s**2, tiny**2
    else:
        s, u = np.linalg.eigh(scatter)
        s, u = s[::-1], u.T[::-1]
    u = u * np.sign(np.take_along_axis(u, abs(u).argmax(1)[:, None], 1))
    variance = np.where(s > tiny * s[0], s, 0) / (n - ddof)  # the rest is rounding
    share = variance / (variance.sum() or 1)
    k = _number(where, components, share)
    return mean, u[:k].reshape(k, *mean.shape[1:]), variance[:k], share[:k]


def _number(where, components, share):
    """Returns the number of components that are kept."""
    most = len(share)
    if components is None:
        return most
    k = _check.whole(components)
    if k is None:
        _check.fraction(where, "components", components, f"or an int in [1, {most}]")
        k = 1 + int(np.searchsorted(np.cumsum(share), components, side="right"))
        return min(k, most)
    if not 1 <= k <= most:
        _check.fail(where, "components", f"in [1, {most}], or a share in [0, 1)", components)
    return k
