"""Writes torch_activations.npz: values and gradients of torch's activations (torch 2.13, float64).

Run as `python tests/vectors/make_torch_activations.py` where torch is installed.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional as F

SIZES = [1e-3, 1.0, 10.0, 100.0, 1e4]
POINTS = np.array([*(-size for size in reversed(SIZES)), 0.0, *SIZES])
SLOPES = torch.tensor([0.25, -0.5, 3.0], dtype=torch.float64)

CASES = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "leaky_relu, 0.1": lambda x: F.leaky_relu(x, 0.1),
    "elu": F.elu,
    "elu, 0.5": lambda x: F.elu(x, 0.5),
    "selu": F.selu,
    "silu": F.silu,
    "softplus": F.softplus,
    "rrelu": F.rrelu,
    # Of 11 examples with three channels; its gradient is that of the sum.
    "prelu": lambda x: F.prelu(x.reshape(-1, 1).expand(-1, 3), SLOPES),
    # The first of two probabilities.
    "softmax": lambda x: F.softmax(torch.stack([x, torch.ones_like(x)], 1), 1)[:, 0],
}


def values_and_gradients(f):
    x = torch.tensor(POINTS, requires_grad=True)
    y = f(x)
    y.sum().backward()
    return y.detach().numpy(), x.grad.numpy()


def two_values(f, x, rate):
    """What a kept and a dropped element of value x become, in ascending order."""
    torch.manual_seed(0)
    return torch.unique(f(torch.full((100,), x, dtype=torch.float64), rate, True)).numpy()


if __name__ == "__main__":
    vectors = {"points": POINTS, "slopes": SLOPES.numpy()}
    for name, f in CASES.items():
        vectors[name], vectors[f"{name}, gradient"] = values_and_gradients(f)
    for name, f in {"dropout": F.dropout, "alpha_dropout": F.alpha_dropout}.items():
        for rate in (0.1, 0.5):
            pairs = [two_values(f, x, rate) for x in (-1.0, 2.0)]
            vectors[f"{name}, {rate}"] = np.stack(pairs)
    np.savez_compressed(pathlib.Path(__file__).parent / "torch_activations.npz", **vectors)
