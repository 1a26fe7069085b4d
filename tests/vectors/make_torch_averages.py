"""Writes torch_averages.npz: torch's averages of the iterates of SGD with momentum, in float64.

Run as `python tests/vectors/make_torch_averages.py` where torch is installed; made with 2.13.
"""

import pathlib
import sys

import numpy as np
import torch
from torch.optim import swa_utils

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from trajectories import START, STEPS, gradient  # noqa: E402


def run(averages):
    """All iterates, and the averages after each update; `averages` says when to take part."""
    model = torch.nn.Linear(START.size, 1, bias=False, dtype=torch.float64)
    (w,) = model.parameters()
    with torch.no_grad():
        w.copy_(torch.tensor(START)[None])
    optimizer = torch.optim.SGD([w], lr=5e-4, momentum=0.9)
    averaged = {
        name: swa_utils.AveragedModel(model, multi_avg_fn=f) for name, (f, _) in averages.items()
    }
    seen = {name: [] for name in ("iterates", *averages)}
    for k in range(STEPS):
        w.grad = torch.tensor(gradient(k, w.detach().numpy()[0]))[None]
        optimizer.step()
        seen["iterates"].append(w.detach().numpy()[0].copy())
        for name, (_, takes) in averages.items():
            if takes(k + 1):
                averaged[name].update_parameters(model)
            seen[name].append(averaged[name].module.weight.detach().numpy()[0].copy())
    return {name: np.stack(rows) for name, rows in seen.items()}


if __name__ == "__main__":
    np.savez_compressed(
        HERE / "torch_averages.npz",
        **run(
            {
                "ema": (swa_utils.get_ema_multi_avg_fn(0.9), lambda t: True),
                "mean": (None, lambda t: True),
                "swa": (None, lambda t: t > 20 and (t - 20) % 7 == 0),
            }
        ),
    )
