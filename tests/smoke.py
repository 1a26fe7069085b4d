"""Small runs of experiments, for the tests of their verdicts."""

import functools
import importlib

import pytest


def module(name):
    return importlib.import_module(f"experiments.{name}")


@functools.cache
def smoke(name):
    pytest.importorskip("matplotlib")
    return module(name).run(module(name).SIZES["smoke"])


def nightly(names, long):
    """Marks those of the names that take long."""
    return [
        pytest.param(name, marks=pytest.mark.nightly) if name in long else name for name in names
    ]
