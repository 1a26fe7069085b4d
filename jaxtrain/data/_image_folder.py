"""Images in a folder for each class, read with Pillow."""

import os
import pathlib
import warnings
from typing import Any

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset


def image_folder(
    directory: str | os.PathLike,
    *,
    size: int | tuple[int, int],
    channels: int = 3,
    fit: str = "crop",
) -> tuple[ArrayDataset, list[str]]:
    """Loads the images of a folder whose subfolders are the classes, all in one size.

    The classes are sorted by name, and so are the images of each. Files whose name begins with a
    dot are left out; any other that is not an image, or not in the folder of a class, is an error.
    Images are turned as their EXIF orientation says, and alpha is dropped. Needs Pillow.

    Args:
        directory: The folder; images may lie deeper in the folder of their class.
        size: Pixels of the result, (height, width) or one number for both.
        channels: 3 for red, green and blue, 1 for gray.
        fit: "crop" scales an image until it covers the size and cuts the rest off evenly on both
            sides; "stretch" ignores its proportions. Both average where they reduce.

    Returns:
        The data set, images (n, height, width, channels) uint8 in [0, 255] and labels (n,) int32,
        and the names of the classes.

    Raises:
        DataError: If there are no classes, a class has no image, a file is in none, or an image is
            broken, huge, or not of 8 bits; the message names the file.
        ConfigError: If an option is outside its range.
    """
    from PIL import Image, ImageOps

    _check.choice("image_folder", "fit", fit, ("crop", "stretch"))
    _check.choice("image_folder", "channels", channels, (1, 3))
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2:
        _check.fail("image_folder", "size", "one int or a pair of them, (height, width)", size)
    for length in sides:
        _check.integer("image_folder", "size", length)
    height, width = sides
    scale: Any = {"crop": ImageOps.fit, "stretch": Image.Image.resize}[fit]

    def read(path):
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if file.mode.startswith(("I", "F")):
                    raise ValueError(f"mode {file.mode}")
                image = ImageOps.exif_transpose(file).convert({1: "L", 3: "RGB"}[channels])
        scaled = scale(image, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(scaled).reshape(height, width, channels)

    directory = pathlib.Path(directory)
    inside = [path.relative_to(directory) for path in sorted(directory.rglob("*"))]
    inside = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    names = [path.name for path in inside if len(path.parts) == 1 and (directory / path).is_dir()]
    files = [path for path in inside if (directory / path).is_file()]
    for path in files:
        if len(path.parts) == 1:
            _fail(directory / path, "in the folder of a class", "none")
    label = np.array([names.index(path.parts[0]) for path in files], np.int32)
    if not names:
        _fail(directory, "a folder with a folder for each class", "none")
    for name in np.delete(names, np.unique(label)):
        _fail(directory / name, "a folder with an image", "none")
    images = np.empty((len(files), height, width, channels), np.uint8)
    for i, path in enumerate(files):
        try:
            images[i] = read(directory / path)
        except Exception as error:  # Pillow's decoders raise errors of many types
            _fail(directory / path, "an image of 8 bits that is whole", error)
    return ArrayDataset(images, label, classes=len(names)), names


def _fail(path: pathlib.Path, rule: str, value: Any):
    _check.fail("image_folder", str(path), rule, value, error=DataError)
