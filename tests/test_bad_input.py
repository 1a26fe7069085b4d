"""Bad input is refused with a clear error before anything compiles."""

import re

import jax
import numpy as np
import pytest
from training import compiles, images, small_net

from experiments import train as main_job
from jaxtrain import losses, models, nn, optim, train
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


def images_through(layer, *shape):
    return jax.eval_shape(layer.init, jax.random.key(0), np.ones(shape, np.float32))


def dropped(**context):
    ctx = nn.Context(True, jax.random.key(0), **context)
    return nn.dropout(0.5).apply({}, {}, np.ones((4, 2), np.float32), ctx)


def normalized(**context):
    net, x = nn.batch_norm(), np.ones((4, 2), np.float32)
    return net.apply(*net.init(jax.random.key(0), x), x, nn.Context(True, **context))


LAYERS = [
    (lambda: nn.batch_norm(frozen="no"), "batch_norm: frozen must be True or False, got 'no'"),
    (lambda: nn.dense(3, bias="False"), "dense: bias must be True or False, got 'False'"),
    (lambda: nn.gru(3, reset_after=1), "gru: reset_after must be True or False, got 1"),
    (lambda: nn.fractional_max_pool(1.5, overlapping=-1), "overlapping must be True or False"),
    (lambda: nn.repeat(nn.dense(3), 2, unroll="no"), "repeat: unroll must be one of"),
    (lambda: models.mlp([3], batch_norm="no"), "mlp: batch_norm must be True or False, got 'no'"),
    (lambda: models.vgg(batch_norm="no"), "vgg: batch_norm must be True or False, got 'no'"),
    (lambda: models.mlp(10), "mlp: features must be a sequence of at least one width, got 10"),
    (lambda: models.resnet("20"), r"resnet: depth must be 2 \+ 6 n .* got '20'"),
    (lambda: models.resnet(widths=()), "resnet: widths must be a sequence of at least one width"),
    (lambda: nn.dense(3, kernel_init="he"), "dense: kernel_init must be a function, got 'he'"),
    (lambda: nn.rnn(3, activation="tanh"), "rnn: activation must be a function, got 'tanh'"),
    (lambda: nn.parallel(nn.relu, combine="sum"), "parallel: combine must be a function"),
    (lambda: nn.lstm(2, forget_bias=None), "lstm: forget_bias must be a finite number, got None"),
    (lambda: nn.standardize(None, 1.0), "standardize: mean must be an array of finite numbers"),
    (lambda: nn.standardize(0.0, np.zeros(2)), "standardize: std must be positive everywhere"),
    (lambda: nn.initializers.constant("a"), "constant: value must be a finite number, got 'a'"),
    (lambda: nn.initializers.gain(None), "gain: activation must be a function, got None"),
    (
        lambda: nn.initializers.gain("leaky_relu", negative_slope=float("nan")),
        "gain: negative_slope must be a finite number, got nan",
    ),
    (
        lambda: images_through(nn.conv(8, 3, padding=1), 1, 8, 8, 1),
        r"conv: padding must be 'SAME', 'VALID' or 2 pairs \(before, after\), got 1; torch's "
        r"padding=1 is \[\(1, 1\), \(1, 1\)\]",
    ),
    (lambda: images_through(nn.conv(8, 3, padding=[1, 1]), 1, 8, 8, 1), "got \\[1, 1\\]; torch's"),
    (lambda: images_through(nn.conv(8, 3, padding=[(1.5, 0)] * 2), 1, 8, 8, 1), "2 pairs"),
    (lambda: images_through(nn.conv(8, 2.5), 1, 8, 8, 1), "conv: window must be an int >= 1 or 2"),
    (lambda: images_through(nn.conv(8, True), 1, 8, 8, 1), "conv: window must be an int >= 1"),
    (
        lambda: images_through(nn.serial(nn.conv(8, 3, padding="VALID"), nn.relu), 1, 2, 2, 1),
        r"conv: x must be at least as large as the window \(3, 3\), got \(1, 2, 2, 1\)",
    ),
    (
        lambda: nn.max_pool(2, strides=1, padding=[(2, 0)]).apply(
            {}, {}, np.ones((1, 4, 1), np.float32), nn.EVAL
        ),
        r"max_pool: padding must be >= 0 and less than the window \(2,\), got \[\(2, 0\)\]",
    ),
    (
        lambda: nn.prelu().apply(
            {"negative_slope": np.ones(3)}, {}, np.ones((1, 2), np.float32), nn.EVAL
        ),
        r"x must be of 3 channels, got \(1, 2\)",
    ),
    (
        lambda: nn.bn_vjp(np.ones((4, 2)), np.ones(2), np.ones((4, 3))),
        "bn_vjp: dy must be of shape",
    ),
    (lambda: nn.unit_stats(NET, {}, {}, np.ones((1, 2)), loss="sum"), "loss must be a function"),
    (
        lambda: nn.predict_mc(NET, {}, {}, np.ones((1, 2)), jax.random.key(0), transform="softmax"),
        "predict_mc: transform must be a function, got 'softmax'",
    ),
    (lambda: nn.Context("eval"), "Context: train must be True or False, got 'eval'"),
    (lambda: normalized(mask=np.ones(3)), r"Context: mask must be of shape \(4,\), got \(3,\)"),
    (lambda: dropped(index=np.ones(3, int)), r"Context: index must be of shape \(4,\), got \(3,\)"),
    (
        lambda: dropped(index=np.ones(4)),
        "Context: index must be of an integer dtype, got 'float64'",
    ),
]


@pytest.mark.fast
@pytest.mark.parametrize("call, message", LAYERS, ids=[message for _, message in LAYERS])
def test_a_layer_names_what_it_cannot_be_made_of(call, message):
    with pytest.raises((ConfigError, TypeError), match=message):
        call()


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
