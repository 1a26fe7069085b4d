"""Does BatchNorm forgive a bad initialization and a high learning rate?

An MLP of six layers learns the shipped digits for a few epochs, with and without BatchNorm before
its ReLUs, from every scale of the weights (1 is He's) at every rate of momentum. A map of test
accuracies, 10 % being that of guessing, and counting as learned what reaches 90 %.

With BatchNorm a layer's output does not depend on the scale a of its weights, and its gradient goes
as 1 / a. So a step at rate eps turns weights of scale a as far as one at rate eps / a^2 would at
scale 1: the scale only shifts the range of rates, and the last layer, which no BatchNorm follows,
is what is left of it.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3.3.
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import nn, optim

HE = nn.initializers.he_normal()
LEARNED = 0.9
WIDTH, DEPTH = 32, 6
KINDS = {"without BatchNorm": False, "with BatchNorm": True}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every scale at every rate from every seed.

    Attributes:
        scales: of the weights, in units of He's, ascending.
        rates: of momentum, ascending.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and of the batches.
    """

    scales: tuple[float, ...] = tuple(2.0**k for k in range(-4, 5))
    rates: tuple[float, ...] = tuple(round(10 ** (k / 2), 5) for k in range(-7, 4))
    epochs: int = 5
    batch_size: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "smoke": Config(scales=(0.25, 1.0, 4.0), rates=(0.01, 0.1, 1.0), epochs=4, seeds=(0,)),
    "default": Config(),
    "full": Config(epochs=20, seeds=tuple(range(10))),
}


def net(scale, batch_norm: bool) -> nn.Layer:
    """Makes a net whose weights have `scale` times He's standard deviation."""

    def scaled(key, shape, dtype):
        return scale.astype(dtype) * HE(key, shape, dtype)

    layers = [nn.flatten()]
    for _ in range(DEPTH - 1):
        norm = [nn.batch_norm()] if batch_norm else []
        layers += [nn.dense(WIDTH, bias=not norm, kernel_init=scaled), *norm, nn.relu]
    return nn.serial(*layers, nn.dense(10, kernel_init=scaled))


def accuracies(config: Config, batch_norm: bool) -> np.ndarray:
    """Returns the test accuracy after the last epoch, mean over seeds, (scales, rates)."""
    (x, _), test = _digits.examples()

    def run(scale, rate, seed, order):
        made = net(scale, batch_norm)

        def see(params, state, opt_state):
            return _digits.evaluate(made, params, state, *test)[1]

        return _digits.train(made, optim.momentum(rate), seed, order, see)[-1]

    order = _digits.orders(len(x), config.batch_size, config.epochs, config.seeds)
    over = jax.vmap(run, (None, None, 0, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None, None)), (0, None, None, None))
    found = jax.jit(over)(
        jnp.array(config.scales), jnp.array(config.rates), jnp.array(config.seeds), order
    )
    return np.asarray(found).mean(-1)


def highest(config: Config, found) -> np.ndarray:
    """Returns the highest rate that learns, by scale; 0 for none."""
    return (np.array(config.rates) * (found >= LEARNED)).max(1)


def draw(config: Config, found):
    """Draws the two maps, and the range of rates that learn by scale."""
    title = "Does BatchNorm forgive a bad initialization and a high learning rate?"
    figure, (*maps, last) = panels(title, 3)
    for axes, (name, accuracy) in zip(maps, found.items(), strict=True):
        image = axes.pcolormesh(100 * accuracy, cmap="viridis", vmin=0, vmax=100)
        for at in np.argwhere(accuracy >= LEARNED):
            axes.text(
                at[1] + 0.5,
                at[0] + 0.5,
                f"{100 * accuracy[*at]:.0f}",
                ha="center",
                va="center",
                fontsize=7,
            )
        axes.set_xticks(
            np.arange(len(config.rates)) + 0.5,
            [f"{r:.2g}" for r in config.rates],
            rotation=45,
            fontsize=8,
        )
        axes.set_yticks(np.arange(len(config.scales)) + 0.5, [f"{s:g}" for s in config.scales])
        axes.set(xlabel="rate", ylabel="scale of the weights / He's")
        axes.grid(False)
        learned = 100 * (accuracy >= LEARNED).mean()
        axes.set_title(f"{name[0].upper()}{name[1:]}: {learned:.0f} % learn", fontsize=11)
    figure.colorbar(image, ax=maps, label="test accuracy [%]")
    for i, (name, accuracy) in enumerate(found.items()):
        last.semilogx(config.scales, 100 * accuracy.max(1), f"C{1 - i}o-", lw=2, label=name)
    last.axhline(100 * LEARNED, color="black", lw=1, ls=":")
    last.set(xlabel="scale of the weights / He's", ylabel="test accuracy [%]", ylim=(0, 120))
    last.set_title("At the best rate", fontsize=11)
    last.legend(loc="upper center", ncols=2, fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Trains everywhere on both maps."""
    found = {name: accuracies(config, batch_norm) for name, batch_norm in KINDS.items()}
    without, with_norm = found.values()
    numbers = {}
    for name, accuracy in found.items():
        numbers[f"{name}: share of the map that learns"] = (accuracy >= LEARNED).mean()
        numbers[f"{name}: share of the scales that learn"] = (accuracy.max(1) >= LEARNED).mean()
        for scale, rate in zip(config.scales, highest(config, accuracy), strict=True):
            numbers[f"{name}, scale {scale:g}: highest rate that learns"] = rate
    learns = with_norm >= LEARNED
    return Result(
        claims={
            "With BatchNorm every rate and scale that learns without it learns": truth(
                learns[without >= LEARNED]
            ),
            "With BatchNorm every scale learns at some rate": truth(learns.any(1)),
            "Without BatchNorm it does": truth((without >= LEARNED).any(1)),
            "With BatchNorm higher rates learn, from every scale": truth(
                highest(config, with_norm) > highest(config, without)
            ),
            "With BatchNorm any rate that learns from He's scale learns from all": truth(
                learns[:, learns[config.scales.index(1.0)]]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
