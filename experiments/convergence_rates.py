"""How fast does gradient descent close the gap to the minimum?

With a convex cost whose gradient has the Lipschitz constant 1 and the rate eps = 1 the gap is

    strongly convex, curvature >= mu    f(w_t) - f* <= (1 - eps mu)^(2 t) gap_0   (a quadratic)
    convex                              f(w_t) - f* <= |w_0 - w*|^2 / (2 eps t)

The first is a straight line on a log axis, "linear"; the second is 1/t. Of all convex costs a Huber
function that is flat enough comes closest to the second bound, after T steps within a factor
2T / (2T + 1) of half of it. Some notes print the bound as L / (eps t) with L the Lipschitz constant
of the cost itself.

References:
    Y. Nesterov, "Lectures on convex optimization", 2018, section 2.1.
    Y. Drori, M. Teboulle, "Performance of first-order methods for smooth convex minimization: a
    novel approach", 2014.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim

RATE = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Quadratics of given condition, a quartic, and Huber functions; all from |w_0| = 1.

    Attributes:
        kappas: condition numbers of the quadratics.
        touches: steps T after which a Huber function comes closest to the bound.
        steps: of each run.
    """

    kappas: tuple[int, ...] = (10, 30, 100)
    touches: tuple[int, ...] = (10, 100, 1000)
    steps: int = 3000


SIZES = {
    "smoke": Config(kappas=(10, 30), touches=(10, 100), steps=300),
    "default": Config(),
    "full": Config(kappas=(10, 30, 100, 300), touches=(10, 100, 1000, 10_000), steps=30_000),
}


def quadratic(kappa):
    curvature = np.geomspace(1 / kappa, 1, 10)
    return lambda w: curvature @ w**2 / 2


def quartic(w):
    return (w**4).sum() / 12  # curvature w^2 <= 1 where |w| <= 1


def huber(delta):
    def cost(w):
        size = jnp.abs(w)
        return jnp.where(size < delta, size**2 / 2, delta * size - delta**2 / 2).sum()

    return cost


def gaps(cost, n: int, steps: int) -> np.ndarray:
    """Returns f(w_t) - f*, where f* = f(0) = 0, from |w_0| = 1 in n dimensions."""
    tx = optim.sgd(RATE)

    @jax.jit
    def run(w):
        return jax.vmap(cost)(path(tx, lambda w, k: jax.grad(cost)(w), w, steps))

    return np.asarray(run(jnp.ones(n) / n**0.5))


def convex_bound(t):
    return 1 / (2 * RATE * t)


def draw(strongly, convex):
    """Draws the quadratics on a log axis and the merely convex costs on two."""
    figure, (left, right) = panels("How fast does gradient descent close the gap?", 2, width=5.5)
    for i, (kappa, gap) in enumerate(strongly.items()):
        left.semilogy(gap, f"C{i}", lw=2, label=f"curvatures from 1/{kappa} to 1")
        bound = gap[0] * (1 - RATE / kappa) ** (2 * np.arange(len(gap)))
        left.semilogy(bound, f"C{i}:", lw=1)
    left.plot([], [], "k:", lw=1, label="bounds $(1 - \\epsilon\\mu)^{2t}$")
    left.set(xlabel="step", ylabel="gap", xlim=(0, 500), ylim=(1e-15, 1e4))
    left.set_title("Strongly convex: a constant factor per step", fontsize=11)
    left.legend(loc="upper right")
    for i, (name, (_, gap)) in enumerate(convex.items()):
        right.loglog(np.arange(1, len(gap)), gap[1:], f"C{i}", lw=2, label=name)
    t = np.arange(1, len(gap))
    right.loglog(t, convex_bound(t), "k", lw=1.5, label="bound $|w_0-w^*|^2/(2\\epsilon t)$")
    right.loglog(t, 1 / (RATE * (4 * t + 2)), "k:", lw=1.5, label="the best bound there is")
    right.set(xlabel="step", ylim=(1e-14, 2))
    right.set_title("Convex: no faster than 1/t at worst", fontsize=11)
    right.legend(loc="lower left", fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Runs gradient descent on all costs and compares the gaps with the bounds."""
    with _compat.enable_x64(True):
        strongly = {kappa: gaps(quadratic(kappa), 10, config.steps) for kappa in config.kappas}
        convex = {"quartic": (1 / 3, gaps(quartic, 1, config.steps))}  # Lipschitz constant, gaps
        for touch in config.touches:
            delta = 1 / (2 * touch + 1)
            gap = gaps(huber(delta), 1, config.steps)
            convex[f"Huber, linear beyond 1/{2 * touch + 1}"] = delta, gap
    t = np.arange(1, config.steps + 1)
    numbers, linear = {}, []
    for kappa, gap in strongly.items():
        factor = 1 - RATE / kappa
        small = int((gap > 1e-12 * gap[0]).sum() - 1)  # beyond it the gap is rounding
        late = (gap[small] / gap[small // 2]) ** (1 / (small - small // 2))
        numbers[f"curvatures from 1/{kappa}: late factor per step"] = late
        numbers[f"curvatures from 1/{kappa}: (1 - eps mu)^2"] = factor**2
        numbers[f"curvatures from 1/{kappa}: steps to a thousandth of the gap"] = (
            gap > 1e-3 * gap[0]
        ).sum()
        linear += [np.isclose(late, factor**2, rtol=1e-3)]
        linear += [(gap[:small] <= 1.001 * gap[0] * factor ** (2 * np.arange(small))).all()]
    for name, (_, gap) in convex.items():
        numbers[f"{name}: steps to a thousandth of the gap"] = (gap > 1e-3 * gap[0]).sum()
        numbers[f"{name}: gap / bound, largest"] = (gap[1:] / convex_bound(t)).max()
    printed = {name: gap[1:] * RATE * t / lipschitz for name, (lipschitz, gap) in convex.items()}
    numbers |= {f"{name}: gap / printed bound, largest": r.max() for name, r in printed.items()}
    return Result(
        claims={
            "Strongly convex: the gap falls by a constant factor per step": truth(linear),
            "Convex: the gap is at most |w_0 - w*|^2 / (2 eps t)": truth(
                np.all([(gap[1:] <= convex_bound(t)).all() for _, gap in convex.values()])
            ),
            "Convex: the gap is at most L / (eps t), L the cost's Lipschitz constant": truth(
                np.all([(r <= 1).all() for r in printed.values()])
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(strongly, convex),
    )
