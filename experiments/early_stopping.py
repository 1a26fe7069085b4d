"""Is stopping early the same as an L2 penalty?

On a quadratic with curvature h in some direction and least at w*, both shrink w* in it:

    gradient descent from 0, t steps at rate eta    w = (1 - (1 - eta h)^t) w*
    penalty lambda / 2 |w|^2                        w = h / (h + lambda) w*

With lambda = 1 / (eta t) and u = eta h t these are about 1 - e^-u and u / (1 + u): both u for small
u and 1 for large u, with a ratio between 1 and 1.30. Measured on fits of polynomials of order 5 to
8 noisy examples, whose curvatures spread over many powers of ten.

References:
    C. Bishop, "Regularization and complexity control in feed-forward networks", 1995.
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, section 7.8.
"""

import dataclasses

import numpy as np

from experiments import _polynomial
from experiments._experiment import Result, panels, truth
from experiments.overtraining import ORDER
from jaxtrain import _compat

GRID = np.logspace(-8, 3, 221)  # lambda, in units of the largest curvature


@dataclasses.dataclass(frozen=True)
class Config:
    """Both methods on the examples of every seed.

    Attributes:
        examples: to learn from.
        steps: of gradient descent.
        seeds: of the examples.
    """

    examples: int = 8
    steps: int = 1_000_000
    seeds: tuple[int, ...] = tuple(range(100))


SIZES = {
    "smoke": Config(steps=10_000, seeds=tuple(range(10))),
    "default": Config(),
    "full": Config(seeds=tuple(range(1000))),
}


def shrunk_by_steps(h, eta, t):
    return 1 - (1 - eta * h) ** t


def shrunk_by_penalty(h, strength):
    return h / (h + strength)


def measure(config: Config):
    """Returns the times and, by seed: curvatures, w*, rates, and both methods' weights.

    All weights are in the frame of the curvatures; those of the penalty are for GRID.
    """
    x, v = _polynomial.many(config.examples, ORDER, config.seeds)
    t = np.unique(np.round(np.logspace(0, np.log10(config.steps), 60)).astype(int))
    stopped, eta = _polynomial.descend(x, v, t)
    u, s, frame = np.linalg.svd(x, full_matrices=False)
    h, least = 2 * s**2 / config.examples, np.einsum("snk,sn->sk", u, v) / s
    into = np.swapaxes(frame, 1, 2)  # from the powers of x to the frame
    strengths = GRID[:, None] * h.max(1)[:, None, None]
    penalized = shrunk_by_penalty(h[:, None], strengths) * least[:, None]
    return t, h, least, eta, stopped @ into, penalized, frame


def draw(t, h, least, eta, stopped, penalized, risks):
    """Draws the shrinkage over u, both paths of one seed, and both test risks."""
    figure, (left, middle, right) = panels("Is stopping early the same as an L2 penalty?", 3)
    u = np.logspace(-3, 3, 200)
    left.loglog(u, 1 - np.exp(-u), "C0", lw=2, label="stopped: 1 - e$^{-u}$")
    left.loglog(u, u / (1 + u), "C1", lw=2, label="penalty: u / (1 + u)")
    seen = (eta[:, None, None] * h[:, None] * t[:, None])[0, ::2]
    left.loglog(seen.ravel(), (stopped / least[:, None])[0, ::2].ravel(), "k.", ms=4,
                label="measured, stopped")  # fmt: skip
    left.set(xlabel="u = eta h t", ylabel="share of w*", xlim=(1e-3, 1e3), ylim=(1e-3, 1.5))
    left.set_title("Shrinkage of a direction, lambda = 1 / (eta t)", fontsize=11)
    left.legend(loc="lower right")
    strength = 1 / (eta[0] * t)
    matched = shrunk_by_penalty(h[0], strength[:, None]) * least[0]
    for i in range(ORDER + 1):
        share = stopped[0, :, i] / least[0, i], matched[:, i] / least[0, i]
        middle.semilogx(t, share[0], f"C{i}", lw=2)
        middle.semilogx(t, share[1], f"C{i}--", lw=1.5)
    middle.plot([], [], "k", lw=2, label="stopped after t steps")
    middle.plot([], [], "k--", label="penalty, lambda = 1 / (eta t)")
    middle.set(xlabel="t", ylabel="share of w*, by direction", ylim=(0, 1.3))
    middle.set_title("Six directions, from steep to flat", fontsize=11)
    middle.legend(loc="upper left", fontsize=8)
    by_steps, by_penalty = (np.median(r, 0) for r in risks)
    right.loglog(t, by_steps, "C0", lw=2, label="stopped after t steps")
    right.loglog(1 / GRID, by_penalty, "C1--", lw=2, label="penalty, t = 1 / (eta lambda)")
    right.set(xlabel="t", ylabel="test risk, median", xlim=(1, t[-1]))
    right.set_title("Test risk", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Compares the weights of gradient descent with those of the penalty."""
    with _compat.enable_x64(True):
        t, h, least, eta, stopped, penalized, frame = measure(config)
    exact = shrunk_by_steps(h[:, None], eta[:, None, None], t[:, None]) * least[:, None]
    matched = shrunk_by_penalty(h[:, None], 1 / (eta[:, None] * t)[..., None])
    ratio = exact / least[:, None] / matched
    size = np.linalg.norm(least, axis=1)[:, None]
    apart = np.linalg.norm(exact - matched * least[:, None], axis=-1) / size
    # The penalty whose weights are nearest to those of each step.
    between = np.linalg.norm(stopped[:, :, None] - penalized[:, None], axis=-1)
    nearest = GRID[between.argmin(-1)]
    risks = [_polynomial.test_risk(w @ frame) for w in (stopped, penalized)]
    best = [np.median(r.min(1)) for r in risks]
    numbers = {
        "largest relative error of 1 - (1 - eta h)^t": (abs(stopped - exact).max(-1) / size).max(),
        "shares of w* with lambda = 1 / (eta t), stopped / penalty: least": ratio.min(),
        "shares of w* with lambda = 1 / (eta t), stopped / penalty: largest": ratio.max(),
        "the same from step 10 on: largest": ratio[:, t >= 10].max(),
        "largest distance of the weights / |w*|": apart.max(),
        "test risk at the best step, median": best[0],
        "test risk at the best lambda, median": best[1],
    }
    return Result(
        claims={
            "After t steps each direction has come the share 1 - (1 - eta h)^t of its way": truth(
                numbers["largest relative error of 1 - (1 - eta h)^t"] < 1e-6
            ),
            "With lambda = 1 / (eta t) it is once to twice the share with the penalty": truth(
                1 - 1e-9 < ratio.min() <= ratio.max() < 2 + 1e-9
            ),
            "The weights are the same, within 1 %": truth(apart.max() < 0.01),
            "The nearest penalty falls from each step to the next": truth(
                np.diff(nearest, axis=1).max() <= 0
            ),
            "At their best both have the same test risk, within 10 %": truth(
                abs(best[0] / best[1] - 1) < 0.1
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(t, h, least, eta, stopped, penalized, risks),
    )
