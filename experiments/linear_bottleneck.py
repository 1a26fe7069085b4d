"""What does a linear bottleneck save, and what does it cost?

A dense layer from D inputs to H outputs has D H weights; with a linear layer of k units between,
(D + H) k, fewer for k < D H / (D + H). The product of the two matrices has a rank of at most k: all
that it can do the dense layer can, which is why the notes call that strictly more expressive, and
the other one possibly better at generalizing.

The first layer of an MLP is replaced by bottlenecks of all widths and trained on the shipped
digits.

References:
    T. Sainath, B. Kingsbury, V. Sindhwani, E. Arisoy, B. Ramabhadran, "Low-rank matrix
    factorization for deep neural network training with high-dimensional output targets", 2013.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, draw_ratio, log_ratio, panels, truth
from jaxtrain import nn, optim

D = 64  # pixels of an image


@dataclasses.dataclass(frozen=True)
class Config:
    """Every width of the bottleneck, and no bottleneck, from every seed.

    Attributes:
        ranks: k, ascending.
        features: H.
        examples: training images.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and of the batches.
    """

    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    features: int = 128
    examples: int = 512
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(ranks=(2, 16), features=32, examples=128, epochs=10, seeds=(0, 1)),
    "default": Config(),
    "full": Config(ranks=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64), seeds=tuple(range(50))),
}


def made(first: nn.Layer) -> nn.Layer:
    return nn.serial(nn.flatten(), first=first, relu=nn.relu, out=nn.dense(10))


def train(config: Config, first: nn.Layer):
    """Returns training and test loss, (seeds, 2), the number of weights, and ranks, (seeds,)."""
    net = made(first)
    train_set, test = _digits.examples()
    parts = [[part[: config.examples] for part in train_set], test]

    def see(params, state, opt_state):
        losses = [_digits.evaluate(net, params, state, *part)[0] for part in parts]
        return jnp.stack(losses), params["first"]

    def run(seed, order):
        found = _digits.train(net, optim.momentum(0.03), seed, order, see)
        return jax.tree.map(lambda leaf: leaf[-1], found)

    order = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    losses, params = jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)
    parts = [params[name] for name in ("reduce", "expand")] if "reduce" in params else [params]
    kernels = [np.asarray(part["kernel"], np.float64) for part in parts]
    ranks = np.linalg.matrix_rank(functools.reduce(np.matmul, kernels))
    return np.asarray(losses), sum(kernel[0].size for kernel in kernels), ranks


def layers(config: Config) -> dict[str, nn.Layer]:
    """Returns the first layers by name: the bottlenecks, and the dense one last."""
    narrow = {f"rank {k}": nn.bottleneck(config.features, k) for k in config.ranks}
    return narrow | {"dense": nn.dense(config.features)}


def against_dense(found):
    """Returns mean and standard error of log(loss / that of the dense layer), (ranks, 2) each."""
    last = np.stack([losses for losses, *_ in found.values()], 1)
    return log_ratio(last[:, :-1], last[:, -1:])


def draw(config: Config, found):
    """Draws weights, ranks and losses by the width of the bottleneck."""
    title = "What does a linear bottleneck save, and what does it cost?"
    figure, (left, middle, right) = panels(title, 3)
    *narrow, (_, all_weights, all_ranks) = found.values()
    even = D * config.features / (D + config.features)
    left.loglog(config.ranks, [weights for _, weights, _ in narrow], "C0o", label="bottleneck")
    left.loglog(
        config.ranks, (D + config.features) * np.array(config.ranks), "C0-", lw=1, label="(D + H) k"
    )
    left.axhline(all_weights, color="C1", ls="--", label="dense: D H")
    left.axvline(even, color="black", lw=1, ls=":")
    left.text(0.92 * even, left.get_ylim()[0] * 1.2, "D H / (D + H)", ha="right", fontsize=9)
    left.set(xlabel="units between, k", ylabel="weights")
    left.set_title(f"Weights, D = {D}, H = {config.features}", fontsize=11)
    middle.loglog(config.ranks, [ranks.max() for *_, ranks in narrow], "C0o", label="bottleneck")
    middle.loglog(config.ranks, config.ranks, "C0-", lw=1, label="k")
    middle.axhline(all_ranks.max(), color="C1", ls="--", label="dense")
    middle.set(xlabel="units between, k", ylabel="largest rank")
    middle.set_title("Rank of the trained map", fontsize=11)
    mean, error = against_dense(found)
    for i, (name, color) in enumerate({"training set": "C2", "test set": "C4"}.items()):
        draw_ratio(right, config.ranks, mean[:, i], error[:, i], color=color, label=name)
    right.axhline(1, color="C1", ls="--", label="dense")
    right.set(xscale="log", yscale="log", xlabel="units between, k")
    right.set(ylabel="loss / that of the dense layer")
    right.set_title("At the end, with three standard errors", fontsize=11)
    for axes in (left, middle, right):
        axes.legend(fontsize=9)
        axes.set_xticks(config.ranks, config.ranks)
        axes.minorticks_off()
    return figure


def run(config: Config) -> Result:
    """Trains with all bottlenecks and compares with the dense layer."""
    found = {name: train(config, first) for name, first in layers(config).items()}
    *narrow, (_, all_weights, _) = found.values()
    numbers = {}
    for name, (losses, weights, ranks) in found.items():
        numbers[f"{name}: weights"] = weights
        numbers[f"{name}: largest rank"] = ranks.max()
        numbers[f"{name}: training loss"], numbers[f"{name}: test loss"] = losses.mean(0)
    fewer = [weights < all_weights for _, weights, _ in narrow]
    mean, error = against_dense(found)
    formula = [
        weights == (D + config.features) * k
        for k, (_, weights, _) in zip(config.ranks, narrow, strict=True)
    ]
    return Result(
        claims={
            "A bottleneck of k units has (D + H) k weights": truth(formula),
            "The rank of the map that it learns is at most k": truth(
                [(ranks <= k).all() for k, (*_, ranks) in zip(config.ranks, narrow, strict=True)]
            ),
            "With fewer weights than the dense layer the training loss ends higher, by three"
            " standard errors": truth((mean - 3 * error)[fewer, 0] > 0),
            "With fewer weights the test loss ends lower, by three standard errors": truth(
                (mean + 3 * error)[fewer, 1] < 0
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
