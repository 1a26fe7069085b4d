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
from jaxtrain import augment, nn, train
from jaxtrain.augment import _effects, _policy

RESULTS = pathlib.Path(__file__).parent / "results" / "augment.json"
SHAPE = (128, 32, 32, 3)
EXAMPLES = 8192  # of the pipeline
PADDING = 4
FACTOR = 1.5


def flip_crop(key, image):
    k_flip, k_crop = jax.random.split(key)
    return augment.random_crop(k_crop, augment.random_flip(k_flip, image), padding=PADDING)


def rotate(key, image):
    angle = jax.random.uniform(key, (), np.float32, -30, 30)
    return augment.rotate(image, angle)


POLICIES = {
    "auto_augment": augment.auto_augment,
    "rand_augment": augment.rand_augment,
    "trivial_augment": augment.trivial_augment,
}
# Each is f(key, image).
OURS = {
    "flip": augment.random_flip,
    "flip and crop": flip_crop,
    "rotate": rotate,
    "brightness": lambda key, image: augment.brightness(image, FACTOR),
    "contrast": lambda key, image: augment.contrast(image, FACTOR),
    "saturation": lambda key, image: augment.saturation(image, FACTOR),
    "hue": lambda key, image: augment.hue(image, 0.1),
    "gaussian_blur": lambda key, image: augment.gaussian_blur(image, 1.0, radius=2),
    "invert": lambda key, image: augment.invert(image),
    "solarize": lambda key, image: augment.solarize(image, 128),
    "posterize": lambda key, image: augment.posterize(image, 4),
    "autocontrast": lambda key, image: augment.autocontrast(image),
    "equalize": lambda key, image: augment.equalize(image),
    **POLICIES,
}


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
        (_effects.MOVES, move),
        (_effects.BLENDS, blend),
        (_effects.TABLES, table),
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


def by_dm_pix() -> dict[str, Callable]:
    """Returns f(key, image) by name; dm_pix takes floats in [0, 1]."""
    import dm_pix

    def crop(key, image):
        k_flip, k_crop = jax.random.split(key)
        image = jnp.pad(
            dm_pix.random_flip_left_right(k_flip, image), [(PADDING,) * 2] * 2 + [(0, 0)]
        )
        return dm_pix.random_crop(k_crop, image, SHAPE[1:])

    def rotate(key, image):
        return dm_pix.rotate(image, jnp.radians(jax.random.uniform(key, (), np.float32, -30, 30)))

    return {
        "flip": dm_pix.random_flip_left_right,
        "flip and crop": crop,
        "rotate": rotate,
        "brightness": lambda key, image: dm_pix.adjust_brightness(image, FACTOR - 1),
        "contrast": lambda key, image: dm_pix.adjust_contrast(image, FACTOR),
        "saturation": lambda key, image: dm_pix.adjust_saturation(image, FACTOR),
        "hue": lambda key, image: dm_pix.adjust_hue(image, 0.1),
        "gaussian_blur": lambda key, image: dm_pix.gaussian_blur(image, 1.0, 5.0),
        "solarize": lambda key, image: dm_pix.solarize(image, 0.5),
    }


def by_torch() -> dict[str, Callable]:
    """Returns f(images) by name, of tensors (batch, channels, height, width) uint8."""
    import torch

    def flip(x):
        chosen = torch.rand(len(x), 1, 1, 1) < 0.5
        return torch.where(chosen, x.flip(3), x)

    def flip_crop(x):
        n, c, h, w = x.shape
        x = torch.nn.functional.pad(flip(x), (PADDING,) * 4)
        top, left = torch.randint(0, 2 * PADDING + 1, (2, n, 1))
        rows, columns = top + torch.arange(h), left + torch.arange(w)
        of, channel = torch.arange(n)[:, None, None, None], torch.arange(c)[:, None, None]
        return x[of, channel, rows[:, None, :, None], columns[:, None, None, :]]

    def rotate(x):
        a = torch.deg2rad(60 * torch.rand(len(x)) - 30)
        zero = torch.zeros_like(a)
        matrix = torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero], 1).view(-1, 2, 3)
        grid = torch.nn.functional.affine_grid(matrix, x.shape, align_corners=False)
        y = torch.nn.functional.grid_sample(x.float(), grid, align_corners=False)
        return y.round().to(torch.uint8)

    def blend(x, other):
        return (other + FACTOR * (x.float() - other)).clamp(0, 255).to(torch.uint8)

    def gray(x):
        weight = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        return (x.float() * weight).sum(1, keepdim=True)

    return {
        "flip": flip,
        "flip and crop": flip_crop,
        "rotate": rotate,
        "brightness": lambda x: blend(x, 0.0),
        "contrast": lambda x: blend(x, gray(x).mean((1, 2, 3), keepdim=True)),
        "saturation": lambda x: blend(x, gray(x)),
        "invert": lambda x: 255 - x,
        "solarize": lambda x: torch.where(x < 128, x, 255 - x),
        "posterize": lambda x: x & 0xF0,
    }


def numpy_flip_crop(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    n, h, w, _ = x.shape
    x = np.where(random.random((n, 1, 1, 1)) < 0.5, x[:, :, ::-1], x)
    x = np.pad(x, [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)])
    top, left = random.integers(0, 2 * PADDING + 1, (2, n, 1))
    rows, columns = top + np.arange(h), left + np.arange(w)
    return x[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None]]


def by_numpy() -> dict[str, Callable]:
    """Returns f(images) by name."""
    random = np.random.default_rng(0)

    def equalize(x):
        return np.stack([[_equalized(channel) for channel in image.T] for image in x]).T

    return {
        "flip": lambda x: np.where(random.random((len(x), 1, 1, 1)) < 0.5, x[:, :, ::-1], x),
        "flip and crop": lambda x: numpy_flip_crop(x, random),
        "brightness": lambda x: np.clip(x * np.float32(FACTOR), 0, 255).astype(np.uint8),
        "invert": lambda x: 255 - x,
        "solarize": lambda x: np.where(x < 128, x, 255 - x),
        "posterize": lambda x: x & 0xF0,
        "equalize": equalize,
    }


def _equalized(x):
    h = np.bincount(x.ravel(), minlength=256)
    s = (x.size - h[x.max()]) // 255
    return np.minimum((s // 2 + np.cumsum(h) - h) // max(s, 1), 255)[x] if s else x


def measure_each(rounds: int) -> dict[str, Any]:
    """Times each augmentation of a batch; ns for each pixel."""
    images = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    keys = jax.random.split(jax.random.key(0), len(images))
    x, floats = jax.device_put(images), jax.device_put(images / np.float32(255))
    pixels = images[..., 0].size

    def compiled(f, x):
        f = jax.jit(jax.vmap(f))
        return lambda: jax.block_until_ready(f(keys, x))

    runs = {(name, "ours"): compiled(f, x) for name, f in OURS.items()}
    for name, f in POLICIES.items():
        runs[name, "lax.switch"] = compiled(functools.partial(by_switch, f), x)
    if importlib.util.find_spec("dm_pix"):
        runs |= {(name, "dm_pix"): compiled(f, floats) for name, f in by_dm_pix().items()}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        runs |= {(name, "torch"): functools.partial(f, tensor) for name, f in by_torch().items()}
    runs |= {(name, "numpy"): functools.partial(f, images) for name, f in by_numpy().items()}
    found: dict[str, Any] = {}
    for name in OURS:
        one = {who: run for (what, who), run in runs.items() if what == name}
        for run in one.values():
            run()  # compiles
        seconds = time_rounds(one, rounds)
        found[name] = {
            "ns/pixel": {who: quartiles(1e9 * s / pixels) for who, s in seconds.items()},
            "ours / theirs": {
                who: quartiles(seconds["ours"] / s) for who, s in seconds.items() if who != "ours"
            },
        }
    return found


def measure_step(model: step.Model, rounds: int, devices: int) -> dict[str, Any]:
    """Times the fastest training step with each augmentation, all of 8-bit images."""
    shape = (SHAPE[0], *model.image[1:])
    batch = step.make_batch(shape)
    batch["image"] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    net = nn.serial(lambda x: x.astype(np.float32) / 255, model.net)
    weights = jax.jit(net.init)(jax.random.key(0), batch["image"])

    made = {"none": lambda key, image: image, "flip and crop": flip_crop, **POLICIES}
    made["auto_augment, lax.switch"] = functools.partial(by_switch, augment.auto_augment)
    options = dict(devices=devices, steps=step.UNROLLED)
    programs = {
        name: step.ours(net, weights, batch, augment=f, **options) for name, f in made.items()
    }
    programs = {name: step.first_losses(program)[0] for name, program in programs.items()}
    seconds = step.interleave(programs, step.UNROLLED, rounds)
    return {
        "milliseconds": {name: quartiles(1e3 * s) for name, s in seconds.items()},
        "more than without, percent": {
            name: quartiles(100 * (s / seconds["none"] - 1)) for name, s in seconds.items()
        },
    }


class Examples:
    """A torch data set with flips and crops of single examples."""

    def __init__(self, images, labels):
        import torch

        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        """Returns an image and its label."""
        import torch

        x = self.images[i]
        _, height, width = x.shape
        x = x.flip(2) if torch.rand(()) < 0.5 else x
        x = torch.nn.functional.pad(x, (PADDING,) * 4)
        top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        return x[:, top : top + height, left : left + width], self.labels[i]


def measure_pipeline(rounds: int) -> dict[str, Any]:
    """Times an epoch of shuffled batches with flips and crops; examples per second."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (EXAMPLES, *SHAPE[1:]), np.uint8)
    labels = random.integers(10, size=EXAMPLES)
    batches = EXAMPLES // SHAPE[0]

    def orders():
        return random.permutation(EXAMPLES).astype(np.int32).reshape(batches, -1)

    data = jax.device_put((images, labels.astype(np.int32)))

    @jax.jit
    def load(data, index, key):
        keys = jax.random.split(key, len(index))
        image, label = jax.tree.map(lambda x: x[index], data)
        return jax.vmap(flip_crop)(keys, image), label

    def ours():
        keys = jax.random.split(jax.random.key(0), batches)
        jax.block_until_ready([load(data, i, key) for i, key in zip(orders(), keys, strict=True)])

    def by_numpy():
        for index in orders():
            numpy_flip_crop(images[index], random), labels[index]

    runs: dict[str, Callable] = {"ours": ours, "numpy": by_numpy}
    if importlib.util.find_spec("torch"):
        import torch

        for workers in (0, 2):
            loader = torch.utils.data.DataLoader(
                Examples(images, labels),
                batch_size=SHAPE[0],
                shuffle=True,
                num_workers=workers,
                persistent_workers=workers > 0,
                multiprocessing_context="forkserver" if workers else None,
            )
            runs[f"DataLoader, workers: {workers}"] = functools.partial(list, loader)
    for run in runs.values():
        run()  # compiles, and starts the workers
    seconds = time_rounds(runs, rounds)
    theirs = [s for name, s in seconds.items() if name.startswith("DataLoader")]
    found = {"examples/s": {name: quartiles(EXAMPLES / s) for name, s in seconds.items()}}
    if theirs:
        found["ours / best DataLoader"] = quartiles(np.min(theirs, axis=0) / seconds["ours"])
    return found


def main(
    *,
    rounds: int = 21,
    only: tuple[str, ...] = (),
    quick: bool = False,
    save: pathlib.Path = RESULTS,
) -> None:
    """Prints the tables and writes the results file.

    Args:
        rounds: of interleaved measurement.
        only: of "each", "cnn", "resnet20" and "pipeline"; all if empty.
        quick: 3 rounds, to see that it runs; nothing is written.
        save: the file to write.
    """
    train.use_cpu_cores(2)
    rounds = 3 if quick else rounds
    devices = min(len(jax.devices()), 2)
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    load = [os.getloadavg()[0]]
    tables: Mapping[str, Callable[[], Any]] = {
        "each": lambda: measure_each(rounds),
        "cnn": lambda: measure_step(step.MODELS["cnn"], rounds, devices),
        "resnet20": lambda: measure_step(step.MODELS["resnet20"], rounds, devices),
        "pipeline": lambda: measure_pipeline(rounds),
    }
    for name, measure in tables.items():
        if not only or name in only:
            found = measure()
            results |= found if name == "each" else {name: found}
            for title, table in (found if name == "each" else {name: found}).items():
                show(title, table)
    results["load average, before and after"] = [*load, os.getloadavg()[0]]
    if not quick:
        save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
