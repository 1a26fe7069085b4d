"""Which order of a polynomial generalizes best, and how many examples does it need?

Of v = 3 + 3 x + x^2 + noise, |noise| <= 1, polynomials of every order are fitted by least squares,
the shortest solution where there are more weights than examples. The training risk is the mean
squared error on the examples, the test risk E (fit - y)^2 over all x, without the noise. A fit
whose test risk is above the variance of y, 139 / 45, is worse than a constant.

References:
    C. Bishop, "Pattern recognition and machine learning", 2006, section 1.1.
"""

import dataclasses

import numpy as np

from experiments import _polynomial
from experiments._experiment import Result, panels, truth
from experiments._polynomial import fit
from jaxtrain.data.synthetic import powers

VARIANCE = 3**2 / 3 + 4 / 45  # of 3 x + x^2


@dataclasses.dataclass(frozen=True)
class Config:
    """Every order with every number of examples from every seed.

    Attributes:
        orders: of the fits, ascending by 1 from 1.
        sizes: numbers of examples, ascending.
        size: that with which orders are compared.
        order: that with which numbers of examples are compared.
        seeds: of the examples.
    """

    orders: tuple[int, ...] = tuple(range(1, 11))
    sizes: tuple[int, ...] = (4, 8, 20, 100)
    size: int = 20
    order: int = 5
    seeds: tuple[int, ...] = tuple(range(200))


SIZES = {
    "smoke": Config(orders=tuple(range(1, 7)), seeds=tuple(range(40))),
    "default": Config(),
    "full": Config(sizes=(4, 6, 8, 12, 20, 50, 100, 1000), seeds=tuple(range(2000))),
}


def risks(n: int, order: int, seed: int) -> tuple[float, float]:
    """Returns the training and the test risk of a fit."""
    h, v = _polynomial.examples(n, order, seed)
    w = fit(h, v)
    return ((h @ w - v) ** 2).mean(), float(_polynomial.test_risk(w))


def measure(config: Config) -> np.ndarray:
    """Returns the training and the test risks, (2, sizes, orders, seeds)."""
    found = [[[risks(n, order, seed) for seed in config.seeds] for order in config.orders]
             for n in config.sizes]  # fmt: skip
    return np.moveaxis(np.array(found), -1, 0)


def draw(config: Config, found):
    """Draws three fits, the risks by order, and the test risk by order and size."""
    title = "Which order generalizes best, and how many examples does it need?"
    figure, (left, middle, right) = panels(title, 3)
    x = np.linspace(-1, 1, 200)
    left.plot(x, powers(x[:, None], 2) @ _polynomial.TRUE, "k--", lw=2, label="truth")
    for order in (1, 2, config.orders[-1]):
        h, v = _polynomial.examples(config.size, order, 0)
        left.plot(x, powers(x[:, None], order) @ fit(h, v), lw=1.5, label=f"order {order}")
    left.plot(h[:, 1], v, "ko", ms=4)
    left.set(xlabel="x", ylabel="v", ylim=(-1, 9))
    left.set_title(f"Fits to {config.size} examples", fontsize=11)
    left.legend()
    at = found[:, config.sizes.index(config.size)]
    for i, (name, risk) in enumerate(zip(("training", "test"), at, strict=True)):
        low, median, high = np.quantile(risk, [0.25, 0.5, 0.75], 1)
        middle.semilogy(config.orders, median, f"C{i}o-", label=f"{name} risk")
        middle.fill_between(config.orders, low, high, color=f"C{i}", alpha=0.2, lw=0)
    middle.set(xlabel="order", ylabel="risk; median and quartiles")
    middle.set_title(f"{config.size} examples: the best order is 2", fontsize=11)
    middle.legend()
    for i, n in enumerate(config.sizes):
        right.semilogy(config.orders, np.median(found[1, i], -1), "o-", label=f"{n} examples")
    right.axhline(VARIANCE, color="black", lw=1, ls=":")
    right.text(config.orders[0], VARIANCE * 1.15, "a constant", va="bottom")
    right.set(xlabel="order", ylabel="test risk, median")
    right.set_title("More weights need more examples", fontsize=11)
    right.legend(fontsize=8)
    return figure


def run(config: Config) -> Result:
    """Fits all orders to all numbers of examples."""
    found = measure(config)
    medians = np.median(found, -1)
    train, test = found[:, config.sizes.index(config.size)]
    by_size = medians[1, :, config.orders.index(config.order)]
    sizes = np.array(config.sizes)
    best = config.orders[np.median(test, -1).argmin()]
    numbers = {"variance of y, the test risk of a constant": VARIANCE, "best order": best}
    for i, what in enumerate(("training", "test")):
        for order, risk in zip(
            config.orders, medians[i, config.sizes.index(config.size)], strict=True
        ):
            numbers[f"{config.size} examples, order {order}: {what} risk"] = risk
    for n, risk in zip(config.sizes, by_size, strict=True):
        numbers[f"order {config.order}, {n} examples: test risk"] = risk
    return Result(
        claims={
            "The test risk is least at the order of the truth, 2": truth(best == 2),
            "A line underfits: both its risks are above those of order 2": truth(
                [np.median(risk[0]) > np.median(risk[1]) for risk in (train, test)]
            ),
            "The training risk never rises with the order": truth(
                np.diff(train, axis=0).max() < 1e-12
            ),
            f"With up to 8 examples order {config.order} is worse than a constant": truth(
                by_size[sizes <= 8] > VARIANCE
            ),
            "With 20 or more it is": truth(by_size[sizes >= 20] > VARIANCE),
            "For every order the test risk falls with the number of examples": truth(
                (np.diff(medians[1], axis=0) < 0).all(0)
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
