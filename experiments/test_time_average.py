"""Is one pass without the noise the mean over the noise?

A net with dropout or DropConnect computes something else with every mask. At test time its mean is
wanted, and approximated by one pass in which everything is multiplied by the probability p to keep.
Here the masks are few enough to enumerate: of two inputs w1 x + w2 y, w1 x, w2 y, 0; of ten 1024.

- Dropout: a net of ten inputs with dropout, one hidden layer and two outputs, linear or with ReLUs.
  Averaging S sampled passes (`nn.predict_mc`) has an error of std / sqrt(S); one pass has one that
  stays. Of a softmax of a linear map one pass is the geometric mean, normalized.
- DropConnect: units of ten inputs whose weights are dropped. One pass with p W, or the mean of a
  Gaussian with the right mean and variance before the activation ("moments").

Some notes say to multiply by the probability to *drop*, beside an example with p = 1/2.

References:
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    P. Baldi, P. Sadowski, "Understanding dropout", 2013.
    L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks using
    DropConnect", 2013.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, nn

INPUTS = 10
SAME = 1e-12  # of values of order 1 in float64
ACTIVATIONS = {"linear": nn.identity, "ReLU": nn.relu}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number of samples with every seed.

    Attributes:
        keeps: probabilities to keep.
        samples: of the Monte-Carlo averages, ascending.
        seeds: of the masks of these averages.
        units: of the DropConnect layer.
    """

    keeps: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    samples: tuple[int, ...] = (4, 16, 64, 256, 1024, 4096)
    seeds: tuple[int, ...] = tuple(range(50))
    units: int = 200


SIZES = {
    "smoke": Config(keeps=(0.3, 0.5), samples=(16, 1024), seeds=tuple(range(20)), units=20),
    "default": Config(),
    "full": Config(
        samples=(4, 16, 64, 256, 1024, 4096, 16384), seeds=tuple(range(200)), units=2000
    ),
}


def masks(n: int, p: float):
    """Returns all masks of n elements, (2^n, n), and the probability of each."""
    every = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    return every, np.where(every == 1, p, 1 - p).prod(1)


def neuron(p: float) -> dict[str, float]:
    """Returns the mean of w1 x + w2 y over masks of x and y, and what two rules put in its place.

    As a share of w1 x + w2 y.
    """
    a = np.array([0.7 * 1.5, -0.4 * 2.0])
    every, probability = masks(2, p)
    mean = probability @ (every @ a) / a.sum()
    eval_mode = nn.dropout(1 - p, form="vanilla").apply({}, {}, jnp.asarray(a[None]), nn.EVAL)[0]
    return {
        "mean over the masks": mean,
        "times p": float(eval_mode.sum() / a.sum()),
        "times 1 - p, as printed": 1 - p,
        "inverted: mean / p": mean / p,
    }


def dropout_net(activation: str) -> nn.Layer:
    layers = {"drop": nn.dropout(0.5), "hidden": nn.dense(32)}
    return nn.serial(**layers, activation=ACTIVATIONS[activation], out=nn.dense(2))


def arithmetic(y, probability):
    return probability @ y


def geometric(y, probability):
    means = np.exp(probability @ np.log(y))
    return means / means.sum()


def exact_and_one_pass(net: nn.Layer, params, x, transform=nn.identity, mean=arithmetic):
    """Returns the mean over all masks and what one pass gives in its place, (2,) each."""
    every, probability = masks(INPUTS, 0.5)

    def outputs(x):
        return np.asarray(transform(net.apply(params, {}, x, nn.EVAL)[0]))

    return mean(outputs(jnp.asarray(2 * every) * x), probability), outputs(x)[0]


def monte_carlo(config: Config, net, params, x, exact) -> np.ndarray:
    """Returns the root mean square error over seeds of the mean of S samples, by S."""
    found = []
    for samples in config.samples:
        means = [
            nn.predict_mc(net, params, {}, x, jax.random.key(seed), samples=samples)[0][0]
            for seed in config.seeds
        ]
        found.append(np.sqrt(((np.array(means) - exact) ** 2).mean()))
    return np.array(found)


def drop_connect_units(config: Config, activation: str, p: float = 0.5) -> dict[str, np.ndarray]:
    """Returns the mean of each unit over all masks, and what two rules put in its place."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, INPUTS)))
    params = {"kernel": jnp.asarray(rng.normal(size=(INPUTS, config.units)) / INPUTS**0.5)}
    every, probability = masks(INPUTS, p)
    act = ACTIVATIONS[activation]
    masked = every @ (np.asarray(x).T * np.asarray(params["kernel"]))  # one per mask and unit
    found = {"mean over the masks": probability @ np.asarray(act(jnp.asarray(masked)))}
    ctx = nn.Context(train=False, key=jax.random.key(0))
    for test in ("mean", "moments"):
        layer = nn.drop_connect(
            config.units, 1 - p, activation=act, test=test, bias=False, samples=10_000
        )
        found[test] = np.asarray(layer.apply(params, {}, x, ctx)[0])[0]
    return found


def errors(found) -> dict[str, float]:
    """Returns the root mean square error of the two rules."""
    exact = found["mean over the masks"]
    return {
        rule: float(np.sqrt(((found[rule] - exact) ** 2).mean())) for rule in ("mean", "moments")
    }


def measure(config: Config):
    neurons = {p: neuron(p) for p in config.keeps}
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, INPUTS)))
    gaps, sampled = {}, {}
    for activation in ACTIVATIONS:
        net = dropout_net(activation)
        params, _ = net.init(jax.random.key(0), x)
        exact, one = exact_and_one_pass(net, params, x)
        gaps[activation] = np.abs(one - exact).max()
        sampled[activation] = monte_carlo(config, net, params, x, exact)
        if activation == "linear":
            for mean in arithmetic, geometric:
                exact, one = exact_and_one_pass(net, params, x, nn.softmax, mean)
                gaps[f"softmax, {mean.__name__} mean"] = np.abs(one - exact).max()
    units = {activation: drop_connect_units(config, activation) for activation in ACTIVATIONS}
    return neurons, gaps, sampled, units


def draw(config: Config, neurons, gaps, sampled, units):
    """Draws the rules for a neuron, the errors of Monte Carlo, and units with DropConnect."""
    title = "Is one pass without the noise the mean over the noise?"
    figure, (left, middle, right) = panels(title, 3)
    lines = {"mean over the masks": "ko", "times p": "C0-", "times 1 - p, as printed": "C3--"}
    for name, line in lines.items():
        left.plot(config.keeps, [n[name] for n in neurons.values()], line, lw=2, label=name)
    left.set(xlabel="probability to keep, p", ylabel="output / output without dropout")
    left.set_title("A neuron of two inputs, its four masks enumerated", fontsize=11)
    left.legend()
    for i, (name, error) in enumerate(sampled.items()):
        middle.loglog(config.samples, error, f"C{i}o-", label=f"{name}: mean of S passes")
    middle.axhline(gaps["ReLU"], color="C1", lw=1.5, ls="--", label="ReLU: one pass")
    middle.set(xlabel="sampled passes, S", ylabel="error of the mean")
    middle.set_title("Dropout: the linear net's one pass is exact", fontsize=11)
    middle.legend(fontsize=9)
    exact = units["ReLU"]["mean over the masks"]
    for rule, color in (("mean", "C3"), ("moments", "C0")):
        label = {"mean": "one pass with p W", "moments": "moment matching"}[rule]
        right.plot(exact, units["ReLU"][rule], ".", color=color, ms=5, label=label)
    right.plot([0, exact.max()], [0, exact.max()], "k:", lw=1)
    right.set(xlabel="mean over all masks", ylabel="at test time")
    right.set_title("DropConnect: the mean of each ReLU unit", fontsize=11)
    right.legend()
    return figure


def run(config: Config) -> Result:
    """Enumerates all masks and compares the rules with the means."""
    with _compat.enable_x64(True):
        neurons, gaps, sampled, units = measure(config)
    slopes = {
        name: np.polyfit(np.log(config.samples), np.log(error), 1)[0]
        for name, error in sampled.items()
    }
    numbers = {f"p = {p}, {name}": v for p, n in neurons.items() for name, v in n.items()}
    numbers |= {f"one pass, {name}: gap": gap for name, gap in gaps.items()}
    numbers |= {f"slope of the error of S passes, {name}": s for name, s in slopes.items()}
    rules = {name: errors(found) for name, found in units.items()}
    for name, by_rule in rules.items():
        numbers |= {f"DropConnect, {name}, {rule}: error": e for rule, e in by_rule.items()}

    def like_the_mean(name):
        values = list(neurons.values())
        return truth([abs(n[name] - n["mean over the masks"]) < SAME for n in values])

    return Result(
        claims={
            "Multiplying by the probability to keep gives a neuron's mean": like_the_mean(
                "times p"
            ),
            "Multiplying by the probability to drop does": like_the_mean("times 1 - p, as printed"),
            "The mean over inverted masks is the neuron without dropout": truth(
                [abs(n["inverted: mean / p"] - 1) < SAME for n in neurons.values()]
            ),
            "One pass is the mean over the masks, for a linear net": truth(gaps["linear"] < SAME),
            "It is, for a net with ReLUs": truth(gaps["ReLU"] < SAME),
            "It is, for the softmax of a linear net": truth(
                gaps["softmax, arithmetic mean"] < SAME
            ),
            "There it is the normalized geometric mean": truth(
                gaps["softmax, geometric mean"] < SAME
            ),
            "The error of a mean of S passes goes as S^(-1/2): the slope is -0.5 within 0.1": truth(
                [abs(slope + 0.5) < 0.1 for slope in slopes.values()]
            ),
            "DropConnect: one pass with p W is the mean, for linear units": truth(
                rules["linear"]["mean"] < SAME
            ),
            "It is, for ReLU units": truth(rules["ReLU"]["mean"] < SAME),
            "For ReLU units moment matching is nearer to it": truth(
                rules["ReLU"]["moments"] < rules["ReLU"]["mean"]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, neurons, gaps, sampled, units),
    )
