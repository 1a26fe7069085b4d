"""Does dropout keep units from relying on each other?

An MLP with one hidden layer is trained on the shipped digits with dropout of several rates. Two
measures of how far its units depend on each other, on the test set:

- the mean magnitude of the correlation of two units that both vary, over the images,
- the accuracy that is left when a share of the units is removed at random and the others are scaled
  up as in training: what a net needs all of its units for is lost.

References:
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014,
    section 7.1.
    M. Cogswell, F. Ahmed, R. Girshick, L. Zitnick, D. Batra, "Reducing overfitting in deep networks
    by decorrelating representations", 2016.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import nn, optim

SAMPLES = 20  # of the removed units


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate from every seed.

    Attributes:
        rates: of the dropout after the hidden layer, ascending from 0.
        removed: shares of the units that are taken away, ascending from 0.
        width: units of the hidden layer.
        examples: training images.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the masks.
    """

    rates: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    removed: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
    width: int = 128
    examples: int = 512
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(
        rates=(0.0, 0.5), removed=(0.0, 0.8), width=64, examples=256, epochs=20, seeds=(0, 1)
    ),
    "default": Config(),
    "full": Config(examples=1024, seeds=tuple(range(50))),
}


def made(config: Config, rate) -> nn.Layer:
    hidden = nn.serial(nn.flatten(), nn.dense(config.width), nn.relu)
    return nn.serial(hidden=hidden, drop=nn.dropout(rate), out=nn.dense(10))


def hidden(config: Config, params, x):
    return made(config, 0.0).options["hidden"].apply(params["hidden"], {}, x, nn.EVAL)[0]


def correlation(h) -> jax.Array:
    """Returns the mean |correlation| of different units, without those that are constant."""
    d = h - h.mean(0)[None]
    std = jnp.sqrt((d * d).mean(0))
    u = d / jnp.where(std > 0, std, 1)[None]
    c = jnp.abs(u.T @ u) / len(h)
    pair = (std > 0)[:, None] & (std > 0)[None] & ~jnp.eye(len(c), dtype=bool)
    return jnp.where(pair, c, 0).sum() / pair.sum(dtype=c.dtype)


def accuracy_without(config: Config, params, x, labels, share: float, key):
    """Returns the accuracy with a share of the units removed, for all images the same."""
    keep = round((1 - share) * config.width)

    def one(key):
        kept = jax.random.permutation(key, config.width) < keep
        h = jnp.where(kept[None], hidden(config, params, x), 0) * (config.width / keep)
        logits = h @ params["out"]["kernel"] + params["out"]["bias"][None]
        return (logits.argmax(-1) == labels).mean(dtype=h.dtype)

    return jax.vmap(one)(jax.random.split(key, SAMPLES)).mean()


def train(config: Config, rate: float):
    """Returns test loss, correlation (seeds, epochs + 1), and accuracies by share, (seeds, ...)."""
    net, test = made(config, rate), _digits.examples()[1]

    def see(params, state, opt_state):
        loss, _ = _digits.evaluate(net, params, state, *test)
        return loss, correlation(hidden(config, params, test[0])), params

    def run(seed, order):
        loss, found, params = _digits.train(net, optim.momentum(0.03), seed, order, see)
        last = jax.tree.map(lambda p: p[-1], params)
        key = jax.random.key(0)
        left = [accuracy_without(config, last, *test, share, key) for share in config.removed]
        return loss, found, jnp.stack(left)

    order = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    found = jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)
    return [np.asarray(f) for f in found]


def draw(config: Config, found):
    """Draws test losses, correlations and what is left of the accuracy."""
    title = "Does dropout keep units from relying on each other?"
    figure, (left, middle, right) = panels(title, 3)
    for i, (rate, (loss, correlations, accuracy)) in enumerate(found.items()):
        color = f"C{i}"
        left.semilogy(loss.mean(0), color, lw=2, label=f"rate {rate:g}")
        for run in correlations:
            middle.plot(run, color, lw=0.5, alpha=0.5)
        middle.plot(correlations.mean(0), color, lw=2)
        right.plot(100 * np.array(config.removed), 100 * accuracy.mean(0), f"{color}o-", lw=2)
    left.set(xlabel="epoch", ylabel="test loss")
    left.set_title(f"{config.examples} images to learn from", fontsize=11)
    left.legend()
    middle.set(xlabel="epoch", ylabel="mean |correlation|")
    middle.set_title("Correlation of two hidden units", fontsize=11)
    right.set(xlabel="units removed [%]", ylabel="test accuracy [%]", ylim=(0, 102))
    right.set_title("What is left without some of the units", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Trains at all rates and compares with no dropout."""
    found = {rate: train(config, rate) for rate in config.rates}
    losses, correlations, accuracies = (
        np.stack([f[i][:, -1] if i < 2 else f[i] for f in found.values()]) for i in range(3)
    )
    numbers = {}
    for i, rate in enumerate(config.rates):
        numbers[f"rate {rate}: test loss"] = losses[i].mean()
        numbers[f"rate {rate}: mean |correlation|"] = correlations[i].mean()
        for share, accuracy in zip(config.removed, accuracies[i].mean(0), strict=True):
            numbers[f"rate {rate}: accuracy without {share:g} of the units"] = accuracy
    removed = np.array(config.removed) >= 0.5
    more = accuracies[1:].mean(1)[:, removed] > accuracies[:1].mean(1)[:, removed]
    return Result(
        claims={
            "With dropout the mean |correlation| of two hidden units is lower": truth(
                correlations[1:].mean(1) < correlations[0].mean()
            ),
            "With dropout more of the accuracy is left without half of the units, or more": truth(
                more
            ),
            "With dropout the test loss is lower": truth(losses[1:].mean(1) < losses[0].mean()),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
