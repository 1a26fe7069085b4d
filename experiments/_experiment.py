"""What every experiment has in common: its result, and the files and the table made from it.

An experiment is a file of this folder. Its docstring begins with the question; it has a frozen
`Config`, `SIZES` (smoke, default and full) and `run(config) -> Result`.
"""

import collections
import dataclasses
import importlib
import json
import pathlib
import pkgutil
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import _check, optim

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER.parent / "README.md"
REPORT = FOLDER / "README.md"
BAR = r"\|"  # a bar within a cell of a Markdown table
VERDICTS = ("true", "false", "depends")
MARKS = "<!-- results: python -m experiments table -->\n", "<!-- end of results -->\n"


@dataclasses.dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        claims: sentences, each with its verdict: "true", "false" or "depends", computed from the
            numbers.
        numbers: by what they are, in the order in which they are to be read.
        figure: a matplotlib Figure that shows them.
    """

    claims: dict[str, str]
    numbers: dict[str, float]
    figure: Any

    def __post_init__(self):
        for verdict in self.claims.values():
            _check.choice("Result", "claims", verdict, VERDICTS)


def found() -> dict[str, types.ModuleType]:
    """Imports the modules of this folder and returns those that are experiments, by name."""
    names = [info.name for info in pkgutil.iter_modules([str(FOLDER)]) if info.name[0] != "_"]
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "SIZES")}


def question(module: types.ModuleType) -> str:
    """Returns the first line of an experiment's docstring."""
    return (module.__doc__ or "").partition("\n")[0]


def truth(holds: Any) -> str:
    """Returns the verdict of a claim that holds or does not; a list of cases may disagree."""
    cases = np.ravel(holds)
    return "true" if cases.all() else "depends" if cases.any() else "false"


def panels(title: str, n: int, *, width: float = 5.0, **options: Any) -> tuple[Any, Any]:
    """Makes a figure with a title above n panels in a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(n * width, 4.4), layout="constrained")
    figure.suptitle(title, fontsize=13)
    row = figure.subplots(1, n, **options)
    for axes in np.ravel(row):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, row


def standard_error(x: Any) -> np.ndarray:
    """Returns that of the mean over seeds, the last axis."""
    return x.std(-1, ddof=1) / x.shape[-1] ** 0.5


def above_zero(x: Any) -> np.ndarray:
    """Tells where the mean over seeds, the last axis, is above 0 by three standard errors."""
    return x.mean(-1) > 3 * standard_error(x)


def log_ratio(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over seeds, the first axis, of log(a / b), and its standard error."""
    ratio = np.log(a / b)
    return ratio.mean(0), ratio.std(0, ddof=1) / len(ratio) ** 0.5


def draw_ratio(axes: Any, x: Any, mean: np.ndarray, error: np.ndarray, **options: Any) -> None:
    """Draws exp(mean), as from `log_ratio`, with three standard errors."""
    factor, ends = np.exp(mean), np.exp([mean - 3 * error, mean + 3 * error])
    axes.errorbar(x, factor, abs(ends - factor), fmt="o-", capsize=3, **options)


def path(
    tx: optax.GradientTransformation, gradient: Callable, w: jax.Array, steps: int, **extra: Any
) -> jax.Array:
    """Returns w and the iterates after each step of an optimizer, given `gradient(w, k)`.

    They are those to evaluate with, and `extra` is what the optimizer's update wants besides.
    """

    def step(carry, k):
        w, state = carry
        updates, state = tx.update(gradient(optim.grad_params(w, state), k), state, w, **extra)
        w = optax.apply_updates(w, updates)
        return (w, state), optim.eval_params(w, state)

    _, iterates = jax.lax.scan(step, (w, tx.init(w)), jnp.arange(steps, dtype=jnp.int32))
    return jnp.concatenate([w[None], iterates])


def save(
    name: str, config: Any, result: Result, seconds: float, folder: pathlib.Path
) -> pathlib.Path:
    """Writes NAME.json and NAME.png and returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    result.figure.savefig(folder / f"{name}.png", dpi=120)
    record = {
        "claims": result.claims,
        "numbers": result.numbers,
        "figure": f"{name}.png",
        "seconds": round(seconds, 1),
        "config": dataclasses.asdict(config),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    return path


def records() -> dict[str, dict[str, Any]]:
    """Returns the committed results by name, each with its question."""
    modules = found()
    read = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return {name: {"question": question(modules[name]), **r} for name, r in read.items()}


def table() -> str:
    """Returns the results as a Markdown table, a row per experiment."""
    rows = ["| question | of its claims | |", "| --- | --- | --- |"]
    folder = f"{FOLDER.name}/{RESULTS.name}"
    for name, record in records().items():
        counts = collections.Counter(record["claims"].values())
        verdicts = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
        links = f"[figure]({folder}/{record['figure']}), [numbers]({folder}/{name}.json)"
        asked = f"[{record['question']}]({FOLDER.name}/{name}.py)"
        rows.append(f"| {asked} | {verdicts} | {links} |")
    return "\n".join(rows) + "\n"


def report() -> str:
    """Returns the results as a Markdown page: figures, and a verdict per claim."""
    parts = ["# What the experiments found\n", "Written by `python -m experiments table`.\n"]
    for name, record in records().items():
        parts += [f"## {record['question']}\n", f"![{name}]({RESULTS.name}/{record['figure']})\n"]
        parts += ["| claim | verdict |\n| --- | --- |"]
        parts += [
            f"| {c.replace('|', BAR)} | {verdict} |" for c, verdict in record["claims"].items()
        ]
        where = f"[{name}.py]({name}.py), [numbers]({RESULTS.name}/{name}.json)"
        parts += [f"\n{where}; {record['seconds']:g} s on one {record['device']} device.\n"]
    return "\n".join(parts)


def with_table(text: str) -> str:
    """Returns the text of a README with the results table between its marks."""
    begin, end = MARKS
    before, _, rest = text.partition(begin)
    return before + begin + table() + end + rest.partition(end)[2]
