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
    "smoke": Config(batch_size=32, ks=(4,), epochs=2, warm=1, seeds=(0,)),
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


def measure(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Trains with the smallest batch, (data sets, epochs + 1), and (data sets, ks, rules, ...)."""
    noises = _digits.NOISE.values()
    base = [log_losses(config, noise, 1, [RULES["(kb, eta)"]])[0] for noise in noises]
    found = [[log_losses(config, noise, k, RULES.values()) for k in config.ks] for noise in noises]
    return np.array(base), np.array(found)


def draw(config: Config, base, found, later, limits):
    """Draws the curves of both data sets, and how far apart they are at each k."""
    title = "Is a batch k times as large as good at k times the learning rate?"
    figure, (*curves, last) = panels(title, 3)
    colors = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.9, len(config.ks)))
    for d, (axes, name) in enumerate(zip(curves, _digits.NOISE, strict=True)):
        for k, color, rules in zip(config.ks, colors, np.exp(found[d]), strict=True):
            scaled, warmed, same = rules
            axes.semilogy(scaled, color=color, lw=2, label=f"k = {k}, k eta")
            axes.semilogy(same, color=color, lw=1, ls="--")
        axes.semilogy(warmed, color="C3", lw=1.5, label=f"k = {k}, k eta, warm-up")
        axes.plot([], [], "0.5", lw=1, ls="--", label="the same k, eta")
        label = f"b = {config.batch_size}, eta = {config.rate}"
        axes.semilogy(np.exp(base[d]), "k:", lw=2.5, label=label)
        axes.minorticks_off()
        axes.set_yticks([0.1, 0.2, 0.5, 1, 2], [0.1, 0.2, 0.5, 1, 2])
        axes.set(xlabel="epoch", ylabel="training loss", ylim=(0.09, 5))
        axes.set_title(f"{name.capitalize()}: close up to k = {limits[d]}", fontsize=11)
        axes.locator_params("x", integer=True)
    curves[-1].legend(loc="lower left", ncols=2, fontsize=9)
    for i, rule in enumerate(RULES):
        last.plot([], [], f"C{i}", lw=2, label=rule)
    for name, line, furthest in zip(_digits.NOISE, ("s--", "o-"), later, strict=True):
        last.plot([], [], line, color="0.5", label=name)
        for i, factors in enumerate(np.exp(furthest.T)):
            last.loglog(config.ks, factors, line, color=f"C{i}")
    last.axhspan(1, np.exp(CLOSE), color="black", alpha=0.1, lw=0)
    last.minorticks_off()
    last.set_xticks(config.ks, config.ks)
    last.set_yticks([1, 2, 5, 10], [1, 2, 5, 10])
    last.set(xlabel="k", ylabel="largest factor between the losses")
    last.set_title(f"From epoch {config.warm + 1} on; gray: close", fontsize=11)
    last.legend(loc="upper left", fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Trains with all batch sizes and compares the curves with that of the smallest."""
    base, found = measure(config)
    ratios = found - base[:, None, None]
    furthest, later = (abs(r).max(-1) for r in (ratios, ratios[..., config.warm + 1 :]))
    close = np.cumprod(furthest[..., 0] < CLOSE, 1).sum(1)
    limits = np.array([1, *config.ks])[close]
    numbers = {
        f"{name}, k = {k}, {rule}: largest factor between the losses": np.exp(furthest[d, i, r])
        for d, name in enumerate(_digits.NOISE)
        for i, k in enumerate(config.ks)
        for r, rule in enumerate(RULES)
    }
    scaled, warmed, _ = (later < CLOSE).sum(1).T
    for name, limit, *numbers_of_k in zip(_digits.NOISE, limits, scaled, warmed, strict=True):
        numbers[f"{name}: close up to k"] = limit
        for how, n in zip(("", " with warm-up"), numbers_of_k, strict=True):
            numbers[f"{name}: ks that are close from epoch {config.warm + 1} on{how}"] = n
    return Result(
        claims={
            "At k times the rate batches k times as large give the same curve": truth(
                furthest[..., 0] < CLOSE
            ),
            "At the same rate they fall behind": truth(ratios[:, :, 2].mean(-1) > CLOSE),
            "From the end of a warm-up on, the curves are close for more k with it": truth(
                warmed > scaled
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, base, found, later, limits),
    )
