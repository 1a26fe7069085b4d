"""Files of arrays: there and back, bytes as the format says, and files that lie."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import train
from jaxtrain.errors import ConfigError, DataError

# By hand, from the description of the format; the header is filled up with blanks.
HEADER = (
    b'{"__metadata__":{"by":"hand"},"a/k":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
    b'"b":{"dtype":"I16","shape":[2],"data_offsets":[4,8]}}   '
)
NUMBERS = bytes([0, 0, 0xC0, 0x3F, 1, 0, 0xFE, 0xFF])  # 1.5, and 1 and -2
BYTES = len(HEADER).to_bytes(8, "little") + HEADER + NUMBERS


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.fast
def test_there_and_back_in_every_dtype(tmp_path, x64):
    names = "bool uint8 int16 uint32 int64 float16 bfloat16 float32 float64 complex64 float8_e5m2"
    arrays = {name: jnp.arange(6).reshape(2, 3).astype(name) for name in names.split()}
    nan = np.array([0x7FC00001, 0x80000000], np.uint32).view(np.float32)  # a NaN's bits, and -0
    arrays |= {"scalar": np.float32(2), "none": np.zeros((0, 3)), "inner": {"": {"é": nan}}}
    path = tmp_path / "arrays.safetensors"
    train.save_safetensors(path, arrays)
    same(train.load_safetensors(path), arrays)
    assert os.listdir(tmp_path) == ["arrays.safetensors"]


@pytest.mark.fast
def test_the_bytes_are_those_of_the_format(tmp_path):
    path = tmp_path / "arrays"
    path.write_bytes(BYTES)
    arrays = {"a": {"k": np.array([[1.5]], np.float32)}, "b": np.array([1, -2], np.int16)}
    same(train.load_safetensors(path), arrays)
    train.save_safetensors(path, arrays)
    written = path.read_bytes()
    n = int.from_bytes(written[:8], "little")
    assert n % 8 == 0 and written[8 + n :] == NUMBERS
    header = json.loads(HEADER)
    del header["__metadata__"]
    assert json.loads(written[8 : 8 + n]) == header


def test_the_other_implementation_reads_it(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy")
    arrays = {"x": np.arange(6.0).reshape(2, 3), "flag": np.array([True, False])}
    train.save_safetensors(tmp_path / "ours", arrays)
    same(theirs.load_file(tmp_path / "ours"), arrays)
    theirs.save_file(arrays, tmp_path / "theirs", metadata={"format": "np"})
    same(train.load_safetensors(tmp_path / "theirs"), arrays)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "arrays"
    train.save_safetensors(path, {"x": np.zeros(3)})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train.save_safetensors(path, {"x": np.ones(1000)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["arrays"]


@pytest.mark.fast
def test_what_is_no_tree_of_arrays_is_refused(tmp_path):
    path = tmp_path / "arrays"
    for leaf in (1.0, "text", jax.random.key(0), np.zeros(1, ">f4"), np.array(["a"])):
        with pytest.raises(TypeError, match=r"save_safetensors: arrays\['a/b'\] must be an array"):
            train.save_safetensors(path, {"a": {"b": leaf}})
    for twice in ({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, np.ones(1)):
        with pytest.raises(ConfigError, match="save_safetensors: arrays must be of dicts"):
            train.save_safetensors(path, twice)
    assert not path.exists()


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


HOSTILE = {
    "a list": [],
    "a number": {"x": 1},
    "no offsets": {"x": {"dtype": "F32", "shape": [1]}},
    "one offset": {"x": entry(offsets=(0,))},
    "offsets of text": {"x": entry(), "y": entry(offsets="04")},
    "another field": {"x": entry(more=1)},
    "an unknown dtype": {"x": entry("F7")},
    "a dtype of another kind": {"x": entry(["F32"])},
    "a negative length": {"x": entry(shape=(-1, -1))},
    "a length of true": {"x": entry(shape=(True,))},
    "a fractional length": {"x": entry(shape=(1.0,))},
    "a huge length": {"x": entry(shape=(2**62,), offsets=(0, 2**64))},
    "a length whose bytes overflow": {"x": entry(shape=(2**62, 4))},
    "a length beyond all arrays": {"x": entry(shape=(0, 2**70), offsets=(0, 0)), "y": entry()},
    "too many dimensions": {"x": entry(shape=(1,) * 99)},
    "another shape": {"x": entry(shape=(2,))},
    "beyond the end": {"x": entry(shape=(2,), offsets=(0, 8))},
    "from below": {"x": entry(offsets=(-4, 0))},
    "backwards": {"x": entry(offsets=(4, 0))},
    "a hole": {"x": entry("U8", offsets=(0, 1)), "y": entry("U8", offsets=(3, 4))},
    "an overlap": {"x": entry(), "y": entry()},
    "bytes left over": {"x": entry("U8", offsets=(0, 1))},
    "an array inside another": {
        "x": entry("I16", offsets=(0, 2)),
        "x/y": entry("I16", offsets=(2, 4)),
    },
    "another inside an array": {
        "x/y": entry("I16", offsets=(0, 2)),
        "x": entry("I16", offsets=(2, 4)),
    },
    "a truth of 2": {"x": entry("BOOL", shape=(4,))},
}


@pytest.mark.fast
@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_lies_is_found_out(name, tmp_path):
    text = json.dumps(HOSTILE[name]).encode()
    path = tmp_path / "arrays"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes([2, 0, 0, 0]))
    with pytest.raises(DataError, match="load_safetensors: .*arrays must be .*, got .*; save or"):
        train.load_safetensors(path)


EMPTY = json.dumps({"x": entry(shape=(0,), offsets=(0, 0))}).encode()


@pytest.mark.fast
@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"\xff\xfe", EMPTY[:-1] + b", " + EMPTY[1:], b"[" * 200_000, b"9" * 5000],
    ids=["empty", "cut", "null", "no text", "twice", "deep", "a long number"],
)
def test_a_header_that_is_no_json_is_found_out(text, tmp_path):
    path = tmp_path / "arrays"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(DataError, match="header"):
        train.load_safetensors(path)
    path.write_bytes(len(EMPTY).to_bytes(8, "little") + EMPTY)
    assert train.load_safetensors(path)["x"].size == 0


@pytest.mark.fast
def test_a_file_cut_anywhere_is_found_out(tmp_path):
    path = tmp_path / "arrays"
    for n in range(len(BYTES)):
        path.write_bytes(BYTES[:n])
        with pytest.raises(DataError, match="load_safetensors"):
            train.load_safetensors(path)
    for length in (2**63, 2**64 - 1, 10**8):
        path.write_bytes(length.to_bytes(8, "little") + BYTES[8:])
        with pytest.raises(DataError, match="a header and arrays"):
            train.load_safetensors(path)
