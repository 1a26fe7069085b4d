"""Metrics as sums and counts, which add up over batches and devices.

A metric is `f(outputs, targets, mask) -> record`. Records are pytrees: add them over batches
with `+`, over devices with `jax.lax.psum`, and read the result at the end. A metric with an
option becomes one of that form by `functools.partial(top_k, k=3)`.

The mask, (batch,) or the shape of the labels, is None where all examples count. Boolean and
integer masks are counted in int32, exact up to 2**31 - 1 where float32 stops at 2**24; a
floating mask holds weights and is summed in floating point. What an example with mask 0 holds
does not matter, NaN included.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check, losses


class _Sum:
    """Adds records field by field."""

    def __add__(self, other: Self) -> Self:
        return jax.tree.map(jnp.add, self, other)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean(_Sum):
    """Holds a weighted mean as total = sum_i w_i x_i and count = sum_i w_i, both scalars."""

    total: Any
    count: Any

    @property
    def value(self) -> jax.Array:
        """The mean, total / count; NaN where nothing was counted."""
        return ratio(self.total, self.count, zero_division=jnp.nan)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RootMean(Mean):
    """Holds the root of a weighted mean, by the mean's total and count."""

    @property
    def value(self) -> jax.Array:
        """The root, sqrt(total / count); NaN where nothing was counted."""
        return super().value ** 0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConfusionMatrix(_Sum):
    """Counts examples by class and prediction.

    Args:
        counts: Examples of class i (row) taken for class j (column), (C, C).
        missed: Examples of each class whose outputs hold a NaN: no prediction, (C,).
    """

    counts: Any
    missed: Any

    @property
    def support(self) -> jax.Array:
        """Examples of each class, (C,)."""
        return self.counts.sum(1) + self.missed

    def precision(self, *, zero_division: float = 0.0) -> jax.Array:
        """Right among those taken for each class, (C,); `zero_division` where there are none."""
        return ratio(jnp.diagonal(self.counts), self.counts.sum(0), zero_division)

    def recall(self, *, zero_division: float = 0.0) -> jax.Array:
        """Right among those of each class, (C,); `zero_division` where there are none."""
        return ratio(jnp.diagonal(self.counts), self.support, zero_division)

    def f1(self, *, zero_division: float = 0.0) -> jax.Array:
        """2 TP / (2 TP + FP + FN) of each class, (C,); `zero_division` where that is 0/0."""
        right = jnp.diagonal(self.counts)
        return ratio(2 * right, self.counts.sum(0) + self.support, zero_division)


def ratio(part: Any, whole: Any, zero_division: float) -> Any:
    """Returns part / whole as floats, `zero_division` where whole is 0.

    What was fetched to the host is divided there: it needs no compiled program.
    """
    np_ = jnp if isinstance(whole, jax.Array) else np
    part, whole = np_.asarray(part, float), np_.asarray(whole, float)
    return np_.where(whole == 0, zero_division, part / np_.where(whole == 0, 1, whole))


def accuracy(outputs: Any, targets: Any, mask: Any) -> Mean:
    """Computes the fraction of examples whose class has the largest output.

    Args:
        outputs: Scores, (..., C), floating. Of equal scores the first class wins, as in argmax;
            a NaN anywhere makes the prediction wrong.
        targets: Classes, (...), integer; one outside [0, C) is never hit. Or probabilities,
            (..., C), of which the largest, the first of equal ones, is the class.
        mask: See the module.

    Returns:
        `Mean` of 0 and 1.

    Raises:
        ConfigError: If the shapes do not fit.

    Example:
        >>> outputs = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
        >>> record = accuracy(outputs, jnp.array([1, 0, 0]), jnp.array([True, True, False]))
        >>> float(record.value)
        1.0
    """
    return top_k(outputs, targets, mask, k=1)


def top_k(outputs: Any, targets: Any, mask: Any, *, k: int = 5) -> Mean:
    """Computes the fraction of examples whose class is among the k largest outputs.

    Class y beats class j if z_y > z_j, or z_y = z_j and y <= j; it is among the k largest of C
    if it beats more than C - k. A NaN is never beaten.

    Args:
        outputs: Scores z, (..., C), floating.
        targets: As for `accuracy`.
        mask: See the module.
        k: In [1, C].

    Returns:
        `Mean` of 0 and 1.

    Raises:
        ConfigError: If the shapes do not fit or k is outside its range.
    """
    z, y = _scores_and_classes("top_k", outputs, targets)
    classes = z.shape[-1]
    _check.integer("top_k", "k", k)
    if k > classes:
        _check.fail("top_k", "k", f"at most the number of classes, {classes}", k)
    z_y = losses.at_class(z, y)[..., None]
    j = jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1)
    beaten = (z_y > z) | ((z_y == z) & (y[..., None] <= j))
    return _mean(Mean, beaten.sum(-1) > classes - k, mask)


def mean_loss(outputs: Any, targets: Any, mask: Any, *, loss: Callable) -> Mean:
    """Computes the mean of a loss over the examples.

    Args:
        outputs: What the loss takes.
        targets: What the loss takes.
        mask: See the module.
        loss: `f(outputs, targets)`, one number per example.

    Returns:
        `Mean` of the loss; NaN if it is NaN for an example that counts.
    """
    return _mean(Mean, loss(outputs, targets), mask)


def rmse(outputs: Any, targets: Any, mask: Any) -> RootMean:
    """Computes the root of the mean squared error over examples and outputs.

    Args:
        outputs: (batch, ...), floating.
        targets: Of the same shape, any real type.
        mask: See the module.

    Returns:
        `RootMean` of `losses.squared_error`.
    """
    return _mean(RootMean, losses.squared_error(outputs, targets), mask)


def confusion_matrix(outputs: Any, targets: Any, mask: Any) -> ConfusionMatrix:
    """Counts how often each class is taken for each other.

    Args:
        outputs: As for `accuracy`.
        targets: As for `accuracy`; a class outside [0, C) is left out.
        mask: See the module.

    Returns:
        `ConfusionMatrix`, int32 or, for a floating mask, in its dtype, at least float32.

    Raises:
        ConfigError: If the shapes do not fit.

    Example:
        >>> outputs = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        >>> confusion_matrix(outputs, jnp.array([0, 1, 1]), None).counts
        Array([[1, 0],
               [1, 1]], dtype=int32)
    """
    z, y = _scores_and_classes("confusion_matrix", outputs, targets)
    classes = z.shape[-1]
    prediction = jnp.where(jnp.isnan(z).any(-1), classes, z.argmax(-1).astype(jnp.int32))
    y = jnp.where(y < 0, classes, y)  # -1 would be the last class
    weight = _weight(mask, y.shape)
    table = jnp.zeros((classes, classes + 1), weight.dtype)
    table = table.at[y, prediction].add(weight, mode="drop")
    return ConfusionMatrix(table[:, :-1], table[:, -1])


def _scores_and_classes(where, outputs, targets):
    z, y = jnp.asarray(outputs), jnp.asarray(targets)
    if losses.check_labels(where, z, y) == "probabilities":
        y = y.argmax(-1)
    return z, y.astype(jnp.int32)


def _weight(mask, shape):
    """Returns the mask for each of the values, int32 or floating."""
    mask = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask)
    if mask.shape != shape[: mask.ndim] or mask.ndim == 0:
        _check.fail("metrics", "mask", f"of the leading axes of {shape}", mask.shape)
    floating = jnp.issubdtype(mask.dtype, jnp.floating)
    dtype = np.promote_types(mask.dtype, np.float32) if floating else jnp.int32
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return jnp.broadcast_to(mask, shape).astype(dtype)


def _mean(record, x, mask):
    w = _weight(mask, x.shape)
    dtype = w.dtype if x.dtype == bool else x.dtype
    wx = jnp.where(w == 0, 0, w.astype(dtype) * x.astype(dtype))  # 0 * NaN would be NaN
    return record(wx.sum(dtype=dtype), w.sum(dtype=w.dtype))
