"""Is an average of the weights better than the last ones?

An MLP with BatchNorm is trained with momentum 0.9 on the shipped digits, as they are and with noise
that each image gets anew at every visit, at rates that are kept and at the same decayed to 0 on a
cosine. Beside each run go averages of its weights w, which it does not know of:

    EMA               a = 0.995 a + 0.005 w    after every update, from the first weights
    mean of all       of every w since the start, Polyak's
    mean of epochs    of w at the ends of the epochs of the second half, as in SWA

BatchNorm's statistics are computed anew for all of them, from the training set; the EMA is also
evaluated with those of training. Losses are those of the test set, with noise if trained with it,
after the last epoch. One is lower than another if the mean over seeds of the log of their ratio is
below 0.

Some notes print the EMA with the average on both sides, `a_t = 0.995 a_(t-1) + 0.005 a_t`, whose
one solution is a_t = a_(t-1). It is shown on x^2 / 2 with noisy gradients, and nowhere else.

References:
    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _digits
from experiments._experiment import Result, panels, path, truth
from jaxtrain import models, nn, optim, schedules

NET = models.mlp([32, 10], batch_norm=True)
DECAY = 0.995
START = 3.0  # of w on the quadratic
EMA, STALE = f"EMA {DECAY}", f"EMA {DECAY}, statistics of training"
NAMES = ("last", EMA, "mean of all", "mean of epochs", STALE)
ENDS = {"kept": 1.0, "decayed": 0.0}  # of the rates, as shares of what they begin with
COLORS = dict(zip(NAMES, ("0.6", "C0", "C1", "C2", "C4"), strict=True))


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate, kept and decayed, on both data sets from every seed.

    Attributes:
        rates: ascending.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the noise.
    """

    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(rates=(0.1,), epochs=12, batch_size=16, seeds=(0, 1)),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(40))),
}


def averages(epochs: int, steps: int) -> list[optax.GradientTransformation]:
    """Returns those of all epochs of so many steps."""
    return [optim.ema(DECAY), optim.polyak(), optim.swa(start=epochs // 2 * steps, every=steps)]


def losses_of(config: Config, noise: float) -> dict[str, dict[str, np.ndarray]]:
    """Returns the losses by end and name before training and after each epoch.

    Each is (rates, seeds, epochs + 1).
    """
    (x, labels), (test_x, test_labels) = _digits.examples()
    x, test_x = (_digits.noisy(jax.random.key(0), jnp.asarray(part), noise) for part in (x, test_x))
    order = _digits.orders(len(x), config.batch_size, config.epochs, config.seeds)

    def see(params, state, opt_state):
        def loss(params, state):
            return _digits.evaluate(NET, params, state, test_x, test_labels)[0]

        weights = [params, *(average.eval_params(params) for average in opt_state[1:])]
        anew = [loss(w, nn.recompute_batch_stats(NET, w, state, [x])) for w in weights]
        return *anew, loss(weights[1], state)

    def run(end, rate, seed, order):
        epochs, steps, _ = order.shape
        schedule = schedules.cosine(rate, steps=epochs * steps, end=end * rate)
        tx = optax.chain(optim.momentum(schedule), *averages(epochs, steps))
        return _digits.train(NET, tx, seed, order, see, noise=noise)

    over_seeds = jax.vmap(run, (None, None, 0, 0))
    over_rates = jax.vmap(over_seeds, (None, 0, None, None))
    over_ends = jax.jit(jax.vmap(over_rates, (0, None, None, None)))
    ends, rates, seeds = (jnp.array(x) for x in (list(ENDS.values()), config.rates, config.seeds))
    found = [np.asarray(loss) for loss in over_ends(ends, rates, seeds, order)]
    return {
        how: {name: loss[i] for name, loss in zip(NAMES, found, strict=True)}
        for i, how in enumerate(ENDS)
    }


def log_means(losses) -> np.ndarray:
    return np.log(losses[..., -1]).mean(1)


def log_ratio(a, b) -> np.ndarray:
    """Returns the mean and the standard error of log(a / b) after the last epoch, (2, rates)."""
    ratio = np.log(a[..., -1] / b[..., -1])
    return np.stack([ratio.mean(1), ratio.std(1, ddof=1) / ratio.shape[1] ** 0.5])


def printed(a, w):
    """Solves `b = DECAY a + (1 - DECAY) b` for b: w is not in it."""
    return DECAY * a / (1 - (1 - DECAY))


def quadratic_paths(steps: int) -> dict[str, np.ndarray]:
    """Returns w on x^2 / 2 with gradients of noise 1 at rate 0.5, and three moving averages."""
    key = jax.random.key(0)

    def gradient(w, k):
        return w + jax.random.normal(jax.random.fold_in(key, k))

    readings = {
        "w": optax.identity(),
        "from the first w": optim.ema(DECAY),
        "from 0, debiased": optim.ema(DECAY, debias=True),
    }
    found = {
        name: np.asarray(
            path(optax.chain(optim.sgd(0.5), average), gradient, jnp.asarray(START), steps)
        )
        for name, average in readings.items()
    }
    both_sides = itertools.accumulate(found["w"], printed)
    return found | {"as printed": np.array(list(both_sides))}


def best(losses) -> int:
    """Returns the rate with the lowest loss, by its number."""
    return int(log_means(losses).argmin())


def draw(config: Config, found, paths):
    """Draws losses at the EMA's best rate, those of averages at every rate, and the misprint."""
    figure, (left, middle, right) = panels("Is an average of the weights better?", 3)
    kept, decayed = (found["digits with noise", how] for how in ENDS)
    at, other = best(kept[EMA]), best(decayed["last"])
    for name in reversed(NAMES):
        line = "--" if name == STALE else "-"
        left.plot(kept[name][at].mean(0), line, color=COLORS[name], lw=2, label=name)
    label = f"last, decayed from {config.rates[other]:g}"
    left.plot(decayed["last"][other].mean(0), "k:", lw=2, label=label)
    lowest = min(kept[EMA][at].mean(0).min(), decayed["last"][other].mean(0).min())
    left.set(xlabel="epoch", ylabel="test loss", ylim=(0.9 * lowest, 2 * lowest))
    left.set_title(f"Digits with noise, rate {config.rates[at]:g}, kept", fontsize=11)
    left.legend(fontsize=9)
    for data, line in zip(_digits.NOISE, ("s--", "o-"), strict=True):
        losses = found[data, "kept"]
        for name in NAMES[1:-1]:
            mean, error = log_ratio(losses[name], losses["last"])
            factor, ends = np.exp(mean), np.exp([mean - 3 * error, mean + 3 * error])
            options = {"color": COLORS[name], "label": f"{name}, {data}", "capsize": 3}
            middle.errorbar(config.rates, factor, abs(ends - factor), fmt=line, **options)
    middle.axhline(1, color="black", lw=1, ls=":")
    middle.set(xscale="log", xlabel="rate", ylabel="test loss / that of the last weights")
    middle.set_title("Kept rates, with three standard errors", fontsize=11)
    middle.legend(fontsize=9)
    for (name, run), color in zip(paths.items(), ("0.8", "C0", "C2", "C3"), strict=True):
        right.plot(run, color=color, lw=1 if name == "w" else 2, label=name)
    right.set(xlabel="step", ylabel="w and its averages")
    right.set_title(f"EMA {DECAY} on $x^2 / 2$ with noisy gradients", fontsize=11)
    right.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
    return figure


def run(config: Config) -> Result:
    """Trains at all rates and compares the losses of weights and averages."""
    found = {
        (data, how): losses
        for data, noise in _digits.NOISE.items()
        for how, losses in losses_of(config, noise).items()
    }
    numbers = {
        f"{data}, rate {rate} {how}, {name}: test loss": loss[i, :, -1].mean()
        for (data, how), losses in found.items()
        for name, loss in losses.items()
        for i, rate in enumerate(config.rates)
    }

    kept, decayed = ([found[data, how] for data in _digits.NOISE] for how in ENDS)
    paths = quadratic_paths(1000)

    def lower(a, b, cases):
        return truth([log_ratio(losses[a], losses[b])[0] < 0 for losses in cases])

    def lower_at_best(a, b):
        return truth([log_means(x).min() < log_means(y).min() for x, y in zip(a, b, strict=True)])

    ema_kept, last_kept = ([losses[name] for losses in kept] for name in (EMA, "last"))
    return Result(
        claims={
            f"With noise, at every kept rate, the EMA of decay {DECAY} is lower than the last"
            " weights": lower(EMA, "last", [found["digits with noise", "kept"]]),
            "At the best kept rate of each the EMA is lower than the last weights": lower_at_best(
                ema_kept, last_kept
            ),
            "At decayed rates the EMA is lower than the last weights": lower(EMA, "last", decayed),
            "At the best rate of each the EMA at a kept rate is lower than the last weights at a"
            " decayed one": lower_at_best(ema_kept, [losses["last"] for losses in decayed]),
            "At every kept rate the EMA is lower than the mean of all weights": lower(
                EMA, "mean of all", kept
            ),
            "The EMA is lower with BatchNorm's statistics computed anew than with those of"
            " training": lower(EMA, STALE, kept),
            "The EMA as printed, with the average on both sides, follows the weights": truth(
                abs(paths["as printed"][-1] - START) > START / 2
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found, paths),
    )
