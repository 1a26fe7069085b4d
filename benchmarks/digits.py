"""Measures the main job on the digits: test accuracy over seeds on both splits, and time.

python -m benchmarks.digits
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks.step import environment
from experiments import train as job

SEEDS = range(10, 15)
SPLITS = ("stratified", "writers")
RESULTS = pathlib.Path(__file__).parent / "results"


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """Yields a folder for runs and for compiled programs: all seeds share one."""
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/cache")
        yield pathlib.Path(folder)


def measure(config: job.Config, seeds: Sequence[int]) -> dict[str, Any]:
    """Trains once per seed, each with evaluation, checkpoints and figure; the first compiles."""
    accuracy, seconds, speed = [], [], []
    for seed in seeds:
        began = time.monotonic()
        result = job.run(dataclasses.replace(config, seed=seed))
        seconds.append(round(time.monotonic() - began, 1))
        accuracy.append(round(100 * result.last("test_accuracy"), 2))
        speed.append(round(result.images_per_second))
    return {
        "seeds": list(seeds),
        "test accuracy, %": accuracy,
        "mean": round(statistics.mean(accuracy), 3),
        "standard deviation": round(statistics.stdev(accuracy), 3),
        "seconds": seconds,
        "images per second": speed,
    }


def command(*options: str) -> float:
    """Returns the seconds of `python -m experiments.train` in a new process, nothing compiled."""
    variables = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "experiments.train", *options], env=variables, check=True)
    return round(time.monotonic() - began, 1)


def save(name: str, load: float, results: dict[str, Any]) -> None:
    """Prints the results as a table and writes them to results/NAME.json."""
    results |= {
        "recipe": job.RECIPES[name],
        "environment": environment(),
        "load average, before and after": [load, os.getloadavg()[0]],
    }
    for title, values in results.items():
        rows = values.items() if isinstance(values, dict) else [("", values)]
        for row, value in rows:
            print(f"{title:32} {row:24} {value}")
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    load = os.getloadavg()[0]
    with scratch() as runs:
        results: dict[str, Any] = {
            "seconds of `python -m experiments.train`": command("--runs", str(runs))
        }
        for split in SPLITS:
            config = job.Config(split=split, runs=runs, progress=False)
            results[split] = measure(config, SEEDS)
    save("digits", load, results)


if __name__ == "__main__":
    main()
