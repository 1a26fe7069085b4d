"""Does the noise of BatchNorm's batches regularize?

In training the mean and variance that an activation is normalized by are those of n examples that
happen to be together, so that the outputs of an example differ from batch to batch. If it is noise
of means, its standard deviation goes as n^(-1/2).

An MLP is trained on a few of the shipped digits in batches of one size, normalized in groups of n
("ghost batches"): everything else, the number of steps too, is the same. Losses are taken in
evaluation, with the statistics of the whole training set.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3.4.
    E. Hoffer, I. Hubara, D. Soudry, "Train longer, generalize better: closing the generalization
    gap in large batch training of neural networks", 2017.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, draw_ratio, log_ratio, panels, truth
from jaxtrain import models, nn, optim

NET = models.mlp([64, 64, 10], batch_norm=True)
TRAIN = nn.Context(train=True)
SLOPE, TOLERANCE = -0.5, 0.1
SAMPLES = 200  # batches for a standard deviation: it is known to 1 / sqrt(400) = 5 %


@dataclasses.dataclass(frozen=True)
class Config:
    """Every size of the groups from every seed.

    Attributes:
        noise_sizes: of the batches in which outputs are compared.
        group_sizes: divisors of the batch size, ascending to it.
        batch_size: images of a step.
        examples: training images.
        epochs: of each run.
        seeds: of the params and of the batches.
    """

    noise_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    group_sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)
    batch_size: int = 256
    examples: int = 256
    epochs: int = 200
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(
        noise_sizes=(32, 256),
        group_sizes=(2, 32),
        batch_size=32,
        examples=64,
        epochs=10,
        seeds=(0, 1),
    ),
    "default": Config(),
    "full": Config(examples=512, seeds=tuple(range(40))),
}


def in_groups(net: nn.Layer, n: int) -> nn.Layer:
    """Applies a net to groups of n examples in train mode; running averages are averaged."""

    def apply(params, state, x, ctx):
        if not ctx.train:
            return net.apply(params, state, x, ctx)
        groups = x.reshape(-1, n, *x.shape[1:])
        y, states = jax.vmap(lambda x: net.apply(params, state, x, TRAIN))(groups)
        return y.reshape(len(x), -1), jax.tree.map(lambda s: s.mean(0), states)

    return nn.Layer(net.init, apply)


def train(config: Config, n: int):
    """Trains with groups of n.

    Returns:
        The losses of training and test set after each epoch, (seeds, epochs + 1, 2), and the params
        after the last one.
    """
    train_set, test = _digits.examples()
    first = [part[: config.examples] for part in train_set]

    def see(params, state, opt_state):
        state = nn.recompute_batch_stats(NET, params, state, [first[0]])
        losses = [_digits.evaluate(NET, params, state, *part)[0] for part in (first, test)]
        return jnp.stack(losses), params

    def run(seed, order):
        net = in_groups(NET, n)
        losses, params = _digits.train(net, optim.momentum(0.03), seed, order, see)
        return losses, jax.tree.map(lambda p: p[-1], params)

    order = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    return jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)


def spread(config: Config, params) -> np.ndarray:
    """Returns the root mean square over batches of (output in train mode - its mean), by size.

    Of ten test images by turns at the first place of random batches, (seeds, sizes), relative to
    the standard deviation of their outputs.
    """
    x, test_x = (jnp.asarray(part) for part, _ in _digits.examples())
    _, state = NET.init(jax.random.key(0), x[:1])
    rng = np.random.default_rng(0)

    def outputs(params, image, batch):
        together = jnp.concatenate([image[None], x[batch]])
        return NET.apply(params, state, together, TRAIN)[0][0]

    over_batches = jax.vmap(outputs, (None, None, 0))
    over_images = jax.vmap(over_batches, (None, 0, None))
    of_all = jax.jit(jax.vmap(over_images, (0, None, None)))
    found = []
    for n in config.noise_sizes:
        batches = rng.integers(len(x), size=(SAMPLES, n - 1))
        y = of_all(params, test_x[:10], batches)  # (seeds, images, batches, classes)
        within, between = y.std(2), y.mean(2).std((1, 2))
        found.append(jnp.sqrt((within**2).mean((1, 2))) / between)
    return np.stack(found, 1)


def slopes(config: Config, found) -> np.ndarray:
    """Returns the slope of log spread over log n, of each seed."""
    return np.polyfit(np.log(config.noise_sizes), np.log(found).T, 1)[0]


def against_whole(losses):
    """Returns mean and standard error of log(loss / that of whole batches), (sizes, 2) each."""
    last = losses[:, :, -1].swapaxes(0, 1)
    return log_ratio(last, last[:, -1:])


def draw(config: Config, found, losses):
    """Draws the noise by size, losses over time and at the end."""
    figure, (left, middle, right) = panels("Does the noise of BatchNorm's batches regularize?", 3)
    sizes = np.array(config.noise_sizes)
    for one in found:
        left.loglog(sizes, one, "C0.-", lw=0.7, alpha=0.5)
    middle_of = np.exp(np.log(found).mean())
    law = (sizes / np.exp(np.log(sizes).mean())) ** SLOPE
    left.loglog(sizes, middle_of * law, "k--", label="$n^{-1/2}$")
    left.plot([], [], "C0.-", label="a trained net each")
    left.set(xlabel="examples of the batch, n", ylabel="noise / std of the outputs")
    left.set_title("Outputs of an image in random batches", fontsize=11)
    left.legend()
    shown = sorted({0, len(losses) // 2, len(losses) - 1})
    for color, i in zip(("C3", "C1", "C0"), shown, strict=False):
        for which, line in enumerate(("--", "-")):
            middle.semilogy(losses[i, :, :, which].mean(0), color + line, lw=2 if which else 1)
        middle.plot([], [], color, label=f"groups of {config.group_sizes[i]}")
    middle.plot([], [], "k--", lw=1, label="training set")
    middle.set(xlabel="epoch", ylabel="loss")
    middle.set_title(f"Test set, {config.examples} images to learn from", fontsize=11)
    middle.legend(fontsize=9)
    for which, (name, color) in enumerate({"training set": "C2", "test set": "C4"}.items()):
        mean, error = against_whole(losses)
        options = {"color": color, "label": name}
        draw_ratio(right, config.group_sizes, mean[:, which], error[:, which], **options)
    right.axhline(1, color="black", lw=1, ls=":")
    right.set(xscale="log", yscale="log", xlabel="examples of a group")
    right.set_xticks(config.group_sizes, config.group_sizes)
    right.minorticks_off()
    right.set(ylabel="loss / that of whole batches")
    right.set_title("At the end, with three standard errors", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Trains in groups of all sizes and measures the noise of what was trained."""
    runs = [train(config, n) for n in config.group_sizes]
    losses = np.stack([np.asarray(found) for found, _ in runs])  # (sizes, seeds, epochs + 1, 2)
    found = spread(config, runs[-1][1])
    slope = slopes(config, found)
    mean, error = against_whole(losses)
    on_train, on_test = mean.T
    numbers = {"slope of the noise": slope.mean()}
    for i, n in enumerate(config.group_sizes):
        numbers[f"groups of {n}: training loss"] = losses[i, :, -1, 0].mean()
        numbers[f"groups of {n}: test loss"] = losses[i, :, -1, 1].mean()
    lower = (on_test + 3 * error[:, 1])[:-1] < 0
    return Result(
        claims={
            f"The noise goes as n^(-1/2): the slope is {SLOPE:g} within {TOLERANCE:g}": truth(
                abs(slope - SLOPE) < TOLERANCE
            ),
            "The smaller the groups, the higher the training loss": truth(np.diff(on_train) < 0),
            "In groups the test loss is lower than with whole batches, by three standard"
            " errors": truth(lower),
            "It is lowest for groups that are not the smallest": truth(on_test.argmin() > 0),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, losses),
    )
