"""CIFAR-10 and CIFAR-100 from their binary archives, downloaded where they are missing."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset
from ._fetch import fetch, read_tar

HOME = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 32 * 32 * 3


class Source(NamedTuple):
    """An archive: its name, SHA-256 and length, its folder, and how many images each file has."""

    archive: str
    sha256: str
    size: int
    folder: str
    pickled: str  # the folder of the version for Python
    images: dict[str, int]
    labels: int  # bytes before the pixels of each image


CIFAR10 = Source(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170052171,
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
    {f"data_batch_{i}.bin": 10000 for i in range(1, 6)} | {"test_batch.bin": 10000},
    1,
)
CIFAR100 = Source(
    "cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    168513733,
    "cifar-100-binary",
    "cifar-100-python",
    {"train.bin": 50000, "test.bin": 10000},
    2,
)


def cifar10(directory: str | os.PathLike) -> tuple[ArrayDataset, ArrayDataset]:
    """Loads the 60,000 color images of CIFAR-10.

    Args:
        directory: `cifar-10-binary.tar.gz` or its folder, to which it is downloaded (170 MB) where
            it is missing; it is checked against its SHA-256 and nothing is extracted. Or the
            folder of `data_batch_1.bin` and so on, which it holds.

    Returns:
        The training set of 50,000 and the test set of 10,000: images (n, 32, 32, 3) uint8 in
        [0, 255], labels (n,) int32 in [0, 10): airplane, automobile, bird, cat, deer, dog, frog,
        horse, ship, truck.

    Raises:
        DataError: If a file is broken, is missing and cannot be downloaded, or is of the version
            for Python, whose pickles can run code.

    References:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return _load("cifar10", directory, CIFAR10, 0, 10)


def cifar100(
    directory: str | os.PathLike, *, labels: str = "fine"
) -> tuple[ArrayDataset, ArrayDataset]:
    """Loads the 60,000 color images of CIFAR-100.

    Args:
        directory: As for `cifar10`, with `cifar-100-binary.tar.gz` (169 MB), or `train.bin` and
            `test.bin`.
        labels: "fine" for the 100 classes, "coarse" for their 20 groups of five.

    Returns:
        The training set of 50,000 and the test set of 10,000, as from `cifar10`.

    Raises:
        DataError: As from `cifar10`.

    References:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    _check.choice("cifar100", "labels", labels, ("fine", "coarse"))
    column, classes = {"coarse": (0, 20), "fine": (1, 100)}[labels]
    return _load("cifar100", directory, CIFAR100, column, classes)


def _load(where, directory, source, column, classes):
    """Returns the training and the test set with the label in that byte of each record."""
    directory = pathlib.Path(directory)
    images, labels = [], []
    for name, content in _contents(where, directory, source).items():
        n, length = source.images[name], source.labels + PIXELS
        if len(content) != n * length:
            _fail(where, directory, name, f"{n} records of {length} bytes", len(content))
        records = np.frombuffer(content, np.uint8).reshape(n, length)
        label = records[:, column]
        if label.max() >= classes:
            _fail(where, directory, name, f"labels in [0, {classes})", label.max().item())
        images.append(records[:, source.labels :].reshape(n, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(label)
    return (
        ArrayDataset(np.concatenate(images[:-1]), np.concatenate(labels[:-1]), classes=classes),
        ArrayDataset(np.ascontiguousarray(images[-1]), labels[-1], classes=classes),
    )


def _contents(where, directory, source) -> dict[str, bytes]:
    """Returns the files by name, from where there are any, in the order of the source."""
    for folder in (directory, directory / source.folder):
        paths = {name: folder / name for name in source.images}
        if any(path.exists() for path in paths.values()):
            missing = [str(path) for path in paths.values() if not path.exists()]
            if missing:
                _fail(where, folder, "", f"a folder of {', '.join(paths)}", f"no {missing[0]}")
            return {name: path.read_bytes() for name, path in paths.items()}
    archive = directory if directory.is_file() else directory / source.archive
    pickled = (source.archive.replace("binary", "python"), source.pickled, "data_batch_1")
    if not archive.exists() or archive.name in pickled:
        for name in pickled:
            if directory.name == name or (directory / name).exists():
                rule = "the binary version, not that for Python, whose pickles can run code"
                fix = f"get {HOME}{source.archive}"
                _check.fail(where, str(directory), rule, name, fix, DataError)
        urls, fix = [HOME + source.archive], f"put {source.archive} there"
        fetch(where, urls, archive, sha256=source.sha256, size=source.size, fix=fix)
    bytes_in_all = (source.labels + PIXELS) * sum(source.images.values())
    contents = read_tar(
        where, archive, source.images, sha256=source.sha256, size=bytes_in_all + (1 << 20)
    )
    return {name: contents[name] for name in source.images}


def _fail(where, directory, name, rule, value):
    _check.fail(where, str(directory / name), rule, value, "get the archive anew", DataError)
