"""A run's folder: its configuration, its lock, and its metrics file."""

import contextlib
import fcntl
import functools
import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any, Self

from jaxtrain.errors import RunError


def _fail(directory, rule, value, fix=""):
    raise RunError(f"fit: directory must be {rule}, got {value}; {fix}".removesuffix("; "))


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Holds a run folder, made if absent, against other processes; a dead one holds nothing.

    Raises:
        RunError: it cannot be made or written, or another process holds it (its pid is named).
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(directory / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        _fail(directory, "a folder we can write", f"{directory} ({error.strerror})")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"{directory}, in use by process {file.read().strip()}"
            _fail(directory, "of one run at a time", holder, "choose another folder")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_config(directory: pathlib.Path, config: dict[str, Any], *, resume: bool) -> None:
    """Writes `config.json`, or on resume compares it with what is there.

    What `make_step` was given may change on purpose, and its names with a newer version: there
    differences are a warning.

    Raises:
        RunError: there is another run and `resume` is False, or the configurations differ (the
            changed keys are listed).
    """
    path = directory / "config.json"
    config = json.loads(json.dumps(config))
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(config, indent=2) + "\n")
        temporary.replace(path)
        return
    if not resume:
        fix = "pass resume=True or choose another folder"
        _fail(directory, "without a run in it", directory, fix)
    before = read_config(directory)
    steps = before.pop("make_step", None), config.pop("make_step", None)
    changed = {
        key: f"{before.get(key)!r} -> {config.get(key)!r}"
        for key in sorted({*before, *config})
        if before.get(key) != config.get(key)
    }
    if changed:
        fix = "resume with the same configuration or start a new run"
        _fail(directory, "of the same configuration", f"{directory} with changed {changed}", fix)
    if all(steps) and (new := _differences(*steps)):
        text = f"fit: the run in {directory} is resumed with another step: {new}"
        warnings.warn(text, stacklevel=3)


def _differences(before: Any, now: Any, *path: str) -> dict[str, str]:
    """Returns {outermost and innermost name: "before -> now"} of where two JSON values differ."""
    if before == now:
        return {}
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        pairs = [(before[name], now[name], *path, name) for name in before]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(a, b, *path) for a, b in zip(before, now, strict=True)]
    else:
        return {" ".join(dict.fromkeys(path[:1] + path[-1:])): f"{_short(before)} -> {_short(now)}"}
    return functools.reduce(dict.__or__, (_differences(*pair) for pair in pairs))


def _short(value: Any) -> str:
    """Returns JSON in at most 100 characters, of functions the outermost name."""
    text = re.sub(r'"(?:[\w.]*\.)?(\w+)(?:\.<locals>[^"]*)?"', r'"\1"', json.dumps(value))
    return text if len(text) <= 100 else f"{text[:97]}..."


def read_config(directory: pathlib.Path) -> dict[str, Any]:
    """Returns the configuration of a run.

    Raises:
        RunError: there is no readable `config.json`.
    """
    try:
        return json.loads((pathlib.Path(directory) / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"run: directory must hold a config.json, got {directory} ({error}); "
            "give the folder that a run printed"
        ) from error


class MetricsFile:
    """Appends rows to `metrics.jsonl`; what follows a checkpoint is cut off when it is resumed.

    Args:
        directory: the run folder, or None to keep the rows in memory alone.
        offset: the length in bytes at the checkpoint that is resumed.

    Attributes:
        rows: all rows, those before the resume too.
    """

    def __init__(self, directory: pathlib.Path | None, *, offset: int = 0):
        self.rows: list[dict[str, Any]] = []
        self._file = None
        if directory is None:
            return
        self._file = open(directory / "metrics.jsonl", "a+b")
        self._file.truncate(offset)
        self._file.seek(0)
        self.rows = [json.loads(line) for line in self._file]

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row."""
        self.rows.append(row)
        if self._file is not None:
            self._file.write(json.dumps(row).encode() + b"\n")

    def sync(self) -> int:
        """Makes all rows durable and returns the file's length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()
