"""Times one update of every optimizer beside optax's and torch's, and the memory's own limit.

python -m benchmarks.optimizer

Params, gradients and moments are float32; params and state are donated. Rounds are interleaved, and
only ratios within a round count. The floor is the time in which the memory moves the bytes that one
pass needs: those of an in-place `y + a * x`, JAX's or torch's, the faster, measured in the same
rounds, scaled.
"""

import importlib.util
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.step import environment, quartiles, show, time_rounds
from jaxtrain import optim

RESULTS = pathlib.Path(__file__).parent / "results" / "optimizer.json"
RATE = 1e-3


class Case(NamedTuple):
    """An optimizer of ours, optax's of the same arithmetic, torch's, and its bytes in one pass.

    Attributes:
        ours: the transformation.
        optax: its counterpart.
        same: whether both make the same updates.
        torch: the name in `torch.optim` and its arguments.
        bytes: read and written per parameter: params and moments twice, gradients once.
    """

    ours: optax.GradientTransformation
    optax: optax.GradientTransformation
    same: bool = True
    torch: tuple[str, dict] | None = None
    bytes: int = 20


CASES = {
    "sgd, momentum": Case(
        optim.momentum(RATE), optax.sgd(RATE, 0.9), torch=("SGD", {"momentum": 0.9})
    ),
    "sgd, Nesterov": Case(
        optim.momentum(RATE, nesterov="shifted"),
        optax.sgd(RATE, 0.9, nesterov=True),
        torch=("SGD", {"momentum": 0.9, "nesterov": True}),
    ),
    "adam": Case(optim.adam(RATE), optax.adam(RATE), torch=("Adam", {}), bytes=28),
    "adamw": Case(
        optim.adamw(RATE, weight_decay=1e-2, rule="*"),
        optax.adamw(RATE, weight_decay=1e-2),
        torch=("AdamW", {}),
        bytes=28,
    ),
    "rmsprop": Case(
        optim.rmsprop(RATE, decay=0.99, eps=1e-8),
        optax.rmsprop(RATE, decay=0.99, eps=1e-8, eps_in_sqrt=False),
        torch=("RMSprop", {}),
    ),
    "adagrad": Case(
        optim.adagrad(RATE, initial_accumulator=0.1, eps=1e-7, eps_in_sqrt=True),
        optax.adagrad(RATE),
        torch=("Adagrad", {}),
    ),
    "adadelta": Case(
        optim.adadelta(1.0), optax.adadelta(1.0), torch=("Adadelta", {}), bytes=28, same=False
    ),
    "adamax": Case(
        optim.adamax(RATE), optax.adamax(RATE), torch=("Adamax", {}), bytes=28, same=False
    ),
    "nadam": Case(optim.nadam(RATE), optax.nadam(RATE), torch=("NAdam", {}), bytes=28, same=False),
    "radam": Case(optim.radam(RATE), optax.radam(RATE), torch=("RAdam", {}), bytes=28, same=False),
    "rprop": Case(optim.rprop(RATE), optax.rprop(RATE), torch=("Rprop", {}), bytes=28, same=False),
    "lbfgs, memory 10": Case(
        optim.lbfgs(1.0, memory=10, line_search=None),
        optax.lbfgs(1.0, memory_size=10, linesearch=None),
        bytes=4 * (2 + 2 * 10 + 2 + 2 + 1),
        same=False,
    ),
}
LEAVES = 1, 200
LARGE = ("sgd, momentum", "adam", "rmsprop")  # also with 50 million parameters


def tree(size: int, leaves: int, seed: int) -> dict[str, jax.Array]:
    """Returns numbers from a normal distribution, `size` in all."""
    random = np.random.default_rng(seed)
    shape = (size // leaves,)
    return {f"{i}": jnp.asarray(random.standard_normal(shape, np.float32)) for i in range(leaves)}


def updater(tx: optax.GradientTransformation, grads: Any, size: int, leaves: int) -> Callable:
    """Returns a function that makes one update, in place."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = tree(size, leaves, seed=1)
    # Eager zeros share buffers, which cannot be donated twice.
    carry = (params, jax.tree.map(lambda x: x.copy(), jax.jit(tx.init)(params)))

    def update():
        nonlocal carry
        carry = step(*carry, grads)
        jax.block_until_ready(carry)
        return carry[0]

    return update


def axpy(grads: Any, size: int, leaves: int) -> Callable:
    step = jax.jit(lambda y, x: jax.tree.map(lambda y, x: y + 1e-3 * x, y, x), donate_argnums=(0,))
    y = tree(size, leaves, seed=1)

    def update():
        nonlocal y
        y = jax.block_until_ready(step(y, grads))

    return update


def axpy_by_torch(size: int, leaves: int) -> Callable:
    import torch

    y, x = ([torch.randn(size // leaves) for _ in range(leaves)] for _ in range(2))
    return lambda: torch._foreach_add_(y, x, alpha=1e-3)


def by_torch(name: str, options: dict, kind: str, size: int, leaves: int) -> Callable:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    params = [torch.nn.Parameter(torch.randn(size // leaves)) for _ in range(leaves)]
    for p in params:
        p.grad = torch.randn_like(p)
    return getattr(torch.optim, name)(params, lr=RATE, **{kind: True}, **options).step


FUSED = ("SGD", "Adam", "AdamW", "Adagrad")  # those that torch fuses on CPU


def programs(case: Case, size: int, leaves: int) -> dict[str, Callable]:
    grads = tree(size, leaves, seed=2)
    made = {name: updater(getattr(case, name), grads, size, leaves) for name in ("ours", "optax")}
    found, expected = (made[name]() for name in ("ours", "optax"))
    moved = max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found, expected)))
    if case.same and moved > 1e-2 * RATE:
        raise RuntimeError(f"optimizer: updates must be equal, got {moved} apart")
    made["axpy"] = axpy(grads, size, leaves)
    if not importlib.util.find_spec("torch"):
        return made
    made["axpy by torch"] = axpy_by_torch(size, leaves)
    if case.torch:
        name, options = case.torch
        made["torch foreach"] = by_torch(name, options, "foreach", size, leaves)
        if name in FUSED:
            made["torch fused"] = by_torch(name, options, "fused", size, leaves)
    return made


def measure(case: Case, size: int, leaves: int, rounds: int) -> dict[str, Any]:
    """Returns milliseconds and ratios as JSON values."""
    made = programs(case, size, leaves)
    time_rounds(made, 1)
    timed = time_rounds(made, rounds)
    moved = [timed.pop(name) for name in list(timed) if name.startswith("axpy")]
    floor = np.min(moved, axis=0) * case.bytes / 12
    return {
        "milliseconds": {name: quartiles(1e3 * s) for name, s in timed.items()}
        | {"floor": quartiles(1e3 * floor)},
        "ratio": {f"ours / {name}": quartiles(timed["ours"] / s) for name, s in timed.items()}
        | {"ours / floor": quartiles(timed["ours"] / floor)},
    }


def main(
    *,
    rounds: int = 21,
    size: int = 10_000_000,
    only: tuple[str, ...] = tuple(CASES),
    quick: bool = False,
    save: pathlib.Path = RESULTS,
) -> None:
    """Prints the table and writes the results file.

    Args:
        rounds: of interleaved measurement.
        size: parameters; five times as many for some.
        only: the optimizers to time.
        quick: 3 rounds of a thousandth of the parameters; nothing is written.
        save: the file to write.
    """
    rounds, size = (3, size // 1000) if quick else (rounds, size)
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    load = [os.getloadavg()[0]]
    for name in only:
        for factor in (1, 5) if name in LARGE else (1,):
            for leaves in LEAVES:
                title = f"{name}, {factor * size / 1e6:g}M in {leaves}"
                results[title] = measure(CASES[name], factor * size, leaves, rounds)
                results[title]["ratio"].pop("ours / ours")
                show(title, results[title])
    results["load average, before and after"] = [*load, os.getloadavg()[0]]
    if not quick:
        save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
