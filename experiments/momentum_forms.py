"""Are the forms in which momentum is written the same method?

With the weight of the past mu and the rate eps:

    accumulator   b = mu b + g,             w = w - eps b
    velocity      v = mu v - eps g,         w = w + v
    mean          m = mu m + (1 - mu) g,    w = w - eps m

Under a constant gradient b grows to g / (1 - mu), the terminal speed. The worked example has the
gradient 1 and a rate that is cut from 0.1 to 0.01 after two steps. Over many steps the forms are
compared under the gradient `w + noise`, at a constant rate and at one that is cut.

References:
    B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
    momentum in deep learning", 2013.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim, schedules

MU, RATE = 0.9, 0.1
CUT = 2  # steps before the rate is cut to a tenth
SAME = 1e-12  # differences of positions of order 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Every momentum for the terminal speed, every seed for the comparison of forms.

    Attributes:
        momenta: weights of the past.
        steps: of each run; the last speed counts as terminal.
        seeds: of the noise.
    """

    momenta: tuple[float, ...] = (0.5, 0.9, 0.99)
    steps: int = 3000
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(momenta=(0.9,), steps=300, seeds=(0, 1)),
    "default": Config(),
    "full": Config(momenta=(0.5, 0.9, 0.99, 0.999), steps=30_000, seeds=tuple(range(100))),
}


def cut(rate):
    return schedules.join([rate, rate / 10], [CUT])


FORMS = {  # what makes the optimizer from a rate, constant or not
    "accumulator": lambda rate: optim.momentum(rate, momentum=MU),
    "velocity": lambda rate: optim.momentum(rate, momentum=MU, form="velocity"),
    "mean": lambda rate: optim.momentum(rate, momentum=MU, form="ema"),
}


def positions(tx, gradient, steps: int) -> np.ndarray:
    """Returns the positions of one weight, from 0 on."""
    return np.asarray(jax.jit(lambda w: path(tx, gradient, w, steps))(jnp.zeros(())))


def one(w, k):
    return jnp.ones_like(w)


def speed(mu: float, steps: int) -> np.ndarray:
    """Returns the length of each step under a constant gradient, over that of a plain step."""
    return -np.diff(positions(optim.momentum(RATE, momentum=mu), one, steps)) / RATE


def noisy(make, rate, config: Config) -> np.ndarray:
    """Returns the positions under the gradient w + noise, (seeds, steps + 1)."""
    noise = [np.random.default_rng(seed).normal(size=config.steps) for seed in config.seeds]

    @jax.jit
    @jax.vmap
    def run(noise):
        return path(make(rate), lambda w, k: w + noise[k], jnp.zeros(()), config.steps)

    return np.asarray(run(jnp.asarray(noise)))


def apart(a, b) -> np.ndarray:
    """Returns the largest difference so far at each step, over all seeds."""
    return np.maximum.accumulate(np.abs(a - b).max(0))


def measure(config: Config):
    """Returns terminal speeds, the worked example, and how far apart the forms run."""
    speeds = {mu: speed(mu, config.steps) for mu in config.momenta}
    example = {name: positions(make(cut(RATE)), one, 20) for name, make in FORMS.items()}
    differences = {}
    for what, changed in {"constant rate": lambda rate: rate, "rate cut": cut}.items():
        accumulator, velocity, mean = (noisy(m, changed(RATE), config) for m in FORMS.values())
        longer = noisy(FORMS["mean"], changed(RATE / (1 - MU)), config)
        differences["velocity", what] = apart(velocity, accumulator)
        differences["mean", what] = apart(mean, accumulator)
        differences["mean, rate / (1 - mu)", what] = apart(longer, accumulator)
    return speeds, example, differences


def draw(speeds, example, differences):
    """Draws the three parts of what was measured."""
    figure, (left, middle, right) = panels("Are the forms of momentum the same method?", 3)
    for i, (mu, lengths) in enumerate(speeds.items()):
        left.loglog(np.arange(1, len(lengths) + 1), lengths, f"C{i}", lw=2, label=f"mu = {mu}")
        left.axhline(1 / (1 - mu), color=f"C{i}", lw=1, ls=":")
    left.set(xlabel="step", ylabel="step length / plain step")
    left.set_title("Constant gradient: speed grows to 1 / (1 - mu)", fontsize=11)
    left.legend()
    for i, (name, w) in enumerate(example.items()):
        middle.plot(w, f"C{i}o-", ms=4, label=f"{name}: {w[4]:.4f} after 4")
    middle.axvline(CUT, color="black", lw=1, ls=":")
    middle.text(CUT + 0.2, -2, "rate cut to a tenth")
    middle.set(xlabel="step", ylabel="position", xticks=range(0, 21, 4))
    middle.set_title("A cut acts on the velocity form with delay", fontsize=11)
    middle.legend(loc="lower left")
    for (form, what), d in differences.items():
        color = f"C{['velocity', 'mean', 'mean, rate / (1 - mu)'].index(form) + 1}"
        line = "-" if what == "constant rate" else "--"
        at = np.arange(1, len(d))
        right.loglog(at, np.maximum(d[1:], 1e-17), color=color, ls=line, label=f"{form}, {what}")
    right.axhline(SAME, color="black", lw=1, ls=":")
    right.set(xlabel="step", ylabel="difference to the accumulator", ylim=(1e-18, 30))
    right.set_title("Equal to rounding, or not at all", fontsize=11)
    right.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.6))
    return figure


def run(config: Config) -> Result:
    """Runs all forms on the same gradients."""
    with _compat.enable_x64(True):
        speeds, example, differences = measure(config)
    ratios = [lengths[-1] * (1 - mu) for mu, lengths in speeds.items()]
    last = {case: d[-1] for case, d in differences.items()}

    def same(form):
        return truth([d < SAME for (name, _), d in last.items() if name == form])

    numbers = {f"terminal speed, mu = {mu}": v[-1] for mu, v in speeds.items()}
    numbers |= {f"example: {name} after 4 steps": w[4] for name, w in example.items()}
    numbers |= {f"difference to accumulator: {f}, {what}": d for (f, what), d in last.items()}
    return Result(
        claims={
            "The terminal speed is 1 / (1 - mu) times that of plain steps": truth(
                np.isclose(ratios, 1, rtol=1e-6)
            ),
            "The velocity form takes the same steps as the accumulator form": same("velocity"),
            "The mean form takes the same steps as the accumulator form": same("mean"),
            "The mean form at rate / (1 - mu) takes the same steps as the accumulator form": same(
                "mean, rate / (1 - mu)"
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(speeds, example, differences),
    )
