"""What makes hidden units stop learning?

What a unit learns passes through the slope of its activation at its input z. Far from 0 a sigmoid's
is s (1 - s) and that of tanh 1 - tanh^2, both next to nothing; that of a ReLU is 0 for z <= 0. A
ReLU with z <= 0 for every example is dead: it has no gradient, and under plain gradient descent it
keeps its weights for ever.

Nets of one hidden layer are trained so on the shipped digits at several rates, from He's kernels
and biases of 0, 0.01 and -3, and with leaky ReLUs. A unit has stopped if the slope is exactly 0 for
every training image.

References:
    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.
    L. Lu, Y. Shin, Y. Su, G. Karniadakis, "Dying ReLU and initialization", 2020.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, models, nn, optim
from jaxtrain.nn import initializers

SLOPES = {"sigmoid": nn.sigmoid, "tanh": nn.tanh, "ReLU": nn.relu, "leaky ReLU": nn.leaky_relu}
CASES = {  # the activation, and the first bias
    "ReLU": (nn.relu, 0.0),
    "ReLU, bias 0.01": (nn.relu, 0.01),
    "ReLU, bias -3": (nn.relu, -3.0),
    "leaky ReLU": (nn.leaky_relu, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every case at every rate from every seed.

    Attributes:
        rates: of plain gradient descent, ascending.
        width: hidden units.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and the batches.
    """

    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    width: int = 64
    epochs: int = 20
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(rates=(0.01, 3.0), width=32, epochs=2, seeds=(0, 1)),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(40))),
}


def slope(f, z):
    """Returns the derivative of a function of each element."""
    return jax.jvp(f, (z,), (jnp.ones_like(z),))[1]


def make(config: Config, f, bias: float) -> nn.Layer:
    """Returns the net of one hidden layer with this activation and first bias."""
    hidden = nn.dense(config.width, bias_init=initializers.constant(bias))
    net = models.mlp([config.width, 10], activation=f)
    return net.replace(dense0=hidden)


def train(config: Config, f, bias: float):
    """Returns which units have stopped, their weights, and the test accuracy, by rate and seed.

    Each before training and after each epoch.
    """
    net = make(config, f, bias)
    (x, _), test = (map(jnp.asarray, part) for part in _digits.examples())
    flat, (test_x, test_labels) = x.reshape(len(x), -1), test
    order = _digits.orders(len(x), config.batch_size, config.epochs, config.seeds)

    def see(params, state, opt_state):
        z, _ = nn.dense(config.width).apply(params["dense0"], {}, flat, nn.EVAL)
        stopped = (slope(f, z) == 0).all(0)
        _, accuracy = _digits.evaluate(net, params, state, test_x, test_labels)
        return stopped, params["dense0"]["kernel"], accuracy

    def run(rate, seed, order):
        return _digits.train(net, optim.sgd(rate), seed, order, see)

    over = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    return jax.device_get(over(jnp.array(config.rates), jnp.array(config.seeds), order))


def moved_when_stopped(stopped, kernels) -> bool:
    """Says whether any unit's weights have changed in an epoch after it had stopped."""
    changed = (np.diff(kernels, axis=2) != 0).any(-2)
    return bool((changed & stopped[:, :, :-1]).any())


def draw(config: Config, z, curves, found):
    """Draws slopes, the fraction of stopped units at each rate, and what they cost."""
    figure, (left, middle, right) = panels("What makes hidden units stop learning?", 3)
    for i, (name, curve) in enumerate(curves.items()):
        left.semilogy(z, curve, f"C{i + 4}", lw=2 + i % 3, ls="-" if i < 3 else ":", label=name)
    for at in (-10, 10):
        left.axvline(at, color="black", lw=1, ls=":")
    left.set(xlabel="input of the activation", ylabel="slope", ylim=(1e-10, 30))
    left.set_title("Slopes at -10, 0 and 10", fontsize=11)
    left.legend(loc="lower center")
    for i, (name, (stopped, _, accuracy)) in enumerate(found.items()):
        options = {"color": f"C{i}", "ms": 5, "capsize": 3, "label": name}
        style = "s--" if name == "ReLU, bias 0.01" else "o-"
        for axes, values in ((middle, stopped[:, :, -1].mean(-1)), (right, accuracy[:, :, -1])):
            mean, error = values.mean(1), 3 * standard_error(values)
            axes.errorbar(config.rates, 100 * mean, 100 * error, fmt=style, **options)
    middle.set(xscale="log", xlabel="rate", ylabel="units that have stopped [%]")
    middle.set_title(f"After {config.epochs} epochs, with three standard errors", fontsize=11)
    middle.legend(loc="upper left")
    right.set(xscale="log", xlabel="rate", ylabel="test accuracy [%]")
    right.set_title("What that costs", fontsize=11)
    return figure


def standard_error(x) -> np.ndarray:
    return x.std(1, ddof=1) / x.shape[1] ** 0.5


def run(config: Config) -> Result:
    """Computes slopes, trains all nets and counts the units that have stopped."""
    with _compat.enable_x64(True):
        z = jnp.arange(-240, 241) / 20
        curves = {name: np.asarray(slope(f, z)) for name, f in SLOPES.items()}
    slopes = {name: curve[[40, 240, 440]] for name, curve in curves.items()}
    found = {name: train(config, f, bias) for name, (f, bias) in CASES.items()}
    ends = {name: stopped[:, :, -1].mean(-1) for name, (stopped, _, _) in found.items()}
    relus = [found[name][:2] for name in CASES if name != "leaky ReLU"]
    helped = ends["ReLU, bias 0.01"] - ends["ReLU"]
    lost = found["leaky ReLU"][2][:, :, -1] - found["ReLU"][2][:, :, -1]
    numbers = {
        f"slope of {name} at {at:g}": s
        for name, values in slopes.items()
        for at, s in zip((-10, 0, 10), values, strict=True)
    }
    for name, (_, _, accuracy) in found.items():
        for i, rate in enumerate(config.rates):
            numbers[f"{name}, rate {rate:g}: stopped units [%]"] = 100 * ends[name][i].mean()
            numbers[f"{name}, rate {rate:g}: test accuracy [%]"] = 100 * accuracy[i, :, -1].mean()
    return Result(
        claims={
            "At inputs of +-10 a sigmoid passes 4.54e-5 of a gradient, tanh 8.24e-9": truth(
                [
                    np.allclose(slopes["sigmoid"][[0, 2]], 4.5396e-5, rtol=1e-4),
                    np.allclose(slopes["tanh"][[0, 2]], 8.24e-9, rtol=1e-3),
                ]
            ),
            "A dead ReLU keeps its weights": truth(
                not any(moved_when_stopped(*found) for found in relus)
            ),
            "High rates kill ReLUs that low ones leave alive": truth(
                ends["ReLU"][-1] > ends["ReLU"][0]
            ),
            "So do biases of -3": truth(ends["ReLU, bias -3"].mean(1) > ends["ReLU"].mean(1)),
            "Biases of 0.01 leave fewer dead than 0, at the highest rate": truth(
                helped[-1].mean() < -3 * standard_error(helped)[-1]
            ),
            "Leaky ReLUs do not die": truth(ends["leaky ReLU"] == 0),
            "They are more accurate where over a tenth of the ReLUs are dead": truth(
                lost.mean(1)[ends["ReLU"].mean(1) > 0.1] > 0
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, z, curves, found),
    )
