"""Does training for longer make a fit worse?

Polynomials of order 5 are fitted to 8 noisy examples of 3 + 3 x + x^2 by gradient descent from
w = 0 at the rate 1 / L, L the largest curvature. The training risk falls in every step; the test
risk is E (fit - y)^2 over all x, without the noise.

Some notes print the weights of such a run, with w* = (3, 3, 1, 0, 0, 0): at w_t1 the last three are
still near 0, at w_t3 they have grown to make up for each other. How small they are early on
depends on the unit of x.

References:
    L. Prechelt, "Early stopping - but when?", 1998.
"""

import dataclasses

import numpy as np

from experiments import _polynomial
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat

ORDER = 5
WORSE = 1.5  # times the least test risk
EARLY = 5  # steps
REACHES = 1.0, 0.5
PRINTED = {
    "w(0)": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "w_t1": (2.61, 2.36, 0.71, 0.01, 0.02, 0.01),
    "w_t2": (3.03, 2.97, 0.98, 0.21, 0.12, 0.09),
    "w_t3": (2.36, 4.43, 3.13, -2.1, 1.98, -1.2),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """A run from every seed, on x in [-1, 1] and in [-1/2, 1/2].

    Attributes:
        examples: to learn from.
        steps: of gradient descent.
        seeds: of the examples.
    """

    examples: int = 8
    steps: int = 200_000
    seeds: tuple[int, ...] = tuple(range(200))


SIZES = {
    "smoke": Config(steps=20_000, seeds=tuple(range(20))),
    "default": Config(),
    "full": Config(steps=2_000_000, seeds=tuple(range(1000))),
}


def times(config: Config) -> np.ndarray:
    """Returns numbers of steps, ten to the octave and 0."""
    octaves = np.log2(config.steps)
    logs = np.linspace(0, octaves, round(10 * octaves) + 1)
    return np.unique(np.round(np.concatenate([[0, EARLY], 2**logs])).astype(int))


def train(config: Config, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns weights, (seeds, times, 6), and training and test risks, (seeds, times)."""
    h, v = _polynomial.many(config.examples, ORDER, config.seeds, reach=reach)
    w, _ = _polynomial.descend(h, v, times(config))
    errors = np.einsum("snp,stp->stn", h, w) - v[:, None]
    return w, (errors**2).mean(-1), _polynomial.test_risk(w, reach=reach)


def distances() -> dict[str, float]:
    """Returns the distances of the printed weights from those of the truth."""
    true = np.pad(_polynomial.TRUE, (0, 3))
    return {name: float(np.linalg.norm(w - true)) for name, w in PRINTED.items()}


def draw(config: Config, found):
    """Draws risks and weights over the steps, and the weights after a few of them."""
    figure, (left, middle, right) = panels("Does training for longer make a fit worse?", 3)
    t, (w, train, test) = times(config), found[REACHES[0]]
    for i, (name, risk) in enumerate((("training", train), ("test", test))):
        low, median, high = np.quantile(risk[:, 1:], [0.25, 0.5, 0.75], 0)
        left.loglog(t[1:], median, f"C{i}", lw=2, label=f"{name} risk")
        left.fill_between(t[1:], low, high, color=f"C{i}", alpha=0.2, lw=0)
    left.set(xlabel="step", ylabel="risk; median and quartiles")
    left.set_title(f"Order {ORDER}, {config.examples} examples", fontsize=11)
    left.legend()
    norm = np.median(np.linalg.norm(w, axis=-1), 0)
    middle.loglog(t[1:], norm[1:], "k", lw=2, label="|w|")
    for i in range(ORDER + 1):
        middle.loglog(t[1:], np.median(abs(w[..., i]), 0)[1:], f"C{i}", lw=1, label=f"$|w_{i}|$")
    middle.set(xlabel="step", ylabel="magnitude, median", ylim=(1e-2, None))
    middle.set_title("The weights grow on", fontsize=11)
    middle.legend(fontsize=8, ncols=2)
    at, k = list(t).index(EARLY), np.arange(ORDER + 1)
    for i, reach in enumerate(REACHES):
        early = np.median(abs(found[reach][0][:, at]), 0)
        right.bar(k + 0.27 * (i - 1), early, 0.25, label=f"{EARLY} steps, |x| < {reach:g}")
    right.bar(k + 0.27, np.abs(PRINTED["w_t1"]), 0.25, color="0.6", label="printed, $w_{t1}$")
    right.set(xlabel="power of x", ylabel="|weight|, median")
    right.set_title("Early weights depend on the unit of x", fontsize=11)
    right.legend(fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Trains from all seeds and compares the end with the best moment before it."""
    with _compat.enable_x64(True):
        found = {reach: train(config, reach) for reach in REACHES}
    t, (w, risk, test) = times(config), found[REACHES[0]]
    u_shaped = (test[:, -1] > WORSE * test.min(1)).mean()
    norms = np.median(np.linalg.norm(w, axis=-1), 0)
    early = {r: np.median(abs(f[0][:, list(t).index(EARLY)]), 0) for r, f in found.items()}
    numbers = {
        f"share of runs that end above {WORSE:g} times their least test risk": u_shaped,
        "best step, median": np.median(t[test.argmin(1)]),
        "test risk at the best step, median": np.median(test.min(1)),
        "test risk at the end, median": np.median(test[:, -1]),
        "|w| at the end, median": norms[-1],
    }
    numbers |= {f"printed weights: |{name} - w*|": d for name, d in distances().items()}
    for reach, weights in early.items():
        for i, weight in enumerate(weights):
            numbers[f"|x| < {reach:g}: |w{i}| after {EARLY} steps, median"] = weight
    return Result(
        claims={
            "The training risk falls in every step": truth(np.diff(risk, axis=1).max() < 1e-12),
            f"In 80 % of runs or more the test risk ends above {WORSE:g} times its least": truth(
                u_shaped >= 0.8
            ),
            "The weights grow all the while": truth(np.diff(norms) > 0),
            f"After {EARLY} steps the last three weights are still below 0.1: x in [-1, 1],"
            " x in [-1/2, 1/2]": truth([weights[3:].max() < 0.1 for weights in early.values()]),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
