"""Does a ReLU before the softmax do harm?

A net that ends in `dense -> ReLU -> softmax` cannot say less than 0: its logits are max(z, 0). A
class whose z is below 0 for every image of it has no gradient from them any more, and nothing calls
it back. MLPs with and without that ReLU are trained with momentum on the shipped digits, from the
same params, on the same batches; each is compared at the rate that ends with its lowest training
loss. A class is lost if no training image is answered with it.

References:
    A. Karpathy, "A recipe for training neural networks", 2019.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import losses, models, nn, optim

MLP = models.mlp([32, 10])
NETS = {"linear logits": MLP, "ReLU before softmax": nn.serial(MLP, nn.relu)}
LINEAR, RELU = NETS


@dataclasses.dataclass(frozen=True)
class Config:
    """Both nets at every rate from every seed.

    Attributes:
        rates: of momentum 0.9, ascending.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and the batches.
    """

    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    epochs: int = 20
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(rates=(0.03,), epochs=4, seeds=(0, 1, 2)),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(100))),
}


def train(config: Config, name: str):
    """Returns training losses, test accuracies and lost classes, (rates, seeds, epochs + 1)."""
    net = NETS[name]
    (x, labels), test = (tuple(map(jnp.asarray, part)) for part in _digits.examples())
    order = _digits.orders(len(x), config.batch_size, config.epochs, config.seeds)

    def see(params, state, opt_state):
        logits, _ = net.apply(params, state, x, nn.EVAL)
        loss = losses.softmax_cross_entropy(logits, labels).mean()
        lost = 10 - jnp.zeros(10).at[logits.argmax(-1)].set(1).sum()
        return loss, _digits.evaluate(net, params, state, *test)[1], lost

    def run(rate, seed, order):
        return _digits.train(net, optim.momentum(rate), seed, order, see)

    over = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    return jax.device_get(over(jnp.array(config.rates), jnp.array(config.seeds), order))


def best(loss) -> int:
    """Returns the number of the rate with the lowest training loss at the end."""
    return int(loss[..., -1].mean(1).argmin())


def surely(a, b) -> bool:
    """Says whether a is above b in the mean over seeds by three standard errors."""
    return (a - b).mean() > 3 * (a - b).std(ddof=1) / len(a) ** 0.5


def draw(config: Config, found):
    """Draws losses, the accuracy of each seed by its lost classes, and lost classes by rate."""
    figure, (left, middle, right) = panels("Does a ReLU before the softmax do harm?", 3)
    for i, (name, (loss, accuracy, lost)) in enumerate(found.items()):
        at = best(loss)
        color = f"C{3 * i}"
        left.semilogy(loss[at].T, color=color, lw=0.7, alpha=0.5)
        label = f"{name}, rate {config.rates[at]:g}"
        left.semilogy(loss[at].mean(0), color=color, lw=3, label=label)
        jitter = np.linspace(-0.15, 0.15, len(config.seeds))
        for r, size in enumerate(np.linspace(3, 8, len(config.rates))):
            label = name if r == len(config.rates) - 1 else None
            shown = lost[r, :, -1] + jitter, 100 * accuracy[r, :, -1]
            middle.plot(*shown, "o", color=color, ms=size, alpha=0.5, label=label)
        values = lost[:, :, -1]
        error = 3 * values.std(1, ddof=1) / values.shape[1] ** 0.5
        right.errorbar(
            config.rates, values.mean(1), error, fmt="o-", lw=2, color=color, capsize=3, label=name
        )
    left.set(xlabel="epoch", ylabel="training loss")
    left.set_title("Each at its best rate, a line per seed", fontsize=11)
    left.legend()
    middle.set(xlabel="lost classes", ylabel="test accuracy [%]")
    middle.set_title("Each run; larger dots, higher rates", fontsize=11)
    middle.legend()
    right.set(xscale="log", xlabel="rate", ylabel="lost classes, of ten")
    right.set_title("With three standard errors", fontsize=11)
    right.legend(loc="upper left")
    return figure


def run(config: Config) -> Result:
    """Trains both nets at all rates and compares them."""
    found = {name: train(config, name) for name in NETS}
    at_best = {
        name: [values[best(loss), :, -1] for values in (loss, accuracy, lost)]
        for name, (loss, accuracy, lost) in found.items()
    }
    names = "training loss", "test accuracy", "lost classes"
    numbers = {
        f"{name}, rate {rate:g}: {what}": values[i, :, -1].mean()
        for name, seen in found.items()
        for i, rate in enumerate(config.rates)
        for what, values in zip(names, seen, strict=True)
    }
    (loss, accuracy, _), (relu_loss, relu_accuracy, _) = at_best[LINEAR], at_best[RELU]
    last = found[RELU][2][:, :, -1]
    gap = found[LINEAR][1][:, :, -1] - found[RELU][1][:, :, -1]
    none = gap[last == 0]
    return Result(
        claims={
            "At its best rate the loss ends higher with the ReLU": truth(surely(relu_loss, loss)),
            "The test accuracy ends lower": truth(surely(accuracy, relu_accuracy)),
            "Classes get lost with it, at every rate": truth(last.any(1)),
            "Runs that lose no class are within a point of accuracy of linear logits": truth(
                none.size and none.mean() < 0.01
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
