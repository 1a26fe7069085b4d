"""Is weight decay the same as an L2 penalty?

The penalty s / 2 |w|^2 adds s w to the gradient g, before an optimizer makes its direction of it;
decay adds it behind, to the direction d:

    L2       w = w - eta d(g + s w)
    decay    w = w - eta (d(g) + s w)

They are one method for plain SGD, d(g) = g. Momentum adds up its gradients to g / (1 - mu) in the
end: where L2 by s leads, decay by s / (1 - mu) does. Adam divides by the root of the mean g^2: with
noise of standard deviation a in the gradient of (w - 1)^2 / 2 its d is about (w - 1) / a for large
a, so that decay leads to a w that depends on a, and L2 to 1 / (1 + s).

References:
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _digits
from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, models, optim, tree

MU = 0.9
DIRECTIONS = {
    "SGD": optax.identity(),
    "momentum": optim.scale_by_momentum(momentum=MU),
    "Adam": optim.scale_by_adam(),
}
RATES = {"SGD": 0.05, "momentum": 0.005, "Adam": 0.005}
NET = models.mlp([32, 10])
CURVATURES = np.logspace(-1, 1, 10)
SAME = {"quadratic": 1e-12, "digits": 1e-3}  # of what the penalty changes, float64 and float32
NOISES = 0.1, 1.0, 10.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Every optimizer without penalty, with L2 and with decay.

    Attributes:
        strength: s.
        steps: on the quadratics.
        epochs: on the digits.
        batch_size: of the digits.
        seeds: of the params and batches of digits, and of the noise.
    """

    strength: float = 0.1
    steps: int = 4000
    epochs: int = 20
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(epochs=1, seeds=(0,)),
    "default": Config(),
    "full": Config(steps=20_000, epochs=50, seeds=tuple(range(50))),
}


def with_each(train: Callable[[optax.GradientTransformation], Any], name: str, strength: float):
    """Trains by an optimizer without penalty, with L2 and with decay."""
    direction, last = DIRECTIONS[name], optim.scale_by_learning_rate(RATES[name])
    return {
        "none": train(optax.chain(direction, last)),
        "L2": train(optax.chain(optim.l2(strength), direction, last)),
        "decay": train(optax.chain(direction, optim.weight_decay(strength), last)),
    }


def difference(found: dict) -> float:
    """Returns |w of L2 - w of decay| / |w of L2 - w without penalty|."""
    l2, decay, none = (found[how] for how in ("L2", "decay", "none"))
    apart, changed = (jax.tree.map(jnp.subtract, l2, other) for other in (decay, none))
    return float(tree.global_norm(apart) / tree.global_norm(changed))


def on_quadratic(config: Config, tx) -> jax.Array:
    """Returns the iterates on sum h (w - 1)^2 / 2 from w = 0."""
    h = jnp.array(CURVATURES)
    return jax.jit(lambda w: path(tx, lambda w, k: h * (w - 1), w, config.steps))(jnp.zeros(len(h)))


def with_noise(config: Config, tx) -> np.ndarray:
    """Returns the mean of the iterates on (w - 1)^2 / 2 with noise in the gradients, by noise."""
    scale = jnp.array(NOISES)[:, None]

    @jax.jit
    def run(w):
        def gradient(w, k):
            key = jax.random.fold_in(jax.random.key(config.seeds[0]), k)
            return w - 1 + scale * jax.random.normal(key, w.shape)

        return path(tx, gradient, w, config.steps)[config.steps // 2 :].mean((0, 2))

    return np.asarray(run(jnp.ones((len(NOISES), 100))))


def on_digits(config: Config, tx):
    """Returns the params at the end, by seed, and the accuracy on the test set, (seeds,)."""

    def run(seed, order):
        params, state = _digits.trained(NET, tx, seed, order)
        return params, _digits.evaluate(NET, params, state, *_digits.examples()[1])[1]

    order = _digits.orders(1437, config.batch_size, config.epochs, config.seeds)
    return jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)


def draw(config: Config, on, quadratic, noisy):
    """Draws the differences, the paths of the flattest weight, and Adam's weights under noise."""
    figure, (left, middle, right) = panels("Is weight decay the same as an L2 penalty?", 3)
    for i, (problem, differences) in enumerate(on.items()):
        at = np.arange(3) + 0.4 * i - 0.2
        drawn = left.bar(at, list(differences.values()), 0.38, label=problem)
        left.bar_label(drawn, [f"{d:.2g}" for d in differences.values()], fontsize=8)
    left.set(ylim=(0, 1.3), ylabel="difference / what L2 changes")
    left.set_xticks(range(3), DIRECTIONS)
    left.set_title("L2 against decay, the same s", fontsize=11)
    left.legend(loc="upper left")
    for i, (name, runs) in enumerate(quadratic.items()):
        for how, line in (("L2", "-"), ("decay", "--")):
            middle.semilogx(np.asarray(runs[how])[1:, 0], f"C{i}{line}", label=f"{name}, {how}")
    middle.axhline(CURVATURES[0] / (CURVATURES[0] + config.strength), color="black", lw=1, ls=":")
    middle.set(xlabel="step", ylabel="w; dotted: least R + s/2 w$^2$")
    middle.set_title("The flattest direction of a quadratic", fontsize=11)
    middle.legend(fontsize=8)
    for how, w in noisy.items():
        right.semilogx(NOISES, w, "o-", label=how)
    right.axhline(1 / (1 + config.strength), color="black", lw=1, ls=":")
    right.set(xlabel="noise of the gradient", ylabel="mean w; dotted: 1 / (1 + s)")
    right.set_title("Adam: decay shrinks noisy weights more", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Trains with both, on a quadratic and on the digits."""
    with _compat.enable_x64(True):
        train = functools.partial(on_quadratic, config)
        quadratic = {name: with_each(train, name, config.strength) for name in DIRECTIONS}
        scaled = with_each(train, "momentum", config.strength / (1 - MU))
        apart = float(abs(quadratic["momentum"]["L2"][-1] - scaled["decay"][-1]).max())
        noisy = with_each(functools.partial(with_noise, config), "Adam", config.strength)
        on = {"quadratic": {name: difference(runs) for name, runs in quadratic.items()}}
    train = functools.partial(on_digits, config)
    digits = {name: with_each(train, name, config.strength / 100) for name in DIRECTIONS}
    on["digits"] = {
        name: difference({how: params for how, (params, _) in runs.items()})
        for name, runs in digits.items()
    }
    numbers = {f"{p}, {n}: difference / effect": d for p, ds in on.items() for n, d in ds.items()}
    numbers["momentum: L2 by s, decay by s / (1 - mu): difference at the end"] = apart
    for how, w in noisy.items():
        for noise, mean in zip(NOISES, w, strict=True):
            numbers[f"Adam, {how}, noise {noise:g}: mean weight"] = mean
    for name, runs in digits.items():
        for how, (_, accuracy) in runs.items():
            numbers[f"digits, {name}, {how}: test accuracy [%]"] = 100 * accuracy.mean()
    same = {n: [on[problem][n] < limit for problem, limit in SAME.items()] for n in DIRECTIONS}
    l2, decay = noisy["L2"], noisy["decay"]
    return Result(
        claims={
            "For plain SGD they are the same": truth(same["SGD"]),
            "For momentum they are": truth(same["momentum"]),
            "With momentum, decay by s / (1 - mu) ends where L2 by s does": truth(apart < 1e-6),
            "For Adam they are the same": truth(same["Adam"]),
            "With Adam, L2 shrinks weights alike whatever the noise of their gradients": truth(
                abs(l2 * (1 + config.strength) - 1) < 0.02
            ),
            "Decay shrinks those of noisy gradients more": truth(np.diff(decay) < 0),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, on, quadratic, noisy),
    )
