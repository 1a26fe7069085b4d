"""A run that was killed and resumed ends with the bytes of one that was not."""

import functools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import images

from jaxtrain import losses, models, optim, schedules, train
from jaxtrain.errors import RunError
from jaxtrain.train._describe import describe

TESTS = pathlib.Path(__file__).parent
EPOCHS = 60  # 180 steps, 60 saves


def child(folder, *, resume=False, epochs=EPOCHS):
    command = [TESTS / "killed.py", folder, "resume" if resume else "new", str(epochs)]
    return spawn(command)


def spawn(command):
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
    variables = {"PYTHONPATH": paths, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    return finished(child(folder)), (folder / "metrics.jsonl").read_bytes()


def wait_for(process, condition, seconds=60):
    """Returns whether the condition came true before the process ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.0005)
    assert time.monotonic() < end
    return False


def committed(folder):
    return {p.name for p in folder.glob("checkpoints/*.json")}


def saving(folder):
    """Whether a step is there whose json is not: a save that is under way."""
    names = [p.name for p in folder.glob("checkpoints/*")]
    return any(not name.endswith(".json") and f"{name}.json" not in names for name in names)


def test_a_run_killed_twenty_times_ends_with_the_same_bytes(uninterrupted, tmp_path):
    rng, kills, inside, runs = random.Random(0), 0, 0, 0
    while kills < 20 or runs == 0:
        folder, resume = tmp_path / str(runs), False
        while True:
            process, before = child(folder, resume=resume), committed(folder)
            # Its first save makes sure that the run gets on; the second kill is at any instant.
            if kills < 20 and wait_for(process, lambda: committed(folder) - before):  # noqa: B023
                if kills % 2 == 0:
                    time.sleep(rng.uniform(0, 0.3))
                elif wait_for(process, lambda: saving(folder)):  # noqa: B023
                    time.sleep(rng.uniform(0, 0.02))
                    inside += saving(folder)
            if kills == 20 or process.poll() is not None:
                break
            process.kill()
            process.communicate()
            kills, resume = kills + 1, True
        assert (finished(process), (folder / "metrics.jsonl").read_bytes()) == uninterrupted
        runs += 1
    assert inside >= 3  # of ten that were aimed: the save may end before the signal comes


def test_a_finished_run_resumes_to_the_same(uninterrupted, tmp_path):
    first = finished(child(tmp_path / "run", epochs=4))
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert finished(child(tmp_path / "run", epochs=4, resume=True)) == first
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_a_corrupt_checkpoint_falls_back_and_ends_with_the_same_bytes(tmp_path):
    folder = tmp_path / "run"
    first = finished(child(folder, epochs=4)), (folder / "metrics.jsonl").read_bytes()
    largest = max((folder / "checkpoints/12").rglob("d/*"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    process = child(folder, epochs=4, resume=True)
    out, err = process.communicate(timeout=120)
    assert (out, (folder / "metrics.jsonl").read_bytes()) == first, err
    assert err.count("falling back to step 9") == err.count("Warning") == 1


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
    """The command line's main job with a tiny network."""
    file = tmp_path_factory.mktemp("main") / "main.py"
    file.write_text(
        "import sys\n"
        "from training import small_net\n"
        "from experiments import train\n"
        "from jaxtrain import models\n"
        "models.resnet = lambda *_, **options: small_net(classes=10)\n"
        "train.main(sys.argv[1:])\n"
    )
    return file


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(number, code, main_job, tmp_path):
    options = ["--runs", tmp_path, "--epochs", "1000", "--no-progress", "--save-every", "100000"]
    process, folder = spawn([main_job, *options]), tmp_path / "digits-1"
    metrics = folder / "metrics.jsonl"
    assert wait_for(process, lambda: metrics.exists(), 90)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err, err
    with train.Checkpoints(folder / "checkpoints") as checkpoints, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # saved by a process with other devices
        step, leaves, host = checkpoints.restore_leaves()
    assert step > 0 and leaves["['ts'].step"] == step
    assert host["metrics_bytes"] == metrics.stat().st_size


def fit(folder, loss=losses.softmax_cross_entropy, tx=None, **options):
    step = train.make_step(models.mlp([3]), loss, tx or optim.sgd(0.1))
    defaults = {"epochs": 2, "batch_size": 8, "directory": folder, "progress": False}
    return train.fit(step, images(22), **{**defaults, **options})


@pytest.mark.fast
def test_another_configuration_is_refused_with_the_changed_keys(tmp_path):
    fit(tmp_path, config={"rate": 0.1, "layers": [4, 3]})
    message = (
        r"fit: directory must be of the same configuration, got .* with changed "
        r"\{'epochs': '2 -> 3', 'rate': '0.1 -> 0.2'\}; resume with"
    )
    with pytest.raises(RunError, match=message):
        fit(tmp_path, resume=True, epochs=3, config={"rate": 0.2, "layers": [4, 3]})
    with pytest.raises(RunError, match=r"changed \{'seed': '0 -> 1'"):
        fit(tmp_path, resume=True, seed=1, config={"rate": 0.1, "layers": [4, 3]})


@pytest.mark.fast
def test_another_step_is_a_warning_with_what_is_new(tmp_path):
    done = fit(tmp_path)
    with pytest.warns(UserWarning) as caught:
        again = fit(tmp_path, losses.focal, optim.sgd(0.2), resume=True)
    (warning,) = caught
    assert str(warning.message) == (
        f"fit: the run in {tmp_path} is resumed with another step: "
        "{'loss': '\"softmax_cross_entropy\" -> \"focal\"', 'tx value': '0.1 -> 0.2'}"
    )
    assert again.history == done.history
    # What is made anew of the same parts is no other, nor is a run of before there were any.
    fit(tmp_path, resume=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"make_step": None}))
    fit(tmp_path, losses.focal, resume=True)


def test_what_describes_a_step_does_not_depend_on_the_process():
    class Scale:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return x

        def method(self, x):
            return self.by * x

    own = []
    own.append(own)
    later = lambda: missing  # noqa: E731, F821
    given = {
        "schedule": schedules.cosine(0.1, steps=100),
        "partial": functools.partial(losses.hinge, form="max"),
        "jit": jax.jit(losses.hinge),
        "method": Scale(2).method,
        "object": Scale(3),
        "array": np.arange(3.0),
        "number": jnp.float32(0.5),
        "NaN": [np.float32("nan"), float("nan")],
        "key": jax.random.key(0),
        "own": own,
        "later": later,
        "optimizer": optim.adam(1e-3),
    }
    found = describe(given)
    assert json.loads(json.dumps(found)) == found == describe({**given})
    assert " at 0x" not in json.dumps(found)
    name = "jaxtrain.schedules._anneal.cosine.<locals>.schedule"
    assert found["schedule"] == {name: {"after": "stay", "end": 0.0, "steps": 100, "value": 0.1}}
    hinge = "jaxtrain.losses._classification.hinge"
    assert found["partial"] == {"partial": hinge, "args": [], "form": "max"}
    assert found["jit"] == hinge
    assert found["method"].popitem()[0].endswith("Scale.method")
    assert found["object"].endswith("Scale") and found["own"] == ["builtins.list"]
    assert found["number"] == 0.5 and found["NaN"] == ["NaN", "NaN"]
    for name, other in {
        "schedule": schedules.cosine(0.1, steps=101),
        "array": np.array([0.0, 1.0, 3.0]),
        "key": jax.random.key(1),
        "optimizer": optim.adam(1e-3, b1=0.8),
    }.items():
        assert describe(other) != found[name], name


@pytest.mark.fast
def test_a_folder_with_a_run_is_not_written_over(tmp_path):
    fit(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="without a run in it, got .*; pass resume=True"):
        fit(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_second_run_in_one_folder_is_refused_with_the_pid_of_the_first(tmp_path):
    process = child(tmp_path, epochs=10_000)
    try:
        assert wait_for(process, lambda: committed(tmp_path))
        with pytest.raises(RunError, match=f"in use by process {process.pid}; choose another"):
            fit(tmp_path, resume=True)
    finally:
        process.kill()
        process.communicate()
    # The lock of a dead process holds nothing.
    with pytest.raises(RunError, match="of the same configuration"):
        fit(tmp_path, resume=True)


@pytest.mark.fast
def test_rows_after_the_checkpoint_are_cut_off(tmp_path):
    run = fit(tmp_path, save_every=2, log_every=1)
    rows = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "checkpoints" / "6.json").unlink()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 5, "lo')  # torn, as by a crash
    again = fit(tmp_path, save_every=2, log_every=1, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == rows
    assert again.history == run.history == [json.loads(line) for line in rows.splitlines()]
