"""Does the loss drop when the learning rate is cut after epochs 30, 60 and 90?

The picture is that of residual nets on ImageNet: the loss levels off, the rate is cut to a tenth,
and within an epoch the loss falls to a new level. It shows one run, with all the cuts.

Here the control of each cut is the same run without it: same params, same batches, same cuts
before. An MLP is trained with momentum 0.9 on the shipped digits, as they are and with noise that
each image gets anew at every visit, at several rates. The loss is that of the whole training set,
with noise if trained with it. A cut drops the loss if it is lower an epoch later than in the
control: if the mean over seeds of the log of their ratio is below 0 by over three standard errors.

References:
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, optim, schedules

NET = models.mlp([32, 10])
FACTOR = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate on both data sets from every seed, with no cut, the first, the first two, ...

    Attributes:
        cuts: the epochs after which the rate is cut.
        epochs: of each run.
        rates: before the first cut, descending.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the noise.
    """

    cuts: tuple[int, ...] = (30, 60, 90)
    epochs: int = 100
    rates: tuple[float, ...] = (0.1, 0.03, 0.01)
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(cuts=(6,), epochs=8, rates=(0.1,), seeds=(0, 1, 2, 3)),
    "default": Config(),
    "full": Config(seeds=tuple(range(50))),
}


def factors(cuts: int) -> np.ndarray:
    """Returns the rate's factors before and after each cut where none, one, two, ... are made."""
    made = np.arange(cuts + 1)
    return FACTOR ** np.minimum(made[:, None], made[None])


def training_loss(config: Config, noise: float) -> np.ndarray:
    """Trains at every rate with none of the cuts, the first, the first two, ..., all.

    Returns:
        The losses before training and after each epoch, (rates, cuts + 1, seeds, epochs + 1).
    """
    order = _digits.orders(
        len(_digits.examples()[0][0]), config.batch_size, config.epochs, config.seeds
    )
    boundaries = [cut * order.shape[2] for cut in config.cuts]

    def run(rates, seed, order):
        tx = optim.momentum(schedules.join(list(rates), boundaries))
        return _digits.training_loss(NET, tx, seed, order, noise=noise)

    over = jax.vmap(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)), (0, None, None))
    rates = jnp.asarray(np.multiply.outer(config.rates, factors(len(config.cuts))), float)
    return np.asarray(jax.jit(over)(rates, jnp.array(config.seeds), order))


def effects(config: Config, loss) -> np.ndarray:
    """Returns log(loss / that of the control) an epoch after each cut, (rates, cuts, seeds)."""
    log = np.log(loss)
    return np.stack(
        [log[:, i + 1, :, c + 1] - log[:, i, :, c + 1] for i, c in enumerate(config.cuts)], 1
    )


def standard_error(x) -> np.ndarray:
    return x.std(-1, ddof=1) / x.shape[-1] ** 0.5


def draw(config: Config, losses, effect):
    """Draws the losses at the first two rates, and what each cut does at once."""
    title = (
        f"Does the loss drop when the rate is cut after epochs {', '.join(map(str, config.cuts))}?"
    )
    figure, (*curves, last) = panels(title, 3)
    for axes, (name, loss) in zip(curves, losses.items(), strict=True):
        for r, rate in enumerate(config.rates):
            without, all_cuts = np.median(loss[r], 1)[[0, -1]]
            axes.semilogy(without, f"C{r}", lw=1, alpha=0.6)
            axes.semilogy(all_cuts, f"C{r}", lw=2.5, label=f"rate {rate:g}")
        for cut in config.cuts:
            axes.axvline(cut, color="black", lw=1, ls=":")
        axes.plot([], [], "0.5", lw=1, label="without cuts")
        axes.set(xlabel="epoch", ylabel="training loss", ylim=(0.7 * loss.min(), 2))
        axes.set_title(name.capitalize(), fontsize=11)
        axes.legend(loc="upper right")
    ticks = [
        f"{name.replace(' with', chr(10) + 'with')},\n{rate:g}"
        for name in losses
        for rate in config.rates
    ]
    for i, cut in enumerate(config.cuts):
        changes = np.concatenate([effect[name][:, i] for name in losses])
        at = np.arange(len(changes)) + (i - 1) / 5
        mean, error = 100 * np.expm1(changes.mean(-1)), 300 * standard_error(changes)
        last.errorbar(
            at, mean, error, fmt="o", color=f"C{i + 3}", capsize=3, label=f"cut after {cut}"
        )
    last.axhline(0, color="black", lw=1, ls=":")
    last.set_xticks(range(len(ticks)), ticks, fontsize=8)
    last.set(ylabel="loss against the same run without the cut [%]")
    last.set_title("An epoch after the cut, with three standard errors", fontsize=11)
    last.legend()
    return figure


def run(config: Config) -> Result:
    """Trains with and without each cut and compares losses at once and at the end."""
    losses = {name: training_loss(config, noise) for name, noise in _digits.NOISE.items()}
    effect = {name: effects(config, loss) for name, loss in losses.items()}
    numbers, drops, lower = {}, {}, []
    for name, loss in losses.items():
        drops[name] = effect[name].mean(-1) < -3 * standard_error(effect[name])
        lower.append(np.median(loss[:, -1, :, -1], 1) < np.median(loss[:, 0, :, -1], 1))
        for r, rate in enumerate(config.rates):
            for i, cut in enumerate(config.cuts):
                what = f"{name}, rate {rate}: change by the cut after {cut} [%]"
                numbers[what] = 100 * np.expm1(effect[name][r, i].mean())
            for which, what in ((0, "without cuts"), (-1, "with all cuts")):
                numbers[f"{name}, rate {rate}: end {what}"] = np.median(loss[r, which, :, -1])
    noisy = drops["digits with noise"]
    return Result(
        claims={
            "The loss drops within an epoch of every cut": truth(list(drops.values())),
            "With noise that stays it drops at the first cut": truth(noisy[:, 0]),
            "With all cuts the loss ends lower than with none": truth(lower),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, losses, effect),
    )
