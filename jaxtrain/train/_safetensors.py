"""Trees of arrays in the safetensors format, which other libraries read and write too.

A file is the length of its header (8 bytes, little-endian), the header, JSON that gives the dtype,
shape and place of every array by name, and the arrays, one after another without holes.
"""

import json
import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check, tree
from jaxtrain.errors import DataError
from jaxtrain.train._checkpoint import _fsync

DTYPES = {
    **{"BOOL": np.dtype(bool), "C64": np.dtype("complex64"), "BF16": jnp.dtype("bfloat16")},
    **{"F8_E4M3": jnp.dtype("float8_e4m3fn"), "F8_E5M2": jnp.dtype("float8_e5m2")},
    **{f"F{n}": np.dtype(f"float{n}") for n in (16, 32, 64)},
    **{f"I{n}": np.dtype(f"int{n}") for n in (8, 16, 32, 64)},
    **{f"U{n}": np.dtype(f"uint{n}") for n in (8, 16, 32, 64)},
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
FIELDS = {"dtype": str, "shape": list, "data_offsets": list}
HEADER_BYTES = 100_000_000  # the limit of the format's own implementation


def save_safetensors(path: str | os.PathLike, arrays: Any) -> None:
    """Writes a tree of arrays, such as `{"params": params, "state": state}`, to a file.

    A file that was there is replaced in one step, when everything is on the disk.

    Args:
        path: the file, usually named `.safetensors`.
        arrays: nested dicts of arrays; the name of an array is its '/'-joined path, and dicts
            without any leave no trace.

    Raises:
        ConfigError: two arrays have the same path, or one has none.
        TypeError: a leaf is not an array, or of a dtype that the format lacks.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "net.safetensors")
        >>> save_safetensors(path, {"dense0": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}})
        >>> load_safetensors(path)["dense0"]["kernel"].dtype
        dtype(bfloat16)
    """
    path = pathlib.Path(path)
    header: dict[str, Any] = {}
    leaves, end = [], 0
    for key, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        name = tree.path_name(key)
        if not name or name in header:
            _check.fail("save_safetensors", "arrays", "of dicts, each path once", name)
        array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
        dtype: Any = leaf.dtype if array else type(leaf)
        if dtype not in CODES:
            rule = f"an array of one of {sorted(map(str, CODES))}"
            fix = "for a random key, save jax.random.key_data(key)"
            _check.fail("save_safetensors", f"arrays[{name!r}]", rule, str(dtype), fix, TypeError)
        leaves.append(np.asarray(leaf))
        begin, end = end, end + leaves[-1].nbytes
        header[name] = dict(dtype=CODES[dtype], shape=leaf.shape, data_offsets=[begin, end])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for leaf in leaves:
                file.write(leaf.tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync(path.parent)


def load_safetensors(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the arrays of a file that `save_safetensors` or another library wrote.

    Args:
        path: the file.

    Returns:
        NumPy arrays in dicts, nested where there is a '/' in a name: names of other libraries, such
        as torch's "layer1.0.conv1.weight", stay as they are.

    Raises:
        DataError: the file is not whole, or not of the format; no memory is taken for what it does
            not hold.
    """
    path = pathlib.Path(path)
    arrays: dict[str, Any] = {}
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size - 8
        length = int.from_bytes(file.read(8), "little")
        if size < 0:
            _fail(path, "a file of at least 8 bytes", size + 8)
        if not 2 <= length <= min(size, HEADER_BYTES):
            _fail(path, f"a file of a header and arrays, {size} bytes together", length)
        for name, dtype, shape, n in _entries(path, file.read(length), size - length):
            array = np.fromfile(file, np.uint8, n)
            if dtype.kind == "b" and array.max(initial=0) > 1:
                _fail(path, f"a file with only 0 and 1 in {name!r}, of dtype BOOL", array.max())
            *way, last = name.split("/")
            at = arrays
            for key in way:
                at = at.setdefault(key, {}) if isinstance(at, dict) else at
            if not isinstance(at, dict) or last in at:
                _fail(path, "a file without an array inside another", name)
            try:
                at[last] = array.view(dtype).reshape(shape)
            except (ValueError, OverflowError):
                _fail(path, f"a file of arrays, {name!r} among them", f"shape {shape}")
    return arrays


def _entries(path, text: bytes, size: int) -> list[tuple[str, np.dtype, list[int], int]]:
    """Returns name, dtype, shape and number of bytes in the order in which the arrays stand."""
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        _fail(path, "a file whose header is a JSON object of arrays", error)
    found, end = [], 0
    for name, entry in entries:
        where = f"{name!r} with a known dtype, a shape, and offsets from {end} on"
        if {k: type(v) for k, v in entry.items()} != FIELDS or entry["dtype"] not in DTYPES:
            _fail(path, f"a file of {where}", entry)
        dtype, shape, offsets = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in shape)
        n = math.prod(shape) * dtype.itemsize if whole else -1
        if not whole or offsets != [end, end + n]:
            _fail(path, f"a file of {where}", entry)
        end += n
        found.append((name, dtype, shape, n))
    if end != size:
        _fail(path, f"a file of {end} bytes of arrays, as its header says", size)
    return found


def _unique(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _fail(path, rule, value):
    _check.fail("load_safetensors", str(path), rule, value, "save or fetch it again", DataError)
