"""Whitening: mean 0 and covariance the identity, in principal components or near the original.

The functions are those of `standardize`.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check

from ._blocks import first, multiply, promote, stats_dtype
from .pca import eigen


class Stats(NamedTuple):
    """Mean (1, *example), the whitening matrix (*y, *example) and its inverse (*example, *y).

    *y is (k,) for form="pca", *example for "zca".
    """

    mean: Any
    matrix: Any
    inverse: Any


def fit(
    x: Any,
    *,
    form: str = "pca",
    components: int | float | None = None,
    eps: float = 1e-5,
    ddof: int = 0,
) -> Stats:
    """Computes the whitening matrix of a training set, in float64.

        C = (1/(n - ddof)) sum_i (x_i - mean) (x_i - mean)^T = U diag(s) U^T
        matrix = diag(s + eps)^(-1/2) U^T   (pca),   U diag(s + eps)^(-1/2) U^T   (zca)

    Of all whitened examples those of zca are nearest to the originals: images still look like
    images. Signs and order of the columns of U are those of `pca.fit`.

    Args:
        x: Examples, (n, ...), flattened to d features; or a function that returns an iterator over
            such arrays, as for `standardize.fit`.
        form: "pca", k uncorrelated coordinates, or "zca", rotated back to an example.
        components: How many principal components are kept, as for `pca.fit`; the others become 0.
        eps: Added to the variances, >= 0; it bounds how much small ones, often noise, are
            amplified. 0 is exact, and drops the components without variance.
        ddof: 0 divides by n, 1 by n - 1, as scikit-learn does.

    Returns:
        NumPy arrays, float64 if x is, else float32.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If x has no more than `ddof` examples, or one that is not finite.

    Example:
        >>> x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 8.0], [2.0, 8.0]])
        >>> apply(fit(x, form="zca", eps=0.0), x).round(3).tolist()
        [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]

    References:
        A. Bell, T. Sejnowski, The "Independent Components" of Natural Scenes are Edge Filters,
        1997.
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    _check.choice("whiten.fit", "form", form, ("pca", "zca"))
    _check.nonnegative("whiten.fit", "eps", eps)
    mean, u, s, _ = eigen("whiten.fit", x, components, ddof)
    u = u.reshape(len(u), -1)
    scale = np.sqrt(s + eps)
    out = np.eye(len(u)) if form == "pca" else u
    matrix = out.T / np.where(scale > 0, scale, np.inf) @ u
    inverse = u.T * scale @ out
    example = mean.shape[1:]
    y = (len(u),) if form == "pca" else example
    dtype = stats_dtype(first("whiten.fit", x))
    stats = Stats(mean, matrix.reshape(y + example), inverse.reshape(example + y))
    return Stats(*(array.astype(dtype) for array in stats))


def apply(stats: Stats, x: Any) -> Any:
    """Whitens examples: y = matrix (x - mean).

    Args:
        stats: What `fit` returned for the training set.
        x: Examples, (n, ...), NumPy or JAX, traced or not.

    Returns:
        y, (n, k) for form="pca", else of the shape of x; computed in float32 or better, of the
        dtype of x, float32 where that is an integer.
    """
    stats, x, dtype = promote("whiten.apply", stats, x, stats.mean.shape[1:])
    return multiply(stats.matrix, x - stats.mean).astype(dtype)


def invert(stats: Stats, x: Any) -> Any:
    """Undoes `apply`, but for what components left out held: x = inverse y + mean.

    Args:
        stats: What `apply` had.
        x: What `apply` returned, or examples like it.

    Returns:
        Examples of the shape of those fitted, of the dtype of y.
    """
    stats, y, dtype = promote("whiten.invert", stats, x, _whitened(stats))
    return (multiply(stats.inverse, y) + stats.mean).astype(dtype)


def _whitened(stats):
    """Returns the shape of a whitened example."""
    return stats.matrix.shape[: stats.matrix.ndim - stats.mean.ndim + 1]
