"""Writes torch_plateau.npz: the scales of torch's ReduceLROnPlateau after each metric (torch 2.13).

Run as `python tests/vectors/make_torch_plateau.py`.
"""

import itertools
import json
import pathlib

import numpy as np
import torch

rng = np.random.default_rng(0)
k = np.arange(60.0)
VALUES = {
    "falling": np.maximum(np.exp(-k / 8), 0.02),
    "flat": np.ones(60),
    "rising": 0.1 + k / 60,
    "negative": -1.0 - np.minimum(k, 20) / 20 + 0.02 * rng.normal(size=60),
    "slowly worse, negative": -1.0 + 1e-5 * k,
    "noisy": 1 + np.exp(-k / 10) + 0.1 * rng.normal(size=60),
    "of both signs": rng.normal(size=60),
    "with NaN": np.where(k % 7 == 0, np.nan, np.exp(-k / 20)),
}
CASES = [
    {
        "mode": mode,
        "threshold_mode": kind,
        "threshold": t,
        "cooldown": cooldown,
        "patience": patience,
    }
    for mode, kind, t, cooldown, patience in itertools.product(
        ("min", "max"), ("rel", "abs"), (1e-4, 0.1), (0, 3), (0, 2)
    )
]


def scales(values, case):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, min_lr=0.01, eps=0.0, **case
    )
    for value in values:
        scheduler.step(value)
        yield optimizer.param_groups[0]["lr"]


if __name__ == "__main__":
    np.savez_compressed(
        pathlib.Path(__file__).with_name("torch_plateau.npz"),
        names=list(VALUES),
        values=np.stack(list(VALUES.values())),
        cases=[json.dumps(case) for case in CASES],
        scales=[[list(scales(v, case)) for v in VALUES.values()] for case in CASES],
    )
