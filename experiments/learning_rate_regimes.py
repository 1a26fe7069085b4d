"""Which learning rate is the best one?

The loss curves that every course shows: at a very high rate the loss rises, at a high one it falls
fast and gets stuck, at a good one it falls far, at a low one slowly. The answer that goes with
them: all of them, one after the other; begin high and decay.

An MLP is trained by plain SGD on the shipped digits: as they are, which it learns by heart, so that
in the end the gradients of all mini-batches agree on 0; and with noise that each image gets anew at
every visit, as from augmentation, so that they never do. Good is the kept rate whose loss ends
lowest, high the next larger one; low and very high are the ends of the range. Each rate is kept, or
decayed to 0 on a cosine. The loss is that of the whole training set, with noise if trained with it.

References:
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, section 8.3.1.
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, optim, schedules

NET = models.mlp([32, 10])
GUESSING = np.log(10)
DIVERGED = 1e6  # for a loss that is not finite
COLORS = {"very high": "C3", "high": "C1", "good": "C2", "low": "C0"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate, kept and decayed, on both data sets from every seed.

    Attributes:
        rates: ascending.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and of the batches.
    """

    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(rates=(0.001, 0.1, 10.0), epochs=2, seeds=(0,)),
    "default": Config(),
    "full": Config(epochs=200, seeds=tuple(range(10))),
}


def training_loss(config: Config, noise: float, decay: bool) -> np.ndarray:
    """Returns the median over seeds, before the first epoch and after each, (rates, epochs + 1)."""
    order = _digits.orders(
        len(_digits.examples()[0][0]), config.batch_size, config.epochs, config.seeds
    )

    def run(rate, seed, order):
        steps = order.shape[0] * order.shape[1]
        tx = optim.sgd(schedules.cosine(rate, steps=steps) if decay else rate)
        return _digits.training_loss(NET, tx, seed, order, noise=noise)

    runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    found = np.asarray(runs(jnp.array(config.rates), jnp.array(config.seeds), order))
    return np.median(np.nan_to_num(found, nan=DIVERGED, posinf=DIVERGED), 1)


def regimes(kept) -> dict[str, int]:
    """Names four of the rates, by their number."""
    good, last = int(kept[:, -1].argmin()), len(kept) - 1
    return {"very high": last, "high": min(good + 1, last), "good": good, "low": 0}


def draw(config: Config, kept, decayed):
    """Draws the four regimes beside the best decayed rate, and what each rate ends at."""
    figure, (*curves, last) = panels("Which learning rate is the best one?", 3)
    for axes, name in zip(curves, _digits.NOISE, strict=True):
        for regime, i in regimes(kept[name]).items():
            label = f"{regime}: {config.rates[i]:g}"
            axes.semilogy(kept[name][i], color=COLORS[regime], lw=2, label=label)
        best = decayed[name][:, -1].argmin()
        label = f"decayed from {config.rates[best]:g}"
        axes.semilogy(decayed[name][best], "k--", lw=2, label=label)
        axes.set(xlabel="epoch", ylabel="training loss")
        axes.set_ylim(0.7 * min(kept[name].min(), decayed[name].min()), 12)
        axes.set_title(name.capitalize(), fontsize=11)
        axes.legend(loc="upper right", framealpha=0.95)
    for color, name in zip(("C4", "C5"), _digits.NOISE, strict=True):
        for line, how, found in (("-", "kept", kept), ("--", "decayed", decayed)):
            label = f"{name}, {how}"
            last.loglog(config.rates, found[name][:, -1], "o" + line, color=color, label=label)
    last.axhline(GUESSING, color="black", lw=1, ls=":")
    last.text(config.rates[0], 1.15 * GUESSING, "guessing")
    last.set(xlabel="rate", ylabel=f"training loss after {config.epochs} epochs", ylim=(None, 20))
    last.set_title("What each rate ends at", fontsize=11)
    last.legend(fontsize=9, loc="lower left")
    return figure


def run(config: Config) -> Result:
    """Trains at all rates, kept and decayed, and compares where the losses lead."""
    kept = {name: training_loss(config, noise, False) for name, noise in _digits.NOISE.items()}
    decayed = {name: training_loss(config, noise, True) for name, noise in _digits.NOISE.items()}
    numbers, guesses, high_first, slow, decay_wins = {}, [], [], [], []
    for name in _digits.NOISE:
        at = regimes(kept[name])
        very_high, high, good, low = (kept[name][i] for i in at.values())
        best = decayed[name][:, -1].argmin()
        for regime, i in at.items():
            numbers[f"{name}, {regime}: rate"] = config.rates[i]
            numbers[f"{name}, {regime}: loss after one epoch"] = kept[name][i, 1]
            numbers[f"{name}, {regime}: loss at the end"] = kept[name][i, -1]
        numbers[f"{name}, best decayed: rate"] = config.rates[best]
        numbers[f"{name}, best decayed: loss at the end"] = decayed[name][best, -1]
        guesses.append(very_high[-1] > GUESSING)
        high_first.append(high[1] < good[1] and high[-1] > good[-1])
        slow.append((np.diff(low) < 0).all() and low[-1] > good[-1])
        decay_wins.append(decayed[name][best, -1] < good[-1])
    return Result(
        claims={
            "At a very high rate nothing is learned: the loss ends above that of guessing": truth(
                guesses
            ),
            "At a high rate the loss is lower than at the good one after an epoch, and ends"
            " higher": truth(high_first),
            "At a low rate it falls in every epoch, and ends higher": truth(slow),
            "All of them: the best decayed rate ends below every one that is kept": truth(
                decay_wins
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, kept, decayed),
    )
