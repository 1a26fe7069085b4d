"""Can fifty layers be trained without BatchNorm?

Dense nets of fifty hidden layers of ReLUs learn the shipped digits, with momentum at the rate that
is best for each. Plain ones differ in their first kernels: small numbers, He's, orthogonal ones,
and LSUV, which rescales orthogonal ones on a batch of data. Residual ones have 25 branches of two
layers, `h + W_2 relu(W_1 h)`: with He's kernels, with Fixup (scalars before and after each layer,
W_1 divided by sqrt(25), W_2 and the last layer zero), and with BatchNorm for comparison. A run has
trained if its loss ends below half of log 10, which is that of guessing.

References:
    D. Mishkin, J. Matas, "All you need is a good init", 2016.
    H. Zhang, Y. Dauphin, T. Ma, "Fixup initialization: residual learning without normalization",
    2019.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import nn, optim
from jaxtrain.nn import initializers

WIDTH = 32
HE = initializers.he_normal()
GUESSING, DIVERGED = np.log(10), 100.0  # losses


def plain(kernel_init, depth: int) -> nn.Layer:
    """Returns a chain of dense layers and ReLUs."""
    hidden = nn.serial(nn.dense(WIDTH, kernel_init=kernel_init), nn.relu)
    return nn.serial(
        nn.flatten(), nn.dense(WIDTH), nn.relu, hidden=nn.repeat(hidden, depth), head=nn.dense(10)
    )


def around(before, after, kernel_init) -> list:
    """Returns a dense layer without a bias, with what stands before and after it."""
    return [*before, nn.dense(WIDTH, bias=False, kernel_init=kernel_init), *after]


def residual(first: list, second: list, head: nn.Layer, depth: int) -> nn.Layer:
    """Returns a chain of residual blocks of two layers, with a ReLU between them."""
    block = nn.residual(nn.serial(*first, nn.relu, *second))
    blocks = nn.repeat(block, depth // 2)
    return nn.serial(nn.flatten(), nn.dense(WIDTH), nn.relu, blocks=blocks, head=head)


def fixup(depth: int) -> nn.Layer:
    """Returns the residual net with scalars in place of a normalization, all branches at 0."""

    def smaller(*args):
        return (depth // 2) ** -0.5 * HE(*args)

    shift = nn.scalar(scale=False)
    first = around([shift], [shift], smaller)
    second = around([shift], [nn.scalar()], initializers.zeros)
    head = nn.serial(shift, nn.dense(10, kernel_init=initializers.zeros))
    return residual(first, second, head, depth)


def with_he(depth: int, *norm: nn.Layer) -> nn.Layer:
    """Returns the residual net with He's kernels, each followed by `norm`."""
    layer = around([], norm, HE)
    return residual(layer, layer, nn.dense(10), depth)


ORTHOGONAL = initializers.orthogonal(gain=initializers.gain("relu"))
NETS = {  # from a depth
    "plain, 0.01": lambda depth: plain(initializers.normal(0.01), depth),
    "plain, He": lambda depth: plain(HE, depth),
    "plain, orthogonal": lambda depth: plain(ORTHOGONAL, depth),
    "plain, LSUV": lambda depth: plain(HE, depth),
    "residual, He": with_he,
    "residual, Fixup": fixup,
    "residual, BatchNorm": lambda depth: with_he(depth, nn.batch_norm()),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every net at every rate from every seed.

    Attributes:
        nets: names in `NETS`.
        depth: hidden layers.
        rates: of momentum 0.9.
        epochs: of each run.
        batch_size: of the mini-batches.
        examples: training images that LSUV looks at.
        seeds: of the params and the batches.
    """

    nets: tuple[str, ...] = tuple(NETS)
    depth: int = 50
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    epochs: int = 25
    batch_size: int = 64
    examples: int = 256
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "smoke": Config(
        nets=("plain, 0.01", "plain, LSUV", "residual, Fixup"),
        rates=(0.003, 0.01),
        epochs=8,
        seeds=(0, 1),
    ),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(10))),
}


def start(config: Config, name: str, net: nn.Layer) -> nn.Layer:
    """Returns the net, whose init calls LSUV if that is its name."""
    if name != "plain, LSUV":
        return net
    batch = jnp.asarray(_digits.examples()[0][0][: config.examples])

    def init(key, x):
        params, state = net.init(key, x)
        return nn.lsuv(net, params, state, batch), state

    return dataclasses.replace(net, init=init)


def signal(config: Config, name: str) -> np.ndarray:
    """Returns the std of the signal in each layer or block before training, (seeds, depth)."""
    net = NETS[name](config.depth)
    x = jnp.asarray(_digits.examples()[0][0][: config.examples])

    @jax.jit
    @jax.vmap
    def measure(seed):
        params, state = start(config, name, net).init(jax.random.key(seed), x)
        # BatchNorm's own averages say nothing before training.
        (stats,) = [
            stats.std
            for path, stats in nn.unit_stats(
                net, params, state, x, ctx=nn.Context(train=True)
            ).items()
            if path in ("hidden/relu0", "blocks")
        ]
        return stats

    return np.asarray(measure(jnp.array(config.seeds)))


def training_loss(config: Config, name: str) -> np.ndarray:
    """Returns losses of the training set, (rates, seeds, epochs + 1), none above `DIVERGED`."""
    net = start(config, name, NETS[name](config.depth))
    order = _digits.orders(
        len(_digits.examples()[0][0]), config.batch_size, config.epochs, config.seeds
    )

    def run(rate, seed, order):
        return _digits.training_loss(net, optim.momentum(rate), seed, order)

    over = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    loss = np.asarray(over(jnp.array(config.rates), jnp.array(config.seeds), order))
    return np.minimum(np.nan_to_num(loss, nan=DIVERGED), DIVERGED)


def best(loss) -> int:
    """Returns the number of the rate with the lowest median loss at the end."""
    return int(np.median(loss[..., -1], 1).argmin())


def draw(config: Config, stds, found):
    """Draws the signal before training, losses at the best rates, and those of all rates."""
    title = f"Can {config.depth} layers be trained without BatchNorm?"
    figure, (left, middle, right) = panels(title, 3)
    for i, (name, loss) in enumerate(found.items()):
        line = "-" if name.startswith("plain") else "--"
        style = {"color": f"C{i}", "ls": line, "lw": 2}
        layers = np.linspace(0, config.depth, stds[name].shape[1] + 1)[1:]
        left.semilogy(layers, np.exp(np.log(stds[name] + 1e-45).mean(0)), label=name, **style)
        at = best(loss)
        curve = np.median(loss[at], 0)
        middle.semilogy(curve, label=f"rate {config.rates[at]:g}", **style)
        ends = np.median(loss[..., -1], 1)
        right.loglog(config.rates, ends, marker="o", **style)
    left.set(xlabel="layer", ylabel="std of the signal", ylim=(1e-12, 1e12))
    left.set_title("Before training", fontsize=11)
    left.legend(fontsize=9, loc="lower right")
    middle.set(xlabel="epoch", ylabel="training loss", ylim=(None, 30))
    middle.set_title("At the best rate of each, medians", fontsize=11)
    middle.legend(fontsize=9, loc="lower left")
    right.set(xlabel="rate", ylabel=f"training loss after {config.epochs} epochs", ylim=(None, 30))
    right.set_title("At every rate; above: diverged", fontsize=11)
    for axes in (middle, right):
        axes.axhline(GUESSING, color="black", lw=1, ls=":")
        axes.axhline(GUESSING / 2, color="black", lw=1, ls=":")
    return figure


def run(config: Config) -> Result:
    """Measures signals and trains all nets."""
    stds = {name: signal(config, name) for name in config.nets}
    found = {name: training_loss(config, name) for name in config.nets}
    ends = {name: loss[best(loss), :, -1] for name, loss in found.items()}
    numbers = {}
    for name, loss in found.items():
        numbers[f"{name}: std of the signal after the last layer"] = np.median(stds[name][:, -1])
        numbers[f"{name}: best rate"] = config.rates[best(loss)]
        numbers[f"{name}: training loss"] = np.median(ends[name])

    def trains(name):
        return truth(ends[name] < GUESSING / 2)

    claims = {
        "With LSUV the loss of fifty plain layers falls, by a quarter or more": truth(
            ends["plain, LSUV"] < 0.75 * GUESSING
        ),
        "With LSUV fifty plain layers train": trains("plain, LSUV"),
        "With Fixup fifty residual layers train": trains("residual, Fixup"),
        "With small numbers they train": trains("plain, 0.01"),
    }
    if "residual, He" in found:
        claims |= {
            "With He's kernels they train": trains("plain, He"),
            "With orthogonal kernels they train": trains("plain, orthogonal"),
            "With He's kernels residual layers train": trains("residual, He"),
            "LSUV ends lower than He's kernels": truth(
                np.median(ends["plain, LSUV"]) < np.median(ends["plain, He"])
            ),
            "Fixup ends at least as low as BatchNorm": truth(
                np.median(ends["residual, Fixup"]) <= np.median(ends["residual, BatchNorm"])
            ),
        }
    return Result(claims, {k: float(v) for k, v in numbers.items()}, draw(config, stds, found))
