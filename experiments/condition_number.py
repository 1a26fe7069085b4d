"""How much slower does gradient descent get when the curvature differs between directions?

On `w'Hw / 2` with curvatures from mu to L, kappa = L / mu, the best fixed rates are

    gradient descent    w = w - eps g,        eps = 2 / (L + mu)
    heavy ball          v = beta v - eps g,   eps = 4 / (sqrt L + sqrt mu)^2,
                        w = w + v,            beta = ((sqrt kappa - 1) / (sqrt kappa + 1))^2

with errors that fall by (kappa - 1) / (kappa + 1) and (sqrt kappa - 1) / (sqrt kappa + 1) a step.
Counted are the steps from w = (1, 1) on H = diag(1, kappa) until |w| < 1e-6.

Curvature is made by the data: the squared error of a linear model of two inputs x has
`H = 2 mean(x x')`. A has the heights in cm of two people, B a height and a number of children.

References:
    B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient backprop", 1998.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, data, losses, optim

TOLERANCE = 1e-6
METHODS = "gradient descent", "momentum"


@dataclasses.dataclass(frozen=True)
class Config:
    """Both methods at every kappa, and both data sets with every seed.

    Attributes:
        kappas: condition numbers, ascending.
        people: examples in the data sets.
        seeds: of the data.
    """

    kappas: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000)
    people: int = 1000
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(kappas=(10, 100), people=100, seeds=(0,)),
    "default": Config(),
    "full": Config(kappas=(10, 30, 100, 300, 1000, 3000, 10_000), people=10_000),
}


def optimizer(method: str, kappa: float):
    """Makes the method with its best rates for curvatures from 1 to kappa."""
    if method == "gradient descent":
        return optim.sgd(2 / (1 + kappa))
    root = kappa**0.5
    return optim.momentum(4 / (1 + root) ** 2, momentum=((root - 1) / (root + 1)) ** 2)


def distances(method: str, kappas, steps: int) -> np.ndarray:
    """Returns |w| before each step, (kappas, steps + 1)."""

    @jax.jit
    @jax.vmap
    def run(kappa):
        curvature = jnp.stack([jnp.ones_like(kappa), kappa])
        iterates = path(optimizer(method, kappa), lambda w, k: curvature * w, jnp.ones(2), steps)
        return jnp.linalg.norm(iterates, axis=1)

    return np.asarray(run(jnp.asarray(kappas, float)))


def inputs(people: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the data sets A and B, and B standardized."""
    rng = np.random.default_rng(seed)
    heights = rng.multivariate_normal([170, 170], [[100, 30], [30, 100]], people)
    b = np.stack([heights[:, 0], rng.poisson(2, people)], axis=1)
    standard = data.standardize.apply(data.standardize.fit(b), b)
    return {"A: two heights": heights, "B: height, children": b, "B standardized": standard}


def curvature(x) -> np.ndarray:
    """Returns the Hessian of the squared error of a linear model; the targets have no part."""

    def loss(w):
        return losses.squared_error((x @ w)[:, None], jnp.zeros((len(x), 1))).mean()

    return np.asarray(jax.hessian(loss)(jnp.zeros(x.shape[1])))


def draw(config: Config, steps, slopes, hessians):
    """Draws the step counts, and gradient descent over the level lines of the data sets."""
    title = "How much slower is gradient descent when curvatures differ?"
    figure, (left, *maps) = panels(title, 4, width=4.2)
    for method in METHODS:
        label = f"{method}: $\\kappa^{{{slopes[method]:.2f}}}$"
        left.loglog(config.kappas, steps[method], "o-", label=label)
    left.set(xlabel="condition number $\\kappa$", ylabel="steps to |w| < 1e-6")
    left.set_title("Two curvatures, 1 and $\\kappa$", fontsize=11)
    left.legend()
    grid = np.linspace(-1.2, 1.2, 201)
    for axes, (name, h) in zip(maps, hessians.items(), strict=True):
        eigenvalues = np.linalg.eigvalsh(h)
        descent = optim.sgd(2 / eigenvalues.sum())
        iterates = np.asarray(path(descent, lambda w, k, h=h: h @ w, jnp.array([1.0, -0.5]), 30))
        w = np.stack(np.meshgrid(grid, grid), axis=-1)
        height = np.sqrt(np.einsum("...i,ij,...j", w, h, w) / eigenvalues[-1])
        axes.contourf(grid, grid, height, levels=15, cmap="Blues")
        axes.plot(*iterates.T, "C1.-", lw=1, label="30 steps of gradient descent")
        axes.plot(*iterates[-1], "C3o", ms=7)
        axes.set(aspect="equal", xlabel="$w_1$", ylabel="$w_2$")
        kappa = eigenvalues[-1] / eigenvalues[0]
        axes.set_title(f"{name}: $\\kappa$ = {kappa:,.0f}", fontsize=11)
    maps[0].legend(loc="upper left")
    return figure


def run(config: Config) -> Result:
    """Counts steps and measures the data's condition numbers."""
    with _compat.enable_x64(True):
        most = 8 * max(config.kappas)
        found = {method: distances(method, config.kappas, most) for method in METHODS}
        hessians = [
            {name: curvature(x) for name, x in inputs(config.people, seed).items()}
            for seed in config.seeds
        ]
    steps = {method: (d < TOLERANCE).argmax(1) for method, d in found.items()}
    logs = np.log(config.kappas)
    slopes = {method: np.polyfit(logs, np.log(n), 1)[0] for method, n in steps.items()}
    conditions = {
        name: np.array([np.linalg.cond(h[name]) for h in hessians]) for name in hessians[0]
    }
    a, b, standard = conditions.values()
    numbers = {
        f"{method}: steps, kappa = {kappa}": float(n)
        for method in METHODS
        for kappa, n in zip(config.kappas, steps[method], strict=True)
    }
    numbers |= {f"{method}: steps grow as kappa to the power": slopes[method] for method in METHODS}
    numbers |= {f"condition number, {name}": float(np.median(c)) for name, c in conditions.items()}
    with _compat.enable_x64(True):
        figure = draw(config, steps, slopes, hessians[0])
    return Result(
        claims={
            "Gradient descent takes steps in proportion to kappa": truth(
                abs(slopes["gradient descent"] - 1) < 0.1
            ),
            "With momentum the steps grow as the root of kappa": truth(
                abs(slopes["momentum"] - 0.5) < 0.1
            ),
            "Inputs of unlike scale make the curvature far more unequal (over 10 times)": truth(
                b > 10 * a
            ),
            "Standardizing brings it below that of the inputs of like scale": truth(standard < a),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=figure,
    )
