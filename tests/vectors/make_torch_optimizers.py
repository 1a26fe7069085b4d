"""Writes torch_optimizers.npz: what torch makes of the tests' gradients, 60 updates in float64.

Run as `python tests/vectors/make_torch_optimizers.py` where torch is installed; made with 2.13.
"""

import pathlib
import sys

import numpy as np
import torch
from torch import optim

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from trajectories import START, STEPS, gradient  # noqa: E402

CASES = {
    "sgd": (optim.SGD, {"lr": 5e-4}),
    "momentum": (optim.SGD, {"lr": 5e-4, "momentum": 0.9}),
    "dampening": (optim.SGD, {"lr": 5e-3, "momentum": 0.9, "dampening": 0.9}),
    "nesterov": (optim.SGD, {"lr": 5e-4, "momentum": 0.9, "nesterov": True}),
    "l2": (optim.SGD, {"lr": 5e-4, "momentum": 0.9, "weight_decay": 0.5}),
    "adam": (optim.Adam, {"lr": 0.05, "eps": 0.1}),
    "adam l2": (optim.Adam, {"lr": 0.05, "weight_decay": 0.5}),
    "amsgrad": (optim.Adam, {"lr": 0.05, "betas": (0.9, 0.9), "amsgrad": True}),
    "adamw": (optim.AdamW, {"lr": 0.05, "weight_decay": 0.5}),
    "nadam": (optim.NAdam, {"lr": 0.05, "momentum_decay": 0.1}),
    "radam": (optim.RAdam, {"lr": 2e-4, "eps": 0.1}),
    "adamax": (optim.Adamax, {"lr": 0.05, "eps": 0.1}),
    "adadelta": (optim.Adadelta, {"lr": 1.0}),
    "adagrad": (optim.Adagrad, {"lr": 0.05, "eps": 0.1}),
    "adagrad decay": (
        optim.Adagrad,
        {"lr": 0.05, "lr_decay": 0.1, "initial_accumulator_value": 0.1},
    ),
    "rmsprop": (optim.RMSprop, {"lr": 0.01, "eps": 0.1}),
    "rmsprop centered": (optim.RMSprop, {"lr": 0.01, "centered": True}),
    "rmsprop momentum": (optim.RMSprop, {"lr": 0.01, "momentum": 0.9}),
    "rprop": (optim.Rprop, {"lr": 0.01}),
}


def run(make, arguments, changing):
    """All iterates, at a constant rate or at one that falls tenfold every 20 updates."""
    w = torch.tensor(START, requires_grad=True)
    optimizer = make([w], **arguments)
    iterates = []
    for k in range(STEPS):
        if changing:
            optimizer.param_groups[0]["lr"] = arguments["lr"] * 0.1 ** (k // 20)
        w.grad = torch.tensor(gradient(k, w.detach().numpy()))
        optimizer.step()
        iterates.append(w.detach().numpy().copy())
    return np.stack(iterates)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)  # NAdam keeps a product of momenta in it
    vectors = {
        f"{name}, {kind}": run(make, arguments, kind == "changing")
        for name, (make, arguments) in CASES.items()
        for kind in ("constant", "changing")
        if not (name == "rprop" and kind == "changing")
    }
    np.savez_compressed(HERE / "torch_optimizers.npz", **vectors)
