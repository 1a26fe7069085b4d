"""How far along the negative gradient does a quadratic fall the most?

For J with gradient g and Hessian H at w, the second-order model of a step of length eps is

    J(w - eps * g) = J(w) - eps * g'g + eps^2 / 2 * g'Hg.

It is least at `eps* = g'g / g'Hg` where g'Hg > 0 and back at J(w) at 2 eps*; where g'Hg <= 0 it
falls for ever. Some notes print the last term without eps^2, and eps* = g'g for g'Hg = 0. The
worked example is `J = w'Hw / 2` with H = [[3, 1], [1, 2]] at w = (1, -2).

References:
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, section 4.3.1.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import _compat


def quadratic(h):
    return lambda w: w @ np.asarray(h) @ w / 2


EXAMPLE = quadratic([[3.0, 1.0], [1.0, 2.0]]), np.array([1.0, -2.0])
# All with g'g = 2: only the curvature along g differs.
COSTS = {
    "g'Hg = 2": (quadratic(np.diag([1.0, 1.0])), np.ones(2)),
    "g'Hg = 0": (quadratic(np.diag([1.0, -1.0])), np.ones(2)),
    "g'Hg = -2": (quadratic(np.diag([-1.0, -1.0])), np.ones(2)),
    "g'Hg = 0, a sine": (lambda w: jnp.sin(w).sum(), np.zeros(2)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The example, and random quadratics in `dimensions` for every seed.

    Attributes:
        dimensions: of the random quadratics.
        seeds: of their Hessians and points.
        lengths: steps on the grid from 0 to 3 eps*.
    """

    dimensions: tuple[int, ...] = (2, 5, 20)
    seeds: tuple[int, ...] = tuple(range(20))
    lengths: int = 1001


SIZES = {
    "smoke": Config(dimensions=(3,), seeds=(0, 1)),
    "default": Config(),
    "full": Config(dimensions=(2, 5, 20, 100), seeds=tuple(range(100)), lengths=10_001),
}


def products(cost, w):
    """Returns g'g and g'Hg at w."""
    g = jax.grad(cost)(w)
    return float(g @ g), float(g @ jax.jvp(jax.grad(cost), (w,), (g,))[1])


def along(cost, w, lengths):
    """Returns J(w - eps * g) for every length eps."""
    g = jax.grad(cost)(w)
    return np.asarray(jax.vmap(lambda eps: cost(w - eps * g))(jnp.asarray(lengths, float)))


def best_step(gg, ghg):
    return gg / ghg


def printed_model(j, eps, gg, ghg):
    return j - eps * gg + ghg / 2  # eps^2 is missing in the last term


def miss(cost, w, lengths: int) -> float:
    """Returns how far eps* is from the best length on a grid, in its spacings."""
    best = best_step(*products(cost, w))
    grid = np.linspace(0, 3 * best, lengths)
    return abs(grid[along(cost, w, grid).argmin()] - best) / grid[1]


def random_quadratic(n: int, seed: int):
    rng = np.random.default_rng([n, seed])
    a = rng.normal(size=(n, n))
    return quadratic(a @ a.T / n + 0.1 * np.eye(n)), rng.normal(size=n)


def draw(numbers: dict[str, float]):
    """Draws the worked example, and the four costs that differ in curvature only."""
    figure, (left, right) = panels("How far along the negative gradient is best?", 2, width=5.5)
    best, least = numbers["example: eps*"], numbers["example: J(w - eps* g)"]
    grid = np.linspace(0, 1.65, 100)
    left.plot(grid, along(*EXAMPLE, grid), lw=2.5, label="cost")
    left.plot(best, least, "o", color="C2", ms=10, label=f"least, at eps*: {least:.3f}")
    printed = numbers["example: printed model at eps*"]
    left.plot(best, printed, "X", color="C3", ms=11, label=f"printed model at eps*: {printed:.3f}")
    left.vlines(best, least, printed, color="C3", ls="--", lw=1)
    left.axhline(numbers["example: J(w)"], color="black", lw=1, ls=":")
    left.text(1.64, 3.4, "J(w)", va="top", ha="right")
    left.annotate("2 eps*", (2 * best, 3.5), (1.15, 4.3), arrowprops={"arrowstyle": "->"})
    left.set(xlabel="step length eps", ylabel="cost", ylim=(-0.3, 7.5))
    left.set_title("At eps* = g'g / g'Hg, here 10 / 15", fontsize=11)
    left.legend(loc="upper left")
    grid = np.linspace(0, 5, 100)
    for i, (name, (cost, w)) in enumerate(COSTS.items()):
        change = along(cost, w, grid) - cost(w)
        right.plot(grid, change, f"C{i}", lw=2, ls="--" if "sine" in name else "-", label=name)
    right.axvline(2, color="black", lw=1, ls=":")
    right.text(2.05, 4.6, "eps = g'g", va="top")
    right.axhline(0, color="black", lw=1, ls=":")
    right.set(xlabel="step length eps", ylabel="J(w - eps g) - J(w)", ylim=(-12, 5))
    right.set_title("Without curvature there is no best step", fontsize=11)
    right.legend(loc="lower left")
    return figure


def run(config: Config) -> Result:
    """Searches for the best step and compares it with the formulas."""
    with _compat.enable_x64(True):
        gg, ghg = products(*EXAMPLE)
        best = best_step(gg, ghg)
        start, at_best, at_double, at_gg = along(*EXAMPLE, [0, best, 2 * best, gg])
        printed = printed_model(start, best, gg, ghg)
        cases = [random_quadratic(n, seed) for n in config.dimensions for seed in config.seeds]
        misses = [miss(*case, config.lengths) for case in [EXAMPLE, *cases]]
        # The change of the cost at eps = g'g = 2 and beyond.
        _, flat, down, sine = (along(*COSTS[name], [2, 5]) - COSTS[name][0](COSTS[name][1])
                               for name in COSTS)  # fmt: skip
        numbers = {
            "example: J(w)": start,
            "example: eps*": best,
            "example: J(w - eps* g)": at_best,
            "example: printed model at eps*": printed,
            "example: J(w - 2 eps* g)": at_double,
            "example: J(w - g'g g)": at_gg,
            "largest miss of eps*, in grid spacings": max(misses),
            "g'Hg = 0: change at eps = 2": flat[0],
            "g'Hg = 0: change at eps = 5": flat[1],
            "g'Hg = -2: change at eps = 2": down[0],
            "g'Hg = -2: change at eps = 5": down[1],
            "g'Hg = 0, a sine: change at eps = 5": sine[1],
        }
        return Result(
            claims={
                "Where g'Hg > 0 the best step is eps* = g'g / g'Hg": truth(np.array(misses) <= 1),
                "The model of the cost is J - eps g'g + g'Hg / 2": truth(
                    np.isclose(printed, at_best)
                ),
                "Where g'Hg <= 0 the best step is eps = g'g": truth(
                    [flat[0] <= flat[1], down[0] <= down[1]]
                ),
                "Where g'Hg = 0 the cost falls even for large steps": truth(
                    [flat[1] < 0, sine[1] < 0]
                ),
            },
            numbers={what: float(value) for what, value in numbers.items()},
            figure=draw(numbers),
        )
