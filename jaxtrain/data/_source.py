"""Examples that are read when they are needed, where they do not fit in memory."""

import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset, chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Reads examples by their number, whenever a batch wants them.

    `train.fit` takes it in place of an `ArrayDataset`. Which examples form a batch is arithmetic on
    the step (`Order`), so that a run resumes exactly at any step, and each process reads only its
    own part of a batch. Two batches are read ahead while the devices compute.

    Args:
        examples: `len(examples)` of them, and `examples[i]` is example i: a pair (image, label) or
            a mapping with these two keys, of NumPy arrays or numbers. A grain `MapDataset` is one,
            with its decoding and resizing by `map`, without its `shuffle`, `repeat` and `batch`,
            which are done here; so is a torch `Dataset`. Example i must not depend on when it is
            read: what is random belongs in `make_step(augment=)`.
        classes: as in `ArrayDataset`; labels are checked as they are read.
        threads: how many examples are read at once, >= 1.

    Raises:
        DataError: If there are no examples or too many, or, from reading, one is not a pair, two
            differ in shape, or one is not what `ArrayDataset` takes.

    Example:
        >>> pairs = [(np.full((8, 8, 1), i, np.uint8), i % 2) for i in range(6)]
        >>> source = Source(pairs, classes=2)
        >>> len(source), source[np.array([5, 0])].label
        (6, array([1, 0], dtype=int32))
    """

    examples: Any = dataclasses.field(repr=False)
    _: dataclasses.KW_ONLY
    classes: int | None = None
    threads: int = 8

    def __post_init__(self):
        _check.integer("Source", "threads", self.threads)
        if self.classes is not None:
            _check.integer("Source", "classes", self.classes)
        if not (hasattr(self.examples, "__len__") and hasattr(self.examples, "__getitem__")):
            rule, fix = "a sequence of examples", "it needs len() and [i]; an iterator has neither"
            got = type(self.examples).__name__
            _check.fail("Source", "examples", rule, got, fix, TypeError)
        if not 1 <= len(self.examples) < 2**31:
            rule, fix = "1 to 2**31 - 1 examples", "leave repeat() to the epochs of fit"
            _check.fail("Source", "examples", rule, len(self.examples), fix, DataError)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: slice | np.ndarray) -> ArrayDataset:
        """Reads the examples of a slice, or those with these numbers in [0, len)."""
        numbers = chosen(len(self), indices).tolist()
        read = list(self._pool.map(self._read, numbers))
        kinds = {_kind(pair): i for i, pair in zip(numbers, read, strict=True)}
        if len(kinds) > 1:
            rule = "of one structure, shape and type, to be stacked"
            found = {i: kind for kind, i in kinds.items()}
            _check.fail("Source", "examples", rule, found, "resize or convert them", DataError)
        image, label = jax.tree.map(lambda *xs: np.stack(xs), *read)
        try:
            return ArrayDataset(image, label, classes=self.classes)
        except DataError:
            for i, pair in zip(numbers, read, strict=True):  # to say which
                with _naming(i):
                    one = jax.tree.map(lambda x: np.asarray(x)[None], pair)
                    ArrayDataset(*one, classes=self.classes)
            raise

    @functools.cached_property
    def _pool(self):
        return concurrent.futures.ThreadPoolExecutor(self.threads)

    def _read(self, i: int) -> tuple[Any, Any]:
        with _naming(i):
            pair = self.examples[i]
        if isinstance(pair, Mapping) and {"image", "label"} <= set(pair):
            pair = pair["image"], pair["label"]
        if not isinstance(pair, tuple) or len(pair) != 2:
            rule = "(image, label) or a mapping with both"
            got = sorted(pair) if isinstance(pair, Mapping) else type(pair).__name__
            _check.fail("Source", f"examples[{i}]", rule, got, error=DataError)
        return pair


@contextlib.contextmanager
def _naming(i):
    """Notes on any exception which example it came from."""
    try:
        yield
    except Exception as error:
        error.add_note(f"Source: while example {i} was read")
        raise


def _kind(pair):
    leaves, treedef = jax.tree.flatten(pair)
    arrays = map(np.asarray, leaves)
    return f"{treedef}".removeprefix("PyTreeDef"), *((x.shape, str(x.dtype)) for x in arrays)
