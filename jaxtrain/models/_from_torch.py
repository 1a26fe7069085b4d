"""Weights of residual networks that torch has trained."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtrain import _check
from jaxtrain.nn._look import put

CONVS = {"1": "first", "2": "second", "3": "third"}
LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def from_torch(state_dict: Mapping[str, Any]) -> tuple[dict, dict]:
    """Converts the weights of torchvision's ResNet to params and state of `resnet_imagenet`.

    Kernels (out, in, height, width) become (height, width, in, out); images have their channels
    last here.

    Args:
        state_dict: arrays by torchvision's names, such as `layer1.0.conv1.weight`:
            `{k: v.numpy() for k, v in model.state_dict().items()}`, or a safetensors file loaded.

    Returns:
        The params and state, NumPy arrays of the dtypes given, for `resnet_imagenet` of the same
        depth with `norm="batch"` and `stride_in="3x3"`.

    Raises:
        ConfigError: a name is not one of torchvision's ResNet.

    Example:
        >>> params, _ = from_torch({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
        >>> params["stem"]["conv"]["kernel"].shape
        (7, 7, 3, 64)

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
    """
    params: dict = {}
    state: dict = {}
    for name, value in state_dict.items():
        module, _, leaf = name.rpartition(".")
        path = _path(module)
        if leaf == "num_batches_tracked":
            continue
        if path is None or leaf not in LEAVES:
            rule = "arrays by the names of torchvision's ResNet"
            _check.fail("from_torch", "state_dict", rule, name)
        value = np.asarray(value)
        if value.ndim > 1:
            # (out, in, ...) to (..., in, out)
            params = put(params, path, {"kernel": np.moveaxis(value, (0, 1), (-1, -2))})
        elif leaf.startswith("running"):
            state = put(state, path, {LEAVES[leaf]: value})
        else:
            params = put(params, path, {LEAVES[leaf]: value})
    return params, state


def _path(module: str) -> str | None:
    """Returns the path of the layer that torchvision calls so."""
    if module == "fc":
        return "head"
    found = re.fullmatch(
        r"(?:layer([1-4])\.(\d+)\.)?(?:(conv|bn)([1-3])|downsample\.([01]))", module
    )
    if found is None:
        return None
    stage, block, kind, number, other = found.groups()
    layer = "norm" if kind == "bn" or other == "1" else "conv"
    if stage is None:
        return f"stem/{layer}" if number == "1" else None
    branch = "shortcut" if kind is None else f"body/{CONVS[number]}"
    return f"block{int(stage) - 1}_{block}/residual/{branch}/{layer}"
