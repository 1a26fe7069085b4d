"""Loading a trained network for inference."""

import os
import pathlib
import re
from typing import Any, NamedTuple

from jaxtrain import nn
from jaxtrain.errors import RunError
from jaxtrain.train._checkpoint import Checkpoints
from jaxtrain.train._files import read_config


class Model(NamedTuple):
    """A network with its params and state, for `predict(model.net, model, x)`."""

    net: nn.Layer
    params: Any
    state: Any


def load(directory: str | os.PathLike, *, net: nn.Layer | None = None) -> Model:
    """Returns the network of a run's newest good checkpoint, without its optimizer.

    Args:
        directory: a run folder of `fit`.
        net: the network; None means to rebuild it from `config.json`, which works for nets of the
            layers of `jaxtrain.nn`.

    Returns:
        A Model; params and state are those to evaluate with, NumPy arrays.

    Raises:
        RunError: the folder holds no run, or its network has to be given.
        CheckpointNotFound: it holds no checkpoint.
        CheckpointCorrupt: no checkpoint has the bytes that were committed.
    """
    config = read_config(pathlib.Path(directory))
    if net is None:
        if config.get("net") is None:
            raise RunError(
                f"load: net must be given, got None for {directory}: its network has layers of "
                "your own; pass load(directory, net=...)"
            )
        net = nn.build(config["net"])
    with Checkpoints(pathlib.Path(directory) / "checkpoints", read_only=True) as checkpoints:
        leaves = checkpoints.restore_leaves().tree
    tree: Any = {}
    for path, leaf in leaves.items():
        steps = re.findall(r"\['(.*?)'\]|\.(\w+)|\[(\d+)\]", path)
        *way, last = (int(i) if i else key or field for key, field, i in steps)
        at = tree
        for name in way:
            at = at.setdefault(name, {})
        at[last] = leaf
    tree = _with_lists(tree)
    ts = tree["ts"]
    params = tree.get("eval_params", ts.get("params", {}))
    return Model(net, params, tree.get("eval_state", ts.get("state", {})))


def _with_lists(tree):
    """Returns the tree with a list, {} in its gaps, for each dict whose keys are numbers."""
    if not isinstance(tree, dict):
        return tree
    items = {name: _with_lists(value) for name, value in tree.items()}
    if all(isinstance(name, int) for name in items):
        return [items.get(i, {}) for i in range(max(items) + 1)]
    return items
