"""Writes torch_clip.npz: SGD with torch's clipping on the tests' gradients (torch 2.13, float64).

Run as `python tests/vectors/make_torch_clip.py` where torch is installed.
"""

import pathlib
import sys

import numpy as np
import torch
from torch.nn import utils

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from trajectories import START, STEPS, gradient  # noqa: E402

CASES = {
    "global": lambda w: utils.clip_grad_norm_(w, 30.0),
    "value": lambda w: utils.clip_grad_value_(w, 2.0),
}


def run(clip):
    w = torch.tensor(START, requires_grad=True)
    optimizer, iterates = torch.optim.SGD([w], lr=2e-3), []
    for k in range(STEPS):
        w.grad = torch.tensor(gradient(k, w.detach().numpy()))
        clip(w)
        optimizer.step()
        iterates.append(w.detach().numpy().copy())
    return np.stack(iterates)


if __name__ == "__main__":
    vectors = {name: run(clip) for name, clip in CASES.items()}
    np.savez_compressed(HERE / "torch_clip.npz", **vectors)
