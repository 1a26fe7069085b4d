"""Do L1 and L2 penalties make weights exactly zero?

With features X for which X'X / n = I, and u the weights of the least squared error, the penalized
risks have their minima at

    R + lambda sum |w_i|    w = sign(u) max(|u| - lambda / 2, 0)
    R + lambda sum w_i^2    w = u / (1 + lambda)

Gradient descent on R is followed by the soft threshold of the L1 penalty (proximal steps), has the
gradient of the penalty added, lambda sign(w), or that of the L2 penalty, 2 lambda w.

References:
    R. Tibshirani, "Regression shrinkage and selection via the Lasso", 1996.
    I. Daubechies, M. Defrise, C. De Mol, "An iterative thresholding algorithm for linear inverse
    problems with a sparsity constraint", 2004.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, losses, optim

RATE = 0.05
METHODS = "L1, proximal", "L1, gradient", "L2"
EXACT = 1e-9


@dataclasses.dataclass(frozen=True)
class Config:
    """Every method at every strength on the features and targets of every seed.

    Attributes:
        features: weights; those of the last half have no part in the targets.
        examples: more than features.
        strengths: lambda, of the path, ascending.
        steps: of gradient descent.
        seeds: of features, weights and noise.
    """

    features: int = 10
    examples: int = 40
    strengths: tuple[float, ...] = tuple(np.linspace(0.05, 4, 80).round(3).tolist())
    steps: int = 500
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(strengths=(0.1, 0.5, 1.0, 2.0, 4.0), seeds=(0, 1, 2)),
    "default": Config(),
    "full": Config(features=20, examples=100, seeds=tuple(range(200))),
}


def examples(config: Config, seed: int):
    """Returns features with X'X / n = I, targets, and the weights of the least error."""
    rng = np.random.default_rng(seed)
    n, d = config.examples, config.features
    x = np.linalg.qr(rng.normal(size=(n, d)))[0] * n**0.5
    w = rng.uniform(0.5, 2, d) * rng.choice([-1, 1], d) * (np.arange(d) < d // 2)
    v = x @ w + rng.normal(size=n)
    return x, v, x.T @ v / n


def closed_form(method: str, u, strength):
    """Returns the minimum of the penalized risk."""
    if method == "L2":
        return u / (1 + strength)
    return np.sign(u) * np.maximum(abs(u) - strength / 2, 0)


def optimizer(method: str, strength):
    if method == "L1, proximal":
        return optim.proximal_l1(optim.sgd(RATE), strength)
    if method == "L2":
        return optax.chain(optim.l2(strength, scale="sum"), optim.sgd(RATE))
    return optim.sgd(RATE)


def train(config: Config, method: str, x, v):
    """Returns the last two iterates at each strength, (strengths, seeds, 2, features)."""

    def one(strength, x, v):
        def cost(w):
            r = losses.squared_error((x @ w)[:, None], v[:, None]).mean()
            return r + strength * abs(w).sum() if method == "L1, gradient" else r

        start = jnp.full(x.shape[1], 0.1)
        steps = path(optimizer(method, strength), lambda w, k: jax.grad(cost)(w), start,
                     config.steps)  # fmt: skip
        return steps[-2:]

    runs = jax.vmap(jax.vmap(one, (None, 0, 0)), (0, None, None))
    return np.asarray(jax.jit(runs)(jnp.array(config.strengths), x, v))


def draw(config: Config, found, u):
    """Draws the paths of one seed, and the numbers of zeros."""
    figure, (*paths, last) = panels("Do penalties make weights exactly zero?", 4, width=4.2)
    used = config.features // 2
    for axes, method in zip(paths, METHODS, strict=True):
        for i in range(config.features):
            color = "C0" if i < used else "C3"
            axes.plot(config.strengths, found[method][:, 0, 1, i], color, lw=1.5)
            exact = closed_form(method, u[0, i], np.array(config.strengths))
            axes.plot(config.strengths, exact, "k:", lw=1)
        axes.set(xlabel="lambda", ylabel="weight")
        axes.set_title(method, fontsize=11)
    for color, label in (("C0", "in the truth"), ("C3", "not"), ("k:", "closed form")):
        paths[0].plot([], [], color, label=label)
    paths[0].legend(fontsize=9)
    for method, line in zip(METHODS, ("-", "--", ":"), strict=True):
        zeros = (found[method][:, :, 1] == 0).sum(-1).mean(1)
        last.plot(config.strengths, zeros, line, lw=2.5, label=method)
    last.set(xlabel="lambda", ylabel=f"exact zeros, of {config.features}; mean")
    last.set_title("Zeros", fontsize=11)
    last.legend()
    return figure


def run(config: Config) -> Result:
    """Follows all paths and compares them with the closed forms."""
    with _compat.enable_x64(True):
        x, v, u = map(np.stack, zip(*(examples(config, s) for s in config.seeds), strict=True))
        found = {method: train(config, method, x, v) for method in METHODS}
    strengths = np.array(config.strengths)[:, None, None]
    error, zeros = {}, {}
    for method, w in found.items():
        error[method] = abs(w[:, :, 1] - closed_form(method, u, strengths))
        zeros[method] = w[:, :, 1] == 0
    proximal, gradient, l2 = METHODS
    lost = zeros[proximal].mean(1)  # (strengths, features)
    used = config.features // 2
    numbers = {f"{m}: largest distance from the closed form": e.max() for m, e in error.items()}
    numbers |= {f"{m}: share of exact zeros": z.mean() for m, z in zeros.items()}
    numbers["closed form of L1: share of zeros"] = (abs(u) <= strengths / 2).mean()
    for name, part in (("in the truth", slice(used)), ("not in it", slice(used, None))):
        numbers[f"{proximal}: share of zeros among weights {name}"] = lost[:, part].mean()
    return Result(
        claims={
            "Proximal steps end at sign(u) max(|u| - lambda / 2, 0)": truth(
                error[proximal].max() < EXACT
            ),
            "With them a weight is exactly 0 where |u| <= lambda / 2, and nowhere else": truth(
                (zeros[proximal] == (abs(u) <= strengths / 2)).all()
            ),
            "Gradient descent on R + lambda sum |w_i| makes weights exactly 0": truth(
                zeros[gradient].any()
            ),
            "It ends there or within a step, rate times 2 lambda, of it": truth(
                (error[gradient] <= 2 * RATE * strengths + EXACT).all()
            ),
            "L2 makes weights exactly 0": truth(zeros[l2].any()),
            "It ends at u / (1 + lambda)": truth(error[l2].max() < EXACT),
            "More of the weights that have no part in the truth are 0, at every lambda": truth(
                (lost[:, used:].mean(1) >= lost[:, :used].mean(1)).all()
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, u),
    )
