"""Does BatchNorm remove the correlations of activations?

BatchNorm divides each activation by its own standard deviation, so that variances become 1 and
correlations stay what they are. Decorrelated BatchNorm multiplies by (cov + eps I)^(-1/2), so that
the whole covariance matrix becomes the identity; with groups, that within each group.

The activations are those of the first layer of a net, a linear map of the shipped digits, over
batches of the training set; in evaluation, those of the test set, whitened by the matrix averaged
in training.

References:
    L. Huang, D. Yang, B. Lang, J. Deng, "Decorrelated batch normalization", 2018.
"""

import dataclasses
import functools

import jax
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, nn

TRAIN = nn.Context(train=True)
LIMIT = 1e-2  # |cov - I|, Frobenius
STEPS = 200  # of running averages, with weight 0.9 of the past: 0.9^200 = 7e-10 of the start left


@dataclasses.dataclass(frozen=True)
class Config:
    """Every normalization on batches of every size from every seed.

    Attributes:
        features: activations.
        groups: of the grouped whitening, a divisor of features.
        batch_sizes: examples; the last is the one that verdicts are computed from.
        seeds: of the linear map and of the batches.
    """

    features: int = 16
    groups: int = 4
    batch_sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    seeds: tuple[int, ...] = tuple(range(5))


SIZES = {
    "smoke": Config(features=8, groups=2, batch_sizes=(256,), seeds=(0,)),
    "default": Config(),
    "full": Config(seeds=tuple(range(50))),
}


def norms(config: Config) -> dict[str, nn.Layer]:
    return {
        "nothing": nn.serial(nn.identity),
        "BatchNorm": nn.batch_norm(),
        f"whitening in {config.groups} groups": nn.decorrelated_batch_norm(config.groups),
        "whitening": nn.decorrelated_batch_norm(),
    }


def activations(config: Config, seed: int) -> list[np.ndarray]:
    """Returns those of the training and the test set, of variance 1 on the average."""
    w = np.random.default_rng(seed).normal(size=(64, config.features))
    return [
        part.reshape(len(part), -1).astype(np.float64) @ w / 8 for part, _ in _digits.examples()
    ]


def normalized(norm: nn.Layer, x, test_x, batches):
    """Returns the first batch, in training, and the test set, in evaluation after all batches."""
    params, state = norm.init(jax.random.key(0), x)

    def step(state, batch):
        return norm.apply(params, state, x[batch], TRAIN)[1], None

    first, _ = norm.apply(params, state, x[batches[0]], TRAIN)
    state, _ = jax.lax.scan(step, state, batches)
    return first, norm.apply(params, state, test_x, nn.EVAL)[0]


def covariances(y) -> np.ndarray:
    return np.array([np.cov(one.T, bias=True) for one in y])


def correlations(cov) -> np.ndarray:
    std = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    return cov / (std[:, :, None] * std[:, None])


def distance(cov) -> np.ndarray:
    """Returns the norm of cov - I, of each matrix."""
    return np.linalg.norm(cov - np.eye(cov.shape[-1]), axis=(-2, -1))


def within(cov, groups: int) -> np.ndarray:
    """Returns the blocks of covariance matrices that are within a group."""
    size = cov.shape[-1] // groups
    return np.stack([cov[:, i : i + size, i : i + size] for i in range(0, groups * size, size)])


def measure(config: Config) -> dict[tuple[str, int], list[np.ndarray]]:
    """Returns the covariances in training and in evaluation, (seeds, ...), by norm and size."""
    parts = zip(*(activations(config, seed) for seed in config.seeds), strict=True)
    x, test_x = map(np.stack, parts)
    rng, found = np.random.default_rng(0), {}
    for n in config.batch_sizes:
        batches = rng.integers(x.shape[1], size=(len(x), STEPS, n))
        for name, norm in norms(config).items():
            f = jax.jit(jax.vmap(functools.partial(normalized, norm)))
            found[name, n] = [covariances(y) for y in f(x, test_x, batches)]
    return found


def draw(config: Config, found):
    """Draws the covariance matrices, and how far from the identity they are."""
    figure, (*matrices, last) = panels("Does BatchNorm remove correlations?", 5, width=3.4)
    for axes, name in zip(matrices, norms(config), strict=True):
        cov = found[name, config.batch_sizes[-1]][0][0]
        image = axes.imshow(cov / np.diag(cov).max(), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_title(f"After {name}", fontsize=11)
    label = "covariance / largest variance"
    figure.colorbar(image, ax=matrices, label=label, shrink=0.5, aspect=50, location="bottom")
    for i, name in enumerate(list(norms(config))[1:], 1):
        for j, line in enumerate(("o-", "s--")):
            means = [distance(found[name, n][j]).mean() for n in config.batch_sizes]
            last.loglog(config.batch_sizes, means, line, color=f"C{i}", ms=4 + 2 * (1 - j))
        last.plot([], [], "o-", color=f"C{i}", label=name)
    last.plot([], [], "ks--", ms=4, label="evaluation, test set")
    last.axvline(config.features, color="black", lw=1, ls=":")
    last.text(config.features * 1.1, last.get_ylim()[0] * 1.3, "as many as features", fontsize=8)
    last.set(xlabel="examples of the batch", ylabel="|cov - I|")
    last.set_title("Distance from the identity", fontsize=11)
    last.legend(fontsize=7)
    return figure


def run(config: Config) -> Result:
    """Compares covariances after each normalization."""
    with _compat.enable_x64(True):
        found = measure(config)
    names, most = list(norms(config)), config.batch_sizes[-1]
    numbers = {}
    for name in names:
        train, test = found[name, most]
        numbers[f"|cov - I|, {name}"] = distance(train).mean()
        numbers[f"|cov - I|, {name}, test set"] = distance(test).mean()
    before, after, in_groups, whitened = (found[name, most][0] for name in names)
    change = abs(correlations(after) - correlations(before)).max()
    numbers["largest change of a correlation by BatchNorm"] = change
    blocks = within(in_groups, config.groups)
    evaluated = {
        name: np.array([distance(found[name, n][1]) for n in config.batch_sizes]) for name in names
    }
    return Result(
        claims={
            "BatchNorm leaves the correlation of any two activations as it is": truth(
                change < 1e-12
            ),
            f"After whitening the covariance is the identity, within {LIMIT:g}": truth(
                distance(whitened) < LIMIT
            ),
            "In groups that holds within each group, and not between them": truth(
                (distance(blocks) < LIMIT).all() and (distance(in_groups) > LIMIT).all()
            ),
            "In evaluation, too, the covariance of the test set is nearer to the identity after"
            " whitening than after BatchNorm": truth(
                evaluated["whitening"] < evaluated["BatchNorm"]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
