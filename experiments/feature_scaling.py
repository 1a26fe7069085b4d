"""How much does gradient descent gain from features of one scale?

For the squared error of a linear model of n examples x, with a 1 for the bias in front, the
curvature is that of X'X. Gradient descent at its best rate, 2 / (L + mu) for eigenvalues from mu to
L, takes about kappa / 4 log(1 / g) steps, kappa = L / mu, to leave the share g of the loss.

- A printed table of three examples has features of 100 and of 0.003.
- A has the heights in cm of two people, B a height and a number of children.

Each is taken as it is, standardized, `(x - mean) / std`, and as some notes print it, divided by the
variance, std^2, which leaves features of standard deviation 1 / std. The steps are not taken but
computed: in the direction of curvature h, at the rate eta, the error is times 1 - eta h a step.

References:
    Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient backprop", 1998.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import condition_number
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, data, losses

SETS = "printed table", "A: two heights", "B: height, children"


@dataclasses.dataclass(frozen=True)
class Config:
    """The table, and the data sets A and B with every seed.

    Attributes:
        people: examples of A and of B.
        goal: the share of the loss above the least that is to be left.
        seeds: of A and B, and of their targets.
    """

    people: int = 1000
    goal: float = 1e-6
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(people=100, seeds=(0, 1, 2)),
    "default": Config(),
    "full": Config(people=10_000, seeds=tuple(range(200))),
}


def printed() -> tuple[np.ndarray, np.ndarray]:
    """Returns the table's features and targets."""
    with _compat.enable_x64(True):  # or the data set would be float32
        table = data.synthetic.mismatched_scales()
    return table.image, table.label[:, 0]


def by_variance(x):
    """Divides centred features by their variances: a misprint of standardization."""
    stats = data.standardize.fit(x)
    return data.standardize.apply(stats._replace(std=stats.std**2), x)


SCALINGS = {
    "as it is": lambda x: x,
    "/ std": lambda x: data.standardize.apply(data.standardize.fit(x), x),
    "/ std^2": by_variance,
}


def sets(config: Config, seed: int):
    """Returns inputs and targets by name; A's and B's are linear in standardized features."""
    people = condition_number.inputs(config.people, seed)
    rng = np.random.default_rng([1, seed])
    found = {SETS[0]: printed()}
    for name in SETS[1:]:
        x = people[name]
        w, noise = rng.normal(size=2), rng.normal(size=len(x))
        found[name] = x, SCALINGS["/ std"](x) @ w + noise
    return found


def with_bias(x) -> np.ndarray:
    return np.concatenate([np.ones((len(x), 1)), x], axis=1)


def gradient(x, v) -> np.ndarray:
    """Returns that of the mean squared error of a linear model without bias, at w = 0."""
    f = jax.grad(lambda w: losses.squared_error((x @ w)[:, None], v[:, None]).mean())
    return np.asarray(f(jnp.zeros(x.shape[1])))


def modes(x, v) -> tuple[np.ndarray, np.ndarray]:
    """Returns the curvatures of the mean squared error with a bias, and w - w* in their frame."""
    # By the singular values: those of X'X would be lost in rounding, 1e-12 of the largest.
    u, s, _ = np.linalg.svd(with_bias(x), full_matrices=False)
    return 2 * s**2 / len(x), u.T @ v / s


def excess(h, error, steps):
    """Returns the loss above the least after so many steps, as a share of that at w = 0."""
    factor = abs(1 - 2 * h / (h.max() + h.min()))
    left = error**2 * factor ** (2 * np.asarray(steps)[..., None])
    return (h * left).sum(-1) / (h * error**2).sum()


def steps_to(goal: float, h, error) -> float:
    """Returns the number of steps to the goal, to six digits."""
    low, high = 0.0, 64.0  # of the exponent of 2
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(h, error, 2**middle) > goal else (low, middle)
    return 2**high


def measure(config: Config):
    """Returns condition numbers and steps, (seeds,) each, by data set and scaling."""
    found = {}
    for name in SETS:
        for scaling, scale in SCALINGS.items():
            each = []
            for seed in config.seeds:
                x, v = sets(config, seed)[name]
                h, error = modes(scale(x), v)
                each.append((h.max() / h.min(), steps_to(config.goal, h, error)))
            found[name, scaling] = np.array(each).T
    return found


def draw(config: Config, found):
    """Draws the table's loss over the steps, and the step counts of all data sets."""
    figure, (left, middle, right) = panels("How much is gained from features of one scale?", 3)
    steps, (table, targets) = np.unique(np.round(np.logspace(0, 13, 400))), printed()
    for i, (scaling, scale) in enumerate(SCALINGS.items()):
        h, error = modes(scale(table), targets)
        left.loglog(steps, excess(h, error, steps), f"C{i}", lw=2, label=scaling)
    left.set(xlabel="step", ylabel="loss / loss at w = 0", ylim=(1e-9, 2))
    left.set_title("Gradient descent on the printed table", fontsize=11)
    left.legend()
    for axes, which, label in ((middle, 0, "condition number"), (right, 1, "steps to 1e-6")):
        for i, scaling in enumerate(SCALINGS):
            values = [np.median(found[name, scaling][which]) for name in SETS]
            bars = axes.bar(np.arange(3) + 0.27 * (i - 1), values, 0.25, color=f"C{i}")
            axes.bar_label(bars, [f"{v:.2g}" for v in values], fontsize=7)
        axes.set(yscale="log", ylim=(1, None))
        axes.set_xticks(range(3), ["table", "A", "B"])
        axes.set_title(label.capitalize(), fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Computes gradients, condition numbers and steps, with features as they are and scaled."""
    table, targets = printed()
    with _compat.enable_x64(True):
        slopes = abs(gradient(table, targets))
        found = measure(config)
        figure = draw(config, found)
        deviations = by_variance(table).std(0)
    least = np.linalg.lstsq(table, targets)[0]
    raw, bias = np.linalg.cond(table) ** 2, np.linalg.cond(with_bias(table)) ** 2
    standard = found[SETS[0], "/ std"][0][0]
    numbers = {
        "printed table: ratio of the gradients at w = 0": slopes[0] / slopes[1],
        "printed table: ratio of the weights of the least error": abs(least[0] / least[1]),
        "printed table: condition number": raw,
        "printed table: condition number with bias": bias,
        "printed table: condition number, standardized": standard,
    }
    for i in range(2):
        numbers[f"printed table: std of x{i + 1} divided by its variance"] = deviations[i]
    for (name, scaling), (kappa, steps) in found.items():
        numbers[f"{name}, {scaling}: condition number"] = np.median(kappa)
        numbers[f"{name}, {scaling}: steps"] = np.median(steps)
    kappas, steps = (
        np.array([[found[name, s][i] for s in SCALINGS] for name in SETS]) for i in range(2)
    )
    return Result(
        claims={
            "The weight with the larger gradient is the one that has to move further": truth(
                (slopes[0] > slopes[1]) == (abs(least[0]) > abs(least[1]))
            ),
            "Standardizing lowers the condition number": truth(kappas[:, 1] < kappas[:, 0]),
            "It takes fewer steps then": truth(steps[:, 1] < steps[:, 0]),
            "Divided by its variance a feature has standard deviation 1": truth(
                np.isclose(deviations, 1)
            ),
            "It has 1 / std": truth(np.isclose(deviations, 1 / table.std(0))),
            "Dividing by the variance takes fewer steps than leaving features as they are": truth(
                steps[:, 2] < steps[:, 0]
            ),
            "Dividing by the standard deviation takes fewer still": truth(
                steps[:, 1] < steps[:, 2]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=figure,
    )
