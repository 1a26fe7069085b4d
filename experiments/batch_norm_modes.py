"""Is a net with BatchNorm the same function in training and in evaluation?

In training an activation is normalized by the mean and variance of the batch that it happens to be
in, in evaluation by running averages of them. A net that is evaluated in train mode, a common bug,
therefore answers differently in every batch: of a single example each BatchNorm of a vector leaves
nothing but its bias; of a batch sorted by class it removes what all its examples have in common.

In evaluation the answer is as good as the running averages. With the weight beta of the past these
have 1 / (1 - beta) steps to go from where they start, and beside the exact statistics of the data
they keep a noise: of the mean of n examples, in units of the standard deviation,

    sqrt((1 - beta) / (1 + beta) / n).

`recompute_batch_stats` tells, and repairs. An average of standard deviations is below the root of
the averaged variances (Jensen).

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3.1.
    Y. Wu, J. Johnson, "Rethinking 'batch' in BatchNorm", 2021.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, nn, optim

TRAIN = nn.Context(train=True)
CHANCE = 0.1
STEPS = 1000  # of the running averages of a net that does not change


@dataclasses.dataclass(frozen=True)
class Config:
    """Every size of the batch, every decay and every seed.

    Attributes:
        batch_sizes: in which the test set is evaluated, ascending from 1.
        decays: weights of the past in the running averages, ascending.
        epochs: of training.
        training_batch: images of each step.
        seeds: of the params and of the batches.
    """

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    epochs: int = 5
    training_batch: int = 64
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(batch_sizes=(1, 16), decays=(0.9, 0.99), epochs=1, seeds=(0,)),
    "default": Config(),
    "full": Config(epochs=20, seeds=tuple(range(30))),
}


def net_of(decay: float) -> nn.Layer:
    def slow(path, layer):
        return layer.replace(decay=decay) if layer.kind == "batch_norm" else layer

    return nn.rewrite(models.mlp([32, 32, 10], batch_norm=True), slow)


def train(config: Config, decay: float):
    """Returns params and state at all epochs, and the accuracies with it and with it recomputed.

    All have leading axes (seeds, epochs + 1).
    """
    net = net_of(decay)
    (x, _), test = _digits.examples()

    def see(params, state, opt_state):
        anew = nn.recompute_batch_stats(net, params, state, [x])
        accuracies = [_digits.evaluate(net, params, s, *test)[1] for s in (state, anew)]
        return params, state, jnp.stack(accuracies)

    def run(seed, order):
        return _digits.train(net, optim.momentum(0.03), seed, order, see)

    order = _digits.orders(len(x), config.training_batch, config.epochs, config.seeds)
    return jax.jit(jax.vmap(run))(jnp.array(config.seeds), order)


def answers(params, state, batches, ctx):
    """Returns the logits of each batch by itself, (batches, examples, classes)."""
    apply = functools.partial(net_of(0.9).apply, params, state, ctx=ctx)
    return jax.vmap(lambda x: apply(x)[0])(batches)


def accuracies(config: Config, params, state) -> dict[str, np.ndarray]:
    """Returns the accuracy of the test set in batches, (batch sizes, seeds), by how it is taken."""
    x, labels = _digits.examples()[1]
    most = config.batch_sizes[-1]
    shuffled = np.random.default_rng(0).permutation(len(x))[: len(x) // most * most]
    by_class = shuffled[np.argsort(labels[shuffled])]
    found = {name: [] for name in ("train mode, shuffled", "train mode, by class", "eval mode")}
    for n in config.batch_sizes:
        runs = zip(found, (TRAIN, TRAIN, nn.EVAL), (shuffled, by_class, shuffled), strict=True)
        for name, ctx, order in runs:
            at = order.reshape(-1, n)
            predict = jax.jit(jax.vmap(functools.partial(answers, batches=x[at], ctx=ctx)))
            logits = predict(params, state)
            found[name].append((logits.argmax(-1) == labels[at][None]).mean((1, 2)))
    return {name: np.array(a) for name, a in found.items()}


def averaged(config: Config, decay: float, running: str):
    """Returns the errors of running mean and variance of a pixel layer, (seeds, STEPS + 1).

    In units of the standard deviation and of the variance, root mean square over features; and the
    last variances.
    """
    x = jnp.asarray(_digits.examples()[0][0]).reshape(-1, 64)
    w = np.random.default_rng(0).normal(size=(64, 32)) / 8
    y = x @ jnp.asarray(w, x.dtype)
    norm = nn.batch_norm(decay=decay, running=running)
    params, start = norm.init(jax.random.key(0), y)
    mean, var = y.mean(0), y.var(0)

    def errors(state):
        found = state["var"] if running == "var" else state["std"] ** 2
        return jnp.stack(
            [
                jnp.sqrt(((state["mean"] - mean) ** 2 / var).mean()),
                jnp.sqrt(((found / var - 1) ** 2).mean()),
            ]
        ), found

    def step(state, batch):
        state = norm.apply(params, state, y[batch], TRAIN)[1]
        return state, errors(state)[0]

    def run(batches):
        state, found = jax.lax.scan(step, start, batches)
        return jnp.concatenate([errors(start)[0][None], found]), errors(state)[1]

    batches = np.stack(
        [
            np.random.default_rng(seed).integers(len(y), size=(STEPS, config.training_batch))
            for seed in config.seeds
        ]
    ).astype(np.int32)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(batches))


def noise(decay: float, n: int) -> float:
    """Returns the standard deviation of the running mean of batches of n."""
    return float(np.sqrt((1 - decay) / (1 + decay) / n))


def draw(config: Config, modes, errors, trained):
    """Draws accuracies by batch size, errors of running averages, and accuracies by epoch."""
    title = "Is a net with BatchNorm the same function in training and in evaluation?"
    figure, (left, middle, right) = panels(title, 3)
    for (name, found), color in zip(modes.items(), ("C1", "C3", "C0"), strict=True):
        left.semilogx(config.batch_sizes, 100 * found.mean(1), "o-", color=color, lw=2, label=name)
    left.axhline(100 * CHANCE, color="black", lw=1, ls=":")
    left.text(config.batch_sizes[-1], 100 * CHANCE + 1.5, "guessing", ha="right")
    left.set_xticks(config.batch_sizes, config.batch_sizes)
    left.set(xlabel="images in a batch", ylabel="test accuracy [%]", ylim=(0, 102))
    left.set_title("Evaluated in batches", fontsize=11)
    left.legend(loc="center", bbox_to_anchor=(0.52, 0.5))
    for i, (decay, error) in enumerate(errors.items()):
        middle.loglog(
            np.arange(1, STEPS + 2), error[:, :, 0].mean(0), f"C{i}", lw=2, label=f"{decay:g}"
        )
        expected = noise(decay, config.training_batch)
        middle.axhline(expected, color=f"C{i}", lw=1, ls=":")
    middle.set(xlabel="step", ylabel="error / standard deviation")
    middle.set_title("Running mean of a net that stays; dotted: theory", fontsize=11)
    middle.legend(title="weight of the past")
    for i, (decay, (*_, found)) in enumerate(trained.items()):
        kept, anew = 100 * np.asarray(found).mean(0).T
        right.plot(kept, f"C{i}o-", lw=2, label=f"running averages, {decay:g}")
    right.plot(anew, "k--", lw=1.5, label="recomputed")
    right.set(xlabel="epoch", ylabel="test accuracy [%]", xticks=range(config.epochs + 1))
    right.set_title(f"Eval mode while training, {steps(config)} steps an epoch", fontsize=11)
    right.legend(loc="lower right")
    return figure


def steps(config: Config) -> int:
    return len(_digits.examples()[0][0]) // config.training_batch


def run(config: Config) -> Result:
    """Trains, evaluates in both modes, and follows the running averages."""
    trained = {decay: train(config, decay) for decay in config.decays}
    first = trained[config.decays[0]]
    params, state = jax.tree.map(lambda leaf: leaf[:, -1], first[:2])
    modes = accuracies(config, params, state)
    evaluated = modes["eval mode"]
    x = _digits.examples()[1][0]
    alone = jax.vmap(lambda p, s: answers(p, s, x[:, None], TRAIN))(params, state)
    spread = float(jnp.abs(alone - alone[:, :1]).max())
    var = {decay: averaged(config, decay, "var") for decay in config.decays}
    std = {decay: averaged(config, decay, "std") for decay in config.decays}
    errors = {decay: found[0] for decay, found in var.items()}
    numbers = {
        f"{name}, batches of {n}: accuracy": accuracy
        for name, found in modes.items()
        for n, accuracy in zip(config.batch_sizes, found.mean(1), strict=True)
    }
    numbers["spread of the outputs in train mode, batches of 1"] = spread
    late, below = [], []
    for decay, found in errors.items():
        mean, variance = found[:, STEPS // 2 :].mean((0, 1))
        expected = noise(decay, config.training_batch)
        numbers[f"decay {decay}: error of the mean after {STEPS // 2} steps"] = mean
        numbers[f"decay {decay}: error of the mean, in theory"] = expected
        numbers[f"decay {decay}: error of the variance after {STEPS // 2} steps"] = variance
        late.append(max(mean, variance) < 0.05)
        below.append((std[decay][1] <= var[decay][1]).all())
    for decay, (*_, found) in trained.items():
        kept, anew = np.asarray(found)[:, 1].mean(0)
        numbers[f"decay {decay}: accuracy after one epoch"] = kept
        numbers[f"decay {decay}: accuracy after one epoch, recomputed"] = anew
    early = [(f[2][:, 1, 0] > f[2][:, 1, 1] - 0.05).all() for f in trained.values()]
    return Result(
        claims={
            "In eval mode accuracy is the same in batches of any size": truth(
                evaluated.max(0) - evaluated.min(0) < 1e-6
            ),
            "In train mode all single examples get the same output": truth(spread < 1e-5),
            "In train mode accuracy is that of eval mode, within 1 %, in large shuffled batches": (
                truth(abs(modes["train mode, shuffled"][-1] - evaluated[-1]).mean() < 0.01)
            ),
            "In train mode it is, in batches of one class": truth(
                abs(modes["train mode, by class"][-1] - evaluated[-1]).mean() < 0.01
            ),
            f"Running averages are within 5 % after {STEPS // 2} steps, at any decay": truth(late),
            "An average of standard deviations is below the root of averaged variances": truth(
                below
            ),
            "After the first epoch they are good enough: accuracy is within 5 % of that with"
            " statistics recomputed": truth(early),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, modes, errors, trained),
    )
