"""Does it matter whether a net with BatchNorm is evaluated in train mode or in eval mode?

In train mode BatchNorm normalizes by the batch it is in, in eval mode by running averages. An MLP
with BatchNorm is trained on the shipped digits and evaluated in both modes on the test set, in
batches of every size, either shuffled or sorted by class, as a folder of images would be. A single
image in train mode is normalized to 0, so the net gives all of them the same answer. Eval mode in
its turn is wrong while its averages are young: with a weight of the past of 0.99 they still begin
at mean 0 and variance 1 after one epoch.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015.
    Y. Wu, J. Johnson, "Rethinking 'batch' in BatchNorm", 2021.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, nn, optim

TRAIN = nn.Context(train=True)
ORDERS = ("shuffled", "sorted by class")
POINT = 0.01  # of accuracy
# Of logits: float32's 6e-8 of activations of order 1, times 1 / sqrt(eps) = 316 where var is 0.
ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    """Every batch size in both modes and orders, from every seed.

    Attributes:
        sizes: of the batches in evaluation, divisors of the 360 test images, 1 among them.
        decay: of the running averages.
        rate: of momentum 0.9.
        epochs: of training.
        batch_size: in training.
        seeds: of the params and of all batches.
    """

    sizes: tuple[int, ...] = (1, 2, 4, 8, 20, 40, 120, 360)
    decay: float = 0.99
    rate: float = 0.03
    epochs: int = 20
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(sizes=(1, 40), epochs=6, seeds=(0, 1)),
    "default": Config(),
    "full": Config(decay=0.999, epochs=50, seeds=tuple(range(40))),
}


def make(decay: float) -> nn.Layer:
    """Returns an MLP of two hidden layers whose running averages have this decay."""

    def decayed(path, layer):
        return layer.replace(decay=decay) if layer.kind == "batch_norm" else layer

    return nn.rewrite(models.mlp([64, 64, 10], norm="batch"), decayed)


def train(config: Config, net: nn.Layer):
    """Returns params and state at the end, and the test accuracies by epoch.

    The latter in eval mode, with the averages and with exact statistics; all by seed.
    """
    train_set, test_set = (tuple(map(jnp.asarray, part)) for part in _digits.examples())
    order = _digits.orders(len(train_set[0]), config.batch_size, config.epochs, config.seeds)

    def see(params, state, opt_state):
        exact = nn.recompute_batch_stats(net, params, state, [train_set[0]])
        accuracies = [_digits.evaluate(net, params, s, *test_set)[1] for s in (state, exact)]
        return params, state, jnp.stack(accuracies)

    def run(seed, order):
        params, state, accuracies = _digits.train(
            net, optim.momentum(config.rate), seed, order, see
        )
        return *(jax.tree.map(lambda leaf: leaf[-1], tree) for tree in (params, state)), accuracies

    return jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)


def in_batches(net: nn.Layer, size: int, ctx, params, state, images) -> np.ndarray:
    """Returns the logits of images, given in batches of this size."""

    def apply(params, state, batch):
        return net.apply(params, state, batch, ctx)[0]

    batches = images.reshape(-1, size, *images.shape[1:])
    logits = jax.jit(jax.vmap(apply, (None, None, 0)))(params, state, batches)
    return np.asarray(logits).reshape(len(images), -1)


def evaluate(config: Config, net: nn.Layer, params, state):
    """Returns accuracies by order, size and mode, (seeds,) each, and what a batch changes.

    That is: the largest difference between logits in eval mode of one image in batches of various
    sizes, and between those in train mode of different images, each a batch.
    """
    x, labels = _digits.examples()[1]
    accuracy = {
        (o, n, mode): [] for o in ORDERS for n in config.sizes for mode in ("train", "eval")
    }
    of_batch, of_image = [], []
    for i, seed in enumerate(config.seeds):
        own = jax.tree.map(lambda leaf: leaf[i], (params, state))  # noqa: B023
        shuffled = np.random.default_rng(seed).permutation(len(x))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        for order, at in zip(ORDERS, (shuffled, by_class), strict=True):
            logits = {}
            for n in config.sizes:
                for mode, ctx in (("train", TRAIN), ("eval", nn.EVAL)):
                    logits[n, mode] = in_batches(net, n, ctx, *own, x[at])
                    hits = logits[n, mode].argmax(-1) == labels[at]
                    accuracy[order, n, mode].append(hits.mean())
            alone = logits[1, "eval"]
            of_batch += [abs(logits[n, "eval"] - alone).max() for n in config.sizes]
            of_image.append(np.ptp(logits[1, "train"], 0).max())
    found = {case: np.array(values) for case, values in accuracy.items()}
    return found, float(max(of_batch)), float(max(of_image))


def draw(config: Config, found, by_epoch):
    """Draws accuracies against the size of the batch, and against the epoch."""
    figure, (left, right) = panels("Does the mode matter?", 2, width=6)
    styles = {
        ("shuffled", "eval"): ("C0s-", "eval mode"),
        ("shuffled", "train"): ("C1o-", "train mode, shuffled"),
        ("sorted by class", "train"): ("C3o-", "train mode, sorted by class"),
    }
    for (order, mode), (style, label) in styles.items():
        values = np.array([found[order, n, mode] for n in config.sizes])
        error = 300 * values.std(1, ddof=1) / values.shape[1] ** 0.5
        options = {"fmt": style, "lw": 2, "capsize": 3, "label": label}
        left.errorbar(config.sizes, 100 * values.mean(1), error, **options)
    left.axhline(10, color="black", lw=1, ls=":")
    left.text(config.sizes[-1], 11, "chance", ha="right")
    left.set(xscale="log", xlabel="images per batch in evaluation", ylabel="test accuracy [%]")
    left.set_xticks(config.sizes, [str(n) for n in config.sizes])
    left.minorticks_off()
    left.set_title("Train mode asks the other images, with three standard errors", fontsize=11)
    left.legend(loc="lower left", bbox_to_anchor=(0.02, 0.22))
    epochs = np.arange(by_epoch.shape[1])
    for i, label in enumerate((f"running averages, decay {config.decay:g}", "exact statistics")):
        right.plot(epochs, 100 * by_epoch[:, :, i].mean(0), f"C{2 * i}o-", lw=2, label=label)
    right.set(
        xlabel="epoch",
        xlim=(0.5, None),
        ylabel="test accuracy [%]",
        xticks=epochs[::2],
        ylim=(85, 100),
    )
    right.set_title("Eval mode while its averages are young", fontsize=11)
    right.legend(loc="lower right")
    return figure


def run(config: Config) -> Result:
    """Trains, and evaluates in both modes."""
    net = make(config.decay)
    params, state, by_epoch = train(config, net)
    found, of_batch, of_image = evaluate(config, net, params, state)
    by_epoch = np.asarray(by_epoch)
    mean = {case: values.mean() for case, values in found.items()}
    lag = (by_epoch[:, :, 1] - by_epoch[:, :, 0]).mean(0)
    largest = config.sizes[-1]
    numbers = {
        f"{mode} mode, {order}, batches of {n}: test accuracy [%]": 100 * a
        for (order, n, mode), a in mean.items()
    }
    numbers |= {
        "change of logits with the batch, eval mode": of_batch,
        "difference of logits between single images, train mode": of_image,
        "after epoch 1, running averages: test accuracy [%]": 100 * by_epoch[:, 1, 0].mean(),
        "after epoch 1, exact statistics: test accuracy [%]": 100 * by_epoch[:, 1, 1].mean(),
    }
    return Result(
        claims={
            "In eval mode an image's answer does not depend on its batch": truth(
                of_batch < ROUNDING
            ),
            "In train mode all single images get the same answer": truth(of_image < ROUNDING),
            "In large shuffled batches the mode is within a point of accuracy": truth(
                abs(mean["shuffled", largest, "train"] - mean["shuffled", largest, "eval"]) < POINT
            ),
            "In batches sorted by class train mode is worse than shuffled": truth(
                [
                    mean["sorted by class", n, "train"] < mean["shuffled", n, "train"] - POINT
                    for n in config.sizes
                    if 1 < n < len(_digits.examples()[1][0])
                ]
            ),
            f"After an epoch eval mode loses over a point to young averages, decay {config.decay:g}"
            "": truth(lag[1] > POINT),
            "At the end it does": truth(lag[-1] > POINT),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, by_epoch),
    )
