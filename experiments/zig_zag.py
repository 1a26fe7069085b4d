"""Do inputs that are all positive make gradient descent zig-zag?

The gradient of one example's loss in the weights w of a unit with input x is delta x: where all of
x is positive its entries have one sign, that of delta. So no step leads nearer than 45 degrees to
a w* that lies, seen from w, where one weight is to grow and another to shrink, and the way there
is a zig-zag. Centred inputs have entries of both signs.

A linear unit with a bias learns `v = w*'x + b*` by one example at a time, x uniform in [0, 1]^d
and w* of entries 1, -1, 1, ... Centring changes b* only: both can be learned without error. Counted
are the steps until the mean squared error is a thousandth of that at w = 0, b = mean of v, each at
the best of several rates.

References:
    Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient backprop", 1998.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, data, losses, optim

INPUTS = "positive", "centred"
GOAL = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    """Both kinds of input in every dimension from every seed.

    Attributes:
        dimensions: numbers of inputs, the first of them 2.
        examples: of each data set.
        rates: tried, times 1 / (1 + d).
        steps: of one example each.
        seeds: of the inputs and of their order.
    """

    dimensions: tuple[int, ...] = (2, 5, 10, 20)
    examples: int = 200
    rates: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    steps: int = 2000
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(dimensions=(2, 5), rates=(0.5, 1.5), steps=1000, seeds=(0, 1, 2)),
    "default": Config(),
    "full": Config(dimensions=(2, 5, 10, 20, 50), steps=10_000, seeds=tuple(range(100))),
}


def examples(config: Config, kind: str, d: int, seed: int):
    """Returns inputs, targets whose mean is 0, and w*."""
    goal = (-1.0) ** np.arange(d)
    x = np.random.default_rng([d, seed]).uniform(size=(config.examples, d))
    centred = data.standardize.apply(data.standardize.fit(x, scale=False), x)
    return (x if kind == "positive" else centred), centred @ goal, goal


def loss(w, x, v):
    """Returns the mean squared error of the unit, whose bias is the last of w."""
    y = x @ w[:-1] + w[-1]
    return losses.squared_error(y[:, None], v[:, None]).mean()


def descend(rate, x, v, order):
    """Returns the weights before each step, (steps + 1, d + 1)."""

    def gradient(w, k):
        return jax.grad(loss)(w, x[order[k]][None], v[order[k]][None])

    return path(optim.sgd(rate), gradient, jnp.zeros(x.shape[1] + 1), len(order))


def one_sign(x, v) -> np.ndarray:
    """Tells for each example whether all its partial derivatives in the weights have one sign."""
    w = jnp.zeros(x.shape[1] + 1)
    each = jax.vmap(lambda x, v: jax.grad(loss)(w, x[None], v[None]))(x, v)
    return np.asarray(abs(jnp.sign(each[:, :-1]).sum(1)) == x.shape[1])


def counts(config: Config, kind: str, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps to the goal at the best rate, and the share of one sign, by seed."""
    orders = [np.random.default_rng(s).integers(config.examples, size=config.steps)
              for s in config.seeds]  # fmt: skip
    x, v, _ = map(np.stack, zip(*(examples(config, kind, d, s) for s in config.seeds), strict=True))

    def steps(rate, x, v, order):
        found = jax.vmap(loss, (0, None, None))(descend(rate, x, v, order), x, v)
        reached = found < GOAL * found[0]
        return jnp.where(reached.any(), reached.argmax(), config.steps)

    rates = np.array(config.rates) / (1 + d)
    runs = jax.vmap(jax.vmap(steps, (None, 0, 0, 0)), (0, None, None, None))
    found = jax.jit(runs)(rates, x, v, np.stack(orders))
    share = [one_sign(*xv).mean() for xv in zip(x, v, strict=True)]
    return np.asarray(found).min(0), np.array(share)


def draw(config: Config, found):
    """Draws the way in two dimensions for both kinds of input, and the step counts."""
    figure, (*ways, last) = panels("Do positive inputs make gradient descent zig-zag?", 3)
    order = np.random.default_rng(0).integers(config.examples, size=60)
    for axes, kind in zip(ways, INPUTS, strict=True):
        x, v, goal = examples(config, kind, 2, 0)
        w = np.asarray(jax.jit(descend)(0.3, x, v, order))
        axes.plot(*w[:, :2].T, "C0.-", lw=1, label="60 steps of one example")
        axes.plot(*goal, "C3*", ms=14, label="w*")
        share = found[kind, 2][1].mean()
        axes.set(xlabel="$w_1$", ylabel="$w_2$", xlim=(-0.7, 1.3), ylim=(-1.3, 0.7))
        axes.set_title(f"{kind.capitalize()}: {share:.0%} of one sign", fontsize=11)
    ways[0].legend(loc="upper right")
    for kind in INPUTS:
        steps = np.array([found[kind, d][0] for d in config.dimensions])
        last.errorbar(
            config.dimensions,
            np.median(steps, 1),
            abs(np.quantile(steps, [0.1, 0.9], 1) - np.median(steps, 1)),
            fmt="o-",
            capsize=3,
            label=f"{kind} inputs",
        )
    last.set(xscale="log", yscale="log", xlabel="inputs")
    last.set(ylabel="steps; median and 80 % of seeds")
    last.set_xticks(config.dimensions, config.dimensions)
    last.set_yticks([20, 50, 100, 200, 500], [20, 50, 100, 200, 500])
    last.minorticks_off()
    last.set_title(f"Steps to {GOAL:g} of the loss, best rate", fontsize=11)
    last.legend()
    return figure


def run(config: Config) -> Result:
    """Counts signs and steps for both kinds of input."""
    with _compat.enable_x64(True):
        found = {(kind, d): counts(config, kind, d) for d in config.dimensions for kind in INPUTS}
        figure = draw(config, found)
    numbers = {}
    for (kind, d), (steps, share) in found.items():
        numbers[f"{kind}, {d} inputs: share of examples with gradients of one sign"] = share.mean()
        numbers[f"{kind}, {d} inputs: steps, median"] = np.median(steps)
    positive, centred = (np.array([found[k, d] for d in config.dimensions]) for k in INPUTS)
    fewer = np.median(centred[:, 0], 1) < np.median(positive[:, 0], 1)
    return Result(
        claims={
            "All partial derivatives of an example have one sign if its inputs are positive": truth(
                positive[:, 1] == 1
            ),
            "They have if the inputs are centred": truth(centred[:, 1] == 1),
            "Centred inputs need fewer steps to the same loss, each kind at its best rate": truth(
                fewer
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=figure,
    )
