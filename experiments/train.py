"""Trains a small residual network with BatchNorm and dropout, data-parallel, on real images.

python -m experiments.train
python -m experiments.train --data mnist --data-dir DIR
python -m experiments.train --resume runs/digits-1
"""

import dataclasses
import functools
import os
import pathlib
import sys
import time
import traceback
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from jaxtrain import (
    _check,
    augment,
    data,
    errors,
    losses,
    models,
    nn,
    optim,
    plot,
    schedules,
    train,
    tree,
)

OPTIMIZERS = ("adam", "momentum", "sgd")
SCHEDULES = ("constant", "cosine", "step_decay")


@dataclasses.dataclass(frozen=True)
class Config:
    """The main job. What is left at None is the recipe's for the data set.

    Attributes:
        data: "digits" (ships with the package) or "mnist".
        data_dir: folder of MNIST's four IDX files, plain or gzip; filled from the web if empty.
        split: of the digits: "stratified", or "writers" for test writers not seen in training.
        validate: hold part of the training images out and test on it instead of the test images.
        how: "single", "jit", "pmap" or "shard_map".
        devices: number of devices; None means all.
        precision: "float32", "bfloat16" or "float16".
        optimizer: "adam", "momentum" (Nesterov) or "sgd".
        schedule: "constant", "cosine" or "step_decay", after a linear warm-up.
        learning_rate: peak of the schedule.
        weight_decay: decoupled, on kernels only.
        dropout: rate before the last layer.
        epochs: passes over the training images.
        batch_size: images per step, over all devices.
        seed: of everything random.
        save_every: steps between checkpoints; None means an epoch.
        resume: a run folder to go on with; everything else is taken from it.
        runs: where new run folders are made.
        progress: show a progress bar.
        coordinator: HOST:PORT of process 0 where several processes train together, or "auto" for
            what the cluster says (docs/clusters.md).
        process_id: number of this process, from 0.
        processes: how many there are.
    """

    data: str = "digits"
    data_dir: pathlib.Path = pathlib.Path("data/mnist")
    split: str = "stratified"
    validate: bool = False
    how: str = "shard_map"
    devices: int | None = None
    precision: str = "float32"
    optimizer: str = "adam"
    schedule: str = "cosine"
    learning_rate: float | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0
    save_every: int | None = None
    resume: pathlib.Path | None = None
    runs: pathlib.Path = pathlib.Path("runs")
    progress: bool = True
    coordinator: str | None = None
    process_id: int | None = None
    processes: int | None = None


# Chosen on validation parts of the training images.
RECIPES: dict[str, dict[str, Any]] = {
    "digits": dict(
        learning_rate=4e-3, weight_decay=0.05, dropout=0.2, epochs=60, batch_size=128,
        widths=(32, 64), stem_pool=1,
    ),
    "mnist": dict(
        learning_rate=4e-3, weight_decay=0.05, dropout=0.1, epochs=9, batch_size=128,
        widths=(16, 32, 64), stem_pool=2,
    ),
}  # fmt: skip
WARMUP = 0.2
# What a resumed run may change: it moves no number by more than rounding.
FREE = (
    "resume", "runs", "progress", "how", "devices", "data_dir",
    "coordinator", "process_id", "processes",
)  # fmt: skip


def datasets(config: Config):
    """Returns the training images and those to test on."""
    if config.data == "mnist":
        training, test = data.mnist(config.data_dir)
    else:
        training, test = data.digits(split=config.split)
    if not config.validate:
        return training, test
    if config.data == "digits" and config.split == "writers":
        return training[:1029], training[1029:]  # three writers; one begins at 1029
    n = 5000 if config.data == "mnist" else 287
    return data.split(training, (len(training) - n, n), seed=1)


def optimizer(config: Config, steps: int):
    """Returns the optimizer, with its schedule over `steps` updates."""
    peak, warm = config.learning_rate, max(1, round(WARMUP * steps))
    after = {
        "constant": lambda: schedules.constant(peak),
        "cosine": lambda: schedules.cosine(peak, steps=max(1, steps - warm)),
        "step_decay": lambda: schedules.step_decay(peak, every=max(1, steps // 3), factor=0.1),
    }[config.schedule]()
    rate = schedules.warmup(after, steps=warm)
    if config.optimizer == "adam":
        return optax.chain(
            optim.scale_by_adam(),
            optax.add_decayed_weights(config.weight_decay, mask=kernels),
            optim.scale_by_learning_rate(rate),
        )
    momentum = 0.9 if config.optimizer == "momentum" else 0.0
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=kernels),
        optim.momentum(rate, momentum=momentum, nesterov="shifted" if momentum else False),
    )


def kernels(params):
    """Marks the kernels, which alone are decayed."""
    return tree.select("*kernel", params)


def check(config: Config) -> Config:
    """Returns the configuration with the recipe filled in.

    Raises:
        ConfigError: a value is outside what is allowed.
    """
    _check.choice("train", "data", config.data, RECIPES)
    _check.choice("train", "optimizer", config.optimizer, OPTIMIZERS)
    _check.choice("train", "schedule", config.schedule, SCHEDULES)
    recipe = RECIPES[config.data]
    missing = {k: v for k, v in recipe.items() if getattr(config, k, 0) is None}
    config = dataclasses.replace(config, **missing)
    _check.positive("train", "learning_rate", config.learning_rate)
    _check.nonnegative("train", "weight_decay", config.weight_decay)
    _check.fraction("train", "dropout", config.dropout)
    _check.integer("train", "epochs", config.epochs)
    _check.integer("train", "batch_size", config.batch_size)
    return config


def network(config: Config, images):
    """Returns the network; its first layer standardizes with the training images' statistics."""
    recipe = RECIPES[config.data]
    return nn.serial(
        standardize=nn.standardize(*data.standardize.fit(images, per="all")),
        resnet=models.resnet(
            2 + 2 * len(recipe["widths"]),  # a block per stage
            widths=recipe["widths"],
            stem_pool=recipe["stem_pool"],
            dropout=config.dropout,
        ),
    )


def augmentation(config: Config):
    """Returns what is done to each training image at random."""
    if config.data == "mnist":
        return functools.partial(augment.random_crop, padding=2)
    return functools.partial(augment.random_affine, distortion=0.15, shift=1)


def run(config: Config) -> train.Fit:
    """Trains and returns what `train.fit` returns; leaves a run folder and prints where it is."""
    train.use_cpu_cores()
    if config.coordinator is not None:
        address = None if config.coordinator == "auto" else config.coordinator
        train.use_processes(address, process_id=config.process_id, processes=config.processes)
    began = time.monotonic()
    config = check(_stored(config))
    folder = config.resume or _new_folder(config)
    training, test = datasets(config)

    steps = config.epochs * -(-len(training) // config.batch_size)
    step = train.make_step(
        network(config, training.image),
        functools.partial(losses.softmax_cross_entropy, smoothing=0.1),
        optimizer(config, steps),
        augment=augmentation(config),
        precision=config.precision,
    )
    result = train.fit(
        step,
        training,
        test=test,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        how=config.how,
        devices=config.devices,
        save_every=config.save_every,
        directory=folder,
        resume=config.resume is not None,
        config=_kept(config),
        progress=config.progress,
    )
    if jax.process_index() > 0:
        return result
    plot.curves(result.history, title=folder.name).savefig(folder / "curves.png", dpi=120)
    print(
        f"accuracy {100 * result.last('test_accuracy'):.2f} %, {time.monotonic() - began:.1f} s, "
        f"{result.images_per_second:,.0f} images/s, {result.run.mesh.size} devices; "
        f"run folder {folder}; resume with: python -m experiments.train --resume {folder}"
    )
    return result


def _kept(config: Config) -> dict[str, Any]:
    """Returns what defines the numbers of a run, for its `config.json`."""
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if name not in FREE}


def _stored(config: Config) -> Config:
    """Returns the configuration of the run to resume, with what was given otherwise on top."""
    if config.resume is None:
        return config
    stored = train.read_config(config.resume)
    default = Config()
    for field in dataclasses.fields(Config):
        given = getattr(config, field.name) != getattr(default, field.name)
        if field.name in stored and not given:
            config = dataclasses.replace(config, **{field.name: stored[field.name]})
    return config


def _new_folder(config: Config) -> pathlib.Path:
    """Returns the first of runs/digits-1, runs/digits-2, ... that does not exist."""
    numbers = (p.name.rpartition("-")[2] for p in config.runs.glob(f"{config.data}-*"))
    last = max((int(number) for number in numbers if number.isdigit()), default=0)
    last = multihost_utils.broadcast_one_to_all(np.int32(last))
    return config.runs / f"{config.data}-{last + 1}"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; a mistake leaves with its message and a code of `sysexits.h`."""
    import tyro

    config = tyro.cli(Config, args=arguments, description=__doc__)
    try:
        run(config)
    except (errors.DataError, errors.NonFinite) as error:
        _leave(65, error)
    except (errors.RunError, errors.CheckpointCorrupt, errors.CheckpointNotFound) as error:
        _leave(73, error)
    except errors.ConfigError as error:
        _leave(64, error)
    except KeyboardInterrupt:
        _leave(130, "interrupted; the run folder holds everything up to here")
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            _leave(75, f"another process is gone: {str(error).splitlines()[0]}")
        traceback.print_exc()
        _leave(70, "this is a bug; the other processes end too")


def _leave(code: int, why: Any) -> None:
    print(f"train: {why}", file=sys.stderr)
    if jax.distributed.is_initialized():
        # A clean exit would wait for the other processes, which may be waiting for this one.
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
