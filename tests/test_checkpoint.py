"""No acknowledged save is lost, no changed byte is restored, no wrong tree is loaded."""

import errno
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxtrain.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, RunError, StateError
from jaxtrain.train import _checkpoint
from jaxtrain.train._checkpoint import Checkpoints


class Moments(NamedTuple):
    count: jax.Array
    mu: dict
    nu: dict | None


def state(step=0):
    rng = np.random.default_rng(step)
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    return {
        "params": {"dense0": {"kernel": kernel, "bias": np.full(4, step, np.float32)}},
        "opt": (Moments(np.asarray(step, np.int32), {"dense0": {"kernel": -kernel}}, None), ()),
        "key": jax.random.key(step),
    }


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_file(directory, step):
    return max((directory / str(step)).rglob("d/*"), key=lambda p: p.stat().st_size)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three committed steps, to be copied and never to be changed."""
    directory = tmp_path_factory.mktemp("saved")
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in 1, 2, 3:
            checkpoints.save(step, state(step), {"samples": step * 100})
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.fast
def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    names = "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64"
    dtypes = [*map(np.dtype, names.split()), np.dtype(ml_dtypes.bfloat16)]
    tree = {
        "dtypes": [(rng.normal(size=(2, 3)) * 50).astype(np.uint8).astype(d) for d in dtypes],
        "bool": np.array([True, False]),
        "holes": (None, {}, [], jnp.ones(2, jnp.bfloat16), None),
        "empty": [np.zeros((0, 3), np.float64), jnp.zeros((2, 0))],
        "scalar": [np.float32(2.5), jnp.asarray(7)],
        "special": np.array([np.nan, np.inf, -0.0, 5e-324]),
        "keys": [jax.random.key(3), jax.random.split(jax.random.key(4), 3)],
        "other key": jax.random.key(5, impl="rbg"),
        3: {
            "a/b": np.zeros(1),
            "a": {"b": np.ones(1)},
            "..": np.ones(2),
            "gr\u00f6\u00dfe": np.ones(3),
        },
        "moments": Moments(jnp.asarray(1), {"w": jnp.arange(6.0).reshape(2, 3)}, None),
    }
    tree = {str(k): v for k, v in tree.items()}
    host = {
        "seed": 2**40,
        "best": -0.1,
        "name": "gr\u00f6\u00dfe",
        "list": [1, None, True, {"a": []}],
    }
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(5, tree, host)
        for template in tree, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree):
            step, got, got_host = checkpoints.restore(template)
            assert step == 5 and got_host == host
            assert_same(got, tree)


def test_a_tree_without_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"a": None, "b": ()}, {})
        assert checkpoints.restore({"a": None, "b": ()}).tree == {"a": None, "b": ()}


def test_steps_and_retention(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps() == [] and checkpoints.latest() is None
        for step in 0, 9, 10:
            checkpoints.save(step, state(step), {})
        checkpoints.wait()
        assert checkpoints.steps() == [9, 10] and checkpoints.latest() == 10
        assert sorted(os.listdir(tmp_path)) == ["10", "10.json", "9", "9.json"]
        assert_same(checkpoints.restore(state(), step=9).tree, state(9))
        for step in 3, 10:
            with pytest.raises(ConfigError, match="save: step must be above 10"):
                checkpoints.save(step, state(), {})


def test_arguments(tmp_path):
    with pytest.raises(ConfigError, match="keep must be an int >= 2, got 1"):
        Checkpoints(tmp_path, keep=1)
    with Checkpoints(tmp_path) as checkpoints:
        deep = []
        for _ in range(70):
            deep = [deep]
        for bad in (
            {"a": np.nan},
            {"a": 2**63},
            {"a": (1,)},
            {1: 2},
            {"a": np.ones(1)},
            [],
            {"a": deep},
        ):
            with pytest.raises(ConfigError, match="host must be a dict of JSON values"):
                checkpoints.save(0, state(), bad)
        for bad in 1, "text", np.array([object()]):
            with pytest.raises(TypeError, match=r"save: tree\['a'\] must be an array"):
                checkpoints.save(0, {"a": bad}, {})
        with pytest.raises(CheckpointNotFound, match=r"with a checkpoint, got \[\]"):
            checkpoints.restore(state())
        checkpoints.save(4, state(), {})
        with pytest.raises(CheckpointNotFound, match=r"with step 3, got \[4\]"):
            checkpoints.restore(state(), step=3)


def test_import_starts_nothing():
    code = (
        "import sys, jaxtrain.train._checkpoint, jax;"
        "from jax._src import xla_bridge;"
        "sys.exit('orbax.checkpoint' in sys.modules or xla_bridge.backends_are_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_buffers_may_be_reused_after_save(tmp_path, monkeypatch):
    host, device = np.arange(5e4), jnp.arange(5e4, dtype=jnp.float32)
    expected = {"host": host.copy(), "device": np.array(device)}
    overwrite = jax.jit(lambda x: -x, donate_argnums=0)
    record, overwritten = {"best": [1]}, threading.Event()
    begin, sha256 = _checkpoint._orbax, _checkpoint._sha256

    def late_orbax():
        host[:] = 0
        return begin()

    def late_sha256(path):
        overwritten.wait(10)
        return sha256(path)

    monkeypatch.setattr(_checkpoint, "_orbax", late_orbax)
    monkeypatch.setattr(_checkpoint, "_sha256", late_sha256)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"host": host, "device": device}, record)
        for _ in range(3):
            device = overwrite(device)
        record["best"][0] = 2
        overwritten.set()
        restored = checkpoints.restore(expected)
    assert_same(restored.tree, expected)
    assert restored.host == {"best": [1]}


def mutate(kind, directory, rng):
    """Changes step 3 of a directory, anywhere."""
    files = [directory / "3.json", *(p for p in (directory / "3").rglob("*") if p.is_file())]
    path = files[rng.integers(len(files))]
    old = path.read_bytes()
    data = bytearray(old)
    at, length = rng.integers(len(old) or 1), int(rng.integers(1, 64))
    if kind == "remove":
        return path.unlink()
    if kind == "add":
        return (
            (path.parent / f"extra{at}").write_bytes(old[:length])
            if path != files[0]
            else (directory / "3" / "extra").touch()
        )
    if kind == "swap":
        one, two = (files[i] for i in rng.permutation(len(files))[:2])
        a, b = one.read_bytes(), two.read_bytes()
        if a == b:
            return mutate(kind, directory, rng)
        return one.write_bytes(b), two.write_bytes(a)
    if kind == "old manifest":
        other = rng.integers(1, 3)
        if rng.integers(2):
            return shutil.copy(directory / f"{other}.json", directory / "3.json")
        shutil.rmtree(directory / "3")
        return shutil.copytree(directory / f"{other}", directory / "3")
    if kind == "flip":
        data[at : at + 1] = bytes(b ^ (1 << rng.integers(8)) for b in data[at : at + 1])
    if kind == "bytes":
        to = rng.integers(len(old) or 1)
        data[at : at + 1], data[to : to + 1] = data[to : to + 1], data[at : at + 1]
    if kind == "truncate":
        del data[at:]
    if kind == "extend":
        data += rng.bytes(length)
    if kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    if kind == "duplicate":
        data[at:at] = data[at : at + length]
    if data == old:
        return mutate(kind, directory, rng)
    path.write_bytes(data)


KINDS = "flip bytes truncate extend zeros duplicate swap remove add".split() + ["old manifest"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_byte_is_silent(kind, saved, tmp_path):
    rng = np.random.default_rng(KINDS.index(kind))
    for trial in range(50):
        directory = shutil.copytree(saved, tmp_path / str(trial))
        mutate(kind, directory, rng)
        if kind == "remove" and not (directory / "3.json").exists():
            continue  # without its json there is no step 3, which test_litter covers
        with pytest.raises(CheckpointCorrupt, match="must be as it was committed"):
            _checkpoint._verify(directory, 3)
        if trial < 2:
            with pytest.raises(CheckpointCorrupt):
                Checkpoints(directory).restore(state(), step=3)


def test_falls_back_with_one_warning(copy):
    with Checkpoints(copy, keep=3) as checkpoints:
        for newest, good in (3, 2), (2, 1):
            path = a_file(copy, newest)
            damage(path)
            with pytest.warns() as caught:
                restored = Checkpoints(copy).restore(state())
            assert len(caught) == 1
            assert re.search(
                f"{path}.*SHA-256.*falling back to step {good}", str(caught[0].message)
            )
            assert restored.step == good and restored.host == {"samples": good * 100}
            assert_same(restored.tree, state(good))
        damage(copy / "1.json")
        with pytest.raises(CheckpointCorrupt, match=r"(?s)/3/.*/2/.*1\.json"):
            checkpoints.restore(state())
        assert checkpoints.steps() == [1, 2, 3]


def test_saving_goes_on_after_a_fall_back(copy):
    shutil.rmtree(copy / "3")
    with Checkpoints(copy) as checkpoints:
        with pytest.warns(UserWarning, match="falling back to step 2"):
            checkpoints.restore(state())
        assert checkpoints.steps() == [1, 2]
        checkpoints.save(3, state(33), {})
        assert_same(checkpoints.restore(state()).tree, state(33))
    assert sorted(os.listdir(copy)) == ["2", "2.json", "3", "3.json"]


def replaced(path, value):
    """The template with one leaf, given by its path, replaced; `...` removes it."""

    def edit(tree, path):
        if not path:
            return value
        head, *rest = path
        if isinstance(tree, dict):
            new = tree | {head: edit(tree.get(head), rest)}
            return {k: v for k, v in new.items() if v is not ...}
        if isinstance(tree, Moments):
            return tree._replace(**{head: edit(getattr(tree, head), rest)})
        return tuple(edit(x, rest) if i == head else x for i, x in enumerate(tree))

    return edit(state(), path)


def array(shape=(3, 4), dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


KERNEL = ["params", "dense0", "kernel"]
WRONG = {
    "missing leaf": replaced(["params", "dense0", "bias"], ...),
    "missing layer": replaced(["params", "dense0"], ...),
    "missing params": replaced(["params"], ...),
    "missing optimizer": replaced(["opt"], ...),
    "missing key": replaced(["key"], ...),
    "leaf is a hole": replaced(KERNEL, None),
    "extra leaf": replaced(["params", "dense0", "scale"], array()),
    "extra layer": replaced(["params", "dense1"], {"kernel": array()}),
    "extra batch norm": replaced(["state"], {"mean": array((4,))}),
    "extra average": replaced(["ema"], state()["params"]),
    "hole is filled": replaced(["opt", 0, "nu"], {"dense0": {"kernel": array()}}),
    "extra empty leaf": replaced(["empty"], array((0,))),
    "renamed layer": state() | {"params": {"dense1": state()["params"]["dense0"]}},
    "transposed": replaced(KERNEL, array((4, 3))),
    "longer": replaced(KERNEL, array((3, 5))),
    "shorter": replaced(KERNEL, array((3, 3))),
    "flat": replaced(KERNEL, array((12,))),
    "one more rank": replaced(KERNEL, array((1, 3, 4))),
    "float64": replaced(KERNEL, array(dtype=np.float64)),
    "bfloat16": replaced(KERNEL, array(dtype=jnp.bfloat16)),
    "int32": replaced(KERNEL, array(dtype=np.int32)),
    "long count": replaced(["opt", 0, "count"], array((), np.int64)),
    "raw key": replaced(["key"], array((2,), np.uint32)),
    "other key": replaced(["key"], jax.random.key(0, impl="rbg")),
    "other optimizer": state() | {"opt": (tuple(state()["opt"][0]), ())},
    "list for tuple of one more": state() | {"opt": ((), *state()["opt"])},
}


def test_wrong_trees(saved, monkeypatch):
    def never(*args):
        raise RuntimeError("a wrong tree must be refused before anything is loaded")

    checkpoints = Checkpoints(saved, keep=3)
    monkeypatch.setattr(_checkpoint, "_load", never)
    for name, template in WRONG.items():
        with pytest.raises(StateError, match=r"(?s)\d+ leaves.* saved .*, asked ") as caught:
            checkpoints.restore(template)
        assert 1 <= str(caught.value).count(" saved ") <= 10, name
    with pytest.raises(
        StateError, match=r"\['kernel'\] saved float32\[3, 4\], asked float32\[4, 3\]"
    ):
        checkpoints.restore(WRONG["transposed"])
    with pytest.raises(StateError, match="21 leaves") as caught:
        checkpoints.restore({str(i): array() for i in range(16)})
    assert str(caught.value).count(" saved ") == 10


def test_environment(copy, monkeypatch):
    here = _checkpoint.environment()
    monkeypatch.setattr(_checkpoint, "environment", lambda: here | {"devices": 3, "cores": 99})
    with pytest.warns() as caught:
        Checkpoints(copy).restore(state())
    assert len(caught) == 1
    assert re.search(r"with cores \d+ \(now 99\), devices 8 \(now 3\)$", str(caught[0].message))


class Crash(OSError):
    """The process is gone: this call and all later ones never happened."""


def crash_at(monkeypatch, n):
    """Lets n operations on the file system pass and no more; returns their list."""
    passed = []

    def patched(name, function):
        def call(*args, **kwargs):
            if len(passed) >= n:
                raise Crash(name)
            target = args[-1] if name in ("replace", "rename") else args[0]
            if isinstance(target, int):
                target = os.readlink(f"/proc/self/fd/{target}")
            passed.append((name, str(target)))
            return function(*args, **kwargs)

        return call

    for name in "fsync replace rename unlink rmdir mkdir".split():
        monkeypatch.setattr(os, name, patched(name, getattr(os, name)))
    return passed


def test_order_of_operations(copy, monkeypatch):
    with Checkpoints(copy, keep=3) as checkpoints, monkeypatch.context() as patch:
        calls = crash_at(patch, 10**6)
        checkpoints.save(4, state(4), {})
        checkpoints.wait()
    commit = calls.index(("replace", f"{copy}/4.json"))
    final = calls.index(("rename", f"{copy}/4"))
    data = [p for p in (copy / "4").rglob("*")]
    assert len(data) > 8
    for path in [*data, copy / "4", copy, copy / "4.json.tmp"]:
        assert ("fsync", str(path)) in calls[final:commit], path
    assert calls[commit + 1] == ("fsync", str(copy))
    old = calls.index(("unlink", f"{copy}/1.json"))
    assert old > commit + 1 and calls[old + 1] == ("fsync", str(copy))
    removed = [c for c in calls if c[0] in ("unlink", "rmdir")]
    assert removed[0] == ("unlink", f"{copy}/1.json") and removed[-1] == ("rmdir", f"{copy}/1")


def assert_clean(directory, steps):
    assert sorted(os.listdir(directory)) == sorted(
        f"{s}{end}" for s in steps for end in ("", ".json")
    )


def test_crash_after_every_operation_of_a_save(copy, tmp_path, monkeypatch):
    n, crashed = 0, True
    with warnings.catch_warnings():
        # The writer that was cut off leaves its Orbax objects to the garbage collector.
        warnings.simplefilter("ignore", pytest.PytestUnraisableExceptionWarning)
        while crashed:
            directory = shutil.copytree(copy, tmp_path / str(n))
            crashed = False
            checkpoints = Checkpoints(directory, keep=3)
            with monkeypatch.context() as patch:
                passed = crash_at(patch, n)
                try:
                    checkpoints.save(4, state(4), {})
                    checkpoints.wait()
                except (Crash, RunError):
                    crashed = True
            committed = ("replace", f"{directory}/4.json") in passed
            again = Checkpoints(directory, keep=3)
            assert again.latest() == (4 if committed else 3)
            for step in again.steps():
                _checkpoint._verify(directory, step)
            assert len(again.steps()) >= 3
            assert_clean(directory, again.steps())
            if n % 8 == 0:
                assert_same(again.restore(state()).tree, state(again.latest()))
                again.save(5, state(5), {})
                again.close()
                assert_clean(directory, again.steps())
            shutil.rmtree(directory)
            n += 1
    assert n > 30


def litter(directory):
    (directory / "2.json").unlink()
    shutil.copytree(directory / "1", directory / "7.orbax-checkpoint-tmp-12")
    (directory / "8.json.tmp").write_text("{")
    (directory / "notes.txt").write_text("not ours")


def test_litter_and_a_crash_after_every_removal(saved, tmp_path, monkeypatch):
    n, crashed = 0, True
    while crashed:
        directory = shutil.copytree(saved, tmp_path / str(n))
        litter(directory)
        crashed = False
        with monkeypatch.context() as patch:
            crash_at(patch, n)
            try:
                Checkpoints(directory)
            except (Crash, RunError):
                crashed = True
        assert Checkpoints(directory).steps() == [1, 3]
        for step in 1, 3:
            _checkpoint._verify(directory, step)
        (directory / "notes.txt").unlink()
        assert_clean(directory, [1, 3])
        n += 1
    assert n > 20


def test_a_writer_error_is_raised_at_the_next_call(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        with monkeypatch.context() as patch:

            def full(path):
                raise OSError(28, "No space left on device")

            patch.setattr(_checkpoint, "_sha256", full)
            checkpoints.save(2, state(2), {})
            message = (
                rf"{tmp_path}/2 must be written.*No space left.*\d+ bytes are needed, \d+ are free"
            )
            with pytest.raises(RunError, match=message):
                checkpoints.save(3, state(3), {})
            checkpoints.save(3, state(3), {})
            with pytest.raises(RunError, match=f"{tmp_path}/3 must be"):
                checkpoints.wait()
        checkpoints.wait()
        checkpoints.save(3, state(3), {})
    assert_clean(tmp_path, [1, 3])


def test_a_save_that_cannot_begin_leaves_no_thread(tmp_path, monkeypatch):
    before = set(threading.enumerate())
    with Checkpoints(tmp_path) as checkpoints, monkeypatch.context() as patch:
        crash_at(patch, 0)
        with pytest.raises(RunError):
            checkpoints.save(1, state(), {})
            checkpoints.wait()
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(timeout=2)
    assert not any(thread.is_alive() for thread in left)


# A write that TensorStore gives up after Orbax has closed its event loop ends in this warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_takes_no_more(copy, caplog):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"w": np.random.default_rng(0).normal(size=100_000)}
    with Checkpoints(copy, keep=3) as checkpoints:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
            with pytest.raises(RunError, match="800008 bytes are needed"):
                checkpoints.save(4, big, {})
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {p: p.read_bytes() for p in before} == before
        checkpoints.save(4, big, {})
    assert_clean(copy, [2, 3, 4])
    assert not [r for r in caplog.records if "orbax" in r.pathname]


@pytest.mark.parametrize("moved", [errno.ENOTEMPTY, errno.ENOENT])
def test_a_folder_whose_files_come_and_go_is_removed(moved, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    rmtree, errors = shutil.rmtree, [OSError(moved, "moved")] * 2

    def moving(path):
        if errors:
            raise errors.pop()
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", moving)
    _checkpoint._rmtree(tmp_path / "a")
    assert not errors and not (tmp_path / "a").exists()
    with pytest.raises(PermissionError):
        errors.append(OSError(errno.EACCES, "not yours"))
        _checkpoint._rmtree(tmp_path)


def test_a_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for path in tmp_path / "file", tmp_path / "file" / "below":
        with pytest.raises(RunError, match=rf"Checkpoints: {path} must be a directory"):
            Checkpoints(path)


def edited(**fields):
    return lambda m: _checkpoint._sealed(m | fields)


def nested(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


HOSTILE = {
    "empty": lambda m: b"",
    "not JSON": lambda m: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "a list": lambda m: b"[]",
    "deep": lambda m: nested(100_000),
    "just too deep": lambda m: _checkpoint._sealed(m | {"host": json.loads(nested(65))}),
    "NaN": lambda m: b'{"format":NaN}',
    "infinity": lambda m: b'{"format":1e999}',
    "huge int": lambda m: b'{"format":' + b"9" * 5000 + b"}",
    "int over 63 bits": edited(host={"a": 2**63}),
    "duplicate key": lambda m: b'{"format":1,' + _checkpoint._sealed(m)[1:],
    "spaces": lambda m: json.dumps(json.loads(_checkpoint._sealed(m)), sort_keys=True).encode(),
    "too long": lambda m: b" " * (2**24 + 1),
    "field missing": lambda m: _checkpoint._sealed({k: v for k, v in m.items() if k != "host"}),
    "field added": edited(extra=1),
    "step of another": edited(step=2),
    "step is true": edited(step=True),
    "host is a list": edited(host=[]),
    "files are a list": edited(files=[]),
    "file without length": edited(files={"a": ["x", "y"]}),
    "file outside": edited(files={"../2.json": [1, "00"]}),
    "absolute file": edited(files={"/etc/passwd": [1, "00"]}),
    "leaves nested": edited(leaves={"a": [[[1]], "float32"]}),
    "dtype of objects": edited(leaves={"a": [[1], "object"]}),
    "shape of text": edited(leaves={"a": ["11", "float32"]}),
    "pair is a number": edited(leaves={"a": 1}),
    "too many leaves": lambda m: _checkpoint._sealed(
        m | {"leaves": {str(i): [[], "bool"] for i in range(100_001)}}
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests(name, copy):
    path = copy / "3.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    assert _checkpoint._sealed(manifest) == path.read_bytes()
    path.write_bytes(HOSTILE[name](manifest))
    with pytest.raises(CheckpointCorrupt, match=re.escape(str(copy))):
        Checkpoints(copy).restore(state(), step=3)


def test_a_newer_format_is_not_corrupt(copy):
    manifest = json.loads((copy / "3.json").read_bytes())
    del manifest["sha256"]
    (copy / "3.json").write_bytes(_checkpoint._sealed(manifest | {"format": 2, "new": 1}))
    with pytest.raises(StateError, match="must be of format 1, got 2"):
        Checkpoints(copy).restore(state())


def link_to(target):
    def make(path):
        path.unlink()
        path.symlink_to(target)

    return make


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("make", [link_to("/etc/passwd"), link_to("/"), pipe, folder])
@pytest.mark.parametrize("which", ["3.json", "3/_METADATA"])
def test_only_plain_files(make, which, copy):
    make(copy / which)
    with pytest.raises(CheckpointCorrupt):
        Checkpoints(copy).restore(state(), step=3)


def test_a_linked_step(copy):
    shutil.move(copy / "3", copy.parent / "elsewhere")
    (copy / "3").symlink_to(copy.parent / "elsewhere")
    with pytest.raises(CheckpointCorrupt):
        Checkpoints(copy).restore(state(), step=3)


def test_arrays_that_contradict_an_honest_looking_manifest(copy):
    manifest = json.loads((copy / "3.json").read_bytes())
    del manifest["sha256"]
    leaves = manifest["leaves"] | {"['key']": [[], "key<rbg>"]}
    (copy / "3.json").write_bytes(_checkpoint._sealed(manifest | {"leaves": leaves}))
    with pytest.raises(CheckpointCorrupt):
        Checkpoints(copy).restore(state() | {"key": jax.random.key(0, impl="rbg")})


def test_private_modes(saved, tmp_path):
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, {}, {})
    assert pathlib.Path(tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run" / "1.json").stat().st_mode & 0o777 == 0o600
