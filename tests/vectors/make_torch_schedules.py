"""Writes torch_schedules.npz: the rates of updates 0 to 199 that torch's schedulers give.

Run as `python tests/vectors/make_torch_schedules.py` where torch is installed; made with 2.13.
"""

import pathlib
import warnings

import numpy as np
import torch
from torch.optim import SGD
from torch.optim import lr_scheduler as lr

STEPS, RATE = 200, 0.3
CYCLIC = {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 12, "cycle_momentum": False}
ONE_CYCLE = {"max_lr": RATE, "total_steps": STEPS, "cycle_momentum": False}


def sequential(optimizer):
    first = lr.ConstantLR(optimizer, factor=0.1, total_iters=20)
    return lr.SequentialLR(optimizer, [first, lr.ExponentialLR(optimizer, 0.9)], [20])


CASES = {
    "step": lambda o: lr.StepLR(o, 30, gamma=0.5),
    "multi step": lambda o: lr.MultiStepLR(o, [30, 60, 90], gamma=0.1),
    "exponential": lambda o: lr.ExponentialLR(o, 0.95),
    "polynomial": lambda o: lr.PolynomialLR(o, 150, power=2.0),
    "linear": lambda o: lr.LinearLR(o, start_factor=1 / 3, total_iters=50),
    "linear down": lambda o: lr.LinearLR(o, start_factor=1.0, end_factor=0.01, total_iters=150),
    "constant": lambda o: lr.ConstantLR(o, factor=1 / 3, total_iters=50),
    "cosine": lambda o: lr.CosineAnnealingLR(o, 60, eta_min=0.01),
    "restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 30, eta_min=0.01),
    "longer restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 9, T_mult=3, eta_min=0.01),
    "triangular": lambda o: lr.CyclicLR(o, **CYCLIC, step_size_down=25),
    "triangular2": lambda o: lr.CyclicLR(o, **CYCLIC, mode="triangular2"),
    "exp range": lambda o: lr.CyclicLR(o, **CYCLIC, mode="exp_range", gamma=0.99),
    "one cycle": lambda o: lr.OneCycleLR(o, **ONE_CYCLE),
    "one cycle, linear": lambda o: lr.OneCycleLR(
        o, **ONE_CYCLE, anneal_strategy="linear", pct_start=0.333, div_factor=10
    ),
    "one cycle, three phases": lambda o: lr.OneCycleLR(
        o, **ONE_CYCLE, three_phase=True, pct_start=0.4, final_div_factor=100
    ),
    "sequential": sequential,
}


def rates(make):
    optimizer = SGD([torch.zeros((), dtype=torch.float64, requires_grad=True)], lr=RATE)
    scheduler, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < STEPS:
            scheduler.step()
    return np.array(found, np.float64)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # SequentialLR passes the epoch, which torch calls deprecated
    path = pathlib.Path(__file__).with_name("torch_schedules.npz")
    np.savez_compressed(path, **{name: rates(make) for name, make in CASES.items()})
