"""Where is the gradient of Nesterov's momentum to be taken?

Look-ahead takes it at the point to which the buffer alone would lead:

    v = mu v - eps g(w + mu v),             w = w + v

The shifted form has these points x = w + mu v as its params and needs no other gradient than g(x):

    b = mu b + g(x),                        x = x - eps (mu b + g(x))

It is a change of variables. With the rate inside the buffer, `v = mu v - eps g`, it is exact at
changing rates too; with the rate outside, as above, the way back is eps mu b and changes with it.

With the mean `m = mu m + (1 - mu) g` the step is eps m, so the look-ahead point is `w - eps mu m`.
Some notes print `w - mu m`; that rule stands here and nowhere else.

References:
    Y. Nesterov, "A method of solving a convex programming problem with convergence rate
    O(1/k^2)", 1983.
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
    momentum in deep learning", 2013.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, optim, schedules

MU = 0.9
CURVATURE = np.array([1.0, 50.0])
SAME = 1e-12  # differences of positions of order 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Both forms from every start, both look-ahead points at every rate.

    Attributes:
        rates: of the mean form.
        steps: of each run.
        seeds: of the starts.
    """

    rates: tuple[float, ...] = (0.005, 0.03, 0.05)
    steps: int = 200
    seeds: tuple[int, ...] = tuple(range(20))


SIZES = {
    "smoke": Config(rates=(0.005, 0.05), seeds=(0, 1)),
    "default": Config(),
    "full": Config(rates=(0.001, 0.005, 0.01, 0.03, 0.05, 0.1), seeds=tuple(range(1000))),
}


def gradient(w, k):
    return CURVATURE * w


def mean_form(rate):
    return optim.momentum(rate, momentum=MU, form="ema", nesterov="lookahead")


def printed(rate):
    """Makes the mean form whose look-ahead leaves the rate out: it is at `w - mu m`."""
    tx = mean_form(rate)

    def update(updates, state, params=None):
        updates, (scale, rates) = tx.update(updates, state, params)
        return updates, (scale._replace(lead=jnp.full_like(scale.lead, -MU)), rates)

    return optax.GradientTransformation(tx.init, update)


def costs(tx, steps: int) -> np.ndarray:
    """Returns the cost at each iterate from (1, 1)."""
    iterates = jax.jit(lambda w: path(tx, gradient, w, steps))(jnp.ones(2))
    return np.asarray(iterates**2 @ CURVATURE / 2)


def growth(rate: float, lead: float, curvature) -> np.ndarray:
    """Returns the factor by which (m, w) grows per step in the long run, for each curvature."""
    one = np.ones_like(curvature)
    # m = MU m + (1 - MU) curvature (w - lead m), w = w - rate m
    new_m = np.stack([MU - (1 - MU) * curvature * lead, (1 - MU) * curvature], -1)
    new_w = np.stack([0 * one, one], -1) - rate * new_m
    return np.abs(np.linalg.eigvals(np.stack([new_m, new_w], -2))).max(-1)


def form(changing: bool, **options):
    rate = schedules.step_decay(0.01, every=20, factor=0.5) if changing else 0.01
    return optim.momentum(rate, momentum=MU, **options)


def differences(config: Config) -> dict[str, np.ndarray]:
    """Returns how far the iterates of the two forms are apart so far, the largest over seeds."""
    starts = jnp.stack([np.random.default_rng(s).normal(size=2) for s in config.seeds])

    def iterates(tx):
        return jax.jit(jax.vmap(lambda w: path(tx, gradient, w, config.steps)))(starts)

    found = {}
    for case, options in {
        "constant rate": {"changing": False},
        "changing rate, inside the buffer": {"changing": True, "form": "velocity"},
        "changing rate, outside the buffer": {"changing": True},
    }.items():
        # `path` gives those of the shifted form as Nesterov's, by `optim.eval_params`.
        a, b = (iterates(form(nesterov=n, **options)) for n in ("lookahead", "shifted"))
        found[case] = np.maximum.accumulate(np.abs(np.asarray(a - b)).max((0, 2)))
    return found


def draw(config: Config, apart, runs):
    """Draws the difference of the forms, the runs, and the growth that explains them."""
    title = "Where is the gradient of Nesterov's momentum to be taken?"
    figure, (left, middle, right) = panels(title, 3)
    for case, d in apart.items():
        left.semilogy(np.maximum(d, 1e-17), lw=2, label=case)
    left.axhline(SAME, color="black", lw=1, ls=":")
    left.set(xlabel="step", ylabel="difference of the iterates", ylim=(1e-18, 10))
    left.set_title("Look-ahead and shifted form", fontsize=11)
    left.legend()
    for (rule, rate), cost in runs.items():
        i = config.rates.index(rate)
        line, label = ("-", f"rate {rate}") if rule == "corrected" else ("--", None)
        middle.semilogy(np.minimum(cost, 1e40), f"C{i}", ls=line, label=label)
    middle.plot([], [], "k--", label="printed: w - mu m")
    middle.plot([], [], "k-", label="corrected: w - rate mu m")
    middle.set(xlabel="step", ylabel="cost", ylim=(1e-12, 1e20))
    middle.set_title("The mean's look-ahead needs the rate", fontsize=11)
    middle.legend()
    curvature = np.geomspace(0.1, 1000, 400)
    for i, rate in enumerate(config.rates):
        right.loglog(curvature, growth(rate, rate * MU, curvature), f"C{i}")
        right.loglog(curvature, growth(rate, MU, curvature), f"C{i}--")
    right.axhline(1, color="black", lw=1, ls=":")
    right.axvline(CURVATURE.max(), color="black", lw=1, ls=":")
    right.text(CURVATURE.max() * 1.1, 50, "here")
    right.set(xlabel="curvature", ylabel="growth per step", ylim=(0.7, 100))
    right.set_title("No rate is small enough for the printed one", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Runs both forms, and both look-ahead points of the mean form."""
    rules = {"printed": printed, "corrected": mean_form}
    with _compat.enable_x64(True):
        apart = differences(config)
        runs = {
            (rule, rate): costs(make(rate), config.steps)
            for rule, make in rules.items()
            for rate in config.rates
        }
    change = {case: cost[-1] / cost[0] for case, cost in runs.items()}

    def falls(wanted):
        return truth([ratio < 1 for (rule, _), ratio in change.items() if rule == wanted])

    numbers = {f"difference of the forms, {case}": d[-1] for case, d in apart.items()}
    numbers |= {f"cost / first cost, {rule}, rate {rate}": c for (rule, rate), c in change.items()}
    return Result(
        claims={
            "The change of variables from look-ahead to shifted form is exact": truth(
                [d[-1] < SAME for d in apart.values()]
            ),
            "The mean form converges with the look-ahead point w - mu m": falls("printed"),
            "The mean form converges with the look-ahead point w - rate mu m": falls("corrected"),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, apart, runs),
    )
