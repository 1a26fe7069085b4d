"""Measures the main job on MNIST: test accuracy over seeds, and time.

python -m benchmarks.mnist --data-dir DIR
"""

import os
import pathlib

from benchmarks.digits import measure, save, scratch
from experiments import train as job

SEEDS = range(10, 13)


def main(*, data_dir: pathlib.Path) -> None:
    """Prints the table and writes the results file.

    Args:
        data_dir: folder of the four IDX files; filled from the web if empty.
    """
    load = os.getloadavg()[0]
    with scratch() as runs:
        config = job.Config(data="mnist", data_dir=data_dir, runs=runs, progress=False)
        results = {"test": measure(config, SEEDS)}
    save("mnist", load, results)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
