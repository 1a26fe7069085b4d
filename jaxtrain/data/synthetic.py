"""Data sets made from a seed: the process is known, and so is what a model should find.

Uniform numbers are raw words of NumPy's Philox generator, which are the same on every machine and
for good; normal ones are made of them by Box and Muller, the same but for the rounding of log and
cos. Examples are independent of each other: a training and a test set are slices of one data set.
The labels of regressions are (n, 1), as a net with one output has them.
"""

from collections.abc import Sequence

import numpy as np

from jaxtrain import _check

from ._dataset import ArrayDataset
from ._order import check_seed, words

_FIRST = 2**62  # streams of their own: no epoch of an order gets that far


def polynomial(
    n: int,
    *,
    noise: float = 1.0,
    coefficients: Sequence[float] = (3.0, 3.0, 1.0),
    width: float = 1.0,
    seed: int = 0,
) -> ArrayDataset:
    """Makes points on a polynomial with bounded noise: y = sum_k c_k x^k + e.

    x ~ U(-width, width), e ~ U(-noise, noise). `powers` gives the features for a linear model.

    Args:
        n: Number of examples, >= 1.
        noise: The largest error, >= 0.
        coefficients: c, from the constant on; 3 + 3 x + x^2 unless given.
        width: The largest |x|, > 0.
        seed: Integer in [0, 2**32).

    Returns:
        x, (n, 1), and y, (n, 1).

    Example:
        >>> dataset = polynomial(20, noise=0.0)
        >>> np.allclose(powers(dataset.image, 2) @ [3, 3, 1], dataset.label[:, 0])
        True
    """
    _check_size("polynomial", n, seed)
    _check.nonnegative("polynomial", "noise", noise)
    _check.positive("polynomial", "width", width)
    x = width * (2 * _uniform(seed, 0, n, 1) - 1)
    e = noise * (2 * _uniform(seed, 1, n, 1) - 1)
    c = np.asarray(coefficients, np.float64)
    return ArrayDataset(x, powers(x, len(c) - 1) @ c[:, None] + e)


def powers(x: np.ndarray, order: int) -> np.ndarray:
    """Computes x^0, x^1, ..., x^order, the features of a polynomial.

    Args:
        x: (n, 1).
        order: The largest power, >= 0.

    Returns:
        (n, order + 1), in the dtype of x.

    Example:
        >>> powers(np.array([[2.0]]), 3)
        array([[1., 2., 4., 8.]])
    """
    _check.integer("powers", "order", order, least=0)
    return x ** np.arange(order + 1, dtype=x.dtype)


def projectile(n: int, *, noise: float = 0.0, factor: float = 0.45, seed: int = 0) -> ArrayDataset:
    """Makes how far what is thrown from a height flies: d = factor v sqrt(h) + e.

    Level with the speed v from the height h it is in the air for sqrt(2 h / g): the factor is
    sqrt(2 / 9.81) = 0.4515 in metres and seconds, in lecture notes 0.45.

    Args:
        n: Number of examples, >= 1.
        noise: The largest error e, in m, >= 0, uniform.
        factor: > 0.
        seed: Integer in [0, 2**32).

    Returns:
        v ~ U(0, 20) m/s and h ~ U(0, 20) m, (n, 2), and d in m, (n, 1).

    Example:
        >>> dataset = projectile(5)
        >>> v, h = dataset.image.T
        >>> np.allclose(dataset.label[:, 0], 0.45 * v * np.sqrt(h))
        True
    """
    _check_size("projectile", n, seed)
    _check.nonnegative("projectile", "noise", noise)
    _check.positive("projectile", "factor", factor)
    x = 20 * _uniform(seed, 2, n, 2)
    e = noise * (2 * _uniform(seed, 3, n) - 1)
    d = factor * x[:, 0] * np.sqrt(x[:, 1]) + e
    return ArrayDataset(x, d[:, None])


def spirals(
    n: int, *, classes: int = 3, turns: float = 0.75, noise: float = 0.2, seed: int = 0
) -> ArrayDataset:
    """Makes points on the arms of a spiral, a class each, which no straight line separates.

    Example i is of class c = i mod classes, at the radius r ~ U(0, 1) and the angle
    2 pi (c / classes + turns r) + noise N(0, 1).

    Args:
        n: Number of examples, >= 1.
        classes: Number of arms, >= 1.
        turns: How often an arm goes around the centre, >= 0.
        noise: Standard deviation of the angle in radians, >= 0.
        seed: Integer in [0, 2**32).

    Returns:
        The points, (n, 2), in the unit disc, and their classes, (n,).

    Example:
        >>> spirals(300).classes
        3
    """
    _check_size("spirals", n, seed)
    _check.integer("spirals", "classes", classes)
    _check.nonnegative("spirals", "turns", turns)
    _check.nonnegative("spirals", "noise", noise)
    c, r = np.arange(n) % classes, _uniform(seed, 4, n)
    angle = 2 * np.pi * (c / classes + turns * r) + noise * _normal(seed, 5, n)
    x = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return ArrayDataset(x, c, classes=classes)


def ill_conditioned_regression(
    n: int,
    *,
    features: int = 2,
    condition: float = 1e4,
    rotated: bool = False,
    noise: float = 0.0,
    seed: int = 0,
) -> ArrayDataset:
    """Makes a linear regression whose risk is a long narrow valley: t = X w + noise N(0, 1).

    With Z of orthonormal columns, s falling geometrically from 1 to 1 / sqrt(condition), and V
    the identity or orthogonal::

        X = sqrt(n) Z diag(s) V^T,   X^T X / n = V diag(s^2) V^T,   w = V 1

    Args:
        n: Number of examples, >= features.
        features: Columns of X, >= 1.
        condition: The ratio of the largest eigenvalue of X^T X to the smallest, >= 1.
        rotated: Without, V is the identity: the features have units that do not match, which
            `standardize` cures. With, the valley lies across the axes, and takes whitening.
        noise: Standard deviation of the noise, >= 0.
        seed: Integer in [0, 2**32).

    Returns:
        X, (n, features), and t, (n, 1).

    Raises:
        ConfigError: If there are fewer examples than features.

    Example:
        >>> x = ill_conditioned_regression(50, condition=100.0).image
        >>> print(f"{np.linalg.cond(x.T @ x):.0f}")
        100
    """
    where = "ill_conditioned_regression"
    _check_size(where, n, seed)
    _check.integer(where, "features", features)
    _check.at_most(where, "features", features, "n", n)
    _check.at_least(where, "condition", condition, 1)
    _check.flag(where, "rotated", rotated)
    _check.nonnegative(where, "noise", noise)
    z = np.linalg.qr(_normal(seed, 6, n, features))[0]
    s = np.geomspace(1, condition**-0.5, features)
    v = np.linalg.qr(_normal(seed, 7, features, features))[0] if rotated else np.eye(features)
    t = np.sqrt(n) * (z * s).sum(1) + noise * _normal(seed, 8, n)
    return ArrayDataset(np.sqrt(n) * (z * s) @ v.T, t[:, None])


def mismatched_scales() -> ArrayDataset:
    """Makes the table of lecture notes whose two weights have gradients 6e4 apart at 0.

    The condition number of X^T X is 1.39e10, and 28.2 when X is standardized.

    Returns:
        X, (3, 2), and t, (3, 1).

    Example:
        >>> dataset = mismatched_scales()
        >>> (-2 / 3 * dataset.image.T @ dataset.label).round(4).tolist()  # at w = 0
        [[-1381.6534423828125], [-0.02250000089406967]]
    """
    x = [[114.8, 0.00323], [338.1, 0.00183], [98.8, 0.00279]]
    return ArrayDataset(np.array(x), np.array([[5.1], [3.2], [4.1]]))


def signals(n: int, *, noise: float = 0.1, length: int = 40, seed: int = 0) -> ArrayDataset:
    """Makes short signals of ten classes: a template somewhere, stretched, scaled, tilted, noisy.

    In the spirit of MNIST-1D, small enough to try on a CPU what is meant for images. Template c is
    sin(k pi u) u for odd c, sin(k pi u) (1 - u) for even c, with k = 1 + floor(c / 2) and u in
    [0, 1]; 0 around it. It covers 0.3 to 0.5 of the signal, anywhere, times 0.8 to 1.2, on a line
    that rises by up to 0.75 either way; the noise is a moving mean over five plus a tenth as much
    of independent noise.

    Args:
        n: Number of examples, >= 1, of class i mod 10.
        noise: Standard deviation of the noise, >= 0.
        length: Samples of a signal, >= 1.
        seed: Integer in [0, 2**32).

    Returns:
        The signals, (n, length, 1), and their classes, (n,).

    Example:
        >>> signals(20).image.shape
        (20, 40, 1)

    References:
        S. Greydanus, D. Kobak, Scaling Down Deep Learning with MNIST-1D, 2020.
    """
    _check_size("signals", n, seed)
    _check.nonnegative("signals", "noise", noise)
    _check.integer("signals", "length", length)
    c = np.arange(n) % 10
    a, b, p, q = _uniform(seed, 9, 4, n, 1)
    t = (np.arange(length) + 0.5) / length
    span = 0.3 + 0.2 * a
    u = (t - b * (1 - span)) / span
    skew = np.where(c[:, None] % 2, u, 1 - u)
    template = np.sin((1 + c[:, None] // 2) * np.pi * u) * skew * ((u >= 0) & (u <= 1))
    e = _normal(seed, 10, n, length + 4)
    moving = sum(e[:, i : i + length] for i in range(5)) / np.sqrt(5)
    x = (0.8 + 0.4 * p) * template + 0.75 * (2 * q - 1) * (t - 0.5)
    x = x + noise * (moving + 0.1 * _normal(seed, 11, n, length))
    return ArrayDataset(x[..., None], c, classes=10)


def linear_teacher(
    n: int, *, features: int = 20, noise: float = 0.5, seed: int = 0
) -> ArrayDataset:
    """Makes a linear regression: t = X w + noise N(0, 1), with X normal and |w| = 1.

    With `random_features` of it, fitted by least squares, the risk on other examples is largest
    where there are as many features as examples, and falls again beyond: double descent.

    Args:
        n: Number of examples, >= 1.
        features: Columns of X, >= 1.
        noise: Standard deviation of the noise, >= 0.
        seed: Integer in [0, 2**32).

    Returns:
        X, (n, features), and t, (n, 1).

    Example:
        >>> linear_teacher(100).image.shape
        (100, 20)

    References:
        M. Belkin, D. Hsu, S. Ma, S. Mandal, Reconciling Modern Machine-Learning Practice and the
        Classical Bias-Variance Trade-Off, 2019.
    """
    _check_size("linear_teacher", n, seed)
    _check.integer("linear_teacher", "features", features)
    _check.nonnegative("linear_teacher", "noise", noise)
    x, w = _normal(seed, 12, n, features), _normal(seed, 13, features, 1)
    return ArrayDataset(x, x @ (w / np.linalg.norm(w)) + noise * _normal(seed, 14, n, 1))


def random_features(x: np.ndarray, width: int, *, seed: int = 0) -> np.ndarray:
    """Computes a hidden layer that is not trained: max(0, x W / sqrt(d)), with W normal.

    Args:
        x: (n, d).
        width: Columns of W, >= 1; the first ones are the same for every width.
        seed: Integer in [0, 2**32).

    Returns:
        (n, width), in the dtype of x.

    Example:
        >>> random_features(np.ones((3, 2)), 5).shape
        (3, 5)

    References:
        A. Rahimi, B. Recht, Random Features for Large-Scale Kernel Machines, 2007.
    """
    _check_size("random_features", width, seed, "width")
    w = _normal(seed, 15, width, x.shape[1]).T / np.sqrt(x.shape[1])
    return np.maximum(x @ w.astype(x.dtype), 0)


def _check_size(where, n, seed, argument="n"):
    _check.integer(where, argument, n)
    check_seed(where, seed)


def _uniform(seed: int, stream: int, *shape: int) -> np.ndarray:
    """Draws multiples of 2**-53 in [0, 1)."""
    raw = words(int(np.prod(shape)), seed, _FIRST + stream)
    return (raw >> np.uint64(11)).reshape(shape) * 2.0**-53


def _normal(seed: int, stream: int, *shape: int) -> np.ndarray:
    """Draws N(0, 1) by Box and Muller, two words for each."""
    a, b = np.moveaxis(_uniform(seed, stream, *shape, 2), -1, 0)
    return np.sqrt(-2 * np.log1p(-a)) * np.cos(2 * np.pi * b)
