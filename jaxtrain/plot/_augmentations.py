"""What an augmentation does to images, and a mixture to their labels."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxtrain import _check
from jaxtrain.augment._image import white
from jaxtrain.data import ArrayDataset, Source
from jaxtrain.data._order import check_seed


def augmentations(
    dataset: ArrayDataset | Source,
    augment: Callable | Mapping[str, Callable] | None = None,
    *,
    mix: Callable | None = None,
    names: Sequence[str] | None = None,
    examples: int = 4,
    samples: int = 7,
    seed: int = 0,
    high: float | None = None,
) -> Any:
    """Draws images as they are and, beside them, as a training step would see them.

    Args:
        dataset: images (n, height, width, 1 or 3), or a part of a data set, such as `train[:4]`.
        augment: `f(key, image) -> image`, as in `train.make_step`; or several by name, to compare:
            then there is a row for each, of the same image.
        mix: `f(key, images, labels) -> images, labels`, as in `train.make_step`; it mixes the
            images that are shown with each other.
        names: of the classes; None shows their numbers.
        examples: rows, >= 1: of images from the first of the data set to the last, evenly spread.
        samples: columns beside that of the images as they are, >= 1, each with a key of its own.
        seed: of the keys.
        high: what is drawn white; None means 255 for integers and 1 for floats.

    Returns:
        A matplotlib Figure. Titles say the label: its class, or the shares of those that were
        mixed. Where augmentations are compared there are none: all are of one example.

    Raises:
        ConfigError: If the images are not drawable or there are no class labels to mix.

    Example:
        >>> from jaxtrain import data
        >>> digits, _ = data.digits()
        >>> figure = augmentations(digits, lambda key, image: image[:, ::-1], high=16)
        >>> len(figure.axes)
        32
    """
    from matplotlib.figure import Figure

    for argument, number in (("examples", examples), ("samples", samples)):
        _check.integer("augmentations", argument, number)
    check_seed("augmentations", seed)
    if high is not None:
        _check.positive("augmentations", "high", high)
    if not isinstance(dataset, ArrayDataset | Source):
        _check.fail("augmentations", "dataset", "a data set", type(dataset).__name__, "", TypeError)
    if names is not None and (not hasattr(names, "__len__") or len(names) < (dataset.classes or 0)):
        rule = f"a name for each of the {dataset.classes} classes"
        _check.fail("augmentations", "names", rule, names)
    by_name = isinstance(augment, Mapping)
    rows: dict[str, Callable | None]
    if isinstance(augment, Mapping):
        rows, numbers = dict(augment), [0] * len(augment)
    else:
        spread = np.linspace(0, len(dataset) - 1, min(examples, len(dataset)))
        numbers = spread.astype(int).tolist()
        rows = {str(i): augment for i in numbers}
    if not rows:
        _check.fail("augmentations", "augment", "a function, or at least one by name", augment)
    for f in (*rows.values(), mix):
        if f is not None:
            _check.function("augmentations", "augment or mix", f)
    shown = dataset[np.array(numbers)]
    image, label = shown.image, shown.label
    if getattr(image, "ndim", 0) != 4 or image.shape[-1] not in (1, 3):
        rule = "images (n, height, width, 1 or 3)"
        _check.fail("augmentations", "dataset", rule, jax.tree.map(np.shape, image))
    low, top = float(image.min()), float(image.max())
    end = white("augmentations", high, image.dtype)
    if low < 0 or top > end:
        warnings.warn(
            f"augmentations: images must be in [0, {end}], got [{low:.3g}, {top:.3g}]; the rest is"
            " cut off, as by augmentations of color: give high=, or raw images, which"
            " nn.standardize standardizes in the net",
            stacklevel=2,
        )
    if dataset.classes is not None:
        label = np.eye(dataset.classes, dtype=np.float32)[label]
    elif mix is not None:
        _check.fail("augmentations", "dataset", "one with classes, to mix", None)

    # As in a step: operation by operation an augmentation takes several times as long.
    rows = {name: f if f is None else jax.jit(f) for name, f in rows.items()}
    key = jax.random.key(seed)
    columns = [(image, label)]
    for sample in range(samples):
        k = jax.random.fold_in(key, sample)
        keys = [jax.random.fold_in(k, row) for row in range(len(rows))]
        seen = [
            f(key, x) if f is not None else x
            for f, key, x in zip(rows.values(), keys, image, strict=True)
        ]
        column = np.stack(jax.device_get(seen)), label
        columns.append(jax.device_get(mix(k, *column)) if mix is not None else column)

    titled = mix is not None or not by_name  # else all are of one example
    height = 1.5 if titled else 1.3
    figure = Figure(figsize=(1.3 * len(columns), height * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for j, (images, labels) in enumerate(columns):
        for axes, x, y in zip(grid[:, j], images, labels, strict=True):
            x = np.clip(np.asarray(x, np.float32) / end, 0, 1)
            axes.imshow(x[..., 0] if x.shape[-1] == 1 else x, cmap="gray", vmin=0, vmax=1)
            if titled:
                axes.set_title(_said(y, dataset.classes, names), fontsize=8)
            axes.set(xticks=[], yticks=[])
    if by_name:
        for axes, name in zip(grid[:, 0], rows, strict=True):
            axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def _said(label: np.ndarray, classes: int | None, names: Sequence[str] | None) -> str:
    """Returns a label as text: "3", "0.60 3 + 0.40 8", or names below each other."""
    if classes is None:
        return np.array2string(np.asarray(label), precision=2)
    share = {i: float(label[i]) for i in np.argsort(-label, kind="stable") if label[i] > 0.005}
    said = {i: str(i) if names is None else names[i] for i in share}
    if len(share) == 1:
        return next(iter(said.values()))
    return (" + " if names is None else "\n").join(f"{share[i]:.2f} {said[i]}" for i in share)
