"""How do AdaGrad and RMSProp change the length of a step?

With the rate eta and the gradient g

    AdaGrad     r = r + g^2,                        w = w - eta g / (sqrt(r) + eps)
    RMSProp     r = decay r + (1 - decay) g^2,      w = w - eta g / (sqrt(r) + eps)

Under a constant gradient AdaGrad's step t is eta / sqrt(t), RMSProp's eta / sqrt(1 - decay^t).
Others write eps inside the root, `sqrt(r + eps)`, which is another method where g^2 is not large
against eps.

References:
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011.
    T. Tieleman, G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012.
    S. Ruder, "An overview of gradient descent optimization algorithms", 2016: eps in the root.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim

EPS, DECAY = 1e-7, 0.9
SAME = 1e-6  # relative; eps is 1e-7 of the gradient 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Both methods, eps at both places.

    Attributes:
        steps: under the constant gradient.
        gradients: of the first step, how many from 1e-9 to 1.
    """

    steps: int = 10_000
    gradients: int = 91


SIZES = {
    "smoke": Config(steps=100, gradients=10),
    "default": Config(),
    "full": Config(steps=1_000_000, gradients=901),
}


METHODS = {
    "AdaGrad": lambda **options: optim.adagrad(1.0, eps=EPS, **options),
    "RMSProp": lambda **options: optim.rmsprop(1.0, eps=EPS, decay=DECAY, **options),
}


def lengths(make, steps: int) -> np.ndarray:
    """Returns the length of each step under the gradient 1."""
    run = jax.jit(lambda w: path(make(), lambda w, k: jnp.ones_like(w), w, steps))
    return -np.diff(run(jnp.zeros(())))


def first_steps(make, gradients, eps_in_sqrt: bool) -> np.ndarray:
    """Returns the length of the first step for each gradient."""
    tx = make(eps_in_sqrt=eps_in_sqrt)
    g = jnp.asarray(gradients)
    return -np.asarray(tx.update(g, tx.init(g))[0])


def draw(steps, gradients, firsts):
    """Draws the steps under a constant gradient, and the first step by gradient."""
    figure, (left, right) = panels("How long are adaptive steps?", 2, width=5.5)
    for i, (name, d) in enumerate(steps.items()):
        left.loglog(np.arange(1, len(d) + 1), d, f"C{i}", lw=2.5, label=name)
    at = 10 ** np.arange(0, np.log10(len(steps["AdaGrad"])) + 0.01, 2).astype(int)
    for t in at:
        d = steps["AdaGrad"][t - 1]
        left.plot(t, d, "C0o")
        left.annotate(f"{d:.3g}", (t, d), (0, -16), textcoords="offset points", ha="right")
    left.set(xlabel="step t", ylabel="step length / learning rate", ylim=(5e-3, 6))
    left.set_title("Constant gradient: AdaGrad falls as $1/\\sqrt{t}$", fontsize=11)
    left.legend()
    for (name, where), d in firsts.items():
        i, line = list(steps).index(name), "-" if where == "outside" else "--"
        right.loglog(gradients, d, f"C{i}{line}", lw=2, label=f"{name}, eps {where} the root")
    g = 10 * EPS
    for where in ("outside", "inside"):
        d = np.interp(g, gradients, firsts["AdaGrad", where])
        right.plot(g, d, "C0o")
        right.annotate(f"{d:.3g}", (g, d), (8, -14), textcoords="offset points")
    right.axvline(g, color="black", lw=1, ls=":")
    right.text(g * 1.15, 2e-6, "g = 10 eps", va="bottom")
    right.axvline(EPS**0.5, color="black", lw=1, ls=":")
    right.text(EPS**0.5 * 1.15, 2e-6, "$g = \\sqrt{eps}$", va="bottom")
    right.set(xlabel="gradient g", ylabel="first step / learning rate", ylim=(1e-6, 20))
    right.set_title("In the root, eps = 1e-7 acts on all g below 3e-4", fontsize=11)
    right.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.18))
    return figure


def run(config: Config) -> Result:
    """Measures the steps of both methods."""
    gradients = np.geomspace(1e-9, 1, config.gradients)
    with _compat.enable_x64(True):
        steps = {name: lengths(make, config.steps) for name, make in METHODS.items()}
        firsts, probe = (
            {
                (name, where): first_steps(make, g, where == "inside")
                for name, make in METHODS.items()
                for where in ("outside", "inside")
            }
            for g in (gradients, np.array([10 * EPS, 1.0]))
        )
    t = np.arange(1, config.steps + 1)
    ada, rms = steps.values()
    marks = [t for t in (1, 100, 10_000) if t <= config.steps]
    numbers = {f"{name}: step {t}": d[t - 1] for name, d in steps.items() for t in marks}
    for (name, where), d in probe.items():
        for g, step in zip(("10 eps", "1"), d, strict=True):
            numbers[f"{name}, eps {where} the root: first step, g = {g}"] = step
    formula = [10 / 11, 10 * EPS / np.sqrt((10 * EPS) ** 2 + EPS)]
    tiny = [probe["AdaGrad", where][0] for where in ("outside", "inside")]
    return Result(
        claims={
            "Under a constant gradient AdaGrad's step t is lr / sqrt(t)": truth(
                np.allclose(ada, t**-0.5, rtol=SAME, atol=0)
            ),
            "RMSProp's does not fall to zero but to lr: it is lr / sqrt(1 - decay^t)": truth(
                np.allclose(rms, (1 - DECAY**t) ** -0.5, rtol=SAME, atol=0)
            ),
            "AdaGrad's first step at g = 10 eps is 0.909 lr with eps = 1e-7 outside the root,"
            " 0.00316 lr with it inside": truth(np.isclose(tiny, formula, rtol=SAME)),
            "Whether eps stands inside or outside the root makes no difference": truth(
                [
                    np.isclose(probe[name, "outside"], probe[name, "inside"], rtol=SAME)
                    for name in METHODS
                ]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(steps, gradients, firsts),
    )
