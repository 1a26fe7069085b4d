"""Writes torch_initializers.npz: torch's gains, and its default weights and biases (torch 2.13).

Run as `python tests/vectors/make_torch_initializers.py` where torch is installed.
"""

import pathlib

import numpy as np
import torch

NAMES = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")
SLOPES = (0.0, 0.01, 0.2, 1.0)


def defaults(layer):
    """The largest size and the standard deviation of weight and bias."""
    return [(p.abs().max().item(), p.std(correction=0).item()) for p in layer.parameters()]


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    vectors = {
        "gains": [torch.nn.init.calculate_gain(name) for name in NAMES],
        "leaky gains": [torch.nn.init.calculate_gain("leaky_relu", a) for a in SLOPES],
        "linear": defaults(torch.nn.Linear(50, 4000)),
        "conv": defaults(torch.nn.Conv2d(6, 4000, 3, groups=2)),
    }
    path = pathlib.Path(__file__).parent / "torch_initializers.npz"
    np.savez_compressed(path, **{name: np.array(v) for name, v in vectors.items()})
