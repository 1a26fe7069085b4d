"""Do BatchNorm's running averages become the statistics of the data?

Evaluation uses `running <- beta running + (1 - beta) batch` in place of the mean and variance of
the data. Of where it starts beta^k is left after k batches; and what is averaged is noise, that of
means of n examples, of which there remains, in units of the standard deviation,

    sqrt((1 - beta) / (1 + beta) / n).

So a larger beta ends nearer, and later. Paper and most libraries average variances, some notes
standard deviations: by Jensen's inequality their average is below the root of the averaged
variances. It is too small even if the batches' variances have the right mean.

The activations are a linear map of the shipped digits, in batches drawn with replacement; errors
are root mean squares over features and seeds.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3.1.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import nn

FEATURES = 32
LIMIT = 0.05  # what counts as converged


@dataclasses.dataclass(frozen=True)
class Config:
    """Every decay from every seed.

    Attributes:
        decays: beta, ascending.
        steps: batches.
        batch_size: n.
        seeds: of the batches.
    """

    decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    steps: int = 10_000
    batch_size: int = 64
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(decays=(0.9, 0.99), steps=1000, seeds=(0, 1)),
    "default": Config(),
    "full": Config(steps=100_000, seeds=tuple(range(20))),
}


def activations() -> np.ndarray:
    x = _digits.examples()[0][0].reshape(-1, 64)
    return x @ np.random.default_rng(0).normal(size=(64, FEATURES)).astype(x.dtype) / 8


def averages(config: Config, decay: float, running: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the running means and variances after each batch, (seeds, steps, features) each."""
    y = jnp.asarray(activations())
    norm = nn.batch_norm(decay=decay, running=running)
    params, start = norm.init(jax.random.key(0), y)

    def step(state, key):
        batch = jax.random.randint(key, (config.batch_size,), 0, len(y))
        _, state = norm.apply(params, state, y[batch], nn.Context(train=True))
        return state, state

    def run(seed):
        keys = jax.random.split(jax.random.key(seed), config.steps)
        return jax.lax.scan(step, start, keys)[1]

    found = jax.jit(jax.vmap(run))(jnp.array(config.seeds))
    power = 1 if running == "var" else 2
    return np.asarray(found["mean"]), np.asarray(found[running]) ** power


def errors(config: Config, found) -> np.ndarray:
    """Returns those of mean and variance after each batch, over std and variance, (2, steps)."""
    y = activations()
    mean, var = found
    relative = (mean - y.mean(0)) / y.std(0), var / y.var(0) - 1
    return np.stack([np.sqrt((e**2).mean((0, 2))) for e in relative])


def noise(config: Config, decay: float) -> float:
    """Returns what remains of the noise of the mean."""
    return float(np.sqrt((1 - decay) / (1 + decay) / config.batch_size))


def draw(config: Config, error, below):
    """Draws the errors of mean and variance, and the averages of standard deviations."""
    title = "Do running averages become the statistics of the data?"
    figure, (left, middle, right) = panels(title, 3)
    steps = np.arange(1, config.steps + 1)
    names = "mean / standard deviation", "variance / variance"
    for axes, i, name in zip((left, middle), (0, 1), names, strict=True):
        for j, (decay, found) in enumerate(error.items()):
            axes.loglog(steps, found[i], f"C{j}", lw=1.5, label=f"beta = {decay:g}")
            if i == 0:
                axes.axhline(noise(config, decay), color=f"C{j}", lw=1, ls=":")
        axes.axhline(LIMIT, color="black", lw=1, ls="--")
        axes.set(xlabel="batches", ylabel="error")
        axes.set_title(f"Error of the {name}", fontsize=11)
    left.plot([], [], "k:", label="noise, in theory")
    left.plot([], [], "k--", label="5 %")
    left.legend(fontsize=9, loc="lower left")
    for j, (decay, ratio) in enumerate(below.items()):
        at = np.sort(ratio)
        right.plot(at, np.linspace(0, 100, len(at)), f"C{j}", lw=2, label=f"beta = {decay:g}")
    right.axvline(1, color="black", lw=1, ls=":")
    right.set(xlabel="average of std / root of average var", ylabel="features and seeds below [%]")
    right.set_title("At the end", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Averages at all decays, and compares with the data and with theory."""
    var = {decay: averages(config, decay, "var") for decay in config.decays}
    std = {decay: averages(config, decay, "std") for decay in config.decays}
    error = {decay: errors(config, found) for decay, found in var.items()}
    below = {decay: np.sqrt(std[decay][1][:, -1] / var[decay][1][:, -1]).ravel() for decay in var}
    numbers, near, like_theory = {}, [], []
    for decay, found in error.items():
        mean, variance = np.sqrt((found[:, -(config.steps // 5) :] ** 2).mean(1))
        near.append(max(mean, variance) < LIMIT)
        # The start is forgotten, and of the noise a fifth of all batches is many averages of
        # 1 / (1 - beta) of them, of 32 features in every seed.
        like_theory.append(abs(mean / noise(config, decay) - 1) < 0.1)
        numbers[f"beta = {decay}: error of the mean"] = mean
        numbers[f"beta = {decay}: error of the mean, in theory"] = noise(config, decay)
        numbers[f"beta = {decay}: error of the variance"] = variance
        first = (found.max(0) < LIMIT).argmax() + 1
        numbers[f"beta = {decay}: batches until both are within 5 %"] = first
        numbers[f"beta = {decay}: average of std / root of average var"] = below[decay].mean()
    return Result(
        claims={
            "After many batches mean and variance are within 5 %": truth(near),
            "The error of the mean is sqrt((1 - beta) / (1 + beta) / n), within a tenth": truth(
                like_theory
            ),
            "An average of standard deviations is below the root of averaged variances": truth(
                [(ratio <= 1).all() for ratio in below.values()]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, error, below),
    )
