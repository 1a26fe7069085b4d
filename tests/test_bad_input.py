"""Bad input is refused with a clear error before anything compiles."""

import re

import numpy as np
import pytest
from training import compiles, images, small_net

from experiments import train as main_job
from jaxtrain import losses, nn, optim, train
from jaxtrain.data import ArrayDataset
from jaxtrain.errors import ConfigError, DataError, RunError

NET = nn.serial(nn.flatten(), nn.dense(3))


def fit(dataset=None, *, net=NET, loss=losses.softmax_cross_entropy, rate=0.1, **options):
    step = train.make_step(net, loss, optim.sgd(rate))
    defaults = {"epochs": 1, "batch_size": 8, "progress": False}
    return train.fit(step, dataset or images(22), **{**defaults, **options})


def an_image(value):
    image = images(22).image.copy()
    image[5, 1, 2, 0] = value
    return image


BAD = {
    "no examples": (
        lambda: images(22)[:0],
        DataError,
        "ArrayDataset: image and label must be of at least one example, got {'image': 0",
    ),
    "another number of labels": (
        lambda: ArrayDataset(images(22).image, np.zeros(21, np.int32), classes=3),
        DataError,
        "image and label must be of one length, got {'image': 22, 'label': 21}",
    ),
    "label too large": (
        lambda: ArrayDataset(images(22).image, np.full(22, 3), classes=3),
        DataError,
        r"label must be in \[0, 3\), got {0: 3, 1: 3,",
    ),
    "label below zero": (
        lambda: ArrayDataset(images(22).image, np.full(22, -1), classes=3),
        DataError,
        r"label must be in \[0, 3\), got {0: -1,",
    ),
    "NaN in an image": (
        lambda: ArrayDataset(an_image(np.nan), images(22).label, classes=3),
        DataError,
        r"image must be finite, got {\(5, 1, 2, 0\): nan}",
    ),
    "inf in an image": (
        lambda: ArrayDataset(an_image(np.inf), images(22).label, classes=3),
        DataError,
        r"image must be finite, got {\(5, 1, 2, 0\): inf}",
    ),
    "more classes than outputs": (
        lambda: fit(images(22, classes=5)),
        DataError,
        "fit: dataset.label must be below the network's number of outputs, 3, got 4; the first is "
        "example 3",
    ),
    "more classes than outputs in the test": (
        lambda: fit(test=images(22, classes=5)),
        DataError,
        "fit: test.label must be below the network's number of outputs, 3, got 4",
    ),
    "test images of another shape": (
        lambda: fit(test=ArrayDataset(np.zeros((4, 5, 4, 2)), np.zeros(4, int), classes=3)),
        DataError,
        r"fit: test.image must be of the training images' shape \(4, 4, 2\), got \(5, 4, 2\)",
    ),
    "images that the network cannot take": (
        lambda: fit(ArrayDataset(np.zeros((22, 4)), np.zeros(22, int), classes=3), net=small_net()),
        ConfigError,
        "conv: x must be",
    ),
    "integers that no layer standardizes": (
        lambda: fit(ArrayDataset(np.zeros((22, 4), np.uint8), np.zeros(22, int), classes=3)),
        TypeError,
        "dense: x must be of a floating dtype, got 'uint8'; put data.standardize",
    ),
    "a mean loss": (
        lambda: fit(loss=lambda y, q: losses.softmax_cross_entropy(y, q).mean()),
        ConfigError,
        r"make_step: loss must be of shape \(8,\), got \(\); return one value per example",
    ),
    "batch larger than the data": (
        lambda: fit(batch_size=24),
        ConfigError,
        "batch_size must be at most the number of examples, 22, got 24",
    ),
    "batch of zero": (
        lambda: fit(batch_size=0),
        ConfigError,
        "batch_size must be an int >= 1, got 0",
    ),
    "batch that devices do not divide": (
        lambda: fit(batch_size=9, devices=2),
        ConfigError,
        "fit: batch_size must be a multiple of the 2 devices, got 9; 8 and 10 are",
    ),
    "rate of zero": (
        lambda: fit(rate=0.0),
        ConfigError,
        "learning_rate must be a finite number > 0, got 0.0",
    ),
    "rate below zero": (
        lambda: fit(rate=-0.1),
        ConfigError,
        "learning_rate must be a finite number > 0, got -0.1",
    ),
    "rate of NaN": (
        lambda: fit(rate=float("nan")),
        ConfigError,
        "learning_rate must be a finite number > 0, got nan",
    ),
    "no epochs": (
        lambda: fit(epochs=0),
        ConfigError,
        "fit: epochs must be an int >= 1, got 0",
    ),
    "seed below zero": (
        lambda: fit(seed=-1),
        ConfigError,
        "seed must be an int >= 0, got -1",
    ),
    "seed too large": (
        lambda: fit(seed=2**32),
        ConfigError,
        r"seed must be an int >= 0 and below 2\*\*32, got 4294967296",
    ),
    "K of zero": (
        lambda: fit(steps_per_call=0),
        ConfigError,
        "fit: steps_per_call must be an int >= 1, got 0",
    ),
    "saves at every zeroth step": (
        lambda: fit(save_every=0),
        ConfigError,
        "fit: save_every must be an int >= 1, got 0",
    ),
    "more devices than present": (
        lambda: fit(devices=9),
        ConfigError,
        "devices must be between 1 and the 8 cpu devices present, got 9",
    ),
    "no devices": (
        lambda: fit(devices=0),
        ConfigError,
        "devices must be between 1 and the 8 cpu devices present, got 0",
    ),
    "unknown how": (
        lambda: fit(how="pmapp"),
        ConfigError,
        "how must be one of .*, got 'pmapp'; did you mean 'pmap'",
    ),
    "unknown precision": (
        lambda: train.make_step(NET, losses.squared_error, optim.sgd(1), precision="bf16"),
        ConfigError,
        "precision must be one of .*, got 'bf16'; did you mean 'bfloat16'",
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_compiles(name):
    call, error, message = BAD[name]
    with compiles() as names, pytest.raises(error, match=message):
        call()
    assert names == []


@pytest.mark.fast
def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = "fit: directory must be a folder we can write, got .*file/run .Not a directory"
    with compiles() as names, pytest.raises(RunError, match=message):
        fit(directory=tmp_path / "file" / "run")
    assert names == []


COMMANDS = {
    "--optimizer adamm": (64, "optimizer must be one of .* 'adamm'; did you mean 'adam'"),
    "--schedule cosin": (64, "schedule must be one of .* 'cosin'; did you mean 'cosine'"),
    "--data digit": (64, "data must be one of .* 'digit'; did you mean 'digits'"),
    "--learning-rate 0": (64, "learning_rate must be a finite number > 0, got 0.0"),
    "--learning-rate nan": (64, "learning_rate must be a finite number > 0, got nan"),
    "--dropout 1": (64, r"dropout must be a number in \[0, 1\), got 1.0"),
    "--epochs 0": (64, "epochs must be an int >= 1, got 0"),
    "--seed -1": (64, "seed must be an int >= 0, got -1"),
    "--batch-size 5000": (64, "batch_size must be at most the number of examples, 1437, got 5000"),
    "--batch-size 63 --devices 2": (64, "batch_size must be a multiple of the 2 devices, got 63"),
    "--devices 9": (64, "devices must be between 1 and the 8 cpu devices present, got 9"),
    "--how shardmap": (64, "how must be one of .* 'shardmap'; did you mean 'shard_map'"),
    "--precision float61": (64, "precision must be one of .*; did you mean 'float16'"),
    "--split writer": (64, "split must be one of .* 'writer'; did you mean 'writers'"),
    "--save-every 0": (64, "save_every must be an int >= 1, got 0"),
    "--data mnist --data-dir {file}": (65, "file"),
    "--runs {file}": (73, "directory must be a folder we can write, got .*file"),
    "--resume {folder}": (73, "run: directory must hold a config.json, got .*folder"),
    "--resume {run} --dropout 0.3": (73, "of the same configuration.*'dropout': '0.1 -> 0.3'"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_command_line_leaves_with_its_message(command, tmp_path, monkeypatch, capsys):
    code, message = COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"data": "digits", "dropout": 0.1}')
    places = {name: tmp_path / name for name in ("file", "folder", "run")}
    with compiles() as names, pytest.raises(SystemExit) as left:
        main_job.main(["--no-progress", *command.format(**places).split()])
    assert left.value.code == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert re.search(f"^train: .*{message}", err), err
    assert names == []
    assert not (tmp_path / "runs").exists()
