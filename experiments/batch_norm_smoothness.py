"""Does BatchNorm make the loss smoother along the gradient?

At every stage of training the gradient g at w is followed for steps of many lengths t:

    range of the loss      max - min over t of L(w - t g)
    change of gradient     max over t of |g(w - t g) - g|
    curvature              max over t of |g(w - t g) - g| / |t g|

The nets are MLPs of ten layers that differ in BatchNorm alone, trained at the same rate on the
shipped digits; t goes from half to four times the rate, as in the paper. Each is a mean over the
seeds of the logarithm, at each stage; the loss is that of a large batch in train mode.

References:
    S. Santurkar, D. Tsipras, A. Ilyas, A. Madry, "How does batch normalization help optimization?",
    2018, figure 4.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import losses, models, nn, optim, tree

DEPTH, WIDTH = 10, 32
FACTORS = np.array([0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4], np.float32)  # of the rate
KINDS = {"without BatchNorm": "none", "with BatchNorm": "batch"}
MEASURES = ("range of the loss", "change of gradient", "curvature")


@dataclasses.dataclass(frozen=True)
class Config:
    """Both nets at every rate from every seed.

    Attributes:
        rates: of gradient descent.
        stages: at which the gradient is followed.
        steps: from one stage to the next.
        batch_size: of the mini-batches.
        examples: of the loss that is looked at.
        seeds: of the params and of the batches.
    """

    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    stages: int = 60
    steps: int = 5
    batch_size: int = 64
    examples: int = 512
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(rates=(0.03,), stages=4, steps=10, examples=64, seeds=(0, 1)),
    "default": Config(),
    "full": Config(stages=300, examples=1024, seeds=tuple(range(20))),
}


def made(norm: str) -> nn.Layer:
    return models.mlp([WIDTH] * (DEPTH - 1) + [10], norm=norm)


def along_gradient(net: nn.Layer, rate, params, state, x, labels) -> jax.Array:
    """Returns the loss and the three measures of a stage, (4,)."""

    def loss(params):
        logits, _ = net.apply(params, state, x, nn.Context(train=True))
        return losses.softmax_cross_entropy(logits, labels).mean()

    here, g = jax.value_and_grad(loss)(params)

    def at(t):
        value, gradient = jax.value_and_grad(loss)(jax.tree.map(lambda w, d: w - t * d, params, g))
        change = tree.global_norm(jax.tree.map(jnp.subtract, gradient, g))
        return value, change, change / (t * tree.global_norm(g))

    values, change, curvature = jax.vmap(at)(rate * FACTORS)
    return jnp.stack([here, values.max() - values.min(), change.max(), curvature.max()])


def measure(config: Config, norm: str) -> np.ndarray:
    """Returns what `along_gradient` does, (rates, seeds, stages + 1, 4)."""
    net = made(norm)
    x, labels = (part[: config.examples] for part in _digits.examples()[0])

    def run(rate, seed, order):
        def see(params, state, opt_state):
            return along_gradient(net, rate, params, state, x, labels)

        return _digits.train(net, optim.sgd(rate), seed, order, see)

    n = len(_digits.examples()[0][0])
    epochs = -(-config.stages * config.steps // (n // config.batch_size))
    order = _digits.orders(n, config.batch_size, epochs, config.seeds)
    steps = order.reshape(len(config.seeds), -1, config.batch_size)
    steps = steps[:, : config.stages * config.steps]
    order = steps.reshape(len(config.seeds), config.stages, config.steps, config.batch_size)
    over = jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None))
    return np.asarray(jax.jit(over)(jnp.array(config.rates), jnp.array(config.seeds), order))


def logs(found) -> np.ndarray:
    """Returns the mean over seeds of the log of the three measures, (rates, stages + 1, 3)."""
    return np.log(found[..., 1:]).mean(1)


def draw(config: Config, found):
    """Draws the measures of one rate over training, and the ratios at all rates."""
    figure, row = panels("Does BatchNorm make the loss smoother along the gradient?", 4, width=4)
    shown = len(config.rates) // 2
    steps = config.steps * np.arange(config.stages + 1)
    for color, (name, values) in zip(("C1", "C0"), found.items(), strict=True):
        for axes, i in zip(row[:3], range(1, 4), strict=True):
            every = np.log(values[shown, :, :, i])
            axes.semilogy(steps, np.exp(every.mean(0)), color, lw=2, label=name)
            axes.fill_between(steps, *np.exp([every.min(0), every.max(0)]), color=color, alpha=0.2)
    for axes, name in zip(row[:3], MEASURES, strict=True):
        axes.set(xlabel="step")
        axes.set_title(f"{name.capitalize()}, rate {config.rates[shown]:g}", fontsize=11)
    row[0].legend(fontsize=9)
    ratio = ratios(found)
    for i, name in enumerate(MEASURES):
        row[3].loglog(config.rates, np.exp(ratio[..., i].mean(1)), f"C{i + 2}o-", label=name)
    row[3].axhline(1, color="black", lw=1, ls=":")
    row[3].set(xlabel="rate", ylabel="with BatchNorm / without")
    row[3].set_title("Mean over training", fontsize=11)
    row[3].legend(fontsize=9)
    return figure


def ratios(found) -> np.ndarray:
    """Returns log(with / without) of each measure, (rates, stages + 1, 3)."""
    without, with_norm = (logs(values) for values in found.values())
    return with_norm - without


def run(config: Config) -> Result:
    """Follows the gradients of both nets through training."""
    found = {name: measure(config, norm) for name, norm in KINDS.items()}
    ratio = ratios(found)
    numbers = {}
    for r, rate in enumerate(config.rates):
        for name, values in found.items():
            numbers[f"rate {rate:g}, {name}: loss at the end"] = values[r, :, -1, 0].mean()
        for i, what in enumerate(MEASURES):
            numbers[f"rate {rate:g}: {what}, with BatchNorm / without"] = np.exp(
                ratio[r, :, i].mean()
            )
    every = {what: truth(ratio[..., i].mean(1) < 0) for i, what in enumerate(MEASURES)}
    without, with_norm = (values[:, :, -1, 0].mean(1) for values in found.values())
    return Result(
        claims={
            "With BatchNorm the loss changes less along the gradient, over training": every[
                MEASURES[0]
            ],
            "With BatchNorm the gradient changes less along it": every[MEASURES[1]],
            "With BatchNorm it changes less for its own length: the curvature is lower": every[
                MEASURES[2]
            ],
            "With BatchNorm the loss ends lower at the same rate": truth(with_norm < without),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
