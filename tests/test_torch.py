"""Ours against the committed trajectories of torch's optimizers, each by the call in porting.md."""

import pathlib

import numpy as np
import optax
import pytest
from trajectories import close, train

from jaxtrain import optim, schedules

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_optimizers.npz")


def with_l2(strength, make):
    return lambda lr: optax.chain(optim.l2(strength, rule="*"), make(lr))


CASES = {
    "sgd": (5e-4, optim.sgd),
    "momentum": (5e-4, optim.momentum),
    "dampening": (5e-3, lambda lr: optim.momentum(lr, dampening=0.9)),
    "nesterov": (5e-4, lambda lr: optim.momentum(lr, nesterov="shifted")),
    "l2": (5e-4, with_l2(0.5, optim.momentum)),
    "adam": (0.05, lambda lr: optim.adam(lr, eps=0.1)),
    "adam l2": (0.05, with_l2(0.5, optim.adam)),
    "amsgrad": (0.05, lambda lr: optim.adam(lr, b2=0.9, amsgrad="biased")),
    "adamw": (0.05, lambda lr: optim.adamw(lr, weight_decay=0.5, rule="*")),
    "nadam": (0.05, lambda lr: optim.nadam(lr, momentum_decay=0.1)),
    "radam": (2e-4, lambda lr: optim.radam(lr, eps=0.1)),
    "adamax": (0.05, lambda lr: optim.adamax(lr, eps=0.1)),
    "adadelta": (1.0, optim.adadelta),
    "adagrad": (0.05, lambda lr: optim.adagrad(lr, eps=0.1)),
    "adagrad decay": (
        0.05,
        lambda lr: optim.adagrad(lr, eps=1e-10, lr_decay=0.1, initial_accumulator=0.1),
    ),
    "rmsprop": (0.01, lambda lr: optim.rmsprop(lr, decay=0.99, eps=0.1)),
    "rmsprop centered": (0.01, lambda lr: optim.rmsprop(lr, decay=0.99, centered=True)),
    "rmsprop momentum": (0.01, lambda lr: optim.rmsprop(lr, decay=0.99, momentum=0.9)),
    "rprop": (0.01, lambda lr: optim.rprop(lr, variant="irprop-")),
}


@pytest.mark.parametrize("name", VECTORS.files)
def test_equals_torch(x64, name):
    case, kind = name.split(", ")
    rate, make = CASES[case]
    changing = kind == "changing"
    learning_rate = schedules.step_decay(rate, every=20, factor=0.1) if changing else rate
    close(train(make(learning_rate))[0], VECTORS[name])


@pytest.mark.fast
def test_every_trajectory_is_compared():
    assert {name.split(", ")[0] for name in VECTORS.files} == set(CASES)
