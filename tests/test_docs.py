"""The API pages build from what is public; every link, test and argument that is named exists."""

import dataclasses
import doctest
import importlib.util
import inspect
import pathlib
import re
import subprocess
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxtrain import augment, losses, optim, penalties, plot, schedules

PATH = pathlib.Path(__file__).parent.parent / "docs" / "build_api.py"
SPEC = importlib.util.spec_from_file_location("build_api", PATH)
build_api = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build_api)


def test_all_pages_build_and_all_links_hold(tmp_path):
    build_api.main(tmp_path)
    errors = (tmp_path / "jaxtrain.errors.md").read_text()
    assert "## ConfigError" in errors and "jaxtrain/errors.py#L" in errors


def test_a_page_keeps_the_docstring_readable(tmp_path):
    module = types.ModuleType("halves", "Halving.")

    def half(x: float, *, by=len) -> float:
        """Halves a number.

        Args:
            x: any number; if
                long, it goes on here.
            by: unused.

        Returns:
            x / 2.

        Example:
            >>> half(2.0)
            1.0
        """

    half.__module__ = "halves"
    module.half = half
    page = build_api.build(tmp_path, [module])[0].read_text()
    assert "```python\nhalf(x: float, *, by=len) -> float\n```" in page
    assert "- `x`: any number; if\n    long" in page and "- `by`: unused." in page
    assert "**Returns**\n\nx / 2." in page
    assert "```python\n>>> half(2.0)\n1.0\n```" in page


def test_a_public_name_without_a_docstring_fails(tmp_path):
    module = types.ModuleType("bare")
    exec("def f(): pass\ndef _g(): pass", vars(module))
    module.f.__module__ = "bare"
    with pytest.raises(ValueError, match="bare.f must be documented") as error:
        build_api.build(tmp_path, [module])
    assert "_g" not in str(error.value)


def test_a_generated_docstring_does_not_count():
    class Pair(NamedTuple):
        a: int

    @dataclasses.dataclass
    class Record:
        a: int

    assert build_api.docstring(Pair) == build_api.docstring(Record) == ""


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.md").write_text("# One `two`, three\n")
    page = tmp_path / "b.md"
    page.write_text(
        "[file](a.md) [heading](a.md#one-two-three) [web](https://a.b/c) [here](#top)\n# Top\n"
        "`[code](none.md)`\n```\n[code](none.md)\n```\n"
    )
    assert build_api.broken_links([page]) == []
    page.write_text('[x](none.md) [y](a.md#two) ![z](z.png "title") <img src="w.png"> [u](#v)')
    lost = {b.removeprefix(f"{page}: ") for b in build_api.broken_links([page])}
    assert lost == {"none.md", "a.md#two", "z.png", "w.png", "#v"}


@pytest.mark.parametrize("i, name", [(0, "affine"), (1, "signum"), (2, "width")])
def test_the_examples_for_contributors_run(i, name, monkeypatch):
    text = (PATH.parent.parent / "CONTRIBUTING.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)[i]
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look there
    exec(compile(code, name, "exec"), vars(module))
    if name == "width":
        # Ten classes: chance is 0.1.
        assert module.run(module.SIZES["smoke"]).numbers["accuracy, width 64"] > 0.5
    else:
        tests = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
        assert tests.attempted > 0 and tests.failed == 0


def named_tests(text):
    """What the last cells of the tables name: tests, `test_f[case]` or further cases, `[case]`."""
    for cell in re.findall(r"^\|.*\| (.*`.*) \|$", text, re.M):
        name = "test_equals_keras_formula"  # said above that table
        for function, case in re.findall(r"`(test_\w+)?(\[.*?\])?`", cell):
            name = function or name
            if function or case:
                yield name + case


def test_every_test_that_porting_names_exists():
    text = PATH.with_name("porting.md").read_text()
    files = set(re.findall(r"`(tests/test_\w+\.py)`", text))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", *files],
        cwd=PATH.parent.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    ids = "\n".join(line.partition("::")[2] for line in done.stdout.splitlines())
    patterns = {
        name: re.escape(name).replace(r"\*", ".*") + ("$" if name.endswith("]") else r"\b")
        for name in named_tests(text)
    }
    assert len(patterns) > 150
    missing = [
        name for name, pattern in patterns.items() if not re.search(f"^{pattern}", ids, re.M)
    ]
    assert missing == []


FUNCTIONS = {
    f"{module.__name__}.{name}": f
    for module in (optim, schedules)
    for name, f in vars(module).items()
    if inspect.isfunction(f)
}


@pytest.mark.fast
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_documented(name):
    text = inspect.cleandoc(FUNCTIONS[name].__doc__)
    section = re.search(r"^Args:\n((?:  .*\n|\n)+)", text, re.M)
    documented = re.findall(r"^  (\w[\w, ]*):", section[1], re.M)
    names = ", ".join(documented).split(", ")
    assert sorted(names) == sorted(inspect.signature(FUNCTIONS[name]).parameters)


GUIDE = PATH.with_name("optimizers.md").read_text()
BLOCKS = {
    f"{page.stem} {i}": code
    for page in (PATH.with_name("optimizers.md"), PATH.with_name("data.md"))
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_a_guide_prints_what_it_says(name, capsys):
    exec(compile(BLOCKS[name], name, "exec"), {})
    said = re.findall(r"^print\(.*\)  # (.*)$", BLOCKS[name], re.M)
    assert said and capsys.readouterr().out.splitlines() == said


@pytest.mark.fast
def test_signatures_are_readable():
    modules = (augment, losses, optim, penalties, plot, schedules)
    functions = [f for m in modules for f in vars(m).values() if inspect.isfunction(f)]
    written = [str(inspect.signature(f)) for f in functions]
    assert len(written) > 150
    assert not [text for text in written if "numpy.number" in text]


def test_the_guide_knows_how_large_the_state_is():
    rows = re.findall(r"^\| `(.*)` \| .* \| (\d+|n) \| .* \| .* \|$", GUIDE, re.M)
    assert len(rows) == 20
    n, names = 1000, {**vars(optim), "lr": 0.1}
    for call, numbers in rows:
        state = jax.eval_shape(eval(call, names).init, jnp.zeros(n))
        sizes = sum(x.size for x in jax.tree.leaves(state) if jnp.issubdtype(x, jnp.floating))
        assert round(sizes / n) == (n + 3 if numbers == "n" else int(numbers)), call


def test_the_guide_names_every_optimizer():
    """Those are what a rate makes, and what a rate of 1 is understood for."""
    made = {
        name
        for name, f in vars(optim).items()
        if inspect.isfunction(f)
        and "learning_rate" in inspect.signature(f).parameters
        and not name.startswith("scale_by_")
    }
    assert made <= set(re.findall(r"^\| `(\w+)\(", GUIDE, re.M))
