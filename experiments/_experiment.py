"""What every experiment has in common: its result, and the files and the table made from it.

An experiment is a file of this folder. Its docstring begins with the question; it has a frozen
`Config`, `SIZES` (smoke, default and full) and `run(config) -> Result`.
"""

import dataclasses
import importlib
import json
import pathlib
import pkgutil
import types
from typing import Any

import jax

from jaxtrain import _check

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER.parent / "README.md"
VERDICTS = ("true", "false", "depends")
MARKS = "<!-- results: python -m experiments table -->\n", "<!-- end of results -->\n"


@dataclasses.dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        claim: one sentence.
        verdict: "true", "false" or "depends", computed from the numbers.
        numbers: by what they are, in the order in which they are to be read.
        figure: a matplotlib Figure that shows them.
        seconds: wall-clock time, with compilation.
        seeds: the seeds that were run.
    """

    claim: str
    verdict: str
    numbers: dict[str, float]
    figure: Any
    seconds: float
    seeds: tuple[int, ...]

    def __post_init__(self):
        _check.choice("Result", "verdict", self.verdict, VERDICTS)


def found() -> dict[str, types.ModuleType]:
    """Imports the modules of this folder and returns those that are experiments, by name."""
    names = [info.name for info in pkgutil.iter_modules([str(FOLDER)]) if info.name[0] != "_"]
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "SIZES")}


def question(module: types.ModuleType) -> str:
    """Returns the first line of an experiment's docstring."""
    return (module.__doc__ or "").partition("\n")[0]


def save(name: str, config: Any, result: Result, folder: pathlib.Path) -> pathlib.Path:
    """Writes NAME.json and NAME.png and returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    result.figure.savefig(folder / f"{name}.png", dpi=120)
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    record = fields | {
        "figure": f"{name}.png",
        "seconds": round(result.seconds, 1),
        "config": dataclasses.asdict(config),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    return path


def table() -> str:
    """Returns the results as a Markdown table, a row per file."""
    rows = ["| experiment | claim | verdict | |", "| --- | --- | --- | --- |"]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        folder = f"{FOLDER.name}/{RESULTS.name}"
        links = f"[numbers]({folder}/{path.name}), [figure]({folder}/{record['figure']})"
        name = f"[{path.stem}]({FOLDER.name}/{path.stem}.py)"
        rows.append(f"| {name} | {record['claim']} | {record['verdict']} | {links} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """Returns the text of a README with the results table between its marks."""
    begin, end = MARKS
    before, _, rest = text.partition(begin)
    return before + begin + table() + end + rest.partition(end)[2]
