"""Does tuned momentum with a decayed rate beat Adam at its default?

A small MLP is trained on the shipped digits by

    Adam                    as it comes: rate 1e-3, constant; one trial
    Adam, tuned             cosine-decayed, the best of eight rates
    momentum 0.9, tuned     cosine-decayed, the best of eight rates

A seed draws the params, the batches and which fifth of the training set is for validation. The
rate with the best mean validation accuracy over the seeds is the one whose test accuracies count;
no other choice is made. The test set is of the same writers as the training set ("stratified"), or
of others ("writers"). A difference over the seeds counts from two standard errors on; that says
how sure it is for this test set of 360 digits.

References:
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015.
    A. Wilson et al., "The marginal value of adaptive gradient methods in machine learning", 2017.
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, optim, schedules

NET = models.mlp([64, 10])
WRITERS = {"stratified": "writers of the training set", "writers": "other writers"}
NEAR = 0.01  # rates within this of the best validation accuracy are as good


def half_decades(least: float, trials: int) -> tuple[float, ...]:
    return tuple(least * 10 ** (i / 2) for i in range(trials))


OPTIMIZERS = {  # what makes the optimizer from rate and steps, and the least rate tried
    "Adam": (lambda rate, steps: optim.adam(rate), 1e-3),
    "Adam, tuned": (lambda rate, steps: optim.adam(schedules.cosine(rate, steps=steps)), 1e-4),
    "momentum, tuned": (
        lambda rate, steps: optim.momentum(schedules.cosine(rate, steps=steps)),
        1e-3,
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every optimizer at every rate with every seed, on every split.

    Attributes:
        splits: names in `WRITERS`.
        trials: rates that are tried in tuning, half a decade apart.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of params, batches and validation sets.
    """

    splits: tuple[str, ...] = ("stratified", "writers")
    trials: int = 8
    epochs: int = 30
    batch_size: int = 64
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(splits=("stratified",), trials=3, epochs=1, seeds=(0, 1)),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(50))),
}


def rates(name: str, config: Config) -> tuple[float, ...]:
    return half_decades(OPTIMIZERS[name][1], 1 if name == "Adam" else config.trials)


def draws(n: int, config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples of each step, (epochs, steps, batch_size), and those to validate on."""
    validation, train = np.split(np.random.default_rng(seed).permutation(n), [n // 5])
    order = _digits.batches(len(train), config.batch_size, config.epochs, seed)
    return train[order], validation


def accuracies(name: str, split: str, config: Config) -> np.ndarray:
    """Trains at every rate with every seed: validation and test accuracy, (rates, seeds, 2)."""
    (x, labels), test = _digits.examples(split=split)
    x, labels = jnp.asarray(x), jnp.asarray(labels)
    orders, validations = zip(*(draws(len(x), config, seed) for seed in config.seeds), strict=True)

    def run(rate, seed, order, validation):
        def accuracy(params, state, opt_state):
            held_out = x[validation], labels[validation]
            found = (_digits.evaluate(NET, params, state, *part)[1] for part in (held_out, test))
            return jnp.stack(list(found))

        tx = OPTIMIZERS[name][0](rate, order.shape[0] * order.shape[1])
        return _digits.train(NET, tx, seed, order, accuracy, training=(x, labels))[-1]

    runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0, 0)), (0, None, None, None)))
    seeds = jnp.array(config.seeds)
    found = runs(jnp.array(rates(name, config)), seeds, np.stack(orders), np.stack(validations))
    return np.asarray(found)


def compare(a, b) -> str:
    """Says whether a is above b over the seeds: "depends" within two standard errors."""
    difference = a - b
    error = difference.std(ddof=1) / len(difference) ** 0.5
    mean = difference.mean()
    return "true" if mean > 2 * error else "false" if mean < -2 * error else "depends"


def together(verdicts: list[str]) -> str:
    return verdicts[0] if len(set(verdicts)) == 1 else "depends"


def draw(config: Config, measured, chosen):
    """Draws test errors, a dot per seed, and the validation errors of all rates."""
    figure, (left, right) = panels("Does tuned momentum beat Adam at its default?", 2, width=6)
    for i, (split, found) in enumerate(measured.items()):
        for j, name in enumerate(found):
            errors = 100 * (1 - chosen[split, name])
            at = i + (j - 1) / 4
            offsets = np.linspace(-0.05, 0.05, len(errors))
            left.plot(at + offsets, errors, f"C{j}.", alpha=0.6, label=None if i else name)
            left.plot([at - 0.09, at + 0.09], [errors.mean()] * 2, f"C{j}", lw=3)
            left.text(at, errors.max() + 0.15, f"{errors.mean():.2f}", ha="center", color=f"C{j}")
            if name != "Adam":
                means = 100 * (1 - found[name][..., 0].mean(1))
                line, best = ("-", "--")[i], means.argmin()
                label = f"{name.removesuffix(', tuned')}, {WRITERS[split]}"
                right.loglog(rates(name, config), means, f"C{j}o{line}", ms=4, label=label)
                right.plot(rates(name, config)[best], means[best], f"C{j}o", ms=10, mfc="none")
    left.set(ylabel="test error [%]", xlim=(-0.5, len(measured) - 0.5))
    left.set_xticks(range(len(measured)), [WRITERS[split] for split in measured])
    left.set_title(f"{len(config.seeds)} seeds each", fontsize=11)
    left.grid(visible=False, axis="x")
    left.legend(loc="upper left")
    right.set(xlabel="first rate", ylabel="validation error [%]", ylim=(1.7, 500))
    right.set_title("Tuning: what each rate gives, the best circled", fontsize=11)
    right.legend(fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Trains all, chooses rates by validation accuracy and compares test accuracies."""
    measured = {
        split: {name: accuracies(name, split, config) for name in OPTIMIZERS}
        for split in config.splits
    }
    chosen, near, numbers = {}, {}, {}
    for split, found in measured.items():
        for name, accuracy in found.items():
            validation = accuracy[..., 0].mean(1)
            best = validation.argmax()
            chosen[split, name] = accuracy[best, :, 1]
            near[split, name] = (validation >= validation.max() - NEAR).sum()
            numbers[f"{split}, {name}: test accuracy"] = chosen[split, name].mean()
            if name != "Adam":
                numbers[f"{split}, {name}: rate"] = rates(name, config)[best]
                numbers[f"{split}, {name}: rates within a point"] = near[split, name]

    def beats(a, b):
        return together([compare(chosen[split, a], chosen[split, b]) for split in measured])

    adam, tuned, momentum = OPTIMIZERS
    return Result(
        claims={
            "Tuned, momentum with a decayed rate is better than Adam at its default": beats(
                momentum, adam
            ),
            "It is better than Adam tuned with as many trials": beats(momentum, tuned),
            "Tuned Adam is better than Adam at its default": beats(tuned, adam),
            "Momentum has fewer rates within a point of its best than Adam": truth(
                [near[split, momentum] < near[split, tuned] for split in measured]
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, measured, chosen),
    )
