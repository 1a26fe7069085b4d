"""Runs the experiments: `python -m experiments list`, `run NAME [--size smoke]`, `table`."""

import pathlib
import sys
import time

import tyro

from experiments import _experiment
from jaxtrain import _check, errors


def run(name: tyro.conf.Positional[str], *, size: str = "default") -> None:
    """Runs one experiment and writes its JSON and its figure.

    Args:
        name: one of those that `list` shows.
        size: smoke, default or full. The results of smoke go to runs/, for a look only.
    """
    modules = _experiment.found()
    _check.choice("run", "name", name, modules)
    sizes = modules[name].SIZES
    _check.choice("run", "size", size, sizes)
    began = time.monotonic()
    result = modules[name].run(sizes[size])
    seconds = time.monotonic() - began
    folder = pathlib.Path("runs") if size == "smoke" else _experiment.RESULTS
    path = _experiment.save(name, sizes[size], result, seconds, folder)
    for claim, verdict in result.claims.items():
        print(f"{verdict}: {claim}")
    for what, value in result.numbers.items():
        print(f"  {what} {value:.3g}")
    print(f"{seconds:.1f} s; {path} and {path.with_suffix('.png')}")


def list_() -> None:
    """Lists the experiments: name, sizes, question."""
    for name, module in _experiment.found().items():
        print(f"{name} ({', '.join(module.SIZES)})\n  {_experiment.question(module)}")


def table() -> None:
    """Puts the table of all results into the README, and their page beside the experiments."""
    _experiment.REPORT.write_text(_experiment.report())
    _experiment.README.write_text(_experiment.with_table(_experiment.README.read_text()))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    commands = {"run": run, "list": list_, "table": table}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, args=arguments, description=__doc__)
    except errors.ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(64) from None


if __name__ == "__main__":
    main()
