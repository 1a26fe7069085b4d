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

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, nn

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
        "nothing": nn.serial(x=lambda x: x),
        "BatchNorm": nn.batch_norm(),
        f"whitening in {config.groups} groups": nn.decorrelated_batch_norm(config.groups),
        "whitening": nn.decorrelated_batch_norm(),
    }


def activations(config: Config, seed: int) -> list[np.ndarray]:
    """Returns those of the training and the test set, of variance 1 on the average."""
    w = np.random.default_rng(seed).normal(size=(64, config.features))
    return [part.reshape(len(part), -1).astype(np.float64) @ w / 8 for part, _ in _digits.examples()]


def normalize(norm: nn.Layer, x: np.ndarray):
    params, state = norm.init(jax.random.key(0), x)
    return np.asarray(norm.apply(params, state, jnp.asarray(x), nn.Context(train=True))[0])


def evaluated(norm: nn.Layer, x, test_x, batches):
    """Returns the test set after running averages over batches of the training set."""
    params, state = norm.init(jax.random.key(0), x)

    def step(state, batch):
        return norm.apply(params, state, batch, nn.Context(train=True))[1], None

    state = jax.lax.scan(step, state, jnp.asarray(x[batches]))[0]
    return np.asarray(norm.apply(params, state, jnp.asarray(test_x), nn.EVAL)[0])


def covariance(y) -> np.ndarray:
    return np.cov(y.T, bias=True)


def correlation(y) -> np.ndarray:
    """Returns the correlations of different activations, a vector."""
    return np.corrcoef(y.T)[~np.eye(y.shape[1], dtype=bool)]


def distance(cov) -> float:
    """Returns the norm of cov - I."""
    return float(np.linalg.norm(cov - np.eye(len(cov))))


def within(cov, groups: int) -> np.ndarray:
    """Returns the blocks of a covariance matrix that are within a group."""
    size = len(cov) // groups
    return np.array([cov[i : i + size, i : i + size] for i in range(0, len(cov), size)])


def measure(config: Config):
    """Returns covariances by normalization (seeds, ...), distances by size and in evaluation."""
    covariances = {name: [] for name in norms(config)}
    changes, distances, evaluation = [], {n: [] for n in config.batch_sizes}, {}
    for seed in config.seeds:
        x, test_x = activations(config, seed)
        rng = np.random.default_rng(seed)
        for n in config.batch_sizes:
            batches = rng.integers(len(x), size=(STEPS, n))
            batch = x[batches[0]]
            last = {name: normalize(norm, batch) for name, norm in norms(config).items()}
            distances[n].append([distance(covariance(y)) for y in last.values()])
            for name, norm in norms(config).items():
                y = evaluated(norm, x, test_x, batches)
                evaluation.setdefault((name, n), []).append(distance(covariance(y)))
        for name, y in last.items():
            covariances[name].append(covariance(y))
        changes.append(abs(correlation(last["BatchNorm"]) - correlation(batch)).max())
    distances = {n: np.array(d) for n, d in distances.items()}
    return covariances, np.array(changes), distances, evaluation


def draw(config: Config, covariances, distances, evaluation):
    """Draws the covariance matrices, and how far from the identity they are."""
    figure, (*matrices, last) = panels("Does BatchNorm remove correlations?", 5, width=3.4)
    for axes, (name, found) in zip(matrices, covariances.items(), strict=True):
        cov = found[0] if name != "nothing" else found[0] / np.diag(found[0]).max()
        image = axes.imshow(cov, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_title(f"After {name}", fontsize=11)
    figure.colorbar(image, ax=matrices, label="covariance", shrink=0.5, aspect=50, location="bottom")
    for i, name in enumerate(covariances):
        if name == "nothing":
            continue
        train = [distances[n][:, i].mean() for n in config.batch_sizes]
        test = [np.mean(evaluation[name, n]) for n in config.batch_sizes]
        last.loglog(config.batch_sizes, train, "o-", color=f"C{i}", label=name)
        last.loglog(config.batch_sizes, test, "s--", color=f"C{i}", ms=4)
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
        covariances, changes, distances, evaluation = measure(config)
    most = config.batch_sizes[-1]
    numbers = {f"|cov - I|, {name}": distances[most][:, i].mean() for i, name in enumerate(covariances)}
    numbers |= {f"|cov - I|, {name}, test set": np.mean(evaluation[name, most]) for name in covariances}
    numbers["largest change of a correlation by BatchNorm"] = changes.max()
    grouped = list(norms(config))[2]
    within_groups = [within(cov, config.groups) for cov in covariances[grouped]]
    between = [distance(cov) for cov in covariances[grouped]]
    identity = np.eye(config.features // config.groups)
    return Result(
        claims={
            "BatchNorm leaves the correlation of any two activations as it is": truth(
                changes < 1e-12
            ),
            f"After whitening the covariance is the identity, within {LIMIT:g}": truth(
                [distance(cov) < LIMIT for cov in covariances["whitening"]]
            ),
            "In groups that holds within each group, and not between them": truth(
                [
                    np.linalg.norm(np.array(within_groups) - identity, axis=(2, 3)).max() < LIMIT,
                    min(between) > LIMIT,
                ]
            ),
            "In evaluation, too, the covariance of the test set is nearer to the identity after"
            " whitening than after BatchNorm": truth(
                [
                    np.array(evaluation["whitening", n]) < np.array(evaluation["BatchNorm", n])
                    for n in config.batch_sizes
                ]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, covariances, distances, evaluation),
    )
