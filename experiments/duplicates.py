"""What do accidental copies of an example do to a fit?

B examples and M more copies of the first have the risk

    (1 / (B + M)) sum_b L_b + (M / (B + M)) L_1,

as if its weight were M + 1. In linear least squares its residual r becomes r / (1 + M l), l its
leverage `h' (H'H)^-1 h`. Gradients are compared on an MLP and the shipped digits; fits are of order
2 to noisy examples of 3 + 3 x + x^2.

References:
    R. Cook, S. Weisberg, "Residuals and influence in regression", 1982.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits, _polynomial
from experiments._experiment import Result, panels, truth
from experiments._polynomial import fit
from jaxtrain import _compat, losses, models, nn, tree
from jaxtrain.data.synthetic import powers

NET = models.mlp([16, 10])
LIMITS = {"float32": 1e-6, "float64": 1e-12}
ORDER = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """Gradients and fits with every number of copies from every seed.

    Attributes:
        copies: M, ascending; the first is 0.
        digits: images of the batch that gradients are taken of.
        examples: of the polynomial.
        seeds: of the params and of the examples.
    """

    copies: tuple[int, ...] = (0, 1, 3, 10, 30, 100)
    digits: int = 64
    examples: int = 20
    seeds: tuple[int, ...] = tuple(range(200))


SIZES = {
    "smoke": Config(copies=(0, 10), seeds=tuple(range(20))),
    "default": Config(),
    "full": Config(seeds=tuple(range(5000))),
}


def with_copies(n: int, copies: int) -> np.ndarray:
    """Returns the numbers of n examples, that of the first as many times more."""
    return np.concatenate([np.zeros(copies, int), np.arange(n)])


def weights(n: int, copies: int) -> np.ndarray:
    """Returns the weight of each example in the risk, of sum 1."""
    w = np.ones(n)
    w[0] += copies
    return w / w.sum()


def gradient_error(config: Config, dtype: str) -> float:
    """Returns how far the gradients with copies and with weights are apart, relative."""
    x, labels = (part[: config.digits] for part in _digits.examples()[0])
    x = x.astype(dtype)
    params, state = NET.init(jax.random.key(0), x)

    @jax.jit
    def gradient(x, labels, weights):
        def risk(params):
            logits, _ = NET.apply(params, state, x, nn.EVAL)
            return losses.softmax_cross_entropy(logits, labels) @ weights.astype(dtype)

        return jax.grad(risk)(params)

    errors = []
    for copies in config.copies:
        again = with_copies(len(x), copies)
        copied = gradient(x[again], labels[again], np.full(len(again), 1 / len(again)))
        weighted = gradient(x, labels, weights(len(x), copies))
        apart = tree.global_norm(jax.tree.map(jnp.subtract, copied, weighted))
        errors.append(float(apart / tree.global_norm(weighted)))
    return max(errors)


def influence(config: Config, seed: int) -> np.ndarray:
    """Returns, (4, copies): residual, its formula, risk of the others, test risk."""
    h, v = _polynomial.examples(config.examples, ORDER, seed)
    leverage = h[0] @ np.linalg.solve(h.T @ h, h[0])
    first = v[0] - h[0] @ fit(h, v)
    rows = []
    for m in config.copies:
        again = with_copies(len(v), m)
        w = fit(h[again], v[again])
        r = v - h @ w
        formula = first / (1 + m * leverage)
        rows.append((r[0], formula, (r[1:] ** 2).mean(), _polynomial.test_risk(w)))
    return np.array(rows).T


def draw(config: Config, found):
    """Draws the fits of one seed, residuals against the formula, and the risks."""
    title = "What do accidental copies of an example do to a fit?"
    figure, (left, middle, right) = panels(title, 3)
    # That of all seeds whose first example is the furthest from its fit.
    seed = config.seeds[abs(found[:, 0, 0]).argmax()]
    h, v = _polynomial.examples(config.examples, ORDER, seed)
    x = np.linspace(-1, 1, 100)
    for m in config.copies[:: max(1, len(config.copies) // 3)]:
        again = with_copies(len(v), m)
        left.plot(x, powers(x[:, None], ORDER) @ fit(h[again], v[again]), label=f"M = {m}")
    left.plot(h[1:, 1], v[1:], "ko", ms=4)
    left.plot(h[0, 1], v[0], "C3*", ms=14, label="copied M times")
    left.set(xlabel="x", ylabel="v")
    left.set_title("Fits are drawn to the copied example", fontsize=11)
    left.legend()
    residual, formula, others, test = np.median(abs(found), 0)
    m = np.array(config.copies)
    middle.loglog(m + 1, residual, "o", ms=9, label="measured")
    middle.loglog(m + 1, formula, "k:", label="r / (1 + M l)")
    middle.set(xlabel="M + 1", ylabel="|residual| of the copied example, median")
    middle.set_title("It is fitted ever better", fontsize=11)
    middle.legend()
    right.loglog(m + 1, others, "o-", label="risk of the other examples")
    right.loglog(m + 1, test, "s-", label="test risk")
    right.set(xlabel="M + 1", ylabel="risk, median")
    right.set_title("All else is fitted worse", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Compares copies with weights, and fits with and without copies."""
    with _compat.enable_x64(True):
        errors = {dtype: gradient_error(config, dtype) for dtype in LIMITS}
    found = np.array([influence(config, seed) for seed in config.seeds])
    residual, formula, others, test = np.moveaxis(found, 1, 0)
    numbers = {f"gradients, {dtype}: relative difference": e for dtype, e in errors.items()}
    for i, m in enumerate(config.copies):
        numbers[f"M = {m}: |residual| of the copied example, median"] = np.median(
            abs(residual[:, i])
        )
        numbers[f"M = {m}: risk of the others, median"] = np.median(others[:, i])
        numbers[f"M = {m}: test risk, median"] = np.median(test[:, i])
    return Result(
        claims={
            "The gradient with M copies is that with the weight M + 1": truth(
                [errors[dtype] < limit for dtype, limit in LIMITS.items()]
            ),
            "The residual of the copied example is r / (1 + M l)": truth(
                abs(residual - formula).max() < 1e-10
            ),
            "The other examples are fitted worse with every copy": truth(
                np.diff(others, axis=1).min() > -1e-12
            ),
            "The median test risk rises with every copy": truth(np.diff(np.median(test, 0)) > 0),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
