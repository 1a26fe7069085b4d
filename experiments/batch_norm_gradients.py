"""Does BatchNorm keep every update from only moving the mean and std of its input?

BatchNorm maps an activation y to u = (y - mean) / sqrt(var + eps). An update that adds a constant
to all of y, or scales all of y - mean, leaves u as it is for eps = 0, so the gradient g = dL/dy has
no part in these two directions:

    sum g = 0,   sum u g = 0   over the batch, and over space for images.

For eps > 0 the first holds all the same; the second becomes
`sum u g = eps / (var + eps)^(3/2) sum u dL/du`. Each sum is measured relative to the sum of its
terms' magnitudes, the largest over the features of a layer; every BatchNorm of the net is looked
at.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015.
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, section 8.7.1.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments._experiment import Result
from jaxtrain import _compat, data, losses, models, nn

LIMIT = 1e-10  # what counts as zero in float64
# Cases: dtype and eps of the BatchNorm; None for the same net without it.
CASES = {
    "float64, eps -> 0": ("float64", 1e-30),
    "float64, eps 1e-5": ("float64", 1e-5),
    "float32, eps 1e-5": ("float32", 1e-5),
    "float64, no BatchNorm": ("float64", None),
}
SUMS = ("sum g", "sum u g")


def mean_cross_entropy(logits, labels):
    return losses.softmax_cross_entropy(logits, labels).mean()


def mean_squared_error(outputs, labels):
    return losses.squared_error(outputs, jax.nn.one_hot(labels, outputs.shape[-1])).mean()


NETS = {
    "mlp": models.mlp([32, 32, 10], batch_norm=True),
    "resnet": models.resnet(4, widths=(8,)),
}
LOSSES = {"cross-entropy": mean_cross_entropy, "squared error": mean_squared_error}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every combination is run.

    Attributes:
        nets: names in `NETS`.
        losses: names in `LOSSES`.
        batch_sizes: images per batch.
        seeds: of the params and the batch.
    """

    nets: tuple[str, ...] = ("mlp", "resnet")
    losses: tuple[str, ...] = ("cross-entropy", "squared error")
    batch_sizes: tuple[int, ...] = (4, 32, 256)
    seeds: tuple[int, ...] = (0, 1, 2)


SIZES = {
    "smoke": Config(nets=("mlp",), losses=("cross-entropy",), batch_sizes=(16,), seeds=(0,)),
    "default": Config(),
    "full": Config(batch_sizes=(4, 8, 32, 128, 512), seeds=tuple(range(10))),
}


def tapped(net: nn.Layer, eps: float | None) -> nn.Layer:
    """Taps the input y of every BatchNorm, which gets this eps, or is left out for None."""

    def rewritten(path, layer):
        if layer.kind != "batch_norm":
            return layer
        norm = {} if eps is None else {"norm": layer.replace(eps=eps)}
        return nn.serial(y=lambda x: x, **norm)

    return nn.tap(nn.rewrite(net, rewritten), "*/y", lambda layer, params, x, y: (y, y))


def relative_sums(net: nn.Layer, loss, params, state, x, labels) -> jax.Array:
    """Returns the two sums of each tapped activation y, relative, (number of y, 2)."""
    flat = traverse_util.flatten_dict(params, sep="/")

    def forward(probes):
        params = traverse_util.unflatten_dict(flat | probes, sep="/")
        outputs, new = net.apply(params, state, x, nn.Context(train=True))
        return loss(outputs, labels), nn.split_taps(new)[1]

    # A probe is added to y: the gradient with respect to it is dL/dy.
    shapes = jax.eval_shape(forward, {})[1]
    probes = {f"{path}/probe": jnp.zeros(y.shape, y.dtype) for path, y in shapes.items()}
    gradients, seen = jax.grad(forward, has_aux=True)(probes)

    def sums(y, g):
        axes = tuple(range(y.ndim - 1))
        u = (y - y.mean(axes, keepdims=True)) / y.std(axes, keepdims=True)
        terms = jnp.stack([g, u * g]).reshape(2, -1, y.shape[-1])
        return jnp.abs(terms.sum(1)).max(-1) / jnp.abs(terms).sum(1).max(-1)

    return jnp.stack([sums(y, gradients[f"{path}/probe"]) for path, y in seen.items()])


def measure(config: Config) -> dict[str, dict[int, np.ndarray]]:
    """Returns the relative sums by case and batch size, (measurements, 2)."""
    dataset, _ = data.digits()
    images = data.standardize.apply(data.standardize.fit(dataset.image, per="all"), dataset.image)
    measured = {case: {n: [] for n in config.batch_sizes} for case in CASES}
    runs = itertools.product(CASES.items(), config.nets, config.losses, config.batch_sizes)
    for (case, (dtype, eps)), name, loss, n in runs:
        net = tapped(NETS[name], eps)
        f = jax.jit(functools.partial(relative_sums, net, LOSSES[loss]))
        for seed in config.seeds:
            batch = data.Order(len(dataset), n, seed=seed).indices(0)
            x, labels = images[batch].astype(dtype), dataset.label[batch]
            with _compat.enable_x64(dtype == "float64"):
                params, state = net.init(jax.random.key(seed), x)
                measured[case][n].append(np.asarray(f(params, state, x, labels)))
    return {
        case: {n: np.concatenate(parts) for n, parts in by_size.items()}
        for case, by_size in measured.items()
    }


def verdict(measured: dict[str, dict[int, np.ndarray]]) -> str:
    """Says "depends" where the sums are zero for eps -> 0 but not for the eps that is in use."""
    exact, in_use, _, without = (np.concatenate(list(measured[case].values())) for case in CASES)
    if exact.max() >= LIMIT or without.min() < LIMIT:
        return "false"
    return "true" if in_use.max() < LIMIT else "depends"


def draw(measured: dict[str, dict[int, np.ndarray]]):
    """Draws a panel per sum and a column per case, a dot per layer, net, loss and seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle("Does the gradient g = dL/dy at the input y of BatchNorm sum to zero?")
    titles = ("|sum g| / sum |g|", "|sum u g| / sum |u g|")
    panels = figure.subplots(1, 2, sharey=True)
    for i, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for column, by_size in enumerate(measured.values()):
            for j, (n, points) in enumerate(by_size.items()):
                middle = column + 0.5 * ((j + 0.5) / len(by_size) - 0.5)
                x = middle + np.linspace(-0.04, 0.04, len(points))
                y = np.maximum(points[:, i], 1e-18)  # an exact zero has no place on a log axis
                axes.plot(x, y, ".", color=f"C{j}", ms=4, alpha=0.6, label=f"batch of {n}")
            if column == i == 0:
                axes.legend(loc="upper left", fontsize=8)
        axes.axhline(LIMIT, color="black", lw=0.8, ls="--")
        axes.text(3.45, LIMIT * 1.4, "counts as zero below", ha="right", fontsize=8)
        axes.set(yscale="log", title=title, xlim=(-0.5, 3.5))
        axes.set_xticks(range(len(measured)), [case.replace(", ", ",\n") for case in measured])
        axes.grid(axis="y", alpha=0.3)
    return figure


def run(config: Config) -> Result:
    """Measures all combinations."""
    measured = measure(config)
    numbers = {}
    for (case, by_size), (i, name) in itertools.product(measured.items(), enumerate(SUMS)):
        values = np.concatenate(list(by_size.values()))[:, i]
        extreme = "smallest" if CASES[case][1] is None else "largest"
        worst = values.min() if extreme == "smallest" else values.max()
        numbers[f"{extreme} {name}, {case}"] = float(worst)
    claim = (
        "With BatchNorm no update acts only to move the mean or the std of an activation: the"
        " gradient at its input sums to 0 over the batch, alone and times the normalized input"
    )
    return Result({claim: verdict(measured)}, numbers, draw(measured))
