"""Two processes with two devices each train as one with four, and start, stop and end together."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from processes import restored, setup

from jaxtrain import _compat, train
from jaxtrain.data import Order

HERE = pathlib.Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(HERE.parent),
    "JAX_NUM_CPU_DEVICES": "2",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
}


class Job:
    """The two processes of a job; what they print goes to files."""

    def __init__(self, folder, job, arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.outputs = [folder / f"{job}-{i}.txt" for i in range(2)]
        self.processes = []
        for i, output in enumerate(self.outputs):
            with open(output, "w") as file:
                command = [sys.executable, HERE / "processes.py", folder, str(port), str(i), job]
                self.processes.append(
                    subprocess.Popen(
                        [*command, *arguments[i]], env=ENVIRONMENT, stdout=file, stderr=file
                    )
                )

    def output(self, i):
        return self.outputs[i].read_text()

    def codes(self, seconds=60):
        """Waits for the end of both; returns their exit codes."""
        end = time.monotonic() + seconds
        try:
            return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f"not over after {seconds} s: {self.output(0)}\n{self.output(1)}")

    def until(self, condition, seconds=240):
        """Waits for a condition while both run."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or any(p.poll() is not None for p in self.processes):
                pytest.fail(f"did not come so far: {self.output(0)}\n{self.output(1)}")
            time.sleep(0.1)


@contextlib.contextmanager
def started(folder, job, arguments=((), ())):
    job = Job(folder, job, arguments)
    try:
        yield job
    finally:
        for process in job.processes:
            process.kill()
            process.wait()


def rows(folder):
    """The training rows of a run, without a last line that is being written."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [row for row in map(json.loads, lines) if "loss" in row]


def steps(folder):
    """The committed steps of a run that may be going on."""
    return sorted(int(p.stem) for p in (folder / "checkpoints").glob("*.json"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The main job, 6 steps by shard_map, 6 by jit, and by pmap until one process gets SIGTERM."""
    folder = tmp_path_factory.mktemp("processes")
    with started(folder, "train") as job:
        job.until(lambda: len(rows(folder / "pmap")) > 8)
        job.processes[1].send_signal(signal.SIGTERM)
        job.codes()
    return folder, job


@pytest.fixture(scope="module")
def alone(trained):
    """The losses and the last state of one process with four devices, over the same steps."""
    with _compat.enable_x64(True):
        step, dataset = setup()
        order = Order(len(dataset), 8, seed=0)
        run = train.parallelize(step, devices=4)
        data = run.put({"image": dataset.image, "label": dataset.label})
        ts = run.place(run.init(jax.random.key(0), {"image": dataset.image[:8]}))
        losses = []
        for at in range(steps(trained[0] / "pmap")[-1]):
            ts, seen = run.steps(ts, data, order.indices(at)[None])
            losses.append(float(seen["loss"].value[0]))
        return losses, jax.device_get(ts.params)


def test_the_main_job(trained):
    folder, job = trained
    assert "4 devices" in job.output(0) and "accuracy" not in job.output(1)
    assert (folder / "digits-1" / "curves.png").exists()
    assert not (folder / "digits-2").exists()


@pytest.mark.parametrize("how", ["shard_map", "jit", "pmap"])
def test_the_numbers_of_one_process(trained, alone, how):
    seen = rows(trained[0] / how)
    assert [row["step"] for row in seen] == list(range(1, len(seen) + 1)) and len(seen) >= 6
    # Sums of at most 8 terms in another order, 2**-53 each, a few dozen times: far below 1e-12.
    np.testing.assert_allclose([row["loss"] for row in seen], alone[0][: len(seen)], rtol=1e-12)


def test_each_process_reads_its_own_part_of_a_batch(trained):
    """By jit the examples come from a Source; batches of 8 are split in two halves."""
    order = Order(22, 8, seed=0)
    for i in range(2):
        (line,) = [x for x in trained[1].output(i).splitlines() if x.startswith("read ")]
        read = [int(number) for number in line.split()[1:]]
        mine = [order.indices(at)[4 * i : 4 * i + 4] for at in range(6)]
        np.testing.assert_array_equal(read[-24:], np.maximum(np.concatenate(mine), 0))


def test_the_state_of_pmap_has_the_layout_that_its_steps_return(trained):
    for i in range(2):
        assert "state of pmap on the devices of its process: True" in trained[1].output(i)


def test_sigterm_to_one_process_saves_and_ends_both(trained):
    folder, job = trained
    assert job.codes() == [143, 143], job.output(0) + job.output(1)
    assert steps(folder / "pmap")[-1] == rows(folder / "pmap")[-1]["step"]


def test_all_restore_one_checkpoint_and_none_outlives_a_killed_one(trained, alone):
    folder = trained[0] / "pmap"
    with _compat.enable_x64(True), pytest.warns(UserWarning, match="was saved with devices 4"):
        saved, leaves, digest = restored(folder)
    for path, expected in jax.tree_util.tree_leaves_with_path(alone[1]):
        actual = leaves[f"['ts'].params{jax.tree_util.keystr(path)}"]
        assert abs(actual - expected).max() <= 1e-12 * abs(expected).max()
    with started(trained[0], "resume") as job:
        job.until(lambda: len(rows(folder)) > saved)
        job.processes[1].kill()
        # XLA may abort the survivor before Python learns why; what counts is that it ends.
        assert job.codes(15)[0] != 0
    for i in range(2):
        assert f"restored {saved} {digest}" in job.output(i)
    assert [row["step"] for row in rows(folder)] == list(range(1, len(rows(folder)) + 1))


@pytest.mark.fast
def test_processes_of_different_configurations_are_refused(tmp_path):
    with started(tmp_path, "main", [["--seed", "0"], ["--seed", "1"]]) as job:
        codes = job.codes(30)
    assert codes[1] == 73 and codes[0] != 0
    assert "with changed {'seed': '0 -> 1'}" in job.output(1)
