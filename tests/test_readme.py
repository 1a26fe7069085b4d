"""Every Python block of README and design runs by itself, as pasted, and shows what it should."""

import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"
TEXT = README.read_text() + (README.parent / "docs" / "design.md").read_text()
BLOCKS = re.findall(r"^## ([^\n]*)\n[^#]*?^```python\n(.*?)^```", TEXT, re.M | re.S)
SHOWN = {
    "Fifteen lines": r"batch_norm0.*test accuracy 0\.9\d*\n.*params .*kernel.*state .*'var'",
    "Use one optimizer in your own code": r"w \[(0\.9|1\.0).*rate",
    "Prepare, augment, mix, penalize": r"test accuracy 0\.(8|9)\d*\n",
    "Run it on 8 devices": r"single on 1: loss (\S+)\njit on 8: loss \1\n"
    r"pmap on 8: loss \1\nshard_map on 8: loss \1\n",
    "Looking inside": r"'relu0': Array\(0\.\d+, .*'relu1': Array\(0\.\d+,",
}


def test_every_block_is_one_that_is_run():
    assert TEXT.count("```python") == len(BLOCKS)
    assert [title for title, _ in BLOCKS] == list(SHOWN)


@pytest.mark.parametrize("title, code", BLOCKS, ids=[title for title, _ in BLOCKS])
def test_a_block_runs_by_itself(title, code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SHOWN[title], done.stdout, re.S), done.stdout
    assert not list(tmp_path.iterdir())  # nothing is kept that was not asked for


@pytest.mark.fast
def test_the_commands_are_the_ones_that_exist():
    pyproject = (README.parent / "pyproject.toml").read_text()
    extras = re.findall(r"pip install -e \"\.\[(\w+)\]\"", README.read_text())
    assert set(extras) == {"data", "experiments", "test"}
    assert all(f"\n{extra} = [" in pyproject for extra in extras)
    assert README.with_name("experiments").joinpath("train.py").exists()
