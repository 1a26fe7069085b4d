"""Is the color that PCA lighting adds zero on average?

AlexNet's augmentation adds to all pixels of an image

    P (a * lam),   a_k ~ N(0, std^2),

P and lam being the principal components of the training set's pixels and their variances. The mean
of n such colors has the standard deviation std lam_k / sqrt(n) along component k. An image stays
in its range: what would leave it is cut off, and that is not symmetric near its ends.

The training set is gray on average; its colors vary as light does, most from dark to bright, and
least from green to magenta. Colors are added to a gray and to a white image.

References:
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural
    networks", 2012.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import augment

# Light, from blue to yellow, from green to magenta.
COMPONENTS = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]).T / np.sqrt([3, 6, 2])
VARIANCES = np.array([0.05, 0.005, 0.001])
LEVELS = {"gray": 0.5, "white": 1.0}


@dataclasses.dataclass(frozen=True)
class Config:
    """Colors drawn in many keys, and their means over the first n.

    Attributes:
        std: of a; AlexNet's is 0.1, more shows better what the end of the range does.
        images: of the training set, of 16 x 16 pixels.
        draws: colors.
        repeats: means of them, each over its own colors.
        seed: of images and colors.
    """

    std: float = 2.0
    images: int = 200
    draws: int = 4096
    repeats: int = 32
    seed: int = 0


SIZES = {
    "smoke": Config(draws=256, repeats=16),
    "default": Config(),
    "full": Config(images=2000, draws=65_536, repeats=64),
}


def training_set(config: Config) -> np.ndarray:
    """Returns images whose pixels vary along the components, (images, 16, 16, 3)."""
    rng = np.random.default_rng(config.seed)
    z = rng.normal(size=(config.images, 16, 16, 3)) * VARIANCES**0.5
    return LEVELS["gray"] + z @ COMPONENTS.T


def shifts(config: Config, lighting: augment.Lighting, level: float) -> np.ndarray:
    """Returns what is added to one image of a level, (repeats, draws, 3)."""
    image = jnp.full((1, 1, 3), level)
    keys = jax.random.split(jax.random.key(config.seed), (config.repeats, config.draws))

    def one(key):
        lit = augment.pca_lighting(key, image, **lighting._asdict(), std=config.std)
        return (lit - image)[0, 0]

    return np.asarray(jax.jit(jax.vmap(jax.vmap(one)))(keys))


def draw(config: Config, lighting, found, sizes, spread):
    """Draws colors of an image, the colors that were added, and their means."""
    figure, (left, middle, right) = panels("Is PCA lighting zero on average?", 3)
    gray = found["gray"].reshape(-1, 3)
    tiles = np.clip(LEVELS["gray"] + gray[:64].reshape(8, 8, 3), 0, 1)
    left.imshow(tiles)
    left.set(xticks=[], yticks=[])
    left.grid(False)
    left.set_title("64 lightings of a gray image", fontsize=11)
    along = gray @ lighting.eigenvectors
    for k in range(3):
        values = np.sort(along[:, k])
        middle.plot(values, np.linspace(0, 1, len(values)), label=f"component {k + 1}")
    middle.set(xlabel="shift along the component", ylabel="share of colors below")
    middle.set_title("Shifts are long where colors vary", fontsize=11)
    middle.legend()
    for i, (name, means) in enumerate(spread.items()):
        right.loglog(sizes, means, f"C{i}o-", label=f"on {name}")
    expected = config.std * np.linalg.norm(lighting.eigenvalues) / sizes**0.5
    right.loglog(sizes, expected, "k:", label="std |lam| / sqrt(n)")
    right.set(xlabel="colors n", ylabel="size of their mean")
    right.set_title("The mean goes to 0, but for the ends of the range", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Draws colors for a gray and for a white image."""
    x = training_set(config)
    lighting = augment.fit_lighting(x)
    found = {name: shifts(config, lighting, level) for name, level in LEVELS.items()}
    sizes = 2 ** np.arange(int(np.log2(config.draws)) + 1)
    # The root of the mean square, over repeats, of the length of the mean of n colors.
    spread = {
        name: np.array([(s[:, :n].mean(1) ** 2).sum(-1).mean() ** 0.5 for n in sizes])
        for name, s in found.items()
    }
    covariance = np.cov(found["gray"].reshape(-1, 3).T)
    expected = lighting.eigenvectors @ np.diag((config.std * lighting.eigenvalues) ** 2)
    expected = expected @ lighting.eigenvectors.T
    error = abs(covariance - expected).max() / expected.max()
    slopes = {name: np.polyfit(np.log(sizes), np.log(s), 1)[0] for name, s in spread.items()}
    n = config.repeats * config.draws
    means = {name: s.reshape(-1, 3).mean(0) for name, s in found.items()}
    deviations = {name: s.reshape(-1, 3).std(0) / n**0.5 for name, s in found.items()}
    zero = {name: (abs(means[name]) < 4 * deviations[name]).all() for name in LEVELS}
    numbers = {f"lam_{k + 1}": lighting.eigenvalues[k] for k in range(3)}
    numbers["covariance of the colors: largest error, relative"] = error
    for name in LEVELS:
        numbers[f"{name}: size of the mean of all colors"] = np.linalg.norm(means[name])
        numbers[f"{name}: size of the mean of n colors goes as n to the power"] = slopes[name]
    return Result(
        claims={
            "The components are those that the pixels were made of": truth(
                (abs(abs(lighting.eigenvectors.T @ COMPONENTS) - np.eye(3)) < 0.05).all()
            ),
            "The colors have the covariance P diag(std lam)^2 P', within 5 %": truth(error < 0.05),
            "Their mean is 0, within four standard errors: on gray, on white images": truth(
                [zero[name] for name in LEVELS]
            ),
            "On gray images it goes to 0 as 1 / sqrt(n), the power within 0.05": truth(
                abs(slopes["gray"] + 0.5) < 0.05
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, lighting, found, sizes, spread),
    )
