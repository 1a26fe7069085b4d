"""How do the optimizers move?

Three landscapes of two weights:

    valley      (x^2 + 20 y^2) / 2,                     from (-5, 2)
    banana      (1 - x)^2 + 100 (y - x^2)^2,            from (-1.2, 1), Rosenbrock's
    saddle      x^2 / 2 - y^2 / 2 + y^4 / 4,            from (1.5, 0.01), beside its ridge

Each method has, on each landscape, the constant rate with the lowest mean cost over the run, of
those a quarter of a decade apart from 1e-4 to 10 which never lead above the start. The methods of
second order have their own step lengths: 1 for Newton's, a strong-Wolfe search for BFGS and L-BFGS.

AdaGrad divides by the root of the sum of squared gradients of each weight. Its first step is
therefore `-lr sign(g)`, and multiplying a weight's curvature changes nothing: from (1, 1) on
`(x^2 + kappa y^2) / 2` both weights go the same way.

References:
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011.
    S. Ruder, "An overview of gradient descent optimization algorithms", 2016.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._experiment import Result, path, truth
from jaxtrain import _compat, optim

RATES = 10.0 ** np.arange(-4, 1.01, 0.25)
SAME = 2e-5  # AdaGrad's eps is 1e-7, the smallest first gradient 0.01


def valley(w, kappa=20.0):
    return (w[..., 0] ** 2 + kappa * w[..., 1] ** 2) / 2


def banana(w):
    x, y = w[..., 0], w[..., 1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def saddle(w):
    x, y = w[..., 0], w[..., 1]
    return x**2 / 2 - y**2 / 2 + y**4 / 4


class Landscape(NamedTuple):
    """A cost, where the paths start, its minima, and the limits and levels of its map."""

    cost: Callable
    start: np.ndarray
    minima: list[tuple[float, float]]
    limits: tuple[tuple[float, float], tuple[float, float]]
    levels: np.ndarray


LANDSCAPES = {
    "valley": Landscape(
        valley, np.array([-5, 2.0]), [(0, 0)], ((-6, 3), (-3.5, 3.5)), np.geomspace(0.05, 150, 14)
    ),
    "banana": Landscape(
        banana, np.array([-1.2, 1]), [(1, 1)], ((-1.7, 1.7), (-0.8, 2)), np.geomspace(0.1, 2e3, 14)
    ),
    "saddle": Landscape(
        saddle,
        np.array([1.5, 0.01]),
        [(0, 1), (0, -1)],
        ((-1.2, 1.8), (-1.5, 1.5)),
        np.linspace(-0.25, 1.6, 15),
    ),
}
FAMILIES = {  # what makes the optimizer from a rate
    "steps along the gradient": {
        "gradient descent": optim.sgd,
        "momentum": optim.momentum,
        "Nesterov's momentum": lambda rate: optim.momentum(rate, nesterov="lookahead"),
    },
    "a step size for each weight": {
        "AdaGrad": optim.adagrad,
        "RMSProp": optim.rmsprop,
        "RMSProp with Nesterov": optim.rmsprop_nesterov,
        "Adadelta": optim.adadelta,
        "Rprop": optim.rprop,
    },
    "Adam and its kin": {
        "Adam": optim.adam,
        "AMSGrad": lambda rate: optim.adam(rate, amsgrad="corrected"),
        "Adamax": optim.adamax,
        "NAdam": optim.nadam,
        "RAdam": optim.radam,
    },
    "second order": {
        "Newton": optim.newton,
        "saddle-free Newton": lambda rate: optim.newton(rate, saddle_free=True),
        "BFGS": optim.bfgs,
        "L-BFGS": optim.lbfgs,
    },
}
SECOND_ORDER = FAMILIES["second order"]
FIRST_ORDER = {name: make for family in FAMILIES.values() for name, make in family.items()
               if name not in SECOND_ORDER}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Every method on every landscape.

    Attributes:
        landscapes: names in `LANDSCAPES`; the last is drawn in 3-D.
        steps: of each run.
        every: steps between the marks on the paths.
        kappas: curvatures for AdaGrad's paths.
    """

    landscapes: tuple[str, ...] = ("valley", "banana", "saddle")
    steps: int = 100
    every: int = 5
    kappas: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)


SIZES = {
    "smoke": Config(landscapes=("saddle",), steps=10),
    "default": Config(),
    "full": Config(steps=1000, every=50),
}


def informed(tx, cost) -> optax.GradientTransformation:
    """Gives the optimizer's update the cost, which those of second order want."""
    tx = optax.with_extra_args_support(tx)

    def update(updates, state, params=None):
        value = cost(params)
        return tx.update(updates, state, params, value=value, grad=updates, value_fn=cost)

    return optax.GradientTransformation(tx.init, update)


def best_path(make, land: Landscape, rates, steps: int) -> tuple[np.ndarray, float]:
    """Returns the iterates, (steps + 1, 2), with the lowest mean cost, and their rate."""
    gradient = jax.grad(land.cost)
    start = jnp.array(land.start)

    @jax.jit
    @jax.vmap
    def run(rate):
        tx = informed(make(rate), land.cost)
        iterates = path(tx, lambda w, k: gradient(w), start, steps)
        costs = land.cost(iterates)
        return iterates, jnp.where(costs <= costs[0], costs, jnp.inf).mean()

    iterates, means = map(np.asarray, run(jnp.asarray(rates)))
    best = means.argmin()
    return iterates[best], rates[best]


def adagrad_paths(config: Config, rate: float) -> np.ndarray:
    """Returns AdaGrad's iterates from (1, 1) in all valleys, (kappas, steps + 1, 2)."""

    @jax.jit
    @jax.vmap
    def run(kappa):
        gradient = jax.grad(lambda w: valley(w, kappa))
        return path(optim.adagrad(rate), lambda w, k: gradient(w), jnp.ones(2), config.steps)

    return np.asarray(run(jnp.array(config.kappas)))


def first_steps(paths, rates) -> np.ndarray:
    """Returns AdaGrad's first step over `-lr sign(g)` on each landscape, (landscapes, 2)."""
    ratios = []
    for (method, name), iterates in paths.items():
        if method == "AdaGrad":
            sign = np.sign(jax.grad(LANDSCAPES[name].cost)(jnp.array(iterates[0])))
            ratios.append((iterates[1] - iterates[0]) / (-rates[method, name] * sign))
    return np.array(ratios)


def draw(config: Config, paths):
    """Draws a row for each family: the three landscapes from above, and the saddle in 3-D."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 15.5), layout="constrained")
    figure.suptitle(
        f"How do the optimizers move? {config.steps} steps, a dot every {config.every}", fontsize=17
    )
    shape = len(FAMILIES), len(config.landscapes) + 1
    for row, (family, methods) in enumerate(FAMILIES.items()):
        at = row * shape[1] + 1
        for column, name in enumerate(config.landscapes):
            land = LANDSCAPES[name]
            axes = figure.add_subplot(*shape, at + column)
            grid = np.stack(np.meshgrid(*(np.linspace(*ends, 201) for ends in land.limits)))
            height = land.cost(np.moveaxis(grid, 0, -1))
            axes.contourf(*grid, height, land.levels, cmap="Greys_r", extend="both", alpha=0.4)
            axes.contour(*grid, height, land.levels, colors="white", linewidths=0.6)
            for i, method in enumerate(methods):
                # Thinner and thinner, so that of paths on top of each other all can be seen.
                axes.plot(*paths[method, name].T, f"C{i}-", lw=3.4 - 0.5 * i)
                axes.plot(*paths[method, name][:: config.every].T, f"C{i}o", ms=6 - 0.6 * i)
            axes.plot(*land.start, "ks", ms=8)
            axes.plot(*np.transpose(land.minima), "k*", ms=13, zorder=3)
            axes.set(xlim=land.limits[0], ylim=land.limits[1], xticks=[], yticks=[])
            axes.set_title(name if row == 0 else "", fontsize=14)
            axes.set_ylabel(family if column == 0 else "", fontsize=14)
        axes = figure.add_subplot(*shape, at + column + 1, projection="3d", computed_zorder=False)
        axes.plot_surface(*grid, height, cmap="Greys_r", alpha=0.5, lw=0, rcount=80, ccount=80)
        for i, method in enumerate(methods):
            w = np.clip(paths[method, name], *np.transpose(land.limits))
            axes.plot(*w.T, land.cost(w), f"C{i}-", lw=3.4 - 0.5 * i, label=method, zorder=5)
        axes.view_init(elev=38, azim=-55)
        axes.set_box_aspect((1, 1, 0.6), zoom=1.15)
        axes.set(xticks=[], yticks=[], zticks=[])
        axes.set_title(f"{name} in 3-D" if row == 0 else "", fontsize=14)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=13, frameon=False)
    return figure


def run(config: Config) -> Result:
    """Runs all methods, and AdaGrad in valleys of all curvatures."""
    with _compat.enable_x64(True):
        paths, rates = {}, {}
        for name in config.landscapes:
            for method, make in (FIRST_ORDER | SECOND_ORDER).items():
                tried = RATES if method in FIRST_ORDER else np.ones(1)
                found = best_path(make, LANDSCAPES[name], tried, config.steps)
                paths[method, name], rates[method, name] = found
        directions = first_steps(paths, rates)
        valleys = adagrad_paths(config, rate=0.5)
    numbers = {
        f"{name}, {method}: cost at the end": LANDSCAPES[name].cost(iterates[-1])
        for (method, name), iterates in paths.items()
    }
    apart = abs(valleys[..., 0] - valleys[..., 1]).max(1)
    numbers |= {
        f"AdaGrad, curvatures 1 and {kappa:g}: weights differ at most by": difference
        for kappa, difference in zip(config.kappas, apart, strict=True)
    }
    numbers["AdaGrad: first step over -lr sign(g), farthest from 1"] = directions.flat[
        abs(directions - 1).argmax()
    ]
    # 0.01 from the ridge at first.
    left = {method: abs(paths[method, "saddle"][-1, 1]) > 0.5 for method in FIRST_ORDER}
    return Result(
        claims={
            "AdaGrad's first step is -lr sign(g)": truth(abs(directions - 1) < SAME),
            "AdaGrad moves along a flat direction as fast as along a steep one": truth(
                apart < SAME
            ),
            "All first-order methods leave the saddle": truth(list(left.values())),
            "Newton's method leaves the saddle": truth(abs(paths["Newton", "saddle"][-1, 1]) > 0.5),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, paths),
    )
