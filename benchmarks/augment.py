"""Times augmentations: each by itself, inside the training step, and in the input pipeline.

python -m benchmarks.augment

Each augmentation stands beside dm_pix, torch tensors and NumPy, where they have it; the step is our
fastest one, with and without; the pipeline is our loop over data on the device beside torch's
DataLoader and vectorized NumPy. Rounds are interleaved, and only ratios within a round count.
"""

import functools
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import step
from benchmarks.step import environment, quartiles, show, time_rounds
from jaxtrain import augment, losses, optim, train
from jaxtrain.augment import _policy

RESULTS = pathlib.Path(__file__).parent / "results" / "augment.json"
BATCH = 128
EXAMPLES = 4096  # of the pipeline
PADDING = 4


def flip_crop(key, image):
    k_flip, k_crop = jax.random.split(key)
    return augment.random_crop(k_crop, augment.random_flip(k_flip, image), padding=PADDING)


def by_switch(f: Callable, key: Any, image: Any, **options: Any) -> Any:
    """Returns f(key, image, **options) of a policy f, the operations chosen by `lax.switch`."""

    def layers(rows, at, chosen, x, fill, places):
        names = [[name for name, *_ in row] for row in rows]
        number = np.array([[augment.OPERATIONS.index(name) for name in row] for row in names])
        used = np.unique(number)
        branches = [_branch(augment.OPERATIONS[i]) for i in used]
        which = jnp.asarray(np.searchsorted(used, number), np.int32)[at[:2]]
        for layer, place in enumerate(places):
            effect = jax.tree.map(lambda a, layer=layer: a[layer], chosen)
            x = jax.lax.switch(which[layer], branches, effect, x, fill, place)
        return x

    with mock.patch.object(_policy, "_layers", layers):
        return f(key, image, **options)


def _branch(name: str) -> Callable:
    def move(effect, x, fill, place):
        (height, width, _), (a, b, c, d, e, f) = x.shape, effect.matrix
        row, column = jnp.indices((height, width), np.int32)
        i, j = (d * column + e * row + f) // 2**16, (a * column + b * row + c) // 2**16
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        y = x[jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)]
        return jnp.where(inside[..., None], y, fill[None, None])

    def blend(effect, x, fill, place):
        gray = (x * np.array([19595, 38470, 7471])[None, None, : x.shape[2]].astype(np.int32)).sum(
            2, keepdims=True, dtype=np.int32
        )
        gray = (gray + 2**15) // 2**16 if x.shape[2] == 3 else x
        if name == "brightness":
            other = jnp.zeros_like(x)
        elif name == "contrast":
            other = jnp.full_like(x, (2 * gray.sum(dtype=np.int32) + gray.size) // (2 * gray.size))
        elif name == "color":
            other = jnp.broadcast_to(gray, x.shape)
        else:
            other = _smoothed(x)
        change = jnp.clip(effect.factor * (x - other).astype(np.float32), -1e9, 1e9)
        return jnp.clip(other.astype(np.float32) + change, 0, 255).astype(np.int32)

    def table(effect, x, fill, place):
        image = x.astype(np.uint8)
        if name in ("autocontrast", "equalize"):
            y = getattr(augment, name)(image)
            applied = effect.stretch if name == "autocontrast" else effect.equalize
        elif name == "posterize":
            y, applied = image & effect.mask.astype(np.uint8), True
        else:
            y, applied = jnp.where(x < effect.threshold, image, ~image), True
        return jnp.where(applied, y, image).astype(np.int32)

    def cutout(effect, x, fill, place):
        centre = (place * np.array(x.shape[:2], np.float32)).astype(np.int32)
        from_centre = jnp.indices(x.shape[:2], np.int32) - centre[:, None, None]
        half = effect.size // 2
        inside = ((from_centre >= -half) & (from_centre < half)).all(0)
        return jnp.where(inside[..., None], fill[None, None], x)

    for names, f in (
        (_policy.MOVES, move),
        (_policy.BLENDS, blend),
        (_policy.TABLES, table),
        ({"cutout"}, cutout),
    ):
        if name in names:
            return f
    return lambda effect, x, fill, place: x


def _smoothed(x):
    height, width, _ = x.shape
    if min(height, width) < 3:
        return x
    total = 4 * x[1:-1, 1:-1]
    for i in range(3):
        for j in range(3):
            total += x[i : height - 2 + i, j : width - 2 + j]
    return x.at[1:-1, 1:-1].set((2 * total + 13) // 26)
