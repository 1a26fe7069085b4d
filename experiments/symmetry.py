"""Do hidden units that begin alike ever become different?

An MLP `x -> tanh -> tanh -> logits` is trained with momentum on the shipped digits, from kernels of
zeros, of one number, and of small random numbers; biases begin at 0, or at random where it is said.
Units with the same weights in and the same weights out have the same gradient, so no update tells
them apart. Where all kernels are 0, so are all hidden units, and nothing but the last bias has a
gradient at all. How different the units of a layer are is the largest difference between a weight
of any of them and that of the first.

Why the order of hidden units means nothing is the other side of it: permuting the columns of a
kernel, its bias and the rows of the next kernel is a net with the same outputs.

References:
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, sections 8.2.2 and 8.4.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, nn, optim
from jaxtrain.nn import initializers

SAME = 1e-6  # of weights and logits of order 1, in float32
HIDDEN, LAST = ("dense0", "dense1"), "dense2"
ZEROS, RANDOM = initializers.zeros, initializers.normal(0.01)
INITS = {  # of kernels and biases
    "zeros": (ZEROS, ZEROS),
    "all 0.1": (initializers.constant(0.1), ZEROS),
    "all 0.1, random biases": (initializers.constant(0.1), RANDOM),
    "random, std 0.01": (RANDOM, ZEROS),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every initialization from every seed.

    Attributes:
        width: hidden units per layer.
        steps: of each run.
        rate: of momentum 0.9.
        batch_size: of the mini-batches.
        seeds: of the params and the batches.
    """

    width: int = 16
    steps: int = 400
    rate: float = 0.03
    batch_size: int = 128
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(width=4, steps=100, seeds=(0,)),
    "default": Config(),
    "full": Config(width=64, steps=2000, seeds=tuple(range(20))),
}


def make(config: Config, kernel_init, bias_init) -> nn.Layer:
    """Returns the net whose dense layers are all initialized so."""

    def initialized(path, layer):
        options = {"kernel_init": kernel_init, "bias_init": bias_init}
        return layer.replace(**options) if layer.kind == "dense" else layer

    net = models.mlp([config.width, config.width, 10], activation=jnp.tanh)
    return nn.rewrite(net, initialized)


def train(config: Config, net: nn.Layer):
    """Returns params and training losses before each step and at the end, by seed."""
    (x, labels), _ = _digits.examples()
    epochs = -(-config.steps // (len(x) // config.batch_size))
    order = _digits.orders(len(x), config.batch_size, epochs, config.seeds)
    order = order.reshape(len(order), -1, 1, config.batch_size)[:, : config.steps]

    def see(params, state, opt_state):
        return params, _digits.evaluate(net, params, state, x, labels)[0]

    def run(seed, order):
        return _digits.train(net, optim.momentum(config.rate), seed, order, see)

    return jax.device_get(jax.jit(jax.vmap(run))(jnp.array(config.seeds), order))


def differences(params) -> np.ndarray:
    """Returns how different the units of each hidden layer are, (layers, seeds, steps + 1)."""
    kernels = [params[layer]["kernel"] for layer in HIDDEN]
    return np.stack([abs(kernel - kernel[..., :1]).max((-2, -1)) for kernel in kernels])


def moved(params, layer: str) -> bool:
    """Says whether any param of a layer has ever been different from what it was at first."""
    return any((leaf != leaf[:, :1]).any() for leaf in params[layer].values())


def permuted(params, order):
    """Returns the params with the units of the first hidden layer in another order."""
    first, second = (params[layer] for layer in HIDDEN)
    first = {"kernel": first["kernel"][:, order], "bias": first["bias"][order]}
    return params | {HIDDEN[0]: first, HIDDEN[1]: second | {"kernel": second["kernel"][order]}}


def permutation_error(config: Config, params) -> float:
    """Returns the largest change of a logit by a permutation of the units, over all seeds."""
    net, (x, _) = make(config, ZEROS, ZEROS), _digits.examples()[1]
    errors = []
    for i, seed in enumerate(config.seeds):
        own = jax.tree.map(lambda leaf: leaf[i, -1], params)  # noqa: B023
        other = permuted(own, np.random.default_rng(seed).permutation(config.width))
        before, after = (net.apply(p, {}, x, nn.EVAL)[0] for p in (own, other))
        errors.append(jnp.abs(before - after).max() / jnp.abs(before).max())
    return float(max(errors))


def draw(config: Config, found):
    """Draws a weight of every unit, differences between units, and losses."""
    figure, axes = panels("Do hidden units that begin alike ever become different?", 4, width=4.2)
    pixel = 27  # the one in the middle
    for panel, name in zip(axes, ("all 0.1", "random, std 0.01"), strict=False):
        panel.plot(found[name][0]["dense0"]["kernel"][0, :, pixel], lw=1.5)
        panel.set(xlabel="step", ylabel="weight of the pixel in the middle")
        panel.set_title(f"{name.capitalize()}: a line per unit", fontsize=11)
    axes[0].text(0.5, 0.9, f"{config.width} lines", transform=axes[0].transAxes)
    axes[1].sharey(axes[0])
    for i, (name, (params, losses)) in enumerate(found.items()):
        style = {"color": f"C{i}", "lw": 2, "ls": "--" if name == "zeros" else "-"}
        style["zorder"] = 3 if name == "zeros" else 2  # it lies on another
        apart = np.maximum(differences(params)[0], 1e-9)  # an exact zero has no place on the axis
        axes[2].semilogy(np.median(apart, 0), label=name, **style)
        axes[3].plot(np.median(losses, 0), label=name, **style)
    axes[2].axhline(SAME, color="black", lw=1, ls=":")
    axes[2].text(config.steps, 1.3 * SAME, "the same below", ha="right")
    axes[2].text(config.steps, 1.3e-9, "exactly 0", ha="right")
    axes[2].set(xlabel="step", ylabel="largest difference between units")
    axes[2].set_title("Units of the first layer", fontsize=11)
    axes[3].axhline(np.log(10), color="black", lw=1, ls=":")
    axes[3].text(config.steps, np.log(10) - 0.02, "log 10", ha="right", va="top")
    axes[3].set(xlabel="step", ylabel="training loss", ylim=(0, 2.5))
    axes[3].set_title("What they learn", fontsize=11)
    axes[3].legend(loc="lower left", fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Trains from all initializations and compares the units."""
    found = {name: train(config, make(config, *inits)) for name, inits in INITS.items()}
    apart = {name: differences(params).max((1, 2)) for name, (params, _) in found.items()}
    error = permutation_error(config, found["random, std 0.01"][0])
    numbers = {
        f"{name}: {what}": value
        for name, (_, losses) in found.items()
        for what, value in (
            ("largest difference between units", apart[name].max()),
            ("training loss", losses[:, -1].mean()),
        )
    }
    zeros = found["zeros"][0]
    return Result(
        claims={
            "Units whose weights are all the same number stay the same": truth(
                apart["all 0.1"] < SAME
            ),
            "With zeros no layer but the last moves, and of that nothing but the bias": truth(
                [not moved(zeros, layer) for layer in HIDDEN]
                + [not zeros[LAST]["kernel"].any(), moved(zeros, LAST)]
            ),
            "Small random kernels make them different": truth(apart["random, std 0.01"] > SAME),
            "Random biases alone do": truth(apart["all 0.1, random biases"] > SAME),
            "Permuting the hidden units leaves the outputs unchanged": truth(error < SAME),
        },
        numbers={
            **{what: float(value) for what, value in numbers.items()},
            "change of the logits by a permutation, relative": error,
        },
        figure=draw(config, found),
    )
