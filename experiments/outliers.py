"""Which checks find an outlier, and how much does one disturb a fit?

Heights of 1.65 m and weights of 60 kg, with standard deviations of 0.12 m and 15 kg and correlation
0.8, are those of many people and of two more: one is 2.51 m tall, the other 1.82 m and 24 kg, of
which neither number is rare by itself. With z the standardized numbers and r the correlation

    d2 = (z1^2 + z2^2 - 2 r z1 z2) / (1 - r^2)

is the squared Mahalanobis distance.

Polynomials of order 2 are fitted to noisy examples of 3 + 3 x + x^2 of which a share is shifted up
by 5 to 15. The losses of an error e are e^2, Minkowski's |e|^p, and Huber's, which is linear from
|e| = 1 on; the test risk is E (fit - y)^2 over all x.

References:
    P. Mahalanobis, "On the generalized distance in statistics", 1936.
    P. Huber, "Robust estimation of a location parameter", 1964.
    C. Bishop, "Neural networks for pattern recognition", 1995, section 6.3.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _polynomial
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, data, losses
from jaxtrain.data.synthetic import powers

MEAN, STD, CORRELATION = np.array([1.65, 60.0]), np.array([0.12, 15.0]), 0.8
TALL, THIN = np.array([2.51, 137.0]), np.array([1.82, 24.0])
ORDER = 2
LOSSES = {
    "squared": losses.squared_error,
    "p = 1.5": functools.partial(losses.minkowski, p=1.5),
    "Huber": losses.huber,
    "absolute": losses.absolute_error,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Checks of one population, and fits by every loss at every share from every seed.

    Attributes:
        people: of the population, besides the two.
        shares: of shifted examples, ascending; the first is 0.
        examples: of the fits.
        seeds: of the examples.
    """

    people: int = 1000
    shares: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
    examples: int = 100
    seeds: tuple[int, ...] = tuple(range(200))


SIZES = {
    "smoke": Config(shares=(0.0, 0.1), seeds=tuple(range(20))),
    "default": Config(),
    "full": Config(people=100_000, seeds=tuple(range(5000))),
}


def population(config: Config) -> np.ndarray:
    """Returns heights and weights, (people + 2, 2); the last two are those to be found."""
    covariance = np.outer(STD, STD) * [[1, CORRELATION], [CORRELATION, 1]]
    people = np.random.default_rng(0).multivariate_normal(MEAN, covariance, config.people)
    return np.concatenate([people, [TALL, THIN]])


def checks(x) -> dict[str, data.clean.Report]:
    found = {m: data.clean.outliers(x, method=m) for m in ("z", "mad", "iqr")}
    return found | {"Mahalanobis": data.clean.mahalanobis(x)}


def distance(x) -> float:
    """Returns the squared Mahalanobis distance from the population that people are drawn of."""
    a, b = (x - MEAN) / STD
    return float((a**2 + b**2 - 2 * CORRELATION * a * b) / (1 - CORRELATION**2))


def fit(loss, h, v):
    """Returns the weights of the least loss, by least squares weighted with L'(e) / e."""
    slope = jax.vmap(jax.grad(lambda e: loss(e[None], jnp.zeros(1))[0]))

    def step(w, _):
        e = h @ w - v
        e = jnp.where(abs(e) < 1e-9, 1e-9, e)
        weighted = h * (slope(e) / e)[:, None]
        return jnp.linalg.solve(weighted.T @ h, weighted.T @ v), None

    return jax.lax.scan(step, jnp.zeros(h.shape[1]), length=100)[0]


def fits(config: Config) -> dict[str, np.ndarray]:
    """Returns the weights by loss, (shares, seeds, 3)."""
    h, v = _polynomial.many(config.examples, ORDER, config.seeds)
    rng = np.random.default_rng(0)
    shift = rng.uniform(5, 15, v.shape)
    counts = np.round(np.array(config.shares) * config.examples)[:, None, None]
    shifted = v + np.where(np.arange(config.examples) < counts, shift, 0)
    return {
        name: np.asarray(jax.jit(jax.vmap(jax.vmap(functools.partial(fit, loss)), (None, 0)))(
            h, shifted)) for name, loss in LOSSES.items()
    }  # fmt: skip


def draw(config: Config, x, found, fitted):
    """Draws the population, a fit by every loss, and the test risks."""
    title = "Which checks find an outlier, and how much does one disturb a fit?"
    figure, (left, middle, right) = panels(title, 3)
    left.plot(*x[:-2].T, ".", color="0.6", ms=3)
    angle = np.linspace(0, 2 * np.pi, 200)
    cholesky = np.linalg.cholesky(np.cov(x.T))
    radius = found["Mahalanobis"].threshold ** 0.5
    left.plot(*(x.mean(0)[:, None] + radius * cholesky @ [np.cos(angle), np.sin(angle)]), "C0",
              label="Mahalanobis, 0.1 %")  # fmt: skip
    low, high = x.mean(0) - 3 * x.std(0), x.mean(0) + 3 * x.std(0)
    corners = [low[0], high[0], high[0], low[0], low[0]], [low[1], low[1], high[1], high[1], low[1]]
    left.plot(*corners, "C1--", label="|z| = 3")
    left.plot(*TALL, "C3*", ms=13)
    left.annotate("2.51 m", TALL, (-45, -4), textcoords="offset points")
    left.plot(*THIN, "C3*", ms=13)
    left.annotate("1.82 m, 24 kg", THIN, (8, -4), textcoords="offset points")
    left.set(xlabel="height [m]", ylabel="weight [kg]")
    left.set_title("Rare by one number, and by two together", fontsize=11)
    left.legend(loc="upper left")
    at = -(-len(config.shares) // 2)
    grid = np.linspace(-1, 1, 100)
    for name, w in fitted.items():
        curve = powers(grid[:, None], ORDER) @ np.median(w[at], 0)
        middle.plot(grid, curve, lw=2, label=name)
        right.plot(100 * np.array(config.shares), np.median(_polynomial.test_risk(w), 1), "o-",
                   label=name)  # fmt: skip
    middle.plot(grid, powers(grid[:, None], 2) @ _polynomial.TRUE, "k--", label="truth")
    middle.set(xlabel="x", ylabel="fit, median weights")
    middle.set_title(f"{config.shares[at]:.0%} of the examples 5 to 15 too high", fontsize=11)
    middle.legend()
    right.set(xlabel="outliers [%]", ylabel="test risk, median", yscale="log")
    right.set_title("Test risk", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Checks the population and fits with every loss."""
    x = population(config)
    found = checks(x)
    tall, thin = len(x) - 2, len(x) - 1
    with _compat.enable_x64(True):
        fitted = fits(config)
    risks = {name: np.median(_polynomial.test_risk(w), 1) for name, w in fitted.items()}
    numbers = {f"{name}: share of people found": len(r.indices) / len(x)
               for name, r in found.items()}  # fmt: skip
    z = abs(x - x.mean(0)) / x.std(0)
    numbers |= {"2.51 m: |z|": z[tall, 0], "1.82 m: |z|": z[thin, 0], "24 kg: |z|": z[thin, 1]}
    numbers["1.82 m, 24 kg: Mahalanobis distance"] = found["Mahalanobis"].scores[thin] ** 0.5
    numbers["1.82 m, 24 kg: Mahalanobis distance from the true mean"] = distance(THIN) ** 0.5
    for name, risk in risks.items():
        for share, r in zip(config.shares, risk, strict=True):
            numbers[f"{name}, {share:.0%} outliers: test risk"] = r
    squared, others = risks["squared"], [r for name, r in risks.items() if name != "squared"]
    one = [thin in found[name].indices for name in ("z", "mad", "iqr")]
    return Result(
        claims={
            "2.51 m is found in the heights: by z, MAD and quartiles": truth(
                [tall in r.indices for name, r in checks(x[:, 0]).items() if name != "Mahalanobis"]
            ),
            "1.82 m and 24 kg are found one by one: by z, MAD and quartiles": truth(one),
            "They are by the Mahalanobis distance": truth(thin in found["Mahalanobis"].indices),
            "With outliers Minkowski's p = 1.5 has a lower test risk than squared errors": truth(
                risks["p = 1.5"][1:] < squared[1:]
            ),
            "Huber's loss has a lower one still": truth(risks["Huber"][1:] < risks["p = 1.5"][1:]),
            "Without outliers squared errors have the lowest": truth(
                squared[0] < np.min(others, 0)[0]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, x, found, fitted),
    )
