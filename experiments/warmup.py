"""Does a warm-up let a net train at a rate at which it would fail without?

The rate rises linearly from 0 over the first epochs, or is there from the first step. Two deep nets
without normalization are trained on the shipped digits: a plain one, and a residual one, whose
branches add to the variance block by block, so that its first logits and gradients are large. A run
has failed if its training loss does not end below half of ln 10, the loss of guessing.

References:
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
    H. Zhang, Y. Dauphin, T. Ma, "Fixup initialization: residual learning without normalization",
    2019.
    J. Gilmer et al., "A loss curvature perspective on training instabilities of deep learning
    models", 2022: why rates fail early, and where they do not.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, nn, optim, schedules

WIDTH, DEPTH = 32, 8
RELU = jax.nn.relu
BRANCH = nn.serial(RELU, nn.dense(WIDTH), RELU, nn.dense(WIDTH))
NETS = {
    "plain": models.mlp([WIDTH] * DEPTH + [10]),
    "residual": nn.serial(
        nn.flatten(), nn.dense(WIDTH), *[nn.residual(BRANCH)] * (DEPTH // 2), RELU, nn.dense(10)
    ),
}
OPTIMIZERS = {"momentum": (optim.momentum, 0.02), "Adam": (optim.adam, 0.01)}  # and the least rate
FAILED = np.log(10) / 2
STARTS = {"without": 1.0, "with": 0.0}  # of the warm-up, as shares of the rate
LINES = {"momentum": "o-", "Adam": "s--"}
COLORS = dict(zip(STARTS, ("C3", "C0"), strict=True))


@dataclasses.dataclass(frozen=True)
class Config:
    """Every net with every optimizer at every rate from every seed, without and with warm-up.

    Attributes:
        nets: names in `NETS`.
        optimizers: names in `OPTIMIZERS`.
        rates: how many, each the root of 2 times the last.
        epochs: of each run.
        warm: epochs of the warm-up.
        batch_size: of the mini-batches.
        seeds: of the params and of the batches.
    """

    nets: tuple[str, ...] = ("plain", "residual")
    optimizers: tuple[str, ...] = ("momentum", "Adam")
    rates: int = 8
    epochs: int = 20
    warm: int = 5
    batch_size: int = 128
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(nets=("residual",), optimizers=("Adam",), epochs=8, warm=3, seeds=(0, 1, 2, 3)),
    "default": Config(),
    "full": Config(rates=10, epochs=60, seeds=tuple(range(20))),
}


def rates(optimizer: str, config: Config) -> np.ndarray:
    return OPTIMIZERS[optimizer][1] * 2 ** (np.arange(config.rates) / 2)


def training_loss(net: str, optimizer: str, config: Config) -> dict[str, np.ndarray]:
    """Returns losses without and with warm-up before training and after each epoch.

    Each is (rates, seeds, epochs + 1).
    """
    n = len(_digits.examples()[0][0])
    order = _digits.orders(n, config.batch_size, config.epochs, config.seeds)

    def run(start, rate, seed, order):
        schedule = schedules.warmup(rate, steps=config.warm * order.shape[1], start=start * rate)
        tx = OPTIMIZERS[optimizer][0](schedule)
        return _digits.training_loss(NETS[net], tx, seed, order)

    over_rates = jax.vmap(jax.vmap(run, (None, None, 0, 0)), (None, 0, None, None))
    over_starts = jax.jit(jax.vmap(over_rates, (0, None, None, None)))
    starts = jnp.array(list(STARTS.values()))
    rate, seeds = jnp.asarray(rates(optimizer, config), float), jnp.array(config.seeds)
    found = np.asarray(over_starts(starts, rate, seeds, order))
    return dict(zip(STARTS, found, strict=True))


def draw(config: Config, found, failed):
    """Draws the runs at the rate where warm-up matters most, and the shares of failed runs."""
    title = "Does a warm-up let a net train at a rate at which it would fail without?"
    figure, (left, *shares) = panels(title, 1 + len(config.nets))
    gains = {case: by_how["without"] - by_how["with"] for case, by_how in failed.items()}
    net, optimizer = max(gains, key=lambda case: gains[case].max())
    best = int(gains[net, optimizer].argmax())
    for how, color in COLORS.items():
        for run in found[net, optimizer][how][best]:
            end = next((k for k, x in enumerate(run) if not x < 1e3), len(run))
            left.semilogy(run[:end], color=color, lw=1, alpha=0.7)
            if end < len(run):
                left.plot(end, 2e3, "X", color=color, ms=9)
        left.plot([], [], color=color, lw=2, label=f"{how} warm-up")
    left.axvspan(0, config.warm, color="C0", alpha=0.1, lw=0)
    left.axhline(FAILED, color="black", lw=1, ls=":", label="failed above")
    left.locator_params("x", integer=True)
    left.set(xlabel="epoch", ylabel="training loss")
    rate = rates(optimizer, config)[best]
    left.set_title(f"{net.capitalize()} net, {optimizer}, rate {rate:.3g}", fontsize=11)
    left.legend()
    for axes, net in zip(shares, config.nets, strict=True):
        for optimizer in config.optimizers:
            for how, color in COLORS.items():
                share = 100 * failed[net, optimizer][how]
                label = f"{optimizer}, {how}"
                line = LINES[optimizer]
                axes.semilogx(rates(optimizer, config), share, line, color=color, label=label)
        axes.set(xlabel="rate", ylabel="failed runs [%]", ylim=(-5, 105))
        axes.set_title(f"{net.capitalize()} net", fontsize=11)
    shares[0].legend(loc="upper left")
    return figure


def run(config: Config) -> Result:
    """Trains without and with warm-up and counts the runs that failed."""
    found = {
        (net, optimizer): training_loss(net, optimizer, config)
        for net in config.nets
        for optimizer in config.optimizers
    }
    failed = {
        case: {how: 1 - (loss[..., -1] < FAILED).mean(1) for how, loss in losses.items()}
        for case, losses in found.items()
    }
    numbers, rescues, harms, lower = {}, [], [], []
    for (net, optimizer), by_how in found.items():
        without, with_ = failed[net, optimizer].values()
        rescues.append(((without >= 3 / 4) & (with_ <= 1 / 4)).any())
        harms.append((with_ > without).any())
        ends = {}
        for how, loss in by_how.items():
            share = failed[net, optimizer][how]
            ends[how] = np.median(np.nan_to_num(loss[..., -1], nan=np.inf), 1).min()
            numbers[f"{net}, {optimizer}, {how} warm-up: failed runs"] = share.mean()
            numbers[f"{net}, {optimizer}, {how} warm-up: loss at the best rate"] = ends[how]
        lower.append(ends["with"] < ends["without"])
    return Result(
        claims={
            "There is a rate at which three quarters of the runs or more fail without warm-up and"
            " a quarter or fewer with it": truth(rescues),
            "At no rate more runs fail with warm-up": truth(np.logical_not(harms)),
            "At the best rate of each the loss ends lower with warm-up": truth(lower),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, failed),
    )
