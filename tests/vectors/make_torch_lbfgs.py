"""Writes torch_lbfgs.npz: torch's L-BFGS without line search, and where its searches end.

Run as `python tests/vectors/make_torch_lbfgs.py` where torch is installed; made with 2.13.
"""

import pathlib

import numpy as np
import torch

CURVATURE, START = np.array([1.0, 3.0, 10.0]), np.array([1.0, -0.5, 0.25])


def run(f, w, steps, **options):
    w = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    tx = torch.optim.LBFGS([w], tolerance_grad=0, tolerance_change=0, **options)

    def closure():
        tx.zero_grad()
        value = f(w)
        value.backward()
        return value

    iterates = []
    for _ in range(steps):
        tx.step(closure)
        iterates.append(w.detach().numpy().copy())
    return np.stack(iterates)


def convex(w):
    return (torch.tensor(CURVATURE) * torch.cosh(w)).sum()


def rosenbrock(w):
    return (100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2).sum()


if __name__ == "__main__":
    search = {"max_iter": 100, "line_search_fn": "strong_wolfe"}
    np.savez(
        pathlib.Path(__file__).parent / "torch_lbfgs.npz",
        path=run(convex, START, 20, lr=0.5, max_iter=1, history_size=3),
        rosenbrock=run(rosenbrock, np.full(6, -0.5), 1, **search)[-1],
    )
