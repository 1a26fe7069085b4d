"""What does fractional max pooling give that max pooling does not?

Max pooling by 2 halves an image: log2(n) times and no more. Fractional max pooling by a ratio alpha
in (1, 2) makes n / alpha of n, rounded down, from regions of random sizes 1 and 2, or 2 and 3 with
the shared rows of overlapping ones: any size from n - 1 down to n / 2, more layers, and another
picture at every pass, so that several passes can be averaged at test time.

Three convolutions with two poolings are trained on the shipped digits, of 8 by 8 pixels, with each
kind of pooling.

References:
    B. Graham, "Fractional max-pooling", 2014.
"""

import dataclasses
import fractions

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import nn, optim

KINDS = {
    "max pooling by 2": lambda: nn.max_pool(2),
    "pseudorandom, disjoint": lambda: nn.fractional_max_pool(2**0.5, overlapping=False),
    "pseudorandom, overlapping": lambda: nn.fractional_max_pool(2**0.5),
    "random, overlapping": lambda: nn.fractional_max_pool(2**0.5, sequence="random"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every size and ratio for the sizes, every pooling and seed for the training.

    Attributes:
        sizes: n, of the images.
        ratios: alpha, in (1, 2).
        kinds: names in `KINDS`.
        passes: averaged at test time, ascending from 1.
        examples: training images.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the regions.
    """

    sizes: tuple[int, ...] = tuple(range(4, 65))
    ratios: tuple[float, ...] = (1.1, 1.2, 2 ** (1 / 3), 2**0.5, 1.5, 2 ** (2 / 3), 1.75, 1.9)
    kinds: tuple[str, ...] = tuple(KINDS)
    passes: tuple[int, ...] = (1, 2, 4, 8, 16)
    examples: int = 256
    epochs: int = 15
    batch_size: int = 32
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "smoke": Config(
        sizes=(5, 25, 32),
        ratios=(1.25, 2**0.5),
        kinds=tuple(KINDS)[:2],
        passes=(1, 4),
        examples=64,
        epochs=2,
        seeds=(0, 1),
    ),
    "default": Config(),
    "full": Config(epochs=100, examples=1024, seeds=tuple(range(20))),
}


def pooled_size(n: int, ratio: float) -> int:
    pool = nn.fractional_max_pool(ratio)
    x = jax.ShapeDtypeStruct((1, n, n, 1), "float32")
    return jax.eval_shape(lambda x: pool.apply({}, {}, x, nn.EVAL)[0], x).shape[1]


def regions(n: int, ratio: float, overlapping: bool) -> np.ndarray:
    """Returns the lengths of the regions of 1000 random poolings of n elements.

    They are the differences of what is last and what is first in them: the largest of numbers
    that rise, and of numbers that fall.
    """
    pool = nn.fractional_max_pool(ratio, sequence="random", overlapping=overlapping)
    rising = jnp.tile(jnp.arange(n, dtype=jnp.float32)[None, :, None], (1000, 1, 2))
    x = rising * jnp.array([[[1.0, -1.0]]])
    y, _ = pool.apply({}, {}, x, nn.Context(train=True, key=jax.random.key(0)))
    return np.asarray(y.sum(-1)).astype(int) + 1


def made(kind: str) -> nn.Layer:
    layers = {}
    for i, features in enumerate((8, 16)):
        layers |= {f"conv{i}": nn.conv(features, 3), f"relu{i}": nn.relu, f"pool{i}": KINDS[kind]()}
    return nn.serial(
        **layers, conv=nn.conv(32, 3), relu=nn.relu, flatten=nn.flatten(), out=nn.dense(10)
    )


def train(config: Config, kind: str) -> dict[str, np.ndarray]:
    """Returns the test loss of one pass in evaluation and of means of random ones, by seed."""
    net = made(kind)
    (x, _), (test_x, labels) = _digits.examples()

    def see(params, state, opt_state):
        return params

    def nll(probabilities):
        return -jnp.log(probabilities[jnp.arange(len(labels)), labels]).mean()

    @jax.jit
    def run(seed, order):
        params = _digits.train(net, optim.momentum(0.02), seed, order, see)
        params = jax.tree.map(lambda p: p[-1], params)
        one = nn.softmax(net.apply(params, {}, test_x, nn.EVAL)[0])
        means = []
        for passes in config.passes:
            key = jax.random.fold_in(jax.random.key(seed), passes)
            mean, _ = nn.predict_mc(
                net, params, {}, test_x, key, samples=passes, transform=nn.softmax
            )
            means.append(nll(mean))
        return nll(one), jnp.stack(means)

    found = []
    orders = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    for seed, order in zip(config.seeds, orders, strict=True):
        found.append(jax.tree.map(np.asarray, run(np.int32(seed), order)))
    one, means = (np.array(f) for f in zip(*found, strict=True))
    return {"one": one, "means": means}


def draw(config: Config, sizes, lengths, trained):
    """Draws sizes, regions and test losses."""
    title = "What does fractional max pooling give that max pooling does not?"
    figure, (left, middle, right) = panels(title, 3)
    for i, ratio in enumerate(config.ratios):
        found = [sizes[n, ratio] for n in config.sizes]
        left.plot(config.sizes, found, ".-", color=f"C{i}", lw=0.7, label=f"{ratio:.3g}")
    left.plot(config.sizes, np.array(config.sizes) // 2, "k--", label="max pooling by 2")
    left.set(xlabel="size of the image", ylabel="size after pooling")
    left.set_title("Sizes, by ratio", fontsize=11)
    left.legend(fontsize=8, ncols=2)
    for i, (name, found) in enumerate(lengths.items()):
        share = 100 * np.bincount(found.ravel(), minlength=4)[1:4] / found.size
        bars = middle.bar(np.arange(1, 4) + 0.4 * (i - 0.5), share, 0.36, label=name)
        middle.bar_label(bars, [f"{s:.0f} %" if s else "" for s in share], fontsize=9)
    middle.set(xlabel="elements of a region", ylabel="share [%]", xticks=[1, 2, 3], ylim=(0, 75))
    middle.set_title(r"Regions for $\alpha = \sqrt{2}$ of 32 elements", fontsize=11)
    middle.legend(fontsize=9)
    for i, (kind, losses) in enumerate(trained.items()):
        right.axhline(losses["one"].mean(), color=f"C{i}", lw=1.2, ls="--")
        if np.ptp(losses["means"].mean(0)):
            mean = losses["means"].mean(0)
            right.semilogx(config.passes, mean, f"C{i}o-", lw=2, label=kind)
        else:
            right.plot([], [], f"C{i}--", label=kind)
    right.set_xticks(config.passes, config.passes)
    right.minorticks_off()
    right.set(xlabel="random passes averaged", ylabel="test loss")
    right.set_title("Dashed: one pass in evaluation", fontsize=11)
    right.set_ylim(top=1.2 * right.get_ylim()[1])
    right.legend(fontsize=9, loc="upper right")
    return figure


def run(config: Config) -> Result:
    """Pools all sizes and trains with each pooling."""
    sizes = {(n, a): pooled_size(n, a) for n in config.sizes for a in config.ratios}
    lengths = {
        "disjoint": regions(32, 2**0.5, False),
        "overlapping": regions(32, 2**0.5, True),
    }
    trained = {kind: train(config, kind) for kind in config.kinds}
    numbers = {}
    for name, found in lengths.items():
        for length in range(1, 4):
            numbers[f"{name}: share of regions of {length}"] = (found == length).mean()
    for kind, losses in trained.items():
        numbers[f"{kind}: test loss, one pass"] = losses["one"].mean()
        for passes, loss in zip(config.passes, losses["means"].mean(0), strict=True):
            numbers[f"{kind}: test loss, mean of {passes} passes"] = loss
    plain, *fractional = trained.values()
    gains = [np.log(f["means"][:, -1] / f["one"]).mean() for f in fractional]
    return Result(
        claims={
            "The size after pooling is that of the image divided by the ratio, rounded down": truth(
                [size == n // fractions.Fraction(str(a)) for (n, a), size in sizes.items()]
            ),
            "Disjoint regions are 1 or 2 long, overlapping ones 2 or 3": truth(
                [
                    set(np.unique(lengths["disjoint"])) == {1, 2},
                    set(np.unique(lengths["overlapping"])) == {2, 3},
                ]
            ),
            f"The mean of {config.passes[-1]} random passes has a lower test loss than one pass in"
            " evaluation": truth(np.array(gains) < 0),
            "Its test loss is lower than with max pooling by 2": truth(
                [f["means"][:, -1].mean() < plain["one"].mean() for f in fractional]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, sizes, lengths, trained),
    )
