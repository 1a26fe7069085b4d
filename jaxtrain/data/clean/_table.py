"""Arrays and pandas frames as one kind of table."""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError


class Table(NamedTuple):
    """Values (n, d), the names of the d features and of the n examples."""

    values: np.ndarray
    features: list[str]
    names: np.ndarray


def read(where: str, x: Any, *, argument: str = "x", numeric: bool = True) -> Table:
    """Reads an array (n, ...), a pandas frame, or a series.

    Args:
        where: The function that error messages name.
        x: The examples.
        argument: What the function calls them.
        numeric: Whether the values must be numbers, and become float64 with NaN for nulls.

    Raises:
        DataError: If there are no examples, or values are not numbers where they must be.
    """
    if hasattr(x, "to_frame") and not hasattr(x, "columns"):
        x = x.to_frame()
    if hasattr(x, "columns"):
        names, features = x.index.to_numpy(), [str(column) for column in x.columns]
        kinds = {f: str(t) for f, t in zip(features, x.dtypes, strict=True) if t.kind not in "biuf"}
        if numeric and kinds:
            fix = "as x.select_dtypes(['number', 'bool']) are"
            _check.fail(where, argument, "of numeric columns", kinds, fix, DataError)
        values = x.to_numpy(np.float64, na_value=np.nan) if numeric else x.to_numpy()
    else:
        x = np.asarray(x)
        features = [", ".join(map(str, i)) or "0" for i in np.ndindex(x.shape[1:])]
        if numeric and not _check.is_real(x.dtype):
            rule = "of bool, integer or float type"
            _check.fail(where, argument, rule, str(x.dtype), error=DataError)
        names = np.arange(len(x) if x.ndim else 0)
        values = x.reshape(len(names), len(features)) if x.ndim else x
        values = values.astype(np.float64) if numeric else values
    if not (len(names) and values.size):
        _check.fail(where, argument, "of at least one example", np.shape(x), error=DataError)
    return Table(values, features, names)


def column(where: str, argument: str, name: str, x: Any) -> tuple[Any, Any]:
    """Returns a frame without the column of that name, and that column."""
    if not hasattr(x, "columns"):
        rule = "an array where there is no frame"
        _check.fail(where, argument, rule, name, error=TypeError)
    _check.choice(where, argument, name, x.columns)
    return x.drop(columns=name), x[name]


def missing(values: np.ndarray) -> np.ndarray:
    """Returns where an array of any type has NaN, None, NaT or pandas' NA."""

    def is_missing(v):
        try:
            return v is None or bool(v != v)
        except TypeError:  # pandas' NA is neither true nor false
            return True

    if values.dtype == object:
        return np.array([is_missing(v) for v in values.flat], bool).reshape(values.shape)
    return values != values


def finite(where: str, values: np.ndarray, argument: str = "x") -> None:
    """Checks that no value is NaN or infinite."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        value = {tuple(map(int, bad[0])): values[tuple(bad[0])].item()}
        fix = f"the first of {len(bad)}, by (example, feature); clean.nulls finds missing ones"
        _check.fail(where, argument, "finite", value, fix, DataError)


def codes(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the distinct values of a column; returns the number of each and their counts."""
    column = np.asarray(column)
    if column.dtype == object:  # None and text cannot be sorted together
        column = np.array([repr(value) for value in column.tolist()])
    _, code, count = np.unique(column, return_inverse=True, return_counts=True)
    return code, count
