"""Counts the steps of K-FAC and of SGD with momentum to the same loss of a deep autoencoder.

python -m benchmarks.kfac

Deep autoencoders are the ill-conditioned problem on which K-FAC was introduced. SGD has the best of
27 settings for each budget of steps anew, K-FAC one of nine for all of them. The loss is the mean
over the seeds, of the whole data at each step, so that nothing but the initial params is random
(and for K-FAC the targets that its factors are drawn with).

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
# A step that is too long diverges within twice the longest of each momentum: no best one is first
# or last.
SGD = [*itertools.product(2.0 ** np.arange(-5, 4), (0.0, 0.9, 0.99))]
KFAC = [*itertools.product((0.1, 0.3, 1.0), (1e-4, 1e-3, 1e-2))]
BUDGETS = (100, 200, 500, 1000, 2000)


class Problem(NamedTuple):
    """A network, and the images and targets of squared error that are learnt as one batch."""

    net: nn.Layer
    image: np.ndarray
    target: np.ndarray


def autoencoder() -> Problem:
    """64-32-16-8-16-32-64 units, tanh, of the first 500 training digits."""

    def glorot(path, layer):
        kernel = {"kernel_init": initializers.glorot_normal()}
        return layer.replace(**kernel) if layer.kind == "dense" else layer

    net = nn.rewrite(models.mlp([32, 16, 8, 16, 32, 64], activation=jnp.tanh), glorot)
    image = data.digits()[0].image[:500].astype(np.float32) / 16
    return Problem(net, image, image.reshape(len(image), -1))


def curve(problem: Problem, tx, seed, steps: int, observe=None) -> jax.Array:
    """Returns the loss before each step, (steps,)."""
    n = len(problem.image)
    arrays = problem.image, problem.target, np.arange(n, dtype=np.int32), np.ones(n, np.float32)
    batch = dict(zip(("image", "label", "index", "mask"), map(jnp.asarray, arrays), strict=True))
    step = train.make_step(problem.net, losses.squared_error, tx, observe=observe)

    def body(ts, _):
        ts, seen = step.apply(ts, batch)
        return ts, seen["loss"].value

    return jax.lax.scan(body, step.init(jax.random.key(seed), batch), None, length=steps)[1]


def sgd(problem: Problem, rate, momentum, seed, steps: int) -> jax.Array:
    return curve(problem, optim.momentum(rate, momentum=momentum), seed, steps)


def kfac(problem: Problem, rate, damping, seed, steps: int) -> jax.Array:
    tx = optim.kfac(problem.net, rate, damping=damping)
    observe = optim.kfac_factors(problem.net, losses.squared_error)
    return curve(problem, tx, seed, steps, observe)


def sweep(run: Callable, problem: Problem, settings, seeds, steps: int, batched: bool):
    """Runs every setting with every seed in one program; the losses, (settings, seeds, steps).

    A loss that is not finite, where the step then stops, counts as infinite.
    """
    settings, seeds = jnp.array(settings, jnp.float32), jnp.arange(len(seeds)) + seeds[0]

    def every_seed(setting):
        each = lambda f, xs: jax.vmap(f)(xs) if batched else jax.lax.map(f, xs)  # noqa: E731
        return each(lambda seed: run(problem, *setting, seed, steps), seeds)

    # K-FAC is not batched: on CPU, batched calls of LAPACK can wait for each other for ever.
    all_settings = jax.vmap(every_seed) if batched else lambda xs: jax.lax.map(every_seed, xs)
    return np.nan_to_num(np.asarray(jax.jit(all_settings)(settings)), nan=np.inf)


def first_at(loss, curve: np.ndarray) -> float:
    """Returns the number of steps after which the curve is at most `loss`, or infinity."""
    reached = np.append(curve, -np.inf) <= loss
    return reached.argmax() if not reached[-1] or reached[:-1].any() else np.inf


def compare(theirs: np.ndarray, ours: np.ndarray, budgets: Sequence[int]) -> dict[str, Any]:
    """Compares the steps to the loss of the best setting of SGD after each budget of steps.

    The setting of K-FAC is the one that is first at the loss of the largest budget.
    """
    theirs, mean = np.mean(theirs, 1), np.mean(ours, 1)
