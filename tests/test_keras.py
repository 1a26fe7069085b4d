"""Ours against the formulas of Keras's optimizers, each by the call in porting.md."""

import numpy as np
import pytest
from trajectories import equals_numpy

from jaxtrain import optim


def run(update):
    """An oracle of a generator that is sent gradient and rate and yields the change of w."""

    def oracle(gradient, w, rates):
        iterates, changes = [], update(w)
        next(changes)
        for k, lr in enumerate(rates):
            w = w + changes.send((gradient(k, w), lr))
            iterates.append(w)
        return np.stack(iterates)

    return oracle


def sgd(w, momentum=0.9, nesterov=False):
    step, m = None, 0 * w
    while True:
        g, lr = yield step
        m = momentum * m - lr * g
        step = momentum * m - lr * g if nesterov else m


def adam(w, b1=0.9, b2=0.999, eps=0.1, amsgrad=False):
    step, m, v, v_hat, t = None, 0 * w, 0 * w, 0 * w, 0
    while True:
        (g, lr), t = (yield step), t + 1
        m, v = m + (g - m) * (1 - b1), v + (g * g - v) * (1 - b2)
        v_hat = np.maximum(v_hat, v) if amsgrad else v
        step = -lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v_hat) + eps)


def adamax(w, b1=0.9, b2=0.999, eps=0.1):
    step, m, u, t = None, 0 * w, 0 * w, 0
    while True:
        (g, lr), t = (yield step), t + 1
        m, u = m + (g - m) * (1 - b1), np.maximum(b2 * u, np.abs(g))
        step = -lr * m / ((1 - b1**t) * (u + eps))


def nadam(w, b1=0.9, b2=0.999, eps=0.1):
    step, m, v, product, t = None, 0 * w, 0 * w, 1, 0
    while True:
        (g, lr), t = (yield step), t + 1
        now, ahead = (b1 * (1 - 0.5 * 0.96**i) for i in (t, t + 1))
        product = product * now
        m, v = m + (g - m) * (1 - b1), v + (g * g - v) * (1 - b2)
        m_hat = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        step = -lr * m_hat / (np.sqrt(v / (1 - b2**t)) + eps)


def adagrad(w, eps=0.1):
    step, accumulator = None, 0 * w + 0.1
    while True:
        g, lr = yield step
        accumulator = accumulator + g * g
        step = -lr * g / np.sqrt(accumulator + eps)


def rmsprop(w, rho=0.9, eps=0.1, momentum=0.9, centered=False):
    step, velocity, average, buffer = None, 0 * w, 0 * w, 0 * w
    while True:
        g, lr = yield step
        velocity = rho * velocity + (1 - rho) * g * g
        average = rho * average + (1 - rho) * g
        denominator = velocity - average * average if centered else velocity
        buffer = momentum * buffer + lr * g / np.sqrt(denominator + eps)
        step = -buffer


def adadelta(w, rho=0.95, eps=1e-7):
    step, gradients, deltas = None, 0 * w, 0 * w
    while True:
        g, lr = yield step
        gradients = rho * gradients + (1 - rho) * g * g
        delta = -np.sqrt(deltas + eps) * g / np.sqrt(gradients + eps)
        deltas = rho * deltas + (1 - rho) * delta * delta
        step = lr * delta


INSIDE = {"eps": 0.1, "eps_in_sqrt": True}
CASES = {
    "sgd": (5e-4, optim.momentum, {"form": "velocity"}, sgd),
    "nesterov": (
        5e-4,
        optim.momentum,
        {"form": "velocity", "nesterov": "shifted"},
        lambda w: sgd(w, nesterov=True),
    ),
    "adam": (0.05, optim.adam, {"eps": 0.1, "eps_mode": "uncorrected"}, adam),
    "amsgrad": (
        0.05,
        optim.adam,
        {"eps": 0.1, "eps_mode": "uncorrected", "amsgrad": "biased", "b2": 0.9},
        lambda w: adam(w, b2=0.9, amsgrad=True),
    ),
    "adamax": (0.05, optim.adamax, {"eps": 0.1, "eps_in_max": False}, adamax),
    "nadam": (0.05, optim.nadam, {"eps": 0.1, "momentum_decay": 1.0}, nadam),
    "adagrad": (0.05, optim.adagrad, {**INSIDE, "initial_accumulator": 0.1}, adagrad),
    "rmsprop": (0.01, optim.rmsprop, {**INSIDE, "momentum": 0.9, "form": "velocity"}, rmsprop),
    "rmsprop centered": (
        0.01,
        optim.rmsprop,
        {**INSIDE, "momentum": 0.9, "form": "velocity", "centered": True},
        lambda w: rmsprop(w, centered=True),
    ),
    "adadelta": (1.0, optim.adadelta, {"decay": 0.95, "eps": 1e-7}, adadelta),
}


@pytest.mark.parametrize("changing", [False, True], ids=["constant", "changing"])
@pytest.mark.parametrize("name", CASES)
def test_equals_keras_formula(x64, name, changing):
    rate, make, ours, update = CASES[name]
    equals_numpy(make, ours, run(update), {}, rate, changing=changing)
