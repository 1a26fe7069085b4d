"""Checkpoints: written in the background, committed by one rename, verified before use."""

import contextlib
import copy
import errno
import hashlib
import json
import logging
import math
import os
import pathlib
import platform
import re
import shutil
import stat
import time
import warnings
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple, NoReturn

import jax
import jaxlib
import numpy as np

from jaxtrain import _check
from jaxtrain.errors import CheckpointCorrupt, CheckpointNotFound, RunError, StateError
from jaxtrain.train._processes import barrier

FORMAT = 1
MANIFEST_BYTES = 16 * 2**20
LEAVES = 100_000
DEPTH = 64
CONFIG = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
FIELDS = {
    "format": int,
    "step": int,
    "files": dict,
    "leaves": dict,
    "host": dict,
    "environment": dict,
    "sha256": str,
}
NUMBER = "(0|[1-9][0-9]*)"
KEYS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
DTYPES = KEYS.keys() | frozenset(
    "bool int4 int8 int16 int32 int64 uint4 uint8 uint16 uint32 uint64 float8_e4m3fn float8_e5m2 "
    "float16 bfloat16 float32 float64 complex64 complex128".split()
)


class Restored(NamedTuple):
    """What one checkpoint holds: the step, the tree (NumPy arrays) and the host record."""

    step: int
    tree: Any
    host: dict[str, Any]


class Checkpoints:
    """Keeps the newest checkpoints of one run in a directory.

    Orbax writes the arrays of step 7 to `7/`. `7.json` follows: the length and SHA-256 of every
    file, the path, shape and dtype of every leaf, the host record and the environment. It is
    written last and renamed into place, so a step exists exactly when its json does. Whoever opens
    a directory owns it: what an interrupted save left there is removed.

    Args:
        directory: where the checkpoints are; made if absent, readable by its owner only.
        keep: number of checkpoints kept, at least 2.
        read_only: remove and make nothing here, as beside a run in progress; `save` is refused.

    Raises:
        RunError: the directory cannot be made or read.

    Example:
        >>> import tempfile, numpy as np
        >>> state = {"kernel": np.ones((2, 3), np.float32)}
        >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
        ...     checkpoints.save(7, state, {"epoch": 1})
        ...     step, tree, host = checkpoints.restore(state)
        >>> step, tree["kernel"].shape, host
        (7, (2, 3), {'epoch': 1})
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int = 2, read_only: bool = False):
        _check.integer("Checkpoints", "keep", keep, least=2)
        self.directory = pathlib.Path(directory).absolute()
        self.keep = keep
        self.read_only = read_only
        self._bad: set[int] = set()
        self._pending: futures.Future | None = None
        self._writer = futures.ThreadPoolExecutor(1, "checkpoint")
        if read_only:
            return
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep(self.steps())
        except OSError as error:
            _check.fail(
                "Checkpoints", str(directory), "a directory we can write", error, "", RunError
            )
        barrier("checkpoints opened")

    def steps(self) -> list[int]:
        """Returns the committed steps in ascending order, without those found corrupt."""
        if not self.directory.is_dir():
            return []
        names = [re.fullmatch(NUMBER + r"\.json", p.name) for p in self.directory.iterdir()]
        return sorted({int(name[1]) for name in names if name} - self._bad)

    def latest(self) -> int | None:
        """Returns the newest committed step, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, tree: Any, host: dict[str, Any]) -> None:
        """Copies `tree` to the host and writes it in the background.

        The tree's buffers may be donated as soon as this returns. The previous save is waited for
        and its error, if it had one, is raised here.

        Args:
            step: the number of the checkpoint, above every committed one.
            tree: a pytree of arrays and typed keys, each whole on every process.
            host: a small record of JSON values (finite floats, ints below 2**63, no tuples).

        Raises:
            RunError: the previous save, or the start of this one, failed.
        """
        self.wait()
        if self.read_only:
            _check.fail("save", "read_only", "False", True, "open the directory without it")
        _check.integer("save", "step", step, least=0)
        latest = max(self.steps(), default=-1)
        if step <= latest:
            _check.fail("save", "step", f"above {latest}, the latest one committed", step)
        if not isinstance(host, dict) or not _is_json(host):
            _check.fail("save", "host", "a dict of JSON values", host, "convert its arrays")
        leaves = _leaves("save", tree)
        arrays = jax.device_get([_data(leaf) for leaf in leaves.values()])
        # On CPU device_get returns views of the buffers, which the next step may overwrite.
        arrays = {str(i): np.array(x) for i, x in enumerate(arrays) if x.size}
        arrays["step"] = np.int64(step)
        needed = sum(x.nbytes for x in arrays.values())
        manifest = {
            "format": FORMAT,
            "step": int(step),
            "leaves": _describe(leaves),
            "host": copy.deepcopy(host),
            "environment": environment(),
        }
        with self._reporting(step, needed):
            self._sweep(self.steps())
            self._bad.clear()
            orbax = _orbax()
            orbax.save(self.directory / str(step), arrays)
        self._pending = self._writer.submit(self._commit, step, orbax, manifest, needed)

    def restore(self, template: Any, *, step: int | None = None) -> Restored:
        """Returns the newest good checkpoint, or that of `step`, after checking every byte of it.

        Args:
            template: the tree to be restored, of arrays or `jax.ShapeDtypeStruct`.
            step: the step wanted; None means the newest, and where that is corrupt the one before
                it, with a warning.

        Returns:
            A `Restored` whose tree has the template's structure, shapes and dtypes, as NumPy arrays
            (typed keys as JAX arrays).

        Raises:
            CheckpointNotFound: there is no such step.
            CheckpointCorrupt: no candidate has the bytes that were committed.
            StateError: the template is not the tree that was saved.
        """
        leaves = _leaves("restore", template)
        found, manifest = self._newest_good(step)
        _compare(manifest["leaves"], _describe(leaves))
        values = _load(self.directory, found, leaves)
        tree = jax.tree_util.tree_map_with_path(
            lambda path, _: values[jax.tree_util.keystr(path)], template
        )
        return Restored(found, tree, manifest["host"])

    def restore_leaves(self, *, step: int | None = None) -> Restored:
        """Returns a checkpoint as `restore` does, without a template: a dict of leaves by path.

        Args:
            step: as in `restore`.

        Returns:
            A `Restored` whose tree has the key paths of the leaves, such as `.params['kernel']`,
            for keys.
        """
        found, manifest = self._newest_good(step)
        leaves = {path: _leaf(*shape_dtype) for path, shape_dtype in manifest["leaves"].items()}
        return Restored(found, _load(self.directory, found, leaves), manifest["host"])

    def _newest_good(self, step: int | None) -> tuple[int, dict[str, Any]]:
        """Returns the newest step that verifies, or `step`, and its manifest."""
        self.wait()
        steps = self.steps()
        candidates = steps[::-1] if step is None else [s for s in steps if s == step]
        if not candidates:
            wanted = "a checkpoint" if step is None else f"step {step}"
            place = str(self.directory)
            _check.fail(
                "restore", place, f"a directory with {wanted}", steps, "", CheckpointNotFound
            )
        corrupt: dict[int, str] = {}
        for candidate in candidates:
            try:
                manifest = _verify(self.directory, candidate)
                break
            except CheckpointCorrupt as error:
                corrupt[candidate] = str(error)
        else:
            raise CheckpointCorrupt(" | ".join(corrupt.values()))
        if corrupt:
            self._bad |= set(corrupt)
            reasons = " | ".join(corrupt.values())
            warnings.warn(f"{reasons}; falling back to step {candidate}", stacklevel=3)
        now = environment()
        if then := {k: v for k, v in manifest["environment"].items() if v != now.get(k)}:
            fields = ", ".join(f"{k} {v!r} (now {now.get(k)!r})" for k, v in then.items())
            warnings.warn(f"restore: step {candidate} was saved with {fields}", stacklevel=3)
        return candidate, manifest

    def wait(self) -> None:
        """Waits for the save in progress and raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            futures.wait([pending])
            barrier("checkpoint committed")
            pending.result()

    def close(self) -> None:
        """Waits for the save in progress and ends the writer thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _commit(self, step: int, orbax, manifest: dict[str, Any], needed: int) -> None:
        with self._reporting(step, needed):
            with contextlib.closing(orbax):
                orbax.wait_until_finished()
            if jax.process_index() != 0:
                return
            root, final = self.directory / str(step), self.directory / f"{step}.json"
            for path in [*root.rglob("*"), root, self.directory]:
                _fsync(path)
            files = {name: [p.stat().st_size, _sha256(p)] for name, p in _files(root).items()}
            text = _sealed(manifest | {"files": files})
            if len(text) > MANIFEST_BYTES:
                _check.fail("save", "host", "small", f"a manifest of {len(text)} bytes")
            temporary = final.with_suffix(".json.tmp")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
            _fsync(self.directory)
            _verify(self.directory, step)
            self._sweep(self.steps()[-self.keep :])

    def _sweep(self, steps: list[int]) -> None:
        """Removes all other steps and all temporary files; every json before any directory."""
        if jax.process_index() != 0:
            return
        pattern = NUMBER + r"(\.json)?(\.json\.tmp|\.orbax-checkpoint-tmp.*)?"
        found = [(p, re.fullmatch(pattern, p.name)) for p in self.directory.iterdir()]
        doomed = [p for p, m in found if m and (m[3] or int(m[1]) not in steps)]
        manifests = [p for p in doomed if p.suffix == ".json"]
        for group in manifests, [p for p in doomed if p not in manifests]:
            for path in group:
                if path.is_dir() and not path.is_symlink():
                    _rmtree(path)
                else:
                    path.unlink()
            if group:
                _fsync(self.directory)

    @contextlib.contextmanager
    def _reporting(self, step: int, needed: int) -> Iterator[None]:
        """Turns what Orbax and the file system raise into one error that names path and bytes."""
        try:
            with _quiet():
                yield
        except Exception as error:
            path = str(self.directory / str(step))
            space = f"{needed} bytes are needed, {shutil.disk_usage(self.directory).free} are free"
            _check.fail("save", path, "written and read back", error, space, RunError)


def environment() -> dict[str, Any]:
    """Returns what the last bits of a result depend on besides the state and the data."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "jaxlib": jaxlib.__version__,
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "machine": platform.machine(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    } | {name: getattr(jax.config, name) for name in CONFIG}


def _orbax():
    import orbax.checkpoint as ocp  # 0.2 s, paid only by those who save or restore

    # Made in the background, a directory that cannot be made leaves threads that block the exit.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    return ocp.StandardCheckpointer(async_options=options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops Orbax's own log records: what matters in them is raised."""

    def others(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _leaves(where: str, tree: Any) -> dict[str, Any]:
    """Returns the leaves by path, in the order of the paths."""
    leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    if len(leaves) > LEAVES:
        _check.fail(where, "tree", f"of at most {LEAVES} leaves", len(leaves))
    for path, leaf in leaves.items():
        if str(getattr(leaf, "dtype", None)) not in DTYPES:
            kind = getattr(leaf, "dtype", type(leaf))
            _check.fail(where, f"tree{path}", "an array", kind, "use jnp.asarray", TypeError)
    return dict(sorted(leaves.items()))


def _describe(leaves: dict[str, Any]) -> dict[str, list]:
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves.items()}


def _abstract(leaf) -> jax.ShapeDtypeStruct:
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _leaf(shape: list[int], dtype: str) -> Any:
    """Returns the abstract leaf of a manifest's shape and dtype."""
    if dtype in KEYS:
        key = jax.eval_shape(lambda: jax.random.key(0, impl=KEYS[dtype]))
        return jax.ShapeDtypeStruct(tuple(shape), key.dtype)
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def _compare(saved: dict[str, list], wanted: dict[str, list]) -> None:
    def show(leaves, path):
        return "{1}{0}".format(*leaves[path]) if path in leaves else "nothing"

    paths = [p for p in sorted(saved | wanted) if saved.get(p) != wanted.get(p)]
    if paths:
        lines = [f"{p} saved {show(saved, p)}, asked {show(wanted, p)}" for p in paths[:10]]
        message = f"{len(paths)} leaves that differ: " + "; ".join(lines)
        raise StateError(f"restore: template must be the tree that was saved, got {message}")


def _load(directory: pathlib.Path, step: int, leaves: dict[str, Any]) -> dict[str, Any]:
    """Reads a verified step into the paths, shapes and dtypes of `leaves`."""
    abstract = {path: _abstract(leaf) for path, leaf in leaves.items()}
    target = {str(i): x for i, x in enumerate(abstract.values()) if x.size}
    target["step"] = jax.ShapeDtypeStruct((), np.int64)
    try:
        with _quiet(), _orbax() as orbax:
            stored = orbax.restore(directory / str(step), target)
        # Orbax casts to the target's dtype, so the values of a forged file stop here or earlier.
        if any((stored[k].shape, stored[k].dtype) != (x.shape, x.dtype) for k, x in target.items()):
            raise ValueError("other shapes than the manifest's")
        if stored["step"] != step:
            raise ValueError(f"the arrays of step {stored['step']}")
    except Exception as error:
        _corrupt(directory / str(step), error)
    values: dict[str, Any] = {}
    for i, (path, leaf) in enumerate(leaves.items()):
        # Orbax stores no array of size zero: the template has all that there is to know.
        value: Any = (
            stored[str(i)] if leaf.size else np.zeros(abstract[path].shape, abstract[path].dtype)
        )
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=KEYS[str(leaf.dtype)])
        values[path] = value
    return values


def _corrupt(path: pathlib.Path, why: Any) -> NoReturn:
    raise CheckpointCorrupt(f"restore: {path} must be as it was committed, got {why}")


def _verify(directory: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns the manifest of `step` after comparing every byte of the step with it."""
    manifest = _read_manifest(directory / f"{step}.json", step)
    root, listed = directory / str(step), manifest["files"]
    try:
        found = _files(root)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        _corrupt(root, error)
    for name in sorted(found.keys() | listed.keys()):
        if name not in listed:
            _corrupt(root / name, "a file that was not")
        if name not in found:
            _corrupt(root, f"no file {name!r}")
        length, digest = listed[name]
        if (size := found[name].stat().st_size) != length:
            _corrupt(root / name, f"{size} bytes instead of {length}")
        if _sha256(found[name]) != digest:
            _corrupt(root / name, "another SHA-256")
    return manifest


def _read_manifest(path: pathlib.Path, step: int) -> dict[str, Any]:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MANIFEST_BYTES:
            raise ValueError(f"no regular file of at most {MANIFEST_BYTES} bytes")
        text = path.read_bytes()
        manifest = json.loads(text)
        if not isinstance(manifest, dict) or not _is_json(manifest):
            raise ValueError("no object of plain JSON values")
        if text != _sealed({k: v for k, v in manifest.items() if k != "sha256"}):
            raise ValueError("another SHA-256")
    except (FileNotFoundError, ValueError, RecursionError) as error:
        _corrupt(path, error)
    if manifest.get("format") != FORMAT:
        rule, fix = f"of format {FORMAT}", "restore it with the version that saved it"
        _check.fail("restore", str(path), rule, manifest.get("format"), fix, StateError)
    if not _is_manifest(manifest) or manifest["step"] != step:
        _corrupt(path, f"other fields than those of step {step}")
    return manifest


def _is_manifest(value: dict[str, Any]) -> bool:
    def types(pair):
        return [type(v) for v in pair] if isinstance(pair, list) else None

    def is_leaf(pair):
        return types(pair) == [list, str] and set(types(pair[0])) <= {int} and pair[1] in DTYPES

    return (
        {k: type(v) for k, v in value.items()} == FIELDS
        and all(types(pair) == [int, str] for pair in value["files"].values())
        and len(value["leaves"]) <= LEAVES
        and all(map(is_leaf, value["leaves"].values()))
    )


def _is_json(value: Any, depth: int = DEPTH) -> bool:
    match value:
        case None | bool() | str():
            return True
        case int():
            return abs(value) < 2**63
        case float():
            return math.isfinite(value)
        case list():
            return depth > 0 and all(_is_json(v, depth - 1) for v in value)
        case dict():
            return depth > 0 and all(
                isinstance(k, str) and _is_json(v, depth - 1) for k, v in value.items()
            )
    return False


def _sealed(manifest: dict[str, Any]) -> bytes:
    """Returns the one text that a manifest has, its own hash included."""

    def text(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    return text(manifest | {"sha256": hashlib.sha256(text(manifest)).hexdigest()})


def _files(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the files below `root` by their relative names; links and devices are refused."""
    files = {}
    for path in [root, *root.rglob("*")]:
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and path != root:
            files[path.relative_to(root).as_posix()] = path
        elif not stat.S_ISDIR(mode):
            raise ValueError(f"{path} is neither a file nor a directory")
    return files


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rmtree(path: pathlib.Path, attempts: int = 20) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        # The other writes of a save that failed may add and remove files for a moment.
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or attempts == 0:
            raise
        time.sleep(0.05)
        if path.exists():
            _rmtree(path, attempts - 1)


def _fsync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
