"""Does gradient descent with noisy gradients reach the minimum?

On x^2 / 2 with gradients x + noise of variance 1, `x = x - eps (x + noise)` has

    E x^2 -> eps / (2 - eps)    at a constant rate, the noise floor,
    E x^2 = 1 / t               after t steps at eps = 1 / t: x is the mean of t noises.

Robbins and Monro ask for sum eps = inf, to get anywhere, and sum eps^2 < inf, for the noise to die
away. The plain mean of the iterates at a constant rate (Polyak) goes to E x^2 = 1 / t too. A moving
mean `m = beta m + (1 - beta) g` of independent gradients has (1 - beta) / (1 + beta) of their
variance.

References:
    H. Robbins, S. Monro, "A stochastic approximation method", 1951.
    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim, schedules

CLOSE = 0.05  # relative, three standard errors of the smoke size
START = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Every schedule and every moving mean, in many independent runs.

    Attributes:
        rates: constant ones, the largest first.
        betas: weights of the past in the moving means.
        steps: of each run.
        runs: independent ones, over which E is taken.
        seed: of the noise.
    """

    rates: tuple[float, ...] = (0.1, 0.01)
    betas: tuple[float, ...] = (0.5, 0.9, 0.99)
    steps: int = 20_000
    runs: int = 500
    seed: int = 0


SIZES = {
    "smoke": Config(betas=(0.5, 0.9), steps=4000, runs=400),
    "default": Config(),
    "full": Config(rates=(0.1, 0.01, 0.001), steps=100_000, runs=1000),
}


def gallery(config: Config):
    """Makes the schedules by name."""
    rate = config.rates[0]
    return {f"constant {rate}": schedules.constant(rate) for rate in config.rates} | {
        "1 / t": schedules.inverse_time(1.0, rate=1.0),
        "1 / sqrt t": schedules.inverse_sqrt(rate),
        "exponential": schedules.exponential(rate, rate=rate / 2),
        "cosine to 0": schedules.cosine(rate, steps=config.steps),
    }


def floor(rate):
    return rate / (2 - rate)


def squares(tx, config: Config) -> np.ndarray:
    """Returns E x^2 after each step."""
    key = jax.random.key(config.seed)

    def gradient(x, k):
        return x + jax.random.normal(jax.random.fold_in(key, k), x.shape)

    @jax.jit
    def run(x):  # every entry is a run
        return (path(tx, gradient, x, config.steps) ** 2).mean(1)

    return np.asarray(run(jnp.full(config.runs, START)))


def variance_ratio(beta: float, config: Config) -> float:
    """Returns the variance of a moving mean of independent numbers of variance 1."""
    tx = optim.scale_by_momentum(momentum=beta, form="ema")
    noise = jax.random.normal(jax.random.key(config.seed), (config.steps, config.runs))

    @jax.jit
    def run(noise):
        def step(state, g):
            m, state = tx.update(g, state)
            return state, m

        return jax.lax.scan(step, tx.init(noise[0]), noise)[1]

    return float((run(noise)[config.steps // 2 :] ** 2).mean())


def measure(config: Config):
    """Returns E x^2 by schedule, that of the mean of iterates, and the variance ratios."""
    with _compat.enable_x64(True):
        found = {name: squares(optim.sgd(s), config) for name, s in gallery(config).items()}
        averaging = optax.chain(optim.sgd(config.rates[0]), optim.polyak())
        mean = squares(averaging, config)
        ratios = {beta: variance_ratio(beta, config) for beta in config.betas}
    return found, mean, ratios


def draw(config: Config, found, mean, ratios, conditions):
    """Draws constant rates beside 1 / t and the mean, the other schedules, and the ratios."""
    title = "Does gradient descent with noisy gradients reach the minimum?"
    figure, (left, middle, right) = panels(title, 3)
    t = np.arange(1, config.steps + 1)
    constant = [name for name in found if name.startswith("constant")]
    for i, name in enumerate(constant):
        left.loglog(t, found[name][1:], f"C{i}", label=name)
        left.axhline(floor(config.rates[i]), color="black", lw=1, ls=":")
    left.loglog(t, mean[1:], "C3", label=f"mean of the iterates at {config.rates[0]}")
    left.loglog(t, found["1 / t"][1:], "C2", label="1 / t")
    left.plot([], [], "k:", lw=1, label="eps / (2 - eps)")
    left.set(xlabel="step", ylabel="E $x^2$")
    left.set_title("A constant rate stays at its noise floor", fontsize=11)
    left.legend(loc="lower left")
    for name, x2 in found.items():
        first, second = conditions[name].sum_diverges, conditions[name].squares_converge
        label = f"{name}: {'yes' if first else 'no'}, {'yes' if second else 'no'}"
        middle.loglog(t, x2[1:], label=label)
    middle.set(xlabel="step", ylim=left.get_ylim())
    middle.set_title(
        "Robbins-Monro: $\\Sigma$ eps = $\\infty$?  $\\Sigma$ eps$^2 < \\infty$?", fontsize=11
    )
    middle.legend(loc="lower left")
    beta = np.linspace(0, 0.999, 400)
    right.semilogy(beta, (1 - beta) / (1 + beta), "k:", label="(1 - beta) / (1 + beta)")
    right.semilogy(ratios.keys(), ratios.values(), "o", color="C0", ms=9, label="measured")
    right.set(xlabel="beta", ylabel="variance of the mean / of the gradients")
    right.set_title("A moving mean of gradients", fontsize=11)
    right.legend(loc="lower left")
    return figure


def run(config: Config) -> Result:
    """Measures E x^2 under every schedule and compares it with the formulas."""
    found, mean, ratios = measure(config)
    conditions = {name: schedules.check_robbins_monro(s) for name, s in gallery(config).items()}
    half, tenth = config.steps // 2, config.steps // 10
    constant = {rate: found[f"constant {rate}"][half:].mean() for rate in config.rates}
    # What has reached its floor, or stopped on the way, no longer falls over a decade of steps.
    falls = {name: x2[-1] < x2[tenth] / 2 for name, x2 in found.items()}
    numbers = {f"E x^2, constant {rate}": x2 for rate, x2 in constant.items()}
    numbers |= {f"eps / (2 - eps), constant {rate}": floor(rate) for rate in config.rates}
    numbers |= {f"E x^2 after all steps, {name}": x2[-1] for name, x2 in found.items()}
    numbers[f"E x^2 after all steps, mean of iterates at {config.rates[0]}"] = mean[-1]
    numbers["1 / steps"] = 1 / config.steps
    numbers |= {f"variance ratio, beta = {beta}": ratio for beta, ratio in ratios.items()}
    last = found[f"constant {config.rates[0]}"][-1]
    return Result(
        claims={
            "At a constant rate E x^2 stays at eps / (2 - eps)": truth(
                [np.isclose(x2, floor(rate), rtol=CLOSE) for rate, x2 in constant.items()]
            ),
            "A schedule does not change how the cost converges": truth(
                not falls["1 / t"] or falls[f"constant {config.rates[0]}"]
            ),
            "The noise dies away exactly under the conditions of Robbins and Monro": truth(
                [falls[name] == conditions[name].satisfied for name in found]
            ),
            "The mean of the iterates at a high rate beats the last one": truth(mean[-1] < last),
            "A moving mean leaves (1 - beta) / (1 + beta) of the variance": truth(
                [np.isclose(r, (1 - b) / (1 + b), rtol=CLOSE) for b, r in ratios.items()]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, mean, ratios, conditions),
    )
