"""Writes torch_asgd.npz: the params and the average of torch's ASGD, 60 updates in float64.

Run as `python tests/vectors/make_torch_asgd.py` where torch is installed; made with 2.13.
"""

import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from trajectories import START, STEPS, gradient  # noqa: E402

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)  # ASGD keeps its rate in it
    w = torch.tensor(START, requires_grad=True)
    optimizer = torch.optim.ASGD([w], lr=5e-4, lambd=0.5, alpha=0.75, t0=10)
    iterates, averages = [], []
    for k in range(STEPS):
        w.grad = torch.tensor(gradient(k, w.detach().numpy()))
        optimizer.step()
        iterates.append(w.detach().numpy().copy())
        averages.append(optimizer.state[w]["ax"].numpy().copy())
    np.savez_compressed(
        HERE / "torch_asgd.npz", iterates=np.stack(iterates), averages=np.stack(averages)
    )
