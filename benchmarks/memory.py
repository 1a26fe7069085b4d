"""Measures the peak memory of a training step beside raw JAX, flax linen and torch.

python -m benchmarks.memory

Each measurement is a process of its own, on one device: the largest resident size after a few steps
less that after the imports, which are the same for all. What XLA needs to compile is part of it.
"""

import json
import multiprocessing
import pathlib
import re
from typing import Any

import numpy as np

from benchmarks.step import MODELS, environment, first_losses, makers, quartiles, show

RESULTS = pathlib.Path(__file__).parent / "results" / "memory.json"


def largest() -> float:
    """Returns the largest resident size of this process so far, in MiB.

    Unlike getrusage's, it starts anew with a new program.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def peak(model: str, program: str) -> float:
    """Runs three steps and returns by how much they raised the largest size."""
    imports = largest()
    first_losses(makers(MODELS[model])[program](), 3)
    return largest() - imports


def fresh(model: str, program: str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (model, program))


def measure(model: str, rounds: int) -> dict[str, Any]:
    """Returns MiB and ratios as JSON values."""
    names = [name for name in makers(MODELS[model]) if "devices" not in name]
    rows = [[fresh(model, name) for name in names] for _ in range(rounds)]
    peaks = dict(zip(names, np.transpose(rows), strict=True))
    return {
        "MiB over imports": {name: quartiles(p) for name, p in peaks.items()},
        "ratio": {
            f"{name} / raw": quartiles(p / peaks["raw"])
            for name, p in peaks.items()
            if name != "raw"
        },
    }


def main(*, rounds: int = 5, quick: bool = False, save: pathlib.Path = RESULTS) -> None:
    """Prints the table and writes the results file.

    Args:
        rounds: of measurement.
        quick: one round, to see that it runs; nothing is written.
        save: the file to write.
    """
    rounds = 1 if quick else rounds
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    for name in MODELS:
        results[name] = measure(name, rounds)
        show(name, results[name])
    if not quick:
        save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
