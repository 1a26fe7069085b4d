"""Is L-BFGS as good on mini-batches as it is full-batch?

L-BFGS models the inverse Hessian from differences of the last ten gradients and searches along
each step for a lower loss. Between mini-batches the differences are of other examples too, and the
loss that falls is that of one batch.

On the shipped digits

    J(w) = mean cross-entropy + lambda / 2 |w|^2

is minimized from mini-batches and from all examples, by L-BFGS with a strong-Wolfe search and by
momentum at its best constant rate. Counted are gradients of single examples, those of the line
searches included: all methods get as many. A unit is one gradient of the whole training set.

References:
    D. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.
    Q. Le et al., "On optimization methods for deep learning", 2011.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, losses, models, nn, optim

LAMBDA = 1e-3
PROBLEMS = {
    "softmax regression": models.mlp([10]),
    "MLP of 32 tanh units": models.mlp([32, 10], activation=jnp.tanh),
}
METHODS = {  # the optimizer, whether it searches along its steps, whether it sees all examples
    "L-BFGS, full batch": (optim.lbfgs, True, True),
    "momentum, full batch": (optim.momentum, False, True),
    "L-BFGS, mini-batches": (optim.lbfgs, True, False),
    "momentum, mini-batches": (optim.momentum, False, False),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every method on every problem with every seed.

    Attributes:
        problems: names in `PROBLEMS`.
        epochs: gradients of the whole training set that a run may cost.
        batch_size: of the mini-batches.
        rates: of momentum; the one with the lowest median of J at the end counts.
        seeds: of the params and of the batches.
        records: how often J is measured in a run.
    """

    problems: tuple[str, ...] = ("softmax regression", "MLP of 32 tanh units")
    epochs: int = 60
    batch_size: int = 64
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    records: int = 60


SIZES = {
    "smoke": Config(
        problems=("softmax regression",),
        epochs=10,
        batch_size=359,
        rates=(0.1,),
        seeds=(0,),
        records=5,
    ),
    "default": Config(),
    "full": Config(epochs=300, seeds=tuple(range(10)), records=100),
}


def objective(net, unravel, w, x, labels):
    logits, _ = net.apply(unravel(w), {}, x, nn.Context(train=True))
    return losses.softmax_cross_entropy(logits, labels).mean() + LAMBDA / 2 * w @ w


def batches(n: int, size: int, config: Config, seed: int) -> np.ndarray:
    """Returns the examples of as many steps as the budget has gradients, (steps, size)."""
    order = _digits.batches(n, size, 2 * config.epochs, seed)
    return order.reshape(-1, size)[: config.epochs * n // size]


def descend(net, tx, order, key, *, unit: float, searches: bool, records: int):
    """Runs an optimizer on the batches `order`, (steps, size), of which one gradient costs `unit`.

    Returns:
        The cost so far and J over all examples, each (records + 1,).
    """
    images, labels = map(jnp.asarray, _digits.examples()[0])
    x = images.astype(float)
    start, unravel = ravel_pytree(net.init(key, x[:1])[0])
    tx = optax.with_extra_args_support(tx)

    def step(carry, batch):
        w, state, gradients = carry
        f = functools.partial(objective, net, unravel, x=x[batch], labels=labels[batch])
        value, grad = jax.value_and_grad(f)(w)
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=f)
        # The search knows the gradient at its end, which is that of the next step full-batch.
        gradients = gradients + int(len(batch) < len(x) or not searches)
        return (optax.apply_updates(w, updates), state, gradients), None

    def record(carry, some):
        (w, state, gradients), _ = jax.lax.scan(step, carry, some)
        spent = gradients + (state[-1].evaluations if searches else 0)
        return (w, state, gradients), (
            unit * spent.astype(float),
            objective(net, unravel, w, x, labels),
        )

    every = len(order) // records
    chunks = order[: every * records].reshape(records, every, -1)
    _, (cost, j) = jax.lax.scan(record, (start, tx.init(start), jnp.zeros((), jnp.int32)), chunks)
    first = objective(net, unravel, start, x, labels)
    return jnp.append(0.0, cost), jnp.append(first, j)


def measure(net, config: Config) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns cost and J of each method, (seeds, records + 1); momentum's at its best rate."""
    n = len(_digits.examples()[0][0])
    keys = jnp.stack([jax.random.key(seed) for seed in config.seeds])
    found = {}
    for name, (make, searches, full) in METHODS.items():
        size = n if full else config.batch_size
        order = np.stack([batches(n, size, config, seed) for seed in config.seeds])
        if searches and not full:  # a step costs two gradients or more
            order = order[:, : order.shape[1] // 2]
        options = {"unit": size / n, "searches": searches, "records": config.records}

        def run(rate, order, key, make=make, options=options):
            return descend(net, make(rate), order, key, **options)

        rates = jnp.array([1.0] if searches else config.rates)
        runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
        costs, values = map(np.asarray, runs(rates, order, keys))
        found[name] = costs[0], min(values, key=lambda j: np.median(paid(config, costs[0], j)))
    return found


def paid(config: Config, cost, j) -> np.ndarray:
    """Returns the last J that the budget pays for, (seeds,); infinite where a run diverged."""
    last = (cost <= config.epochs).sum(1) - 1
    return np.nan_to_num(j[np.arange(len(j)), last], nan=np.inf)


def draw(config: Config, measured):
    """Draws J above the lowest J found, over what it cost."""
    title = "Is L-BFGS as good on mini-batches as full-batch?"
    figure, row = panels(title, len(measured), width=6, sharey=True)
    row = np.ravel(row)
    for axes, (problem, found) in zip(row, measured.items(), strict=True):
        lowest = min(np.nanmin(j) for _, j in found.values())
        for name, (cost, j) in found.items():
            color = "C3" if "L-BFGS" in name else "C0"
            line = "-" if METHODS[name][2] else "--"
            for seed, (c, values) in enumerate(zip(cost, j, strict=True)):
                label = name if seed == 0 else None
                axes.semilogy(c, values - lowest, line, color=color, lw=1.5, label=label)
        axes.set(xlabel="cost, in gradients of the whole training set", xlim=(0, config.epochs))
        axes.set_title(problem, fontsize=11)
    row[0].set(ylabel="J - lowest J", ylim=(1e-6, 5))
    row[-1].legend()
    return figure


def run(config: Config) -> Result:
    """Runs all methods on both problems."""
    with _compat.enable_x64(True):
        measured = {problem: measure(PROBLEMS[problem], config) for problem in config.problems}
    finals = {
        problem: {name: paid(config, *runs) for name, runs in found.items()}
        for problem, found in measured.items()
    }

    def lower(a, b):
        return truth([final[a] < final[b] for final in finals.values()])

    full, full_momentum, mini, mini_momentum = METHODS
    return Result(
        claims={
            "Full-batch, L-BFGS ends lower than momentum": lower(full, full_momentum),
            "On mini-batches L-BFGS ends lower than full-batch": lower(mini, full),
            "On mini-batches L-BFGS ends lower than momentum": lower(mini, mini_momentum),
            "Full-batch L-BFGS ends lower than momentum on mini-batches": lower(
                full, mini_momentum
            ),
        },
        numbers={
            f"{problem}: J, {name}": float(np.median(j))
            for problem, final in finals.items()
            for name, j in final.items()
        },
        figure=draw(config, measured),
    )
