"""Examples in host memory, checked once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError


def _fail(argument: str, rule: str, value: Any, fix: str = ""):
    _check.fail("ArrayDataset", argument, rule, value, fix, DataError)


def _first(x: np.ndarray, bad: np.ndarray, n: int) -> dict:
    """Returns the first n bad entries as {index: value}."""
    where = [tuple(map(int, i)) for i in np.argwhere(bad)[:n]]
    return {i[0] if len(i) == 1 else i: x[i].item() for i in where}


def _host_array(name: str, x: Any) -> np.ndarray:
    """Returns x as a finite array of a type that JAX keeps as it is."""
    x = np.asarray(x)
    if not _check.is_real(x.dtype):
        _fail(name, "of bool, integer or float type", str(x.dtype))
    if x.ndim == 0:
        _fail(name, "an array with one row per example", x.item(), "wrap lists in np.array")
    if x.dtype in (np.int64, np.uint64):
        outside = (x < -(2**31)) | (x >= 2**31)
        if outside.any():
            _fail(name, "in the range of int32", _first(x, outside, 5), "shown as {index: value}")
        x = x.astype(np.int32)
    if x.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        with np.errstate(over="ignore"):  # an overflow is reported as non-finite below
            x = x.astype(np.float32)
    if jnp.issubdtype(x.dtype, np.floating):
        bad = ~np.isfinite(x)
        if bad.any():
            fix = f"the first of {bad.sum()} such values, as {{index: value}}"
            _fail(name, "finite", _first(x, bad, 1), fix)
    return x


def _class_labels(name: str, label: np.ndarray, classes: int) -> np.ndarray:
    if not (label.dtype == bool or jnp.issubdtype(label.dtype, np.integer)):
        _fail(name, "integers where classes is given", str(label.dtype), "classes=None regresses")
    outside = (label < 0) | (label >= classes)
    if outside.any():
        fix = f"the first of {outside.sum()} such labels, as {{index: label}}"
        _fail(name, f"in [0, {classes})", _first(label, outside, 5), fix)
    return label.astype(np.int32)


def check_in_memory(where: str, argument: str, value: Any) -> None:
    """Checks that value is an ArrayDataset."""
    if not isinstance(value, ArrayDataset):
        fix = "of examples elsewhere take their numbers: ArrayDataset(np.arange(n), labels)"
        _check.fail(where, argument, "an ArrayDataset", type(value).__name__, fix, TypeError)


def chosen(n: int, indices: slice | np.ndarray) -> np.ndarray:
    """Returns the numbers that `indices` chooses of n examples."""
    if isinstance(indices, slice):
        return np.arange(n)[indices]
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        _fail("indices", "a slice or a vector of integers", indices)
    # Order pads with -1, which NumPy would read as the last example.
    outside = (indices < 0) | (indices >= n)
    if outside.any():
        _fail("indices", f"in [0, {n})", _first(indices, outside, 5))
    return indices


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Holds examples as NumPy arrays that were checked once, before anything compiles.

    64-bit integers become int32, and float64 becomes float32 unless `jax_enable_x64` is set:
    JAX would do the same at the first step, silently. Class labels are int32.

    Args:
        image: The inputs, an array or any tree of arrays; the leading axis counts examples.
        label: The targets, likewise, of the same length.
        classes: Number of classes, >= 1; the labels are then integers in [0, classes). None
            leaves the targets free, for regression.

    Raises:
        DataError: If there are no examples, lengths differ, a type is not real, a value is not
            finite, or a label is not a class.

    Example:
        >>> dataset = ArrayDataset(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4), classes=10)
        >>> len(dataset), dataset[1:3].label
        (4, array([1, 2], dtype=int32))
        >>> dataset
        ArrayDataset(image=uint8[4,8,8,1], label=int32[4], classes=10)
    """

    image: Any
    label: Any
    _: dataclasses.KW_ONLY
    classes: int | None = None

    def __post_init__(self):
        if self.classes is not None:
            _check.integer("ArrayDataset", "classes", self.classes)
        lengths = {}
        for field in ("image", "label"):
            leaves, treedef = jax.tree_util.tree_flatten_with_path(getattr(self, field))
            arrays = []
            for path, x in leaves:
                name = field + jax.tree_util.keystr(path)
                x = _host_array(name, x)
                if field == "label" and self.classes is not None:
                    x = _class_labels(name, x, self.classes)
                lengths[name] = len(x)
                arrays.append(x)
            if not arrays:
                _fail(field, "an array or a tree with at least one", getattr(self, field))
            object.__setattr__(self, field, jax.tree.unflatten(treedef, arrays))
        if len(set(lengths.values())) > 1:
            _fail("image and label", "of one length", lengths)
        if 0 in lengths.values():
            _fail("image and label", "of at least one example", lengths)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.label)[0])

    def __repr__(self) -> str:
        image, label = jax.tree.map(lambda x: str(jax.typeof(x)), (self.image, self.label))
        return f"ArrayDataset(image={image}, label={label}, classes={self.classes})"

    def __getitem__(self, indices: slice | np.ndarray) -> "ArrayDataset":
        """Returns the examples of a slice, or those with these numbers in [0, len)."""
        if not isinstance(indices, slice):
            indices = chosen(len(self), indices)
        image, label = jax.tree.map(lambda x: x[indices], (self.image, self.label))
        return ArrayDataset(image, label, classes=self.classes)
