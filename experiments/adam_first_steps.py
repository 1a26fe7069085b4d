"""How long are Adam's first steps?

With g_t the gradient, m_0 = v_0 = 0 and t from 1:

    m = b1 m + (1 - b1) g           m_hat = m / (1 - b1^t)
    v = b2 v + (1 - b2) g^2         v_hat = v / (1 - b2^t)
    w = w - lr m_hat / (sqrt(v_hat) + eps)

Without bias correction m and v stand for m_hat and v_hat. Under a constant gradient step t is then
`(1 - b1^t) / sqrt(1 - b2^t)` learning rates long; with it every step is one, less eps.

A loop that counts t from 0 divides by 1 - b^0 = 0 in its first update. That loop stands here and
nowhere else.

References:
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim

B1, EPS = 0.9, 1e-8
SAME = 1e-6  # relative: eps is 3e-7 of the smallest root, sqrt(1 - 0.999), of v


@dataclasses.dataclass(frozen=True)
class Config:
    """Every weight of the past, with and without bias correction.

    Attributes:
        b2: weights of the past in v, three of them.
        steps: under the constant gradient.
        rate: of the two loops on w^2 / 2.
    """

    b2: tuple[float, ...] = (0.999, 0.99, 0.9)
    steps: int = 1000
    rate: float = 0.1


SIZES = {
    "smoke": Config(steps=20),
    "default": Config(),
    "full": Config(steps=100_000),
}


def optimizer(rate, **options):
    return optim.adam(rate, b1=B1, eps=EPS, **options)


def lengths(steps: int, **options) -> np.ndarray:
    """Returns the length of each step under the gradient 1, in learning rates."""
    tx = optimizer(1.0, **options)
    run = jax.jit(lambda w: path(tx, lambda w, k: jnp.ones_like(w), w, steps))
    return -np.diff(run(jnp.zeros(())))


def loop(first: int, rate: float, steps: int) -> np.ndarray:
    """Returns the weights of a plain loop on `w^2 / 2` from 1, t counted from `first`."""
    b2, m, v, w = 0.999, 0.0, 0.0, np.ones(())
    weights = [w]
    with np.errstate(divide="ignore", invalid="ignore"):
        for t in range(first, first + steps):
            m = B1 * m + (1 - B1) * w
            v = b2 * v + (1 - b2) * w**2
            w = w - rate * (m / (1 - np.float64(B1) ** t)) / (
                np.sqrt(v / (1 - np.float64(b2) ** t)) + EPS
            )
            weights.append(w)
    return np.array(weights)


def draw(config: Config, plain, corrected, loops):
    """Draws the steps, the first of them for every b2, and the two loops."""
    figure, (left, middle, right) = panels("How long are Adam's first steps?", 3)
    t = np.arange(1, config.steps + 1)
    for i, (b2, d) in enumerate(plain.items()):
        left.semilogx(t, d, f"C{i}", lw=2, label=f"no correction, $b_2$ = {b2}")
        peak = d.argmax()
        if d[peak] > 1.01:
            left.plot(t[peak], d[peak], f"C{i}o")
            left.annotate(f"{d[peak]:.4g} at t = {t[peak]}", (t[peak] * 1.2, d[peak] + 0.1))
    left.semilogx(t, corrected[config.b2[0]], "k--", lw=1.5, label="corrected, all $b_2$")
    left.set(xlabel="step t", ylabel="step length / learning rate", ylim=(0, 10.5))
    left.set_title("Constant gradient", fontsize=11)
    left.legend(loc="upper right")
    gap = np.geomspace(3e-4, 0.3, 100)
    middle.loglog(gap, (1 - B1) / np.sqrt(gap), "C7", lw=2, label="$(1 - b_1) / \\sqrt{1 - b_2}$")
    for i, (b2, d) in enumerate(plain.items()):
        middle.plot(1 - b2, d[0], f"C{i}o", ms=9)
        middle.annotate(f"{d[0]:.3f}", (1.2 * (1 - b2), 1.1 * d[0]))
    firsts = [corrected[b2][0] for b2 in config.b2]
    middle.plot(1 - np.array(config.b2), firsts, "ks--", mfc="white", label="corrected")
    middle.set(xlabel="$1 - b_2$", ylabel="first step / learning rate", ylim=(0.15, 9))
    middle.set_yticks([0.3, 1, 3], ["0.3", "1", "3"])
    middle.yaxis.minorticks_off()
    middle.set_title("The first step without correction depends on $b_2$", fontsize=11)
    middle.legend(loc="upper right")
    right.plot(loops[1], "C0.-", label="t = 1, 2, ...")
    right.plot(0, loops[0][0], "C3X", ms=13, label="t = 0, 1, ...")
    right.text(2.5, 1, "NaN from the first update on", color="C3", va="center")
    right.set(xlabel="updates", ylabel="weight", ylim=(-0.35, 1.15))
    right.set_title("The full method on $w^2 / 2$", fontsize=11)
    right.legend(loc="lower right")
    return figure


def run(config: Config) -> Result:
    """Measures the steps with the library's Adam, and runs the two loops."""
    with _compat.enable_x64(True):
        plain = {b2: lengths(config.steps, b2=b2, bias_correction=False) for b2 in config.b2}
        corrected = {b2: lengths(config.steps, b2=b2) for b2 in config.b2}
    loops = {first: loop(first, config.rate, 40) for first in (0, 1)}
    t = np.arange(1, config.steps + 1)
    formula = {b2: (1 - B1**t) / np.sqrt(1 - b2**t) for b2 in config.b2}
    firsts = np.array([corrected[b2][0] for b2 in config.b2])
    numbers = {f"no correction, b2 = {b2}: first step": d[0] for b2, d in plain.items()}
    numbers |= {f"no correction, b2 = {b2}: longest step": d.max() for b2, d in plain.items()}
    numbers |= {
        f"no correction, b2 = {b2}: step of the longest": d.argmax() + 1
        for b2, d in plain.items()
        if d.max() > 1 + SAME
    }
    numbers["corrected: largest |first step - (1 - 1e-8)|"] = abs(firsts - (1 - EPS)).max()
    numbers |= {
        f"t from {first}: finite weights after {len(w) - 1} updates": np.isfinite(w[1:]).sum()
        for first, w in loops.items()
    }
    return Result(
        claims={
            "Without bias correction step t under a constant gradient is"
            " (1 - b1^t) / sqrt(1 - b2^t) learning rates long": truth(
                [np.allclose(plain[b2], formula[b2], rtol=SAME, atol=0) for b2 in config.b2]
            ),
            "Without bias correction the first step is longer than the learning rate": truth(
                [plain[b2][0] > 1 + SAME for b2 in config.b2]
            ),
            "With bias correction the first step is lr (1 - 1e-8)": truth(
                # The weight moved from 0 by the step; 1 / (1 + eps) = 1 - eps + 1e-16.
                np.isclose(firsts, 1 - EPS, rtol=0, atol=1e-14)
            ),
            "A loop that counts t from 0 trains": truth(np.isfinite(loops[0]).all()),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, plain, corrected, loops),
    )
