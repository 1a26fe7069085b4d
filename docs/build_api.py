"""Builds the API pages from the docstrings and checks the links of the repository's Markdown.

    python docs/build_api.py [FOLDER]

One page per public module goes to FOLDER (docs/api by default), with an index. A public name
without a docstring, a module that does not import, or a broken relative link makes it fail.
"""

import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def modules(package: str = "jaxtrain") -> Iterator[types.ModuleType]:
    """Yields every importable module below `package` that has no underscore in its path."""
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not info.name.startswith("_"):
            name = f"{package}.{info.name}"
            yield importlib.import_module(name)
            if info.ispkg:
                yield from modules(name)


def public(module: types.ModuleType) -> dict[str, Any]:
    """Returns what a package re-exports, or what a module of one file defines itself."""
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    if hasattr(module, "__path__"):
        return own
    return {n: v for n, v in own.items() if getattr(v, "__module__", None) == module.__name__}


def docstring(thing: Any) -> str:
    """Returns the docstring that somebody wrote; those of dataclasses and tuples are generated."""
    if typing.get_origin(thing) or not callable(thing) and not isinstance(thing, property):
        return f"Stands for `{thing!r}`."  # a constant or a type alias has no docstring of its own
    text = inspect.cleandoc(thing.__doc__ or "")
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else text


def signature(name: str, thing: Any) -> str:
    """Returns the call as the source has it; for a class, as its fields make it."""
    if inspect.isfunction(thing):
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
        written = re.search(r'^def (.*?):(?: *#[^\n]*)?\n(?= +r?""")', source, re.M | re.S)
        if written:
            return re.sub(r" +#.*", "", written[1])
    try:
        call = inspect.signature(thing).replace(return_annotation=inspect.Signature.empty)
        text = re.sub(r" at 0x\w+|jaxlib\._jax\.", "", f"{name}{call}")
        return textwrap.fill(text, 96, subsequent_indent="    ", break_long_words=False)
    except (TypeError, ValueError):  # properties and constants have none
        return name


def link(thing: Any, folder: pathlib.Path) -> str:
    """Returns a link from a page in `folder` to the line where `thing` is defined, if any."""
    try:
        source = inspect.unwrap(thing)
        path, line = inspect.getsourcefile(source), inspect.getsourcelines(source)[1]
    except (TypeError, OSError):
        return ""
    if not path or ROOT not in pathlib.Path(path).parents:
        return ""
    return f"[source]({os.path.relpath(path, folder)}#L{line})"


def markdown(text: str) -> str:
    """Turns a Google-style docstring into Markdown: headings, lists and code blocks."""
    first, *sections = re.split(r"^([A-Z]\w+):\n(?= )", text, flags=re.M)
    out = [first.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        body = inspect.cleandoc("\n" + body)
        if ">>>" in body:
            body = f"```python\n{body}\n```"
        elif title in ("Args", "Attributes", "Raises"):
            body = re.sub(r"^(\*{0,2}\w[\w.*, ]*?):(?=\s)", r"- `\1`:", body, flags=re.M)
        out.append(f"**{title}**\n\n{body}")
    return "\n\n".join(out)


def entry(name: str, thing: Any, folder: pathlib.Path, level: int = 2) -> Iterator[str]:
    """Yields the Markdown of one public name, and of the methods of a class.

    Raises:
      ValueError: if it has no docstring.
    """
    text = docstring(thing)
    if not text:
        raise ValueError(f"build_api: {name} must be documented, got no docstring")
    yield f"{'#' * level} {name.split('.')[-1]}"
    yield f"```python\n{signature(name, thing)}\n```"
    yield markdown(text)
    yield link(thing, folder)
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            value = getattr(value, "__func__", value)  # of a classmethod
            if not method.startswith("_") and isinstance(value, types.FunctionType | property):
                yield from entry(f"{name}.{method}", value, folder, level + 1)


def build(folder: pathlib.Path, found: Iterable[types.ModuleType]) -> list[pathlib.Path]:
    """Writes one page per module that has public names, and `index.md`.

    Raises:
      ValueError: naming every public name that has no docstring.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages, index, missing = [], ["# API"], []
    for module in found:
        page = [f"# {module.__name__}", markdown(inspect.cleandoc(module.__doc__ or ""))]
        names = public(module)
        for name, thing in names.items():
            try:
                page += entry(f"{module.__name__}.{name}", thing, folder)
            except ValueError as e:
                missing.append(str(e))
        if names:
            pages.append(folder / f"{module.__name__}.md")
            pages[-1].write_text("\n\n".join(filter(None, page)) + "\n")
            listed = ", ".join(f"[{n}]({pages[-1].name}#{n.lower()})" for n in names)
            index.append(f"## [{module.__name__}]({pages[-1].name})\n\n{listed}")
    if missing:
        raise ValueError("\n".join(missing))
    pages.append(folder / "index.md")
    pages[-1].write_text("\n\n".join(index) + "\n")
    return pages


def prose(path: pathlib.Path) -> str:
    """Returns the text of a Markdown file without its code blocks."""
    return re.sub(r"^( *)(```|~~~).*?^\1\2", "", path.read_text(), flags=re.M | re.S)


def anchors(path: pathlib.Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a Markdown file."""
    headings = re.findall(r"^#+ +(.*?)[# ]*$", prose(path), re.M)
    texts = (re.sub(r"\]\([^)]*\)", "", h).lower() for h in headings)
    return {re.sub(r"[^\w\- ]", "", t).replace(" ", "-") for t in texts}


def broken_links(files: Iterable[pathlib.Path]) -> list[str]:
    """Returns `file: link` for every relative link whose file or heading does not exist."""
    broken = []
    for file in files:
        text = re.sub(r"`[^`\n]*`", "", prose(file))
        links = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", text)
        for target in map("".join, links):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = file.parent / name if name else file
            heads = anchors(path) if anchor and path.suffix == ".md" and path.is_file() else anchor
            if not path.exists() or anchor not in heads:
                broken.append(f"{file}: {target}")
    return broken


def tracked(pattern: str) -> list[pathlib.Path]:
    """Returns the files under version control that match `pattern`."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", pattern]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [ROOT / n for n in names.split("\0") if n and (ROOT / n).exists()]


def main(folder: pathlib.Path) -> None:
    """Builds the pages into `folder` and checks all links."""
    broken = broken_links(build(folder, modules()) + tracked("*.md"))
    if broken:
        raise SystemExit("build_api: links must lead somewhere, got\n" + "\n".join(broken))


if __name__ == "__main__":
    main(pathlib.Path(*sys.argv[1:] or [str(ROOT / "docs" / "api")]).resolve())
