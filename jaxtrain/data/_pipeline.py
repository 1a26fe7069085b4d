"""Preprocessings one after the other, fitted on the training set alone."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset, check_in_memory
from .clean._duplicates import digests


class Preprocessing(NamedTuple):
    """What a module such as `standardize` is: `fit(x)`, `apply(stats, x)`, `invert(stats, x)`."""

    fit: Callable
    apply: Callable
    invert: Callable


def pipeline(*steps: Any) -> Preprocessing:
    """Composes preprocessings into one.

    Each step is fitted on what the ones before it make of the training set. The statistics are the
    tuple of theirs: a pytree, so that `functools.partial(apply, stats)` is a layer.

    Args:
        *steps: Preprocessings, modules like `standardize` or what else has `fit` and `apply`; or
            pairs of one and the keyword arguments of its `fit`.

    Returns:
        The preprocessing. `fit` reads an array, whose float copy must fit in memory where there
        are several steps, or a function that returns an iterator over arrays, as
        `standardize.fit` does; `invert` undoes the steps from the last to the first.

    Raises:
        TypeError: If a step is none, or `invert` is called and one has no `invert`.

    Example:
        >>> from jaxtrain.data import standardize, whiten
        >>> steps = pipeline((standardize, {"scale": False}), (whiten, {"form": "zca", "eps": 0.0}))
        >>> x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 8.0], [2.0, 8.0]])
        >>> steps.apply(steps.fit(x), x).round(3).tolist()
        [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    """
    if not steps:
        _check.fail("pipeline", "steps", "at least one preprocessing", steps)
    pairs = [step if type(step) is tuple and len(step) == 2 else (step, {}) for step in steps]
    for step, options in pairs:
        whole = callable(getattr(step, "fit", None)) and callable(getattr(step, "apply", None))
        if not whole or not isinstance(options, Mapping):
            rule = "preprocessings with fit and apply, or pairs (preprocessing, options of fit)"
            _check.fail("pipeline", "steps", rule, (step, options), error=TypeError)

    def fit(x):
        stats: list[Any] = []
        for i, (step, options) in enumerate(pairs):
            if i > 0:
                x = _transformed(pairs[i - 1][0], stats[-1], x)
            stats.append(step.fit(x, **options))
        return tuple(stats)

    def apply(stats, x):
        for (step, _), s in zip(pairs, stats, strict=True):
            x = step.apply(s, x)
        return x

    def invert(stats, x):
        for (step, _), s in zip(pairs[::-1], stats[::-1], strict=True):
            if not hasattr(step, "invert"):
                _check.fail("pipeline.invert", "steps", "all with invert", step, error=TypeError)
            x = step.invert(s, x)
        return x

    return Preprocessing(fit, apply, invert)


def _transformed(step, stats, x):
    if callable(x):
        return lambda: (step.apply(stats, np.asarray(block)) for block in x())
    return step.apply(stats, np.asarray(x))


def prepare(
    preprocessing: Any,
    train: ArrayDataset,
    *held_out: ArrayDataset,
    allow_duplicates: bool = False,
) -> tuple[Any, ...]:
    """Fits a preprocessing on the training set alone, and applies it to every set.

    Augmentations of color take floats to be in [0, 1] and clip them: where there are such, leave
    the images as they are and put `nn.standardize(*standardize.fit(train.image))` into the net.

    Args:
        preprocessing: With `fit` and `apply`: a module like `standardize`, or a `pipeline`, which
            gives options too, as in `pipeline((standardize, {"per": "channel"}))`.
        train: The training set; its images are one array.
        *held_out: Validation and test sets, which `fit` never sees.
        allow_duplicates: False refuses held-out sets with an image that, to the bit, the training
            set has too: they would be tested on what was learned by heart.

    Returns:
        The statistics, the training set and the held-out sets, each with `apply(stats, image)` for
        its images.

    Raises:
        DataError: If an image is in the training set and held out too, with the indices of both.

    Example:
        >>> from jaxtrain import data
        >>> train, test = data.digits()
        >>> stats, train, test = data.prepare(data.standardize, train, test)
        >>> test.image.dtype
        dtype('float32')
    """
    _check.flag("prepare", "allow_duplicates", allow_duplicates)
    for part in (train, *held_out):
        check_in_memory("prepare", "train and held_out", part)
        if not isinstance(part.image, np.ndarray):
            fix = "preprocess its leaves one by one"
            _check.fail("prepare", "image", "one array", type(part.image).__name__, fix, TypeError)
        if part.image.shape[1:] != train.image.shape[1:]:
            rule = f"of examples of the training set's shape, {train.image.shape[1:]}"
            _check.fail("prepare", "held_out", rule, part.image.shape[1:], error=DataError)
    if not allow_duplicates:
        _refuse_leaks(train.image, [part.image for part in held_out])
    stats = preprocessing.fit(train.image)
    return stats, *(
        ArrayDataset(preprocessing.apply(stats, part.image), part.label, classes=part.classes)
        for part in (train, *held_out)
    )


def _refuse_leaks(train, held_out):
    dtype = np.result_type(train, *held_out)
    place = {digest: i for i, digest in enumerate(digests(train.astype(dtype, copy=False)))}
    for k, images in enumerate(held_out):
        found = digests(images.astype(dtype, copy=False))
        shared = {i: place[digest] for i, digest in enumerate(found) if digest in place}
        if shared:
            some = dict(list(shared.items())[:5])
            fix = f"the first of {len(shared)}, as {{index: index in train}}; allow_duplicates=True"
            rule = "without the images of the training set"
            _check.fail("prepare", f"held_out[{k}]", rule, some, fix, DataError)
