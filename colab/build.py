"""Makes the notebooks of this folder from the .py files beside them: `python colab/build.py`.

Needs jupytext. The result has no outputs and the same cell ids each time.
"""

import pathlib

import jupytext

FOLDER = pathlib.Path(__file__).parent


def notebook(path: pathlib.Path) -> str:
    """Returns the notebook of a .py file in jupytext's percent format."""
    made = jupytext.read(path)
    made.metadata["kernelspec"] = {"display_name": "Python 3", "name": "python3"}
    made.metadata["accelerator"] = "TPU"  # the runtime that Colab proposes
    for i, cell in enumerate(made.cells):
        cell["id"] = f"{path.stem}-{i}"  # random otherwise
    return jupytext.writes(made, fmt="ipynb") + "\n"


if __name__ == "__main__":
    for path in FOLDER.glob("*.py"):
        if path != pathlib.Path(__file__):
            path.with_suffix(".ipynb").write_text(notebook(path))
