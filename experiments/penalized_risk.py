"""Does a penalty on large weights keep gradient descent from overfitting?

The penalized risk is R + lambda |w|^2. For three weights of polynomials of order 5 some notes print
R = 100, 0.01 and 0.001, and R + |w|^2 = 100, 19.04 and 44.761: the fit that overfits becomes the
worse one. What follows is measured on fits to 8 noisy examples of 3 + 3 x + x^2 by gradient descent
from w = 0, with and without the penalty.

References:
    A. Hoerl, R. Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
"""

import dataclasses

import numpy as np

from experiments import _polynomial
from experiments._experiment import Result, panels, truth
from experiments.overtraining import ORDER, PRINTED
from jaxtrain import _compat

RISKS = {"w(0)": 100.0, "w_t2": 0.01, "w_t3": 0.001}
PENALIZED = {"w(0)": 100.0, "w_t2": 19.04, "w_t3": 44.761}  # as printed


@dataclasses.dataclass(frozen=True)
class Config:
    """Every strength from every seed.

    Attributes:
        strengths: lambda, ascending; the first is 0.
        examples: to learn from.
        steps: of gradient descent.
        seeds: of the examples.
    """

    strengths: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    examples: int = 8
    steps: int = 200_000
    seeds: tuple[int, ...] = tuple(range(200))


SIZES = {
    "smoke": Config(strengths=(0.0, 1e-2, 1.0), steps=20_000, seeds=tuple(range(20))),
    "default": Config(),
    "full": Config(steps=2_000_000, seeds=tuple(range(1000))),
}


def penalized(risk, w, strength):
    """Returns R + lambda |w|^2 for weights along the last axis."""
    return risk + strength * (np.asarray(w) ** 2).sum(-1)


def example() -> dict[str, float]:
    """Returns R + |w|^2 of the printed weights."""
    return {name: float(penalized(r, PRINTED[name], 1.0)) for name, r in RISKS.items()}


def as_printed(values: dict[str, float]) -> list[bool]:
    """Tells which of the values are the printed ones to the printed digits."""
    digits = {name: len(str(value).partition(".")[2]) for name, value in PENALIZED.items()}
    return [round(values[name], digits[name]) == value for name, value in PENALIZED.items()]


def train(config: Config):
    """Returns weights, (strengths, seeds, times, 6), training risks, and the times."""
    h, v = _polynomial.many(config.examples, ORDER, config.seeds)
    t = np.unique(np.round(np.logspace(0, np.log10(config.steps), 100)).astype(int))
    w = np.stack([_polynomial.descend(h, v, t, strength=s)[0] for s in config.strengths])
    errors = np.einsum("snp,lstp->lstn", h, w) - v[:, None]
    return w, (errors**2).mean(-1), t


def draw(config: Config, values, w, t):
    """Draws the printed example, the norms and the test risks over the steps."""
    title = "Does a penalty on large weights keep gradient descent from overfitting?"
    figure, (left, middle, right) = panels(title, 3)
    names = list(values)
    for i, (label, bars) in enumerate((("R", RISKS), ("R + |w|$^2$", values))):
        at = np.arange(3) + 0.4 * i - 0.2
        drawn = left.bar(at, [bars[name] for name in names], 0.38, label=label)
        left.bar_label(drawn, [f"{bars[name]:.6g}" for name in names], fontsize=8)
    left.set(yscale="log", ylim=(5e-4, 400), ylabel="risk")
    left.set_xticks(range(3), names)
    left.set_title("The printed example", fontsize=11)
    left.legend()
    norms, test = np.linalg.norm(w, axis=-1), _polynomial.test_risk(w)
    for i, strength in enumerate(config.strengths):
        label = f"$\\lambda$ = {strength:g}"
        middle.loglog(t, np.median(norms[i], 0), f"C{i}", lw=2, label=label)
        right.loglog(t, np.median(test[i], 0), f"C{i}", lw=2, label=label)
    middle.set(xlabel="step", ylabel="|w|, median")
    middle.set_title("Weights stay the smaller", fontsize=11)
    middle.legend()
    right.set(xlabel="step", ylabel="test risk, median")
    right.set_title("Overfitting stops; too much underfits", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Computes the example and trains with all strengths."""
    values = example()
    with _compat.enable_x64(True):
        w, risk, t = train(config)
    norms, test = np.linalg.norm(w[:, :, -1], axis=-1), _polynomial.test_risk(w)
    ends = test[:, :, -1]
    # Of gradient descent on R alone: does R + lambda |w|^2 end above its least?
    turned = [
        (penalized(risk[0], w[0], s)[:, -1] > penalized(risk[0], w[0], s).min(1)).mean()
        for s in config.strengths[1:]
    ]
    numbers = {f"R + |w|^2 of the printed {name}": value for name, value in values.items()}
    for i, s in enumerate(config.strengths):
        numbers[f"lambda {s:g}: |w| at the end, median"] = np.median(norms[i])
        numbers[f"lambda {s:g}: test risk at the end, median"] = np.median(ends[i])
        numbers[f"lambda {s:g}: least test risk on the way, median"] = np.median(test[i].min(1))
    for s, share in zip(config.strengths[1:], turned, strict=True):
        numbers[f"lambda {s:g}: share of runs on R that pass the least R + lambda |w|^2"] = share
    return Result(
        claims={
            "R + |w|^2 of the printed weights is 100, 19.04 and 44.761": truth(as_printed(values)),
            "With the penalty the second is better than the third": truth(
                values["w_t2"] < values["w_t3"]
            ),
            "Gradient descent on R goes past the least penalized risk in 80 % of runs": truth(
                np.array(turned) >= 0.8
            ),
            "With the penalty the weights end smaller in every run, for every lambda": truth(
                norms[1:] < norms[0]
            ),
            "The test risk ends lower than without, in the median": truth(
                np.median(ends[1:], 1) < np.median(ends[0])
            ),
            "It ends lower than without at the best step": truth(
                np.median(ends[1:], 1) < np.median(test[0].min(1))
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, values, w, t),
    )
