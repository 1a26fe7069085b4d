"""Does ReLU learn six times as fast as tanh, and is Swish better still?

Krizhevsky et al. show a net of four convolutions that reaches a training error of 25 % on CIFAR-10
six times sooner with ReLU than with tanh, without regularization and with a rate tuned for each.
Here it is an MLP of four hidden layers on the shipped digits, with plain gradient descent, each
activation at the rate that brings it there first on the average over seeds. Kernels have the
variance gain^2 / fan_in, the gain that of the activation; maxout has two pieces, and so twice the
params. Test accuracies are those after the last epoch, at the rate at which they are highest on the
average over the other half of the seeds.

References:
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural
    networks", 2012, figure 1.
    P. Ramachandran, B. Zoph, Q. Le, "Searching for activation functions", 2017.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import nn, optim

DEPTH = 4
ERROR = 0.25  # of the training set, that is to be reached
ACTIVATIONS = {
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "ReLU": nn.relu,
    "leaky ReLU 0.01": nn.leaky_relu,
    "leaky ReLU 0.1": functools.partial(nn.leaky_relu, negative_slope=0.1),
    "ELU": nn.elu,
    "SELU": nn.selu,
    "Swish": nn.silu,
    "maxout": None,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every activation at every rate from every seed.

    Attributes:
        activations: names in `ACTIVATIONS`.
        rates: of plain gradient descent.
        width: units of each hidden layer.
        epochs: of each run.
        batch_size: of the mini-batches.
        every: steps between two looks at the training error.
        seeds: of the params and the batches.
    """

    activations: tuple[str, ...] = tuple(ACTIVATIONS)
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    width: int = 32
    epochs: int = 20
    batch_size: int = 32
    every: int = 4
    seeds: tuple[int, ...] = tuple(range(6))


SIZES = {
    "smoke": Config(
        activations=("tanh", "ReLU"), rates=(0.1,), width=16, epochs=4, every=11, seeds=(0, 1)
    ),
    "default": Config(),
    "full": Config(width=64, epochs=50, seeds=tuple(range(20))),
}


def make(width: int, name: str) -> nn.Layer:
    """Returns the net with this activation."""
    f = ACTIVATIONS[name]
    if f is None:
        hidden = [nn.maxout(width) for _ in range(DEPTH)]
    else:
        gain = nn.initializers.gain(f)
        init = jax.nn.initializers.variance_scaling(gain**2, "fan_in", "normal")
        hidden = [nn.serial(nn.dense(width, kernel_init=init), f) for _ in range(DEPTH)]
    return nn.serial(nn.flatten(), *hidden, nn.dense(10))


def train(config: Config, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns training errors, (rates, seeds, looks), and test accuracies at the end."""
    net = make(config.width, name)
    train_set, test_set = (tuple(map(jnp.asarray, part)) for part in _digits.examples())
    order = _digits.orders(len(train_set[0]), config.batch_size, config.epochs, config.seeds)
    looks = order.shape[1] * order.shape[2] // config.every
    order = order.reshape(len(order), -1, config.batch_size)[:, : looks * config.every]
    order = order.reshape(len(order), looks, config.every, config.batch_size)

    def see(params, state, opt_state):
        return [_digits.evaluate(net, params, state, *part)[1] for part in (train_set, test_set)]

    def run(rate, seed, order):
        return _digits.train(net, optim.sgd(rate), seed, order, see)

    over = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    accuracy, test = over(jnp.array(config.rates), jnp.array(config.seeds), order)
    return 1 - np.asarray(accuracy), np.asarray(test)[..., -1]


def steps_to(config: Config, errors) -> np.ndarray:
    """Returns the steps after which the training error is reached; twice all steps for never."""
    reached = errors <= ERROR
    looks = np.where(reached.any(-1), reached.argmax(-1), 2 * errors.shape[-1])
    return looks * config.every


def fastest(config: Config, errors) -> int:
    """Returns the number of the rate that reaches the training error first."""
    return int(steps_to(config, errors).mean(1).argmin())


def held_out(accuracy) -> np.ndarray:
    """Returns each seed's test accuracy at the rate that is best for the other half of them."""
    halves = np.arange(accuracy.shape[1]) % 2
    rates = [accuracy[:, halves != half].mean(1).argmax() for half in (0, 1)]
    return np.array([accuracy[rates[half], i] for i, half in enumerate(halves)])


def draw(config: Config, found):
    """Draws errors at the fastest rate, and the steps to the error and accuracies of each."""
    title = "Does ReLU learn six times as fast as tanh, and is Swish better still?"
    figure, (left, middle, right) = panels(title, 3)
    names = list(found)
    for i, (name, (errors, accuracy)) in enumerate(found.items()):
        at = fastest(config, errors)
        curve = errors[at].mean(0)
        strong = name in ("tanh", "ReLU", "Swish")
        style = {"color": f"C{i}", "lw": 2.5 if strong else 1, "label": name}
        left.plot(config.every * np.arange(len(curve)), 100 * curve, **style)
        steps = steps_to(config, errors)[at]
        for axes, values in ((middle, steps), (right, 100 * held_out(accuracy))):
            axes.plot(values, np.full(len(values), i), ".", color=f"C{i}", alpha=0.5)
            axes.plot(values.mean(), i, "D", color=f"C{i}", ms=8)
        middle.text(1.15 * steps.max(), i, f"rate {config.rates[at]:g}", va="center", fontsize=9)
    left.axhline(100 * ERROR, color="black", lw=1, ls=":")
    longest = max(steps_to(config, found[name][0]).mean(1).min() for name in names[1:])
    left.set(xlabel="step", ylabel="training error [%]", xlim=(0, 2.5 * longest), ylim=(0, 95))
    left.set_title("Each at its fastest rate", fontsize=11)
    left.legend(fontsize=9)
    middle.set(xlabel="steps", xscale="log")
    middle.margins(x=0.2)
    middle.set_title(f"Steps to a training error of {100 * ERROR:.0f} %", fontsize=11)
    right.set(xlabel="test accuracy [%]")
    right.set_title(f"After {config.epochs} epochs, each at its best rate", fontsize=11)
    for axes in (middle, right):
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
    return figure


def run(config: Config) -> Result:
    """Trains with all activations and compares steps and accuracies."""
    found = {name: train(config, name) for name in config.activations}
    numbers = {}
    for name, (errors, accuracy) in found.items():
        steps = steps_to(config, errors)[fastest(config, errors)].mean()
        numbers[f"{name}: steps to {100 * ERROR:.0f} % training error"] = steps
        numbers[f"{name}: fastest rate"] = config.rates[fastest(config, errors)]
        numbers[f"{name}: test accuracy [%]"] = 100 * held_out(accuracy).mean()

    def steps(name):
        return numbers[f"{name}: steps to {100 * ERROR:.0f} % training error"]

    def better(a, b):
        """Says "depends" where the mean over seeds is within three standard errors of 0."""
        gain = held_out(found[a][1]) - held_out(found[b][1])
        sure = 3 * gain.std(ddof=1) / len(gain) ** 0.5
        return truth([gain.mean() > sure, gain.mean() >= -sure])

    numbers["tanh / ReLU: steps"] = ratio = steps("tanh") / steps("ReLU")
    claims = {
        "ReLU reaches 25 % training error sooner than tanh": truth(ratio > 1),
        "Six times sooner, or three at least": truth(ratio >= 3),
    }
    others = [name for name in found if name not in ("sigmoid", "tanh")]
    if "sigmoid" in found:
        claims |= {
            "All others are sooner than sigmoids by a factor of three": truth(
                [steps("sigmoid") > 3 * steps(name) for name in found if name != "sigmoid"]
            ),
            "ELU, leaky ReLU and maxout are sooner than ReLU": truth(
                [steps(name) < steps("ReLU") for name in others if name not in ("ReLU", "Swish")]
            ),
            "With Swish the test accuracy is at least that with ReLU": better("Swish", "ReLU"),
            "With ReLU it is higher than with tanh": better("ReLU", "tanh"),
        }
    return Result(claims, {k: float(v) for k, v in numbers.items()}, draw(config, found))
