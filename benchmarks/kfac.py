"""Counts the steps of K-FAC and of SGD with momentum to the same loss of a deep autoencoder.

python -m benchmarks.kfac

Deep autoencoders are the ill-conditioned problem that K-FAC was introduced with. All data are one
batch, and losses are means over the seeds of the initial params. After each budget of steps SGD has
the best of its settings for that budget; K-FAC has one of a third as many settings for all of them.

References:
    J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored approximate
    curvature", 2015.
"""

import itertools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.step import environment
from jaxtrain import data, losses, models, nn, optim, train
from jaxtrain.nn import initializers

RESULTS = pathlib.Path(__file__).parent / "results" / "kfac.json"
SEEDS = range(5)
SGD = [*itertools.product((2.0 ** np.arange(-5, 4)).tolist(), (0.0, 0.9, 0.99))]
KFAC = [*itertools.product((0.1, 0.3, 1.0), (1e-4, 1e-3, 1e-2))]
BUDGETS = (100, 200, 500, 1000, 2000)
KFAC_STEPS = 300


class Problem(NamedTuple):
    """A network, and the images and the targets of squared error that it learns as one batch."""

    net: nn.Layer
    image: np.ndarray
    target: np.ndarray


def autoencoder() -> Problem:
    """64-32-16-8-16-32-64 units, tanh between, of the first 500 training digits in [0, 1]."""

    def glorot(path, layer):
        kernel = initializers.glorot_normal()
        return layer.replace(kernel_init=kernel) if layer.kind == "dense" else layer

    net = nn.rewrite(models.mlp([32, 16, 8, 16, 32, 64], activation=jnp.tanh), glorot)
    image = data.digits()[0].image[:500].astype(np.float32) / 16
    return Problem(net, image, image.reshape(len(image), -1))


def curve(problem: Problem, tx: Any, seed: Any, steps: int, observe: Any = None) -> jax.Array:
    """Returns the loss after 0, 1, ... `steps` steps."""
    n = len(problem.image)
    arrays = problem.image, problem.target, np.arange(n, dtype=np.int32), np.ones(n, np.float32)
    batch = dict(zip(("image", "label", "index", "mask"), map(jnp.asarray, arrays), strict=True))
    step = train.make_step(problem.net, losses.squared_error, tx, observe=observe)

    def body(ts, _):
        ts, seen = step.apply(ts, batch)
        return ts, seen["loss"].value

    return jax.lax.scan(body, step.init(jax.random.key(seed), batch), None, length=steps + 1)[1]


def sgd(problem: Problem, steps: int, rate: Any, momentum: Any, seed: Any) -> jax.Array:
    return curve(problem, optim.momentum(rate, momentum=momentum), seed, steps)


def kfac(problem: Problem, steps: int, rate: Any, damping: Any, seed: Any) -> jax.Array:
    observe = optim.kfac_factors(problem.net, losses.squared_error)
    return curve(problem, optim.kfac(problem.net, rate, damping=damping), seed, steps, observe)


def sweep(run: Callable, settings: Sequence, seeds: Sequence[int]) -> np.ndarray:
    """Runs every setting with every seed in one program; the losses, (settings, seeds, steps + 1).

    A loss that is not finite, where a step then stops, counts as infinite.
    """
    runs = [(*setting, seed) for setting in settings for seed in seeds]
    columns = [jnp.array(column) for column in zip(*runs, strict=True)]
    found = np.asarray(jax.jit(jax.vmap(run))(*columns)).reshape(len(settings), len(seeds), -1)
    return np.where(np.isfinite(found), found, np.inf)


def first_at(loss: float, curves: np.ndarray) -> np.ndarray:
    """Returns after how many steps each curve is first at the loss; infinity where it never is."""
    reached = curves <= loss
    return np.where(reached.any(-1), reached.argmax(-1), np.inf)


def compare(theirs: np.ndarray, ours: np.ndarray, budgets: Sequence[int]) -> dict[str, Any]:
    """Compares SGD's curves with those of K-FAC, the setting that takes it furthest.

    Returns:
        By budget of SGD's steps the number of its best setting, its loss, and K-FAC's steps to this
        loss of the mean over seeds, and of each seed to SGD's loss with the same seed.
    """
    setting = ours.mean(1)[:, -1].argmin()
    rows: dict[str, Any] = {}
    for budget in budgets:
        after = theirs[:, :, budget]
        best = after.mean(1).argmin()
        rows[str(budget)] = {
            "setting": SGD[best],
            "loss": float(after[best].mean()),
            "K-FAC steps": first_at(after[best].mean(), ours[setting].mean(0)).item(),
            "by seed": [
                first_at(loss, one).item()
                for loss, one in zip(after[best], ours[setting], strict=True)
            ],
        }
    return {"K-FAC's setting": KFAC[setting], "SGD's steps": rows}


def measure(problem: Problem, seeds: Sequence[int], budgets: Sequence[int], kfac_steps: int):
    theirs = sweep(lambda *run: sgd(problem, max(budgets), *run), SGD, seeds)
    ours = sweep(lambda *run: kfac(problem, kfac_steps, *run), KFAC, seeds)
    best = {
        momentum: min(
            (loss, rate)
            for (rate, m), loss in zip(SGD, theirs[:, :, -1].mean(1), strict=True)
            if m == momentum
        )[1]
        for _, momentum in SGD
    }
    return compare(theirs, ours, budgets) | {"SGD's best rate by momentum, of the last": best}


def main(
    problem: Problem | None = None,
    seeds: Sequence[int] = SEEDS,
    budgets: Sequence[int] = BUDGETS,
    kfac_steps: int = KFAC_STEPS,
    save: pathlib.Path = RESULTS,
) -> None:
    """Prints the comparison and writes the results file."""
    began = time.monotonic()
    results = measure(problem or autoencoder(), seeds, budgets, kfac_steps)
    for budget, row in results["SGD's steps"].items():
        print(f"{budget:>6} steps of SGD {row}")
    results |= {
        "SGD's settings, learning rate and momentum": SGD,
        "K-FAC's settings, learning rate and damping": KFAC,
        "seeds": list(seeds),
        "seconds": round(time.monotonic() - began),
        "environment": environment(),
    }
    save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
