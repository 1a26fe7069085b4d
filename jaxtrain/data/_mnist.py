"""MNIST from its IDX files, which are downloaded where they are missing."""

import functools
import gzip
import math
import os
import pathlib
from typing import NoReturn

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset
from ._fetch import BROKEN_GZIP, fetch, gunzip

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
# The shapes, and the SHA-256 of the files before compression: it is the same for every gzip.
FILES = {
    "train-images-idx3-ubyte": (
        (60000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        (60000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        (10000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        (10000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, plain or (by its name, `.gz`) compressed.

    The header is two zero bytes, the type 8, the number of axes and, for each axis, its length
    as a big-endian 32-bit integer. At most one byte more than the header announces is read.

    Args:
        path: The file.

    Returns:
        Its array, uint8.

    Raises:
        DataError: If the file is not IDX of that type, is shorter or longer than its header
            says, or is corrupt gzip.
    """
    path = pathlib.Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            magic = file.read(4)
            if magic[:3] != b"\0\0\x08" or len(magic) < 4:
                _fail(path, "an IDX file of unsigned bytes", magic)
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                _fail(path, f"a file with {magic[3]} lengths in its header", header)
            shape = tuple(np.frombuffer(header, ">u4").tolist())
            size, content = math.prod(shape), bytearray()
            # In pieces: read(size) would allocate whatever a damaged header asks for.
            while piece := file.read(min(size + 1 - len(content), 1 << 20)):
                content += piece
    except BROKEN_GZIP as error:
        _fail(path, "whole gzip data", error)
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else len(content)
        _fail(path, f"a file with {size} bytes after its header, as {shape} says", found)
    try:
        return np.frombuffer(content, np.uint8).reshape(shape)
    except ValueError as error:
        _fail(path, "a file of a shape that NumPy has", str(error))


def mnist(directory: str | os.PathLike) -> tuple[ArrayDataset, ArrayDataset]:
    """Loads the 70,000 handwritten digits of MNIST.

    Args:
        directory: The folder of the four IDX files, plain or `.gz`. Those that are missing are
            downloaded to it (11 MB in all) and checked against their SHA-256.

    Returns:
        The training set of 60,000 and the test set of 10,000: images (n, 28, 28, 1) uint8 in
        [0, 255], labels (n,) int32 in [0, 10).

    Raises:
        DataError: If a file is broken or of another shape, or is missing and cannot be
            downloaded.

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document
        Recognition, 1998.
    """
    directory = pathlib.Path(directory)
    arrays = []
    for name, (shape, sha256) in FILES.items():
        paths = [directory / name, directory / f"{name}.gz"]
        path = next(filter(pathlib.Path.exists, paths), paths[1])
        if not path.exists():
            urls = [f"{mirror}{name}.gz" for mirror in MIRRORS]
            size = 4 + 4 * len(shape) + math.prod(shape)
            content = functools.partial(gunzip, size=size)
            fix = f"put {' and '.join(FILES)} there, plain or as .gz"
            fetch("mnist", urls, path, sha256=sha256, size=size, content=content, fix=fix)
        array = read_idx(path)
        if array.shape != shape:
            _fail(path, f"of shape {shape}", array.shape)
        arrays.append(array)
    images, labels, test_images, test_labels = arrays
    return (
        ArrayDataset(images[..., None], labels, classes=10),
        ArrayDataset(test_images[..., None], test_labels, classes=10),
    )


def _fail(path, rule, value) -> NoReturn:
    _check.fail("read_idx", str(path), rule, value, "delete the file and get it anew", DataError)
