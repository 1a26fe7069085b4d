"""The calls of porting.md's lecture notes against the formulas that the notes print."""

import pathlib
import re
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trajectories import close, train

from jaxtrain import optim, schedules

TESTS = pathlib.Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "porting.md").read_text()
NOTES = TEXT.split("## Lecture notes: letters and presets\n")[1]
CALLS = re.findall(r"^\| [\d, ]+ \| .* \| `(.*)` \|$", NOTES, re.M)

lr, rho, k, p, tau, T, M, n, N, B = 0.05, 0.8, 0.3, 0.7, 6, 8, 3, 4, 16, 32
NUMBERS = dict(lr=lr, rho=rho, k=k, p=p, tau=tau, T=T, M=M, n=n, N=N, B=B)
NAMES = {**vars(schedules), **vars(optim), "chain": optax.chain, **NUMBERS}
START = np.array([3.0, -2.0])


def g(w):
    """The gradient of an ill-conditioned quadratic, at first longer than 5."""
    return np.array([1.0, 10.0]) * w


# The params, or their average, after each update. A formula keeps the letters of the notes where
# they are not those of the table.


def velocity(w, ahead=0.0):
    v = 0
    while True:
        v = rho * v - lr * g(w + ahead * v)
        w = w + v
        yield w


def accumulator(w):
    v = 0
    while True:
        v = rho * v + g(w)
        w = w - lr * v
        yield w


def shifted(x):
    """In the other variables x + rho * v; what is evaluated is x."""
    v = 0
    while True:
        old, v = v, rho * v - lr * g(x)
        x = x + v + rho * (v - old)
        yield x - rho * v


def mean(w, ahead=0.0):
    m = 0
    while True:
        m = rho * m + (1 - rho) * g(w - ahead * m)
        w = w - lr * m
        yield w


def squares(w, decay, rate=lr, outside=0.0, inside=0.0):
    """AdaGrad, and with a decay RMSProp."""
    r = 0
    while True:
        r = r + g(w) ** 2 if decay is None else decay * r + (1 - decay) * g(w) ** 2
        w = w - rate * g(w) / (np.sqrt(r + inside) + outside)
        yield w


def algorithm_6(w):
    r, v, alpha = 0, 0, 0.9
    while True:
        ahead = g(w + alpha * v)
        r = rho * r + (1 - rho) * ahead * ahead
        v = alpha * v - lr / np.sqrt(r) * ahead
        w = w + v
        yield w


def adam(w, rate, b1, b2, eps, correct=True):
    m = v = t = 0
    while True:
        m, v, t = b1 * m + (1 - b1) * g(w), b2 * v + (1 - b2) * g(w) ** 2, t + 1
        c1, c2 = (1 - b1**t, 1 - b2**t) if correct else (1, 1)
        w = w - rate * (m / c1) / (np.sqrt(v / c2) + eps)
        yield w


def rprop(w):
    step, last = 0.01, 0
    while True:
        same = np.sign(g(w)) * np.sign(last)
        step = np.where(same > 0, 1.2, np.where(same < 0, 0.5, 1)) * step
        last = g(w)
        w = w - step * np.sign(last)
        yield w


def descent(w, threshold=np.inf):
    while True:
        w = w - lr * g(w) * min(1, threshold / np.linalg.norm(g(w)))
        yield w


def averaged(w, weight):
    average = w
    for t, x in enumerate(descent(w), 1):
        average = weight(t) * average + (1 - weight(t)) * x
        yield average


def cosine(t, length, value=lr):
    return value / 2 * (1 + np.cos(np.pi * t / length))


def by_epochs(t):
    return lr * 0.1 ** sum(t // n >= epoch for epoch in (30, 60, 90))


OPTIMIZERS = {
    "sgd(lr)": descent,
    'momentum(lr, momentum=rho, form="velocity")': velocity,
    "momentum(lr, momentum=rho)": accumulator,
    'momentum(lr, momentum=rho, form="ema")': mean,
    'momentum(lr, momentum=rho, form="velocity", nesterov="lookahead")': lambda w: velocity(w, rho),
    'momentum(lr, momentum=rho, form="velocity", nesterov="shifted")': shifted,
    'momentum(lr, momentum=rho, form="ema", nesterov="lookahead")': lambda w: mean(w, lr * rho),
    "adagrad(lr)": lambda w: squares(w, None, outside=1e-7),
    "adagrad(lr, eps=1e-8, eps_in_sqrt=True)": lambda w: squares(w, None, inside=1e-8),
    "rprop(0.01)": rprop,
    "rmsprop(lr, decay=rho, eps=1e-7)": lambda w: squares(w, rho, outside=1e-7),
    "rmsprop(lr, decay=rho, eps=1e-8, eps_in_sqrt=True)": lambda w: squares(w, rho, inside=1e-8),
    "rmsprop(0.01, decay=rho, eps=0)": lambda w: squares(w, rho, 0.01),
    "rmsprop_nesterov(lr, decay=rho, momentum=0.9, eps=0)": algorithm_6,
    "adam(lr, eps=1e-7, bias_correction=False)": lambda w: adam(w, lr, 0.9, 0.999, 1e-7, False),
    "adam(1e-3, eps=1e-7)": lambda w: adam(w, 1e-3, 0.9, 0.999, 1e-7),
    "adam(1e-4, b1=0.9, b2=0.9)": lambda w: adam(w, 1e-4, 0.9, 0.9, 1e-8),
    "adam(lr)": lambda w: adam(w, lr, 0.9, 0.999, 1e-8),
    "adam(0.01, b1=0.9, b2=0.99, eps=0, bias_correction=False)": lambda w: adam(
        w, 0.01, 0.9, 0.99, 0, False
    ),
    "chain(sgd(lr), polyak())": lambda w: averaged(w, lambda t: 1 - 1 / t),
    "chain(sgd(lr), ema(0.995))": lambda w: averaged(w, lambda t: 0.995),
    "chain(clip_by_global_norm(5.0), sgd(lr))": lambda w: descent(w, 5),
}

SCHEDULES = {
    "stretch(multi_step(lr, boundaries=[30, 60, 90], factor=0.1), n)": by_epochs,
    "step_decay(lr, every=n, factor=0.5)": lambda t: lr * 0.5 ** (t // n),
    "step_decay(lr, every=n, factor=0.9)": lambda t: lr * 0.9 ** (t // n),
    "exponential(lr, rate=k)": lambda t: lr * np.exp(-k * t),
    "inverse_time(lr, rate=k)": lambda t: lr / (1 + k * t),
    "inverse_time(lr, rate=1.0)": lambda t: lr / (t + 1),
    "inverse_power(lr, power=p)": lambda t: lr / (t + 1) ** p,
    "linear_to(lr, steps=tau, end=0.01 * lr)": lambda t: lr + min(t / tau, 1) * (0.01 * lr - lr),
    "linear(lr, steps=T)": lambda t: lr * max(1 - t / T, 0),
    "cosine(lr, steps=T)": lambda t: cosine(min(t, T), T),
    "inverse_sqrt(lr)": lambda t: lr / np.sqrt(t + 1),
    "sgdr(lr, first_cycle=T)": lambda t: cosine(t % T, T),
    "snapshot(lr, steps=T, cycles=M)": lambda t: cosine(t % 3, 3),  # ceil(8 / 3) updates each
    "warmup(lr, steps=5000)": lambda t: lr * min(t / 5000, 1),
    "goyal_warmup(lr, N, steps=5 * n)": lambda t: lr + min(t / 20, 1) * (N * lr - lr),
    "scale_with_batch(lr, N * B, base_batch_size=B)": lambda t: N * lr,
}


def test_every_call_is_compared_with_its_formula():
    assert list(OPTIMIZERS) + list(SCHEDULES) == CALLS


@pytest.mark.parametrize("call", OPTIMIZERS)
def test_an_optimizer_makes_the_steps_that_are_printed(x64, call):
    tx = eval(call, NAMES)
    params, state, expected = jnp.asarray(START), tx.init(jnp.asarray(START)), []
    for w in islice(OPTIMIZERS[call](START), 4):
        grads = jnp.asarray(g(np.asarray(optim.grad_params(params, state))))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        # Four steps of some ten roundings of 1.1e-16 of 3, and an eps of 1e-8 beside 0.1 or more.
        np.testing.assert_allclose(optim.eval_params(params, state), w, rtol=0, atol=2e-14)
        expected.append(w)
    assert len(np.unique(expected, axis=0)) == 4


@pytest.mark.fast
@pytest.mark.parametrize("call", SCHEDULES)
def test_a_schedule_has_the_values_that_are_printed(x64, call):
    schedule = schedules.as_schedule(eval(call, NAMES))
    counts = np.r_[:25, 119:122, 239:242, 359:362, 4999:5002]
    found = jax.vmap(schedule)(jnp.asarray(counts))
    np.testing.assert_allclose(found, [SCHEDULES[call](t) for t in counts], rtol=1e-12, atol=1e-17)


def test_the_other_two_calls():
    calls = re.findall(r"is `(.*?)`", NOTES.rpartition("|")[2].replace("\n", " "))
    tx = eval(calls[0], NAMES)
    state = tx.init(jnp.ones(2))
    for _ in range(12):  # the first is an improvement, ten more are waited for
        state = optim.report(state, 1.0)
    assert float(optim.learning_rate(state)) == pytest.approx(lr / 10)

    fun = lambda w: (w @ w) / 2  # noqa: E731
    mine = {"fun": fun, "params": jnp.ones(2), "tx": optim.sgd(0.5), "eps": 1e-3}
    found = eval(calls[1].replace("eps)", "eps, progress=False)"), {**NAMES, **mine})
    assert "value_tolerance" in found.reason
    changes = -np.diff(found.history["value"])
    assert changes[-1] <= 1e-3 < changes[-2]


def test_asgd_equals_torch(x64):
    vectors = np.load(TESTS / "vectors" / "torch_asgd.npz")
    row = re.search(r"`ASGD\(.*?\)`.*? \| `(chain\(.*?\))` \|", TEXT)
    tx = eval(row[1], {**NAMES, "lr": 5e-4, "c": 0.5, "p": 0.75, "s": 10})
    iterates, state = train(tx)
    close(iterates, vectors["iterates"])
    average = state[-1].average
    last = jnp.concatenate([average["quadratic"], *jax.tree.leaves(average["nets"])])
    close(last, vectors["averages"][-1])
