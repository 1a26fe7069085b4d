"""Are critical points in many dimensions saddles, and which methods leave a saddle?

A critical point is a minimum when all eigenvalues of its Hessian are > 0. The Hessian is drawn as
(A + A') / 2 with independent standard Gaussian entries in A: the probability of a minimum is 1 / 2,
(2 - sqrt 2) / 4, (pi - 2 sqrt 2) / (4 pi) in 1, 2, 3 dimensions and falls as exp(-n^2 ln 3 / 4).

The landscape is `x^2 / 2 - y^2 / 2 + y^4 / 4`: a saddle at (0, 0), minima at (0, 1) and (0, -1).
From (1, 0), on the ridge, the gradient leads straight to the saddle.

Newton's step `w - H^-1 g` leads to the critical point of the quadratic model, whatever its kind.

References:
    Y. Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional
    non-convex optimization", 2014.
    D. Dean, S. Majumdar, "Extreme value statistics of eigenvalues of Gaussian random matrices",
    2008.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim

RATE = 0.1
LEFT = 0.5  # |y| at which a run has left the saddle


@dataclasses.dataclass(frozen=True)
class Config:
    """Random Hessians in every dimension, runs with every seed.

    Attributes:
        dimensions: of the Hessians, from 1 on.
        samples: Hessians in each dimension.
        steps: of the runs.
        noise: standard deviation of the gradient's noise.
        beside: the distance from the ridge of the runs that start beside it.
        seeds: of the noise.
    """

    dimensions: tuple[int, ...] = (1, 2, 3, 4, 5)
    samples: int = 1_000_000
    steps: int = 400
    noise: float = 1e-3
    beside: float = 1e-6
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(dimensions=(1, 2, 3), samples=20_000, seeds=(0, 1)),
    "default": Config(),
    "full": Config(dimensions=(1, 2, 3, 4, 5, 6), samples=4_000_000, seeds=tuple(range(100))),
}


def minima(n: int, samples: int) -> float:
    """Returns the share of random Hessians without an eigenvalue <= 0."""
    a = np.random.default_rng([0, n]).normal(size=(samples, n, n))
    return float((np.linalg.eigvalsh(a + a.swapaxes(1, 2))[:, 0] > 0).mean())


def landscape(w):
    x, y = w[..., 0], w[..., 1]
    return x**2 / 2 - y**2 / 2 + y**4 / 4


METHODS = {  # the optimizer, whether it starts beside the ridge, whether its gradients are noisy
    "gradient descent": (optim.sgd(RATE), False, False),
    "momentum": (optim.momentum(RATE), False, False),
    "noisy gradients": (optim.sgd(RATE), False, True),
    "gradient descent, beside": (optim.sgd(RATE), True, False),
    "momentum, beside": (optim.momentum(RATE), True, False),
}
NEWTON = {"Newton": optim.newton(), "saddle-free Newton": optim.newton(saddle_free=True)}


def paths(name: str, config: Config) -> np.ndarray:
    """Returns the iterates, (seeds, steps + 1, 2)."""
    tx, beside, noisy = METHODS[name]
    std = config.noise if noisy else 0.0
    noise = [np.random.default_rng(s).normal(0, std, (config.steps, 2)) for s in config.seeds]
    start = jnp.array([1.0, config.beside if beside else 0.0])

    @jax.jit
    @jax.vmap
    def run(noise):
        return path(tx, lambda w, k: jax.grad(landscape)(w) + noise[k], start, config.steps)

    return np.asarray(run(jnp.asarray(noise)))


def newton_path(name: str, cost, start, steps: int) -> np.ndarray:
    def gradient(w, k):
        return jax.grad(cost)(w)

    return np.asarray(path(NEWTON[name], gradient, jnp.asarray(start), steps, value_fn=cost))


def newton_step(curvatures) -> tuple[bool, bool]:
    """Returns whether one Newton step on a quadratic leads to its critical point, and down."""

    def cost(w):
        return jnp.asarray(curvatures) @ w**2 / 2

    start, end = newton_path("Newton", cost, [0.5, 1.0], 1)
    return bool(np.allclose(end, 0, atol=1e-14)), bool(cost(end) < cost(start))


def draw(config: Config, shares, found, newton):
    """Draws the probability, the way of each method, and where Newton's steps lead."""
    title = "Are critical points in many dimensions saddles, and what leaves a saddle?"
    figure, (left, middle, right) = panels(title, 3)
    n = np.array(config.dimensions)
    left.semilogy(n, np.exp(-(n**2) * np.log(3) / 4), "k:", label="exp(-n$^2$ ln 3 / 4)")
    left.semilogy(n, shares, "o-", ms=8, label="random symmetric Hessians")
    for dimension, share in zip(n, shares, strict=True):
        left.annotate(
            f"{share:.2g}", (dimension, share), (-8, -12), textcoords="offset points", ha="right"
        )
    left.set(
        xlabel="dimensions", ylabel="probability of a minimum", xticks=n, xlim=(0.4, n[-1] + 0.4)
    )
    left.set_title("Hardly a critical point is a minimum", fontsize=11)
    left.legend(loc="upper right")
    for name, ways in found.items():
        y = np.maximum(np.abs(ways[0, :, 1]), 1e-17)
        middle.semilogy(y, lw=2, ls="--" if name == "momentum" else "-", label=name)
    middle.axhline(LEFT, color="black", lw=1, ls=":")
    middle.set(xlabel="step", ylabel="|y|, the distance from the ridge", ylim=(1e-18, 10))
    middle.set_title("On the ridge exactly, only noise helps", fontsize=11)
    middle.legend(loc="center right", fontsize=9, bbox_to_anchor=(1, 0.4))
    x, y = np.meshgrid(np.linspace(-1.3, 1.3, 201), np.linspace(-1.4, 1.4, 201))
    height = np.asarray(landscape(np.stack([x, y], axis=-1)))
    right.contourf(x, y, height, levels=25, cmap="Blues")
    ways = {"gradient descent": found["gradient descent"][0]}
    ways |= {"noisy gradients": found["noisy gradients"][0]} | newton
    for (name, way), style in zip(ways.items(), ("C0.-", "C2:", "C1.-", "C3.-"), strict=True):
        right.plot(*way.T, style, lw=2.5, ms=10, label=name)
    right.plot(0, 0, "kX", ms=11)
    right.plot([0, 0], [-1, 1], "k*", ms=13)
    right.set(xlabel="x", ylabel="y")
    right.legend(loc="upper left", fontsize=9)
    right.set_title("Saddle (cross) between two minima (stars)", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Draws Hessians, and runs the methods from the ridge and beside it."""
    shares = [minima(n, config.samples) for n in config.dimensions]
    with _compat.enable_x64(True):
        found = {name: paths(name, config) for name in METHODS}
        newton = {name: newton_path(name, landscape, [1.0, 0.4], 20) for name in NEWTON}
        exact, lowers = zip(*map(newton_step, ([1.0, 50.0], [1.0, -1.0])), strict=True)
        figure = draw(config, shares, found, newton)
    left = {name: np.abs(ways[:, -1, 1]) > LEFT for name, ways in found.items()}
    numbers = {
        f"P(minimum), {n} dimensions": share
        for n, share in zip(config.dimensions, shares, strict=True)
    }
    for name, ways in found.items():
        steps = (np.abs(ways[..., 1]) > LEFT).argmax(1)
        numbers[f"{name}: runs that leave the saddle"] = left[name].mean()
        numbers |= {f"{name}: steps to |y| > {LEFT}": np.median(steps)} if left[name].all() else {}
    for name, way in newton.items():
        numbers[f"{name}: |y| at the end, from 0.4"] = abs(way[-1, 1])
    return Result(
        claims={
            "The probability that a critical point is a minimum falls with the dimension": truth(
                np.all(np.diff(shares) < 0)
            ),
            "Gradient descent from the ridge stays at the saddle": truth(~left["gradient descent"]),
            "Noise in the gradients leaves the saddle": truth(left["noisy gradients"]),
            "Momentum leaves the saddle: from the ridge, from beside it": truth(
                [left["momentum"].all(), left["momentum, beside"].all()]
            ),
            "One Newton step leads to the critical point of a quadratic": truth(exact),
            "Newton's step lowers a quadratic: one with a minimum, one with a saddle": truth(
                lowers
            ),
            "Newton's method ends in a minimum": truth(newton["Newton"][-1, 1] ** 2 > LEFT**2),
            "Saddle-free Newton, with |H|, ends in a minimum": truth(
                newton["saddle-free Newton"][-1, 1] ** 2 > LEFT**2
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=figure,
    )
