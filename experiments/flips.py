"""Do horizontal flips help a net to classify?

A flip makes another example of an object, which may look either way. A digit may not: the mirror
image of most is no digit, and that of a 2 not far from a 5. A net is trained on some of the shipped
digits with and without flips, each image in half of its visits,

- as they are,
- in a world like that of objects, where every image of the training and of the test set has been
  mirrored once and for all, or not, by the toss of a coin: there both are equally probable.

References:
    C. Shorten, T. Khoshgoftaar, "A survey on image data augmentation for deep learning", 2019.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, above_zero, panels, truth
from jaxtrain import augment, models, nn, optim

NET, TX = models.mlp([64, 10]), optim.momentum(0.02)
WORLDS = "digits", "digits of either handedness"
# The digits that are their own mirror images, but for the hand that wrote them.
SYMMETRIC = 0, 1, 8


@dataclasses.dataclass(frozen=True)
class Config:
    """Both worlds, with and without flips, from every seed.

    Attributes:
        examples: images to learn from.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches, the flips and the coins.
    """

    examples: int = 512
    epochs: int = 60
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(examples=128, epochs=5, seeds=(0, 1)),
    "default": Config(),
    "full": Config(examples=1437, seeds=tuple(range(100))),
}


def mirrored(images, labels, seed: int):
    """Mirrors half of the images, chosen by the seed."""
    chosen = np.random.default_rng(seed).random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images), labels


def flipped(key, images, labels):
    return jax.vmap(augment.random_flip)(jax.random.split(key, len(images)), images), labels


def worlds(seed: int):
    """Returns training and test set of both worlds."""
    parts = _digits.examples()
    coins = [mirrored(*part, seed=[seed, i]) for i, part in enumerate(parts)]
    return dict(zip(WORLDS, (parts, coins), strict=True))


def train(config: Config, world: str, flips: bool) -> np.ndarray:
    """Returns which images of the test set are classified right at the end, (seeds, images)."""
    sets = [worlds(seed)[world] for seed in config.seeds]
    x, test_x = (np.stack([s[i][0] for s in sets]) for i in range(2))
    labels, test_labels = sets[0][0][1], sets[0][1][1]

    def run(seed, order, x, test_x):
        params, state = _digits.trained(
            NET, TX, seed, order, training=(x, labels), augment=flipped if flips else None
        )
        return NET.apply(params, state, test_x, nn.EVAL)[0].argmax(-1) == test_labels

    order = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    return np.asarray(jax.jit(jax.vmap(run))(jnp.array(config.seeds), order, x, test_x))


def gains(right) -> np.ndarray:
    """Returns what flips add to the accuracy, by seed."""
    without, flips = right
    return flips.mean(1) - without.mean(1)


def by_class(right, labels) -> np.ndarray:
    """Returns what flips add to the accuracy in each class, the mean over seeds."""
    change = right[1].astype(float).mean(0) - right[0].mean(0)
    return np.array([change[labels == c].mean() for c in range(10)])


def draw(config: Config, found, labels):
    """Draws images and their mirror images, accuracies, and changes by class."""
    figure, (left, middle, right) = panels("Do horizontal flips help?", 3)
    x = _digits.examples()[1][0][..., 0]
    first = [x[labels == c][0] for c in range(10)]
    mirror = [image[:, ::-1] for image in first]
    rows = first[:5], mirror[:5], first[5:], mirror[5:]
    left.imshow(np.concatenate([np.concatenate(row, 1) for row in rows]), cmap="gray_r")
    left.axhline(15.5, color="C0", lw=2)
    left.set(xticks=[], yticks=[])
    left.grid(False)
    left.set_title("Digits and their mirror images", fontsize=11)
    for i, world in enumerate(WORLDS):
        accuracies = 100 * found[world].mean(2)
        at = np.array([i - 0.2, i + 0.2])
        for pair in accuracies.T:
            middle.plot(at, pair, "0.7", lw=1)
        for j, name in enumerate(("without", "with flips")):
            middle.plot(np.full(len(accuracies[j]), at[j]), accuracies[j], f"C{j}o",
                        label=None if i else name)  # fmt: skip
    middle.set_xticks(range(2), ["digits", "of either handedness"])
    middle.set(ylabel="test accuracy [%]", xlim=(-0.6, 1.6))
    middle.set_title("Accuracy, a line per seed", fontsize=11)
    middle.legend(loc="lower left")
    for i, world in enumerate(WORLDS):
        change = 100 * by_class(found[world], labels)
        right.bar(np.arange(10) + 0.4 * i - 0.2, change, 0.38, color=f"C{i + 2}", label=world)
    right.axhline(0, color="black", lw=1)
    right.set(xlabel="class", ylabel="change of the accuracy by flips [points]")
    right.set_xticks(range(10))
    right.set_title("By class", fontsize=11)
    right.legend(fontsize=8, loc="lower right")
    return figure


def run(config: Config) -> Result:
    """Trains in both worlds and compares accuracies."""
    found = {world: np.stack([train(config, world, flips) for flips in (False, True)])
             for world in WORLDS}  # fmt: skip
    labels = _digits.examples()[1][1]
    digits, either = (gains(found[world]) for world in WORLDS)
    numbers = {}
    for world in WORLDS:
        for name, accuracy in zip(("without", "with"), found[world].mean((1, 2)), strict=True):
            numbers[f"{world}, {name} flips: test accuracy [%]"] = 100 * accuracy
    classes = by_class(found[WORLDS[0]], labels)
    numbers |= {f"digits, class {c}: change by flips [points]": 100 * classes[c]
                for c in range(10)}  # fmt: skip
    symmetric = np.isin(np.arange(10), SYMMETRIC)
    return Result(
        claims={
            "On digits flips lower the test accuracy, by three standard errors": truth(
                above_zero(-digits)
            ),
            "Where an image is as often seen mirrored, as objects are, they raise it": truth(
                above_zero(either)
            ),
            "0, 1 and 8, which are like their mirror images, lose less than the others": truth(
                classes[symmetric].mean() > classes[~symmetric].mean()
            ),
            "2 and 5, almost each other's mirror images, lose the most": truth(
                set(np.argsort(classes)[:2]) == {2, 5}
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, labels),
    )
