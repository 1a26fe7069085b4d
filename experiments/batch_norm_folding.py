"""What does BatchNorm cost at test time?

In evaluation BatchNorm is `y = a x + b` for each feature, and goes into the weights of a dense or
convolution layer right before it. The folded net is compared with the net: its outputs, and the
floating-point operations that XLA counts in the compiled program. The nets have random statistics,
scales and biases, as after some training.

What comes after an activation cannot be folded, as in a net that normalizes there.

To be the identity BatchNorm needs scale = sqrt(var + eps) and bias = mean; some notes have
scale = sqrt(var), which is short by the factor sqrt(var / (var + eps)).

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015.
    B. Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", 2018, section 3.2.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, models, nn

NETS = {
    "MLP": lambda norm: models.mlp([64, 64, 10], norm=norm),
    "MLP, norm after ReLU": lambda norm: models.mlp([64, 64, 10], norm=norm, norm_placement="post"),
    "ResNet-8": lambda norm: models.resnet(8, widths=(8, 16, 32), norm=norm),
}
EPS = 1e-5
SAME = {"float32": 1e-5, "float64": 1e-13}  # the share of the largest output


@dataclasses.dataclass(frozen=True)
class Config:
    """Every net in both float types.

    Attributes:
        nets: names in `NETS`.
        batch_size: images.
        variances: of the features for the identity, descending.
    """

    nets: tuple[str, ...] = tuple(NETS)
    batch_size: int = 32
    variances: tuple[float, ...] = tuple(10.0**-i for i in range(9))


SIZES = {
    "smoke": Config(nets=tuple(NETS)[:2], batch_size=2, variances=(1.0, 1e-6)),
    "default": Config(),
    "full": Config(batch_size=256),
}


def trained(net: nn.Layer, x):
    """Returns params and state in which nothing is as it began."""
    rng = np.random.default_rng(0)

    def changed(leaf):
        noise = jnp.asarray(rng.normal(size=leaf.shape) / 2, leaf.dtype)
        return jnp.where(leaf == 0, noise, leaf * jnp.exp(noise))

    return jax.tree.map(changed, jax.jit(net.init)(jax.random.key(0), x))


def outputs(net: nn.Layer):
    return jax.jit(lambda params, state, x: net.apply(params, state, x, nn.EVAL)[0])


def operations(net: nn.Layer, params, state, x) -> float:
    """Returns the floating-point operations for each image."""
    compiled = outputs(net).lower(params, state, x).compile()
    return compiled.cost_analysis()["flops"] / len(x)


def fold(config: Config, name: str, dtype: str) -> dict[str, float]:
    """Folds a net and returns what is left of it, and how far its outputs are from the net's."""
    net = NETS[name]("batch")
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(config.batch_size, 8, 8, 1)), dtype)
    params, state = trained(net, x)
    folded, *weights, left = nn.fold_batch_norm(net, params, state)
    y, z = outputs(net)(params, state, x), outputs(folded)(*weights, x)
    without = NETS[name]("none")
    none = trained(without, x)
    return {
        "difference": float(jnp.abs(y - z).max() / jnp.abs(y).max()),
        "left": len(left),
        "operations": operations(net, params, state, x),
        "operations, folded": operations(folded, *weights, x),
        "operations, without": operations(without, *none, x),
    }


def identity_errors(config: Config, eps: float) -> np.ndarray:
    """Returns the relative error of BatchNorm with scale = sqrt(var + eps), by variance."""
    rng = np.random.default_rng(0)
    x = np.sqrt(np.array(config.variances)) * rng.normal(size=(1000, len(config.variances)))
    mean, var = x.mean(0), x.var(0)
    params = {"scale": jnp.sqrt(var + eps), "bias": jnp.asarray(mean)}
    state = {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}
    y, _ = nn.batch_norm(eps=EPS).apply(params, state, jnp.asarray(x), nn.Context(train=True))
    return np.linalg.norm(y - x, axis=0) / np.linalg.norm(x - mean, axis=0)


def draw(config: Config, found, identity):
    """Draws operations, differences of outputs, and the error of the identity."""
    figure, (left, middle, right) = panels("What does BatchNorm cost at test time?", 3)
    at = np.arange(len(config.nets))
    kinds = {"operations": "with BatchNorm", "operations, folded": "folded"}
    for i, (kind, label) in enumerate(kinds.items()):
        runs = [found[net, "float32"] for net in config.nets]
        extra = [100 * (run[kind] / run["operations, without"] - 1) for run in runs]
        bars = left.bar(at + (i - 0.5) * 0.4, extra, 0.36, color=f"C{1 - i}", label=label)
        left.bar_label(bars, [f"{e:.1f} %" for e in extra], fontsize=9)
    left.set_xticks(at, [net.replace(", ", ",\n") for net in config.nets])
    left.set(ylabel="more operations than without BatchNorm [%]", ylim=(0, 2))
    left.set_title("Operations that XLA counts", fontsize=11)
    left.legend(loc="upper left")
    for i, (dtype, limit) in enumerate(SAME.items()):
        differences = [max(found[net, dtype]["difference"], 1e-17) for net in config.nets]
        middle.semilogy(at, differences, "o", ms=9, color=f"C{i + 2}", label=dtype)
        middle.axhline(limit, color=f"C{i + 2}", lw=1, ls=":")
    middle.set_xticks(at, [net.replace(", ", ",\n") for net in config.nets])
    middle.set(ylabel="largest difference / largest output", ylim=(1e-18, 1e-3))
    middle.set_title("Outputs, folded and not: equal to rounding", fontsize=11)
    middle.legend(loc="center right")
    for i, (name, errors) in enumerate(identity.items()):
        right.loglog(config.variances, np.maximum(errors, 1e-17), f"C{i + 4}o-", label=name)
    right.axvline(EPS, color="black", lw=1, ls=":")
    right.text(1.2 * EPS, 1e-13, "eps")
    right.set(xlabel="variance of the feature", ylabel="relative error")
    right.set_title("BatchNorm as the identity", fontsize=11)
    right.legend(loc="center left", fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Folds all nets and measures what they compute."""
    found = {}
    for net in config.nets:
        for dtype in SAME:
            with _compat.enable_x64(dtype == "float64"):
                found[net, dtype] = fold(config, net, dtype)
    with _compat.enable_x64(True):
        identity = {
            "scale = sqrt(var + eps)": identity_errors(config, EPS),
            "scale = sqrt(var)": identity_errors(config, 0.0),
        }
    numbers = {
        f"{net}, {dtype}: {what}": value
        for (net, dtype), values in found.items()
        for what, value in values.items()
    }
    for name, errors in identity.items():
        for var, error in zip(config.variances, errors, strict=True):
            numbers[f"identity with {name}, variance {var:g}: error"] = error
    folded = [v["operations, folded"] <= v["operations, without"] for v in found.values()]
    right, short = identity.values()
    return Result(
        claims={
            "The folded net has the same outputs, to rounding": truth(
                [v["difference"] < SAME[dtype] for (_, dtype), v in found.items()]
            ),
            "BatchNorm costs nothing at test time": truth(
                [v["operations"] <= v["operations, without"] for v in found.values()]
            ),
            "Folded it costs nothing at test time": truth(folded),
            "Every BatchNorm can be folded": truth([v["left"] == 0 for v in found.values()]),
            # Rounding of 1e-16, against values that are up to 1e4 times as small as their mean.
            "With scale = sqrt(var + eps) and bias = mean BatchNorm is the identity": truth(
                right < 1e-12
            ),
            "With scale = sqrt(var) and bias = mean it is": truth(short < 1e-12),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, identity),
    )
