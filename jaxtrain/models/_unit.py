"""What the models are made of: an affine map, its normalization and its activation."""

import math
from collections.abc import Callable

from jaxtrain import _check, nn


def normalization(where: str, kind: str, width: int) -> dict[str, nn.Layer]:
    """Returns the normalization of this name as `norm`, and nothing for "none"."""
    kinds = ("none", "batch", "group", "layer")
    _check.choice(where, "norm", kind, kinds)
    if kind == "batch":
        return {"norm": nn.batch_norm()}
    if kind == "layer":
        return {"norm": nn.layer_norm()}
    # Wu and He's 32 groups, or fewer where these would be of a single channel.
    return {"norm": nn.group_norm(math.gcd(32, max(width // 2, 1)))} if kind == "group" else {}


def unit(where: str, affine: Callable, width: int, activation, norm: str, placement: str) -> list:
    """Returns affine map, normalization and activation; no bias right before a normalization."""
    _check.choice(where, "norm_placement", placement, ("pre", "post"))
    norms = normalization(where, norm, width).values()
    if placement == "post":
        return [affine(width), activation, *norms]
    return [affine(width, bias=not norms), *norms, activation]
