"""How well do finite differences measure a gradient, and do they find a wrong one?

    forward    (f(w + eps) - f(w)) / eps                  = f'(w) + eps / 2 f''(w) + ...
    central    (f(w + eps) - f(w - eps)) / (2 eps)        = f'(w) + eps^2 / 6 f'''(w) + ...

plus rounding errors of order u f(w) / eps. For w^3 at 1 the errors are 3 eps + eps^2 and eps^2.
The sum of both is least near eps = sqrt u and u^(1/3); u = 1.1e-16 in float64, 6e-8 in float32.

A gradient a is compared with its differences n by |n - a| / (|n| + |a|): up to 1e-7 it is right,
beyond 1e-3 wrong. The bug here is a tanh whose derivative is (1 + bug) times the true one.

References:
    A. Griewank, A. Walther, "Evaluating derivatives", 2008, chapter 3.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import losses, nn, optim

RIGHT, WRONG = 1e-7, 1e-3
PRINTED_EPS = 0.01
DIFFERENCES = {
    "forward": lambda f, w, eps: (f(w + eps) - f(w)) / eps,
    "central": lambda f, w, eps: (f(w + eps) - f(w - eps)) / (2 * eps),
}
ORDERS = {"forward": 1, "central": 2}


@dataclasses.dataclass(frozen=True)
class Config:
    """Both differences in both precisions, and every bug with every seed.

    Attributes:
        points: values of eps, from 1e-12 to 0.1.
        bugs: relative errors of the planted derivative; the first, 0, is none.
        seeds: of the params and the examples.
    """

    points: int = 120
    bugs: tuple[float, ...] = (0.0, 1e-6, 1e-4, 1e-2, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "smoke": Config(bugs=(0.0, 0.1), seeds=(0,)),
    "default": Config(),
    "full": Config(points=1000, seeds=tuple(range(10))),
}


def cube(w):
    return w * w * w


def printed(f, w, eps):
    """A numerator as some notes print it."""
    return (f(w - w) - f(w - eps)) / (2 * eps)


def errors(method: str, dtype: str, eps: np.ndarray) -> np.ndarray:
    """Returns |difference - 3| for w^3 at 1, all computed in the dtype."""
    one = np.ones((), dtype)
    return np.abs(DIFFERENCES[method](cube, one, eps.astype(dtype)).astype(float) - 3)


def tanh(bug: float):
    """Makes a tanh whose derivative is wrong by this share."""

    @jax.custom_vjp
    def f(x):
        return jnp.tanh(x)

    f.defvjp(lambda x: (f(x), f(x)), lambda y, g: (g * (1 - y * y) * (1 + bug),))
    return f


def check(bug: float, dtype: str, seed: int) -> float:
    """Returns the relative error that the check finds in a net with this bug."""
    net = nn.serial(nn.dense(5), tanh(bug), nn.dense(3))
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(8, 4)), jnp.asarray(rng.integers(3, size=8))
    params, state = net.init(jax.random.key(seed), jnp.zeros((1, 4)))

    def loss(params):
        params = jax.tree.map(lambda p: p.astype(dtype), params)
        logits, _ = net.apply(params, state, jnp.asarray(x, dtype), nn.Context(train=True))
        return losses.softmax_cross_entropy(logits, labels).mean().astype(jnp.float64)

    return optim.check_gradients(loss, params, eps=np.finfo(dtype).eps ** (1 / 3)).error


def draw(config: Config, eps, found, checked):
    """Draws the errors against eps, and what the check says against the bug."""
    title = "How well do finite differences measure a gradient, and do they find a wrong one?"
    figure, (left, right) = panels(title, 2, width=5.5)
    for i, ((method, dtype), error) in enumerate(found.items()):
        color, line = f"C{i // 2}", "-" if dtype == "float64" else ":"
        left.loglog(eps, np.maximum(error, 1e-17), color + line, lw=1.5, label=f"{method}, {dtype}")
    left.loglog(eps, 3 * eps, "k--", lw=0.8)
    left.loglog(eps, eps**2, "k--", lw=0.8)
    left.text(1e-7, 4e-6, "3 eps", rotation=28)
    left.text(3e-4, 2e-9, "eps$^2$", rotation=50)
    left.set(xlabel="eps", ylabel="error of the derivative of $w^3$ at 1", ylim=(1e-14, 1e7))
    left.set_title("Truncation on the right, rounding on the left", fontsize=11)
    left.legend(loc="upper right", fontsize=9)
    right.axhspan(1e-12, RIGHT, color="C2", alpha=0.12, lw=0)
    right.axhspan(WRONG, 3, color="C3", alpha=0.12, lw=0)
    right.text(6e-9, 2e-8, "right")
    right.text(6e-9, 0.6, "wrong")
    shown = np.maximum(config.bugs, 1e-8)  # no bug has no place on a log axis
    for dtype, table in checked.items():
        right.loglog(shown, np.median(table, axis=1), "o-", lw=1, ms=7, label=dtype)
    right.set_xticks([1e-8, 1e-6, 1e-4, 1e-2, 1], ["no bug", "$10^{-6}$", "$10^{-4}$", "1 %", "1"])
    right.set(xlabel="relative error planted in tanh'", ylabel="relative error found")
    right.set(ylim=(1e-12, 3))
    right.minorticks_off()
    right.set_title("The check needs float64", fontsize=11)
    right.legend(loc="lower right")
    return figure


def run(config: Config) -> Result:
    """Measures the errors and checks gradients with planted bugs."""
    eps = np.geomspace(1e-12, 0.1, config.points)
    found = {(m, d): errors(m, d, eps) for m in DIFFERENCES for d in ("float64", "float32")}
    truncation = eps > 1e-3
    slopes = {
        m: np.polyfit(np.log(eps[truncation]), np.log(found[m, "float64"][truncation]), 1)[0]
        for m in DIFFERENCES
    }
    at_printed = printed(cube, 1.0, PRINTED_EPS)
    checked = {
        dtype: np.array([[check(b, dtype, s) for s in config.seeds] for b in config.bugs])
        for dtype in ("float64", "float32")
    }
    gross = np.array(config.bugs) >= 0.01
    tells = {
        dtype: (table[0] <= RIGHT).all() and (table[gross] > WRONG).all()
        for dtype, table in checked.items()
    }
    numbers = {
        f"{method}, eps = {e}": difference(cube, 1.0, e)
        for method, difference in DIFFERENCES.items()
        for e in (0.1, 0.01, 0.001)
    }
    numbers[f"(f(0) - f(0.99)) / {2 * PRINTED_EPS}"] = at_printed
    numbers |= {f"{method}: error grows as eps to the power": p for method, p in slopes.items()}
    numbers |= {f"{m}, {d}: best eps": eps[error.argmin()] for (m, d), error in found.items()}
    for dtype, table in checked.items():
        numbers[f"check in {dtype}, no bug: largest error"] = table[0].max()
        numbers[f"check in {dtype}, bugs from 0.01 on: smallest error"] = table[gross].min()
    return Result(
        claims={
            "The error of the forward difference is of order eps, of the central eps^2": truth(
                all(abs(slopes[m] - order) < 0.05 for m, order in ORDERS.items())
            ),
            "The smaller eps, the smaller the error": truth(
                [error[0] == error.min() for error in found.values()]
            ),
            "(f(0) - f(0.99)) / 0.02 measures f'(1)": truth(abs(at_printed - 3) < 0.1),
            "The check finds at most 1e-7 without a bug, over 1e-3 with one of 1 %: in float64, in"
            " float32": truth(list(tells.values())),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, eps, found, checked),
    )
