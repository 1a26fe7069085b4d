"""Which inputs does a normalized activation depend on?

The well-known picture of the axes over which BatchNorm, layer, instance and group normalization
take their mean and variance, by differentiation: how much does the output of one example, channel
and position change with the input of every example and channel? What is not in the average is not
in the derivative.

Only BatchNorm looks at other examples, and only in training. The others are the same function of an
example by itself, in training and evaluation. Group normalization is layer normalization for one
group, instance normalization for a channel per group.

References:
    Y. Wu, K. He, "Group normalization", 2018.
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Improved texture networks", 2017.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import nn

EXAMPLE, CHANNEL = 2, 4  # of the output that is looked at
SAME = 1e-6  # outputs are of order 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Every normalization on a batch from every seed.

    Attributes:
        batch_size: examples.
        channels: a multiple of groups.
        groups: of the group normalization.
        size: pixels along a side of the images.
        seeds: of the images, which have a mean and a scale of their own in each channel.
    """

    batch_size: int = 6
    channels: int = 9
    groups: int = 3
    size: int = 8
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(size=3, seeds=(0,)),
    "default": Config(),
    "full": Config(size=32, seeds=tuple(range(100))),
}


def norms(config: Config) -> dict[str, nn.Layer]:
    return {
        "BatchNorm": nn.batch_norm(),
        "layer norm": nn.layer_norm(per="example"),
        "group norm": nn.group_norm(config.groups),
        "instance norm": nn.instance_norm(),
    }


def images(config: Config, seed: int) -> jax.Array:
    rng = np.random.default_rng(seed)
    shape = config.batch_size, config.size, config.size, config.channels
    scale, mean = np.exp(rng.normal(size=config.channels)), rng.normal(size=config.channels)
    return jnp.asarray(scale * rng.normal(size=shape) + mean, jnp.float32)


@functools.partial(jax.jit, static_argnames=("norm", "train"))
def outputs(norm: nn.Layer, x, *, train: bool = True):
    params, state = norm.init(jax.random.key(0), x)
    return norm.apply(params, state, x, nn.Context(train))[0]


def dependence(norm: nn.Layer, x) -> np.ndarray:
    """Returns the mean magnitude over space of the gradient of one output, (examples, channels)."""
    gradient = jax.grad(lambda x: outputs(norm, x)[EXAMPLE, 0, 0, CHANNEL])(x)
    return np.asarray(jnp.abs(gradient).mean((1, 2)))


def apart(a, b) -> float:
    return float(jnp.abs(a - b).max())


def measure(config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Returns differences of outputs by what is compared and by normalization, (seeds,)."""
    found: dict[str, dict[str, list]] = {}
    layers = norms(config)
    one, each = (nn.group_norm(groups) for groups in (1, config.channels))
    for seed in config.seeds:
        x = images(config, seed)
        others = images(config, seed + 1000).at[EXAMPLE].set(x[EXAMPLE])
        for name, norm in layers.items():
            y = outputs(norm, x)
            with_others = outputs(norm, others)[EXAMPLE]
            cases = {
                "other examples in the batch": apart(y[EXAMPLE], with_others),
                "evaluation": apart(y, outputs(norm, x, train=False)),
            }
            for case, difference in cases.items():
                found.setdefault(case, {}).setdefault(name, []).append(difference)
        for name, group, like in (
            ("one group, layer norm", one, "layer norm"),
            ("a channel per group, instance norm", each, "instance norm"),
        ):
            difference = apart(outputs(group, x), outputs(layers[like], x))
            found.setdefault("group norm", {}).setdefault(name, []).append(difference)
    return {
        case: {name: np.array(d) for name, d in by_name.items()} for case, by_name in found.items()
    }


def draw(config: Config):
    """Draws which examples and channels one output depends on."""
    title = "Which inputs does a normalized activation depend on?"
    figure, row = panels(title, 4, width=3.4, sharey=True)
    x = images(config, config.seeds[0])
    for axes, (name, norm) in zip(row, norms(config).items(), strict=True):
        weights = dependence(norm, x)
        shown = np.where(weights > 0, weights / weights.max(), np.nan) ** 0.25
        axes.pcolormesh(shown, cmap="Blues", vmin=0, vmax=1.2, edgecolors="0.85", linewidth=0.5)
        axes.plot(CHANNEL + 0.5, EXAMPLE + 0.5, "C3o", ms=9)
        axes.set(xlabel="channel", xticks=[], yticks=[])
        axes.grid(False)
        n = int((weights > 0).sum())
        many = f"{n} of {weights.size} planes" if n > 1 else f"one of {weights.size} planes"
        axes.set_title(f"{name}\n{many}", fontsize=11)
    row[0].set(ylabel="example")
    figure.supxlabel("red: the output looked at; blue: what it depends on", fontsize=10)
    return figure


def run(config: Config) -> Result:
    """Compares outputs in other batches, in evaluation, and of the special cases."""
    found = measure(config)
    numbers = {
        f"{case}, {name}: largest difference": differences.max()
        for case, by_name in found.items()
        for name, differences in by_name.items()
    }
    x = images(config, config.seeds[0])
    for name, norm in norms(config).items():
        numbers[f"planes that {name} depends on"] = (dependence(norm, x) > 0).sum()

    def same(case, *, batch_norm):
        names = [name for name in found[case] if (name == "BatchNorm") == batch_norm]
        return truth([found[case][name] < SAME for name in names])

    others = "other examples in the batch"
    return Result(
        claims={
            "Layer, group and instance normalization of an example are the same in any batch": same(
                others, batch_norm=False
            ),
            "They are the same in training and evaluation": same("evaluation", batch_norm=False),
            "BatchNorm in training is the same in any batch": same(others, batch_norm=True),
            "Group normalization with one group is layer normalization, with a channel per group"
            " instance normalization": same("group norm", batch_norm=False),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config),
    )
