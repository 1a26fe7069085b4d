"""Is an image classified better from several crops than from one?

A net is trained on random crops of 6 x 6 pixels of the shipped digits, of 8 x 8. At test time the
probabilities for several of the nine crops that there are get averaged, one more at a time: the
middle, the corners, the edges; and for the ten crops, the middle and the corners with their mirror
images, though none of the digits that were learned from was mirrored.

References:
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural
    networks", 2012.
    C. Szegedy et al., "Going deeper with convolutions", 2015.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, above_zero, panels, standard_error, truth
from jaxtrain import augment, models, nn, optim

NET = models.mlp([64, 10])
SIZE = 6
# The upper left pixels: the five crops end with the fifth.
CORNERS = np.array([(1, 1), (0, 0), (2, 2), (0, 2), (2, 0), (0, 1), (2, 1), (1, 0), (1, 2)])


@dataclasses.dataclass(frozen=True)
class Config:
    """A net from every seed, tested on all crops.

    Attributes:
        examples: images to learn from.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the crops.
    """

    examples: int = 1437
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(examples=256, epochs=4, seeds=(0, 1)),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(100))),
}


def cropped(key, images, labels):
    crop = functools.partial(augment.random_crop, padding=0, size=(SIZE, SIZE))
    return jax.vmap(crop)(jax.random.split(key, len(images)), images), labels


def views(image):
    """Returns all crops, and the mirror images of the first five, (14, 6, 6, 1)."""
    crops = jax.vmap(lambda at: augment.crop(image, at, (SIZE, SIZE)))(jnp.array(CORNERS))
    return jnp.concatenate([crops, jax.vmap(augment.flip)(crops[:5])])


def probabilities(config: Config) -> np.ndarray:
    """Returns those of each view of each image of the test set, (seeds, images, views, 10)."""
    test = jax.vmap(views)(jnp.asarray(_digits.examples()[1][0]))

    def run(seed, order):
        last = _digits.trained(NET, optim.momentum(0.02), seed, order, augment=cropped)
        logits, _ = NET.apply(*last, test.reshape(-1, SIZE, SIZE, 1), nn.EVAL)
        return jax.nn.softmax(logits).reshape(*test.shape[:2], 10)

    order = _digits.orders(config.examples, config.batch_size, config.epochs, config.seeds)
    return np.asarray(jax.jit(jax.vmap(run))(jnp.array(config.seeds), order))


def accuracies(p, labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns those of 1 to 9 crops, (9, seeds), of each alone, and of the ten crops, (seeds,)."""

    def of(p):
        return (p.argmax(-1) == labels).mean(-1)

    several = np.array([of(p[:, :, :k].mean(2)) for k in range(1, 10)])
    alone = np.array([of(p[:, :, k]) for k in range(9)])
    return several, alone, of(p[:, :, [*range(5), *range(9, 14)]].mean(2))


def draw(config: Config, several, alone, ten):
    """Draws a digit's crops, the accuracies, and the gains seed by seed."""
    title = "Is an image classified better from several crops?"
    figure, (left, middle, right) = panels(title, 3)
    image = _digits.examples()[1][0][0]
    crops = np.asarray(views(jnp.asarray(image)))[:, ..., 0]
    tiles = np.full((3, 7, 4, 7), crops.max() / 2)
    for i in range(9):
        tiles[i // 3, :SIZE, i % 3, :SIZE] = crops[i]
    left.imshow(tiles.reshape(21, 28)[:-1, :20], cmap="gray_r")
    left.set(xticks=[], yticks=[])
    left.grid(False)
    left.set_title("The nine crops: middle, corners, edges", fontsize=11)
    k = np.arange(1, 10)
    middle.plot(k, 100 * several.mean(1), "o-", lw=2, label="the first k crops")
    middle.plot(k, 100 * alone.mean(1), "s:", label="the k-th crop alone")
    middle.plot(10, 100 * ten.mean(), "C3*", ms=13, label="the ten crops, half of them mirrored")
    middle.set(xlabel="crops k", ylabel="test accuracy [%]", ylim=(86.5, 98))
    middle.set_title("Accuracy, mean over seeds", fontsize=11)
    middle.legend(loc="lower right")
    gain = 100 * (several - several[0])
    right.errorbar(k, gain.mean(1), 3 * standard_error(gain), fmt="o-", capsize=3)
    right.axhline(0, color="black", lw=1)
    right.set(xlabel="crops k", ylabel="gain [points]; three standard errors")
    right.set_title("Against the middle alone, seed by seed", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Trains on crops and tests on several of them."""
    several, alone, ten = accuracies(probabilities(config), _digits.examples()[1][1])
    steps, gain, mirrored = np.diff(several, axis=0), several[-1] - several[0], ten - several[4]
    numbers = {f"{k} crops: test accuracy [%]": 100 * a
               for k, a in enumerate(several.mean(1), 1)}  # fmt: skip
    numbers["ten crops, half of them mirrored: test accuracy [%]"] = 100 * ten.mean()
    numbers["one crop, the mean over the nine: test accuracy [%]"] = 100 * alone.mean()
    return Result(
        claims={
            "No further crop lowers the accuracy by more than three standard errors": truth(
                not above_zero(-steps).any()
            ),
            "Nine crops are better than the middle one, by three standard errors": truth(
                above_zero(gain)
            ),
            "So are five": truth(above_zero(several[4] - several[0])),
            "Mirror images make the five crops better still": truth(above_zero(mirrored)),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, several, alone, ten),
    )
