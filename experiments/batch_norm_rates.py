"""Does BatchNorm allow higher rates and a less careful initialization?

An MLP of four hidden layers of ReLUs is trained on the shipped digits with and without BatchNorm,
by plain gradient descent, at every rate and with He's kernels times every scale. The last layer has
He's kernels as they are: nothing follows it that could undo a scale. A run counts as trained
if it ends with a test accuracy of 90 % on the average over seeds.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015.
    S. Santurkar, D. Tsipras, A. Ilyas, A. Madry, "How does batch normalization help optimization?",
    2018.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, nn, optim

TRAINED = 0.9  # accuracy
HE = nn.initializers.he_normal()
NETS = {"without BatchNorm": "none", "with BatchNorm": "batch"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate with every scale of the kernels, with and without BatchNorm, from every seed.

    Attributes:
        rates: ascending.
        scales: of the hidden layers' kernels, ascending, 1 among them.
        widths: of the hidden layers.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and the batches.
    """

    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    scales: tuple[float, ...] = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    widths: tuple[int, ...] = (32, 32, 32, 32)
    epochs: int = 15
    batch_size: int = 32
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "smoke": Config(rates=(0.1, 1.0), scales=(0.1, 1.0), widths=(16, 16, 16), epochs=3, seeds=(0,)),
    "default": Config(),
    "full": Config(epochs=30, seeds=tuple(range(10))),
}


def make(config: Config, norm: str, scale) -> nn.Layer:
    """Returns the net, its hidden kernels times `scale`."""

    def scaled(path, layer):
        if layer.kind != "dense" or layer.options["features"] == 10:
            return layer
        return layer.replace(kernel_init=lambda *args: scale * HE(*args))

    return nn.rewrite(models.mlp([*config.widths, 10], norm=norm), scaled)


def accuracies(config: Config, norm: str) -> np.ndarray:
    """Returns the mean test accuracies after the last epoch, (scales, rates)."""
    (x, _), (test_x, labels) = (tuple(map(jnp.asarray, part)) for part in _digits.examples())
    order = _digits.orders(len(x), config.batch_size, config.epochs, config.seeds)
    order = order.reshape(len(order), 1, -1, config.batch_size)  # look at the end only

    def run(scale, rate, seed, order):
        net = make(config, norm, scale)

        def see(params, state, opt_state):
            return _digits.evaluate(net, params, state, test_x, labels)[1]

        return _digits.train(net, optim.sgd(rate), seed, order, see)[-1]

    over = jax.vmap(run, (None, None, 0, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None, None)), (0, None, None, None))
    scales, rates, seeds = map(jnp.array, (config.scales, config.rates, config.seeds))
    return np.asarray(jax.jit(over)(scales, rates, seeds, order)).mean(-1)


def draw(config: Config, found):
    """Draws the accuracy at every rate and scale with and without BatchNorm."""
    figure, row = panels("Does BatchNorm allow higher rates and careless scales?", 2, width=6.0, sharey=True)
    for axes, (name, accuracy) in zip(row, found.items(), strict=True):
        image = axes.imshow(100 * accuracy, vmin=0, vmax=100, cmap="viridis", origin="lower")
        axes.grid(False)
        for (i, j), a in np.ndenumerate(accuracy):
            color = "black" if a > 0.6 else "white"
            weight = "bold" if a >= TRAINED else "normal"
            text = {"ha": "center", "va": "center", "fontsize": 9}
            axes.text(j, i, f"{100 * a:.0f}", color=color, weight=weight, **text)
        axes.set_xticks(range(len(config.rates)), [f"{rate:g}" for rate in config.rates])
        axes.set_yticks(range(len(config.scales)), [f"{scale:g}" for scale in config.scales])
        trained = (accuracy >= TRAINED).sum()
        axes.set_title(f"{name[0].upper()}{name[1:]}: {trained} of {accuracy.size} train", fontsize=11)
        axes.set(xlabel="rate")
    row[0].set(ylabel="kernels, in units of He's")
    figure.colorbar(image, ax=row, label="test accuracy [%]")
    return figure


def run(config: Config) -> Result:
    """Trains everywhere and compares where it succeeds."""
    found = {name: accuracies(config, norm) for name, norm in NETS.items()}
    without, with_norm = trained = [accuracy >= TRAINED for accuracy in found.values()]
    one = config.scales.index(1.0)

    def highest(trained) -> float:
        return max((r for r, t in zip(config.rates, trained[one], strict=True) if t), default=0)

    scales = [int(t.any(1).sum()) for t in trained]
    rates = [highest(t) for t in trained]
    numbers = {}
    for name, t, s, r in zip(NETS, trained, scales, rates, strict=True):
        numbers[f"{name}: combinations that train, of {t.size}"] = t.sum()
        numbers[f"{name}: scales that train at some rate"] = s
        numbers[f"{name}: highest rate that trains He's kernels"] = r
        numbers[f"{name}: best accuracy [%]"] = 100 * found[name].max()
    return Result(
        claims={
            "More combinations of rate and scale train with BatchNorm": truth(
                with_norm.sum() > without.sum()
            ),
            "All that train without train with it": truth(with_norm[without]),
            "Higher rates train with it, from He's kernels": truth(rates[1] > rates[0]),
            "More scales train with it, each at its best rate": truth(scales[1] > scales[0]),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
