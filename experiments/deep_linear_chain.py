"""Does a step along the gradient change a deep net by what the gradient predicts?

The chain of n layers is `y = x w_1 w_2 ... w_n`; with dL/dy = 1 the gradient is g_i = y / w_i. The
step `w - eps * g` with `eps = 0.1 / g'g` is to lower y by 0.1. But

    y(w - eps * g) = x prod_i (w_i - eps * g_i)

has a term of every order up to n in eps: the gradient of a layer holds for the other layers fixed,
and they move too. With all w_i = w the term of order k is `binomial(n, k) w^(n - k) (-eps g)^k`.

References:
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, section 8.7.1.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import _compat

DROP = 0.1
CLOSE = 0.1  # a change within 10 % of the prediction is one that was predicted


@dataclasses.dataclass(frozen=True)
class Config:
    """Every weight with every depth.

    Attributes:
        weights: the value of all weights of a chain.
        depths: numbers of layers.
        example: the number of layers that is looked at closely.
    """

    weights: tuple[float, ...] = (0.5, 1.0, 1.5)
    depths: tuple[int, ...] = tuple(range(2, 13))
    example: int = 8


SIZES = {
    "smoke": Config(depths=(2, 8)),
    "default": Config(),
    "full": Config(weights=(0.5, 0.7, 0.9, 1.0, 1.1, 1.5, 2.0), depths=tuple(range(2, 33))),
}


def chain(w):
    return jnp.prod(w)


def step(w):
    """Returns -eps * g for the eps that is to lower y by DROP."""
    g = jax.grad(chain)(w)
    return -DROP / (g @ g) * g


def change(w, dw) -> float:
    return float(chain(w + dw) - chain(w))


def terms(w: float, n: int) -> np.ndarray:
    """Returns the parts of the change that are of order 1 to n in eps."""
    dw = float(step(jnp.full(n, w))[0])
    return np.array([math.comb(n, k) * w ** (n - k) * dw**k for k in range(1, n + 1)])


def draw(config: Config, together):
    """Draws the change against depth, and its terms at one depth."""
    title = "Does a deep linear chain change by what its gradient predicts?"
    figure, (left, right) = panels(title, 2, width=5.5)
    for w in config.weights:
        miss = [abs(together[w, n] / -DROP - 1) for n in config.depths]
        left.plot(config.depths, miss, "o-", ms=4, label=f"all weights {w:g}")
    left.axhline(CLOSE, color="black", lw=1, ls="--", label=f"{CLOSE:.0%} off")
    left.set(yscale="log", xlabel="layers", ylabel="relative error of the prediction")
    left.set_title(f"A step that is to lower y by {DROP}", fontsize=11)
    left.legend(loc="upper left")
    k = np.arange(1, config.example + 1)
    width = 0.8 / len(config.weights)
    for i, w in enumerate(config.weights):
        at = k + (i + 0.5) * width - 0.4
        right.bar(at, terms(w, config.example), width, color=f"C{i}")
    right.axhline(0, color="black", lw=0.8)
    right.set_yscale("symlog", linthresh=1e-3, linscale=0.5)
    right.set(xlabel="order in eps", ylabel="part of the change of y")
    right.set_title(
        f"{config.example} layers: the prediction is the term of order 1 alone", fontsize=11
    )
    return figure


def run(config: Config) -> Result:
    """Moves all layers at once, and the first alone."""
    together, alone = {}, {}
    with _compat.enable_x64(True):
        for w in config.weights:
            for n in {*config.depths, config.example}:
                ws = jnp.full(n, w)
                dw = step(ws)
                together[w, n] = change(ws, dw)
                alone[w, n] = change(ws, dw.at[1:].set(0)) * n  # each layer's share is 1 / n
        figure = draw(config, together)
    numbers = {
        f"change of y, {config.example} layers of {w:g}": together[w, config.example]
        for w in config.weights
    }
    predicted = np.isclose(list(numbers.values()), -DROP, rtol=CLOSE)
    misses = np.abs(np.array(list(alone.values())) / -DROP - 1)
    numbers["one layer alone: largest relative miss"] = float(misses.max())
    return Result(
        claims={
            f"A step of {DROP} / g'g along -g, of {config.example} layers at once, lowers y by"
            f" {DROP}": truth(predicted),
            "The same step of one layer alone changes y by what the gradient predicts": truth(
                misses < 1e-9
            ),
        },
        numbers=numbers,
        figure=figure,
    )
