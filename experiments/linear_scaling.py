"""Is a batch k times as large as good at k times the learning rate?

k steps at rate eta on batches of b, and one at rate k eta on the kb examples together, move the
params alike as long as the gradient hardly changes on the way:

    sum_j eta g_j(w_j) ~ k eta mean_j g_j(w)

An MLP is trained by plain SGD on the shipped digits for the same number of epochs throughout, at
(b, eta), (kb, k eta), the same with a warm-up from eta to k eta, and (kb, eta). Losses are those of
the whole training set. The curve of (kb, ...) is compared with that of (b, eta) by the mean over
seeds of the log of the ratio of losses after each epoch: the two are close where all of these are
within log 1.1, and the one is behind where their mean is above it.

References:
    A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
    C. Shallue et al., "Measuring the effects of data parallelism on neural network training", 2019.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, optim, schedules

NET = models.mlp([32, 10])
EXAMPLES = 1024  # of the training set, a multiple of every batch
CLOSE = np.log(1.1)
RULES = {  # the rate on batches of kb
    "(kb, k eta)": lambda eta, k, steps: schedules.scale_with_batch(eta, k, base_batch_size=1),
    "(kb, k eta), warm-up": lambda eta, k, steps: schedules.goyal_warmup(eta, k, steps=steps),
    "(kb, eta)": lambda eta, k, steps: eta,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every k from every seed.

    Attributes:
        batch_size: b.
        rate: eta.
        ks: powers of 2, ascending.
        epochs: of each run.
        warm: epochs of the warm-up.
        seeds: of the params and of the batches.
    """

    batch_size: int = 8
    rate: float = 0.02
    ks: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    epochs: int = 20
    warm: int = 5
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(batch_size=32, ks=(4, 32), epochs=2, warm=1, seeds=(0,)),
    "default": Config(),
    "full": Config(batch_size=4, ks=(2, 4, 8, 16, 32, 64, 128), seeds=tuple(range(20))),
}


def log_losses(config: Config, noise: float, k: int, rules) -> np.ndarray:
    """Returns the mean over seeds before training and after each epoch, (rules, epochs + 1)."""
    order = _digits.orders(EXAMPLES, k * config.batch_size, config.epochs, config.seeds)
    warm = config.warm * order.shape[2]

    def run(seed, order):
        rates = [rule(config.rate, k, warm) for rule in rules]
        losses = [
            _digits.training_loss(NET, optim.sgd(rate), seed, order, noise=noise) for rate in rates
        ]
        return jnp.log(jnp.stack(losses))

    return np.asarray(jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)).mean(0)


def draw(config: Config, base, found, ratios):
    """Draws the curves of both data sets, and how far apart they are at each k."""
    title = "Is a batch k times as large as good at k times the learning rate?"
    figure, (*curves, last) = panels(title, 3)
    colors = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, len(config.ks)))
    for axes, name in zip(curves, _digits.NOISE, strict=True):
        for color, k in zip(colors, config.ks, strict=True):
            scaled, _, same = np.exp(found[name, k])
            axes.semilogy(scaled, color=color, lw=2, label=f"k = {k}")
            axes.semilogy(same, color=color, lw=1, ls="--")
        label = f"b = {config.batch_size}, eta = {config.rate}"
        axes.semilogy(np.exp(base[name]), "k:", lw=2.5, label=label)
        axes.plot([], [], "0.5", lw=2, label="rate k eta")
        axes.plot([], [], "0.5", lw=1, ls="--", label="rate eta")
        axes.set(xlabel="epoch", ylabel="training loss")
        axes.set_title(name.capitalize(), fontsize=11)
    curves[0].legend(loc="lower left", ncols=2, fontsize=8)
    for name, marker in zip(_digits.NOISE, ("o-", "s--"), strict=True):
        for i, rule in enumerate(RULES):
            furthest = [np.exp(abs(ratios[name, k][i]).max()) for k in config.ks]
            last.loglog(config.ks, furthest, marker, color=f"C{i}", label=f"{rule}, {name}")
    last.axhspan(1, np.exp(CLOSE), color="black", alpha=0.1, lw=0)
    last.set_xticks(config.ks, config.ks)
    last.minorticks_off()
    last.set(xlabel="k", ylabel="largest factor between the losses")
    last.set_title("Gray: close", fontsize=11)
    last.legend(fontsize=8, loc="upper left")
    return figure


def run(config: Config) -> Result:
    """Trains with all batch sizes and compares the curves with that of the smallest."""
    base, found, ratios, numbers = {}, {}, {}, {}
    for name, noise in _digits.NOISE.items():
        (base[name],) = log_losses(config, noise, 1, [RULES["(kb, eta)"]])
        for k in config.ks:
            found[name, k] = log_losses(config, noise, k, RULES.values())
            ratios[name, k] = found[name, k] - base[name]
            for rule, ratio in zip(RULES, ratios[name, k], strict=True):
                what = f"{name}, k = {k}, {rule}: largest factor between the losses"
                numbers[what] = np.exp(abs(ratio).max())
    # After the warm-up, (data sets, k, rules, epochs).
    later = np.array(
        [[ratios[name, k][:, config.warm + 1 :] for k in config.ks] for name in _digits.NOISE]
    )
    scaled, warmed, _ = (abs(later).max(-1) < CLOSE).sum(1).T
    for name, n in zip(_digits.NOISE, scaled, strict=True):
        numbers[f"{name}: k that are close from epoch {config.warm + 1} on"] = n
    return Result(
        claims={
            "At k times the rate batches k times as large give the same curve": truth(
                [abs(ratio[0]).max() < CLOSE for ratio in ratios.values()]
            ),
            "At the same rate they fall behind": truth(
                [ratio[2].mean() > CLOSE for ratio in ratios.values()]
            ),
            "From the end of a warm-up on, the curves are close for more k with it": truth(
                warmed > scaled
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, base, found, ratios),
    )
