"""How deep is a net with stochastic depth?

Of L residual blocks, block l is skipped in a training step with probability 1 - p_l. On the
linear decay from p_0 = 1 to p_L the number of blocks that are left has

    mean  sum p_l = L - sum (1 - p_l),   variance  sum p_l (1 - p_l),

for p_L = 1/2 a mean of (3 L - 1) / 4. In evaluation each block counts p_l. Blocks that add 1 count
themselves: the output is the depth.

A residual MLP is trained on a few of the shipped digits with several p_L, 1 being no stochastic
depth. One loss is lower than another if the mean over seeds of the log of their ratio is.

References:
    G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", 2016.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, draw_ratio, log_ratio, panels, truth
from jaxtrain import nn, optim

L, WIDTH = 10, 32


@dataclasses.dataclass(frozen=True)
class Config:
    """Every depth is counted, every survival probability trained from every seed.

    Attributes:
        depths: L, for the count.
        samples: masks of each.
        survivals: p_L of the trained nets, descending from 1.
        examples: training images.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the masks.
    """

    depths: tuple[int, ...] = (6, 18, 54)
    samples: int = 5000
    survivals: tuple[float, ...] = (1.0, 0.8, 0.5, 0.2)
    examples: int = 256
    epochs: int = 50
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(
        depths=(6,), samples=2000, survivals=(1.0, 0.5), examples=64, epochs=3, seeds=(0, 1)
    ),
    "default": Config(),
    "full": Config(
        depths=(6, 18, 54, 110),
        survivals=(1.0, 0.9, 0.8, 0.5, 0.3, 0.2),
        examples=512,
        seeds=tuple(range(40)),
    ),
}


def blocks(body, depth: int, last: float) -> dict[str, nn.Layer]:
    """Returns residual blocks of a body that are skipped more and more often."""
    return {
        f"block{i}": nn.stochastic_depth(body, 1 - nn.survival(i, depth, last=last))
        for i in range(1, depth + 1)
    }


def counted(depth: int, samples: int):
    """Returns how many blocks were left in each sample, and the depth in evaluation."""
    net = nn.serial(**blocks(jnp.ones_like, depth, 0.5))
    zeros = jnp.zeros((samples, 1))
    train = nn.Context(train=True, key=jax.random.key(0))
    left, _ = net.apply({}, {}, zeros, train)
    return np.asarray(left)[:, 0], float(net.apply({}, {}, zeros[:1], nn.EVAL)[0][0, 0])


def distribution(depth: int) -> np.ndarray:
    """Returns the probability of 0, 1, ..., L blocks: Bernoullis added up."""
    probability = np.ones(1)
    for i in range(1, depth + 1):
        p = 1 - i / depth / 2
        probability = np.convolve(probability, [1 - p, p])
    return probability


def made(last: float) -> nn.Layer:
    body = nn.serial(
        a=nn.dense(WIDTH), relu=nn.relu, b=nn.dense(WIDTH, kernel_init=nn.initializers.normal(0.05))
    )
    stem = {"flatten": nn.flatten(), "stem": nn.dense(WIDTH)}
    return nn.serial(**stem, **blocks(body, L, last), relu=nn.relu, out=nn.dense(10))


def train(config: Config, last: float) -> np.ndarray:
    """Returns the losses of training and test set after each epoch, (seeds, epochs + 1, 2)."""
    net = made(last)
    train_set, test = _digits.examples()
    parts = [[part[: config.examples] for part in train_set], test]

    def see(params, state, opt_state):
        return jnp.stack([_digits.evaluate(net, params, state, *part)[0] for part in parts])

    def run(seed, order):
        return _digits.train(net, optim.momentum(0.01), seed, order, see)

    order = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    return np.asarray(jax.jit(jax.vmap(run))(jnp.array(config.seeds), order))


def against_whole(losses):
    """Returns mean and standard error of log(loss / that of the whole net), (survivals, 2) each."""
    last = np.stack([loss[:, -1] for loss in losses.values()], 1)
    return log_ratio(last[:, 1:], last[:, :1])


def draw(config: Config, counts, losses):
    """Draws the numbers of blocks that are left, and the losses of the trained nets."""
    figure, (left, middle, right) = panels("How deep is a net with stochastic depth?", 3)
    for i, (depth, (found, expected)) in enumerate(counts.items()):
        share = np.bincount(found.astype(int), minlength=depth + 1) / len(found)
        left.bar(range(depth + 1), share, color=f"C{i}", alpha=0.5, label=f"{depth} blocks")
        left.plot(distribution(depth), f"C{i}o", ms=3)
        left.axvline(expected, color=f"C{i}", lw=1.5, ls="--")
    left.plot([], [], "ko", ms=3, label="theory")
    left.plot([], [], "k--", label="in evaluation")
    left.set(xlabel="blocks that are left", ylabel="share of the training steps")
    left.set_title("Linear decay to $p_L = 1/2$", fontsize=11)
    left.legend(fontsize=9)
    for i, (last, loss) in enumerate(losses.items()):
        mean = loss.mean(0)
        middle.semilogy(mean[:, 1], f"C{i}", lw=2, label=f"$p_L$ = {last:g}")
        middle.semilogy(mean[:, 0], f"C{i}--", lw=1)
    middle.plot([], [], "k--", lw=1, label="training set")
    middle.set(xlabel="epoch", ylabel="loss")
    middle.set_title(f"Test set, {L} blocks, {config.examples} images to learn from", fontsize=11)
    middle.legend(fontsize=9)
    mean, error = against_whole(losses)
    for i, (name, color) in enumerate({"training set": "C2", "test set": "C4"}.items()):
        options = {"color": color, "label": name}
        draw_ratio(right, config.survivals[1:], mean[:, i], error[:, i], **options)
    right.axhline(1, color="black", lw=1, ls=":")
    right.set(xlabel="$p_L$", ylabel="loss / that of the whole net", yscale="log")
    right.set_title("At the end, with three standard errors", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Counts blocks and trains with all survival probabilities."""
    counts = {depth: counted(depth, config.samples) for depth in config.depths}
    losses = {last: train(config, last) for last in config.survivals}
    numbers, near, exact = {}, [], []
    for depth, (found, evaluated) in counts.items():
        p = 1 - np.arange(1, depth + 1) / depth / 2
        # Four standard errors of a mean.
        near.append(abs(found.mean() - p.sum()) < 4 * ((p * (1 - p)).sum() / len(found)) ** 0.5)
        exact.append(np.isclose(evaluated, (3 * depth - 1) / 4, rtol=1e-6))
        numbers[f"{depth} blocks: left in training"] = found.mean()
        numbers[f"{depth} blocks: L - sum (1 - p)"] = p.sum()
        numbers[f"{depth} blocks: in evaluation"] = evaluated
    for last, loss in losses.items():
        numbers[f"p_L = {last}: training loss"], numbers[f"p_L = {last}: test loss"] = loss[
            :, -1
        ].mean(0)
    mean, error = against_whole(losses)
    return Result(
        claims={
            "The mean number of blocks that are left is L - sum (1 - p_l)": truth(near),
            "In evaluation that is the depth, (3 L - 1) / 4 for p_L = 1/2": truth(exact),
            "With stochastic depth the training loss ends higher, by three standard errors": truth(
                (mean - 3 * error)[:, 0] > 0
            ),
            "The test loss ends lower, by three standard errors": truth(
                (mean + 3 * error)[:, 1] < 0
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, counts, losses),
    )
