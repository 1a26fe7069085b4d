"""Times what comes before the first step: shapes of the params, and compilations.

python -m benchmarks.start

Each measurement traces and compiles anew. Rounds are interleaved, and only ratios within a round
count.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from benchmarks import _peers
from benchmarks.step import environment, quartiles, show, time_rounds
from jaxtrain import losses, models, nn, train

RESULTS = pathlib.Path(__file__).parent / "results" / "start.json"
WIDTH, BATCH = 64, 32
SMALL, LARGE = (BATCH, 32, 32, 3), (BATCH, 224, 224, 3)
KEY = jax.eval_shape(lambda: jax.random.key(0))
CTX = nn.Context(train=True)


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def chain(depth: int, *, unroll: bool | None = None) -> nn.Layer:
    """Returns a dense net of `depth` hidden layers."""
    block = nn.serial(nn.dense(WIDTH), nn.relu)
    return nn.serial(nn.repeat(block, depth, unroll=unroll), nn.dense(10))


class LinenChain(linen.Module):
    """The same by flax, written out."""

    depth: int

    @linen.compact
    def __call__(self, x):
        """Returns the logits."""
        for _ in range(self.depth):
            x = linen.relu(linen.Dense(WIDTH)(x))
        return linen.Dense(10)(x)


def compile_gradient(init: Callable, apply: Callable) -> Callable[[], Any]:
    """Makes the function that compiles the gradient of a mean loss, with the params' shapes."""
    x = array(BATCH, WIDTH)
    weights = jax.eval_shape(init, KEY, x)

    def loss(weights, x, label):
        return losses.softmax_cross_entropy(apply(weights, x), label).mean()

    label = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    return lambda: jax.jit(jax.grad(loss)).lower(weights, x, label).compile()


def ours(net: nn.Layer) -> Callable[[], Any]:
    # No layer here has a state.
    init = lambda key, x: net.init(key, x)[0]  # noqa: E731
    return compile_gradient(init, lambda params, x: net.apply(params, {}, x, CTX)[0])


def tables() -> dict[str, dict[str, Callable[[], Any]]]:
    """Returns what is timed: by table and row."""
    linens = {depth: LinenChain(depth) for depth in (5, 50)}
    shapes = {
        "ours, resnet_imagenet(50)": (models.resnet_imagenet(50), LARGE),
        "ours, resnet(20)": (models.resnet(20), SMALL),
        "flax linen, ResNet-20": (_peers.ResNet(jnp.float32), SMALL),
    }
    return {
        "shapes of the params": {
            name: functools.partial(jax.eval_shape, net.init, KEY, array(*shape))
            for name, (net, shape) in shapes.items()
        },
        "compilation of the gradient of a dense net": {
            "5 layers": ours(chain(5)),
            "50 layers": ours(chain(50)),
            "50 layers, unrolled": ours(chain(50, unroll=True)),
            "5 layers, flax linen": compile_gradient(linens[5].init, linens[5].apply),
            "50 layers, flax linen": compile_gradient(linens[50].init, linens[50].apply),
        },
    }


def measure(rows: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Returns seconds and ratios to the first row as JSON values."""

    def anew(run):
        jax.clear_caches()
        run()

    seconds = time_rounds(
        {name: functools.partial(anew, run) for name, run in rows.items()}, rounds
    )
    first = next(iter(rows))
    return {
        "seconds": {name: quartiles(s) for name, s in seconds.items()},
        f"ratio to {first}": {
            name: quartiles(s / seconds[first]) for name, s in seconds.items() if name != first
        },
    }


def main(*, rounds: int = 11, quick: bool = False, save: pathlib.Path = RESULTS) -> None:
    """Prints the tables and writes the results file.

    Args:
        rounds: of interleaved measurement.
        quick: one round, to see that it runs; nothing is written.
        save: the file to write.
    """
    train.use_cpu_cores(1)
    jax.config.update("jax_enable_compilation_cache", False)
    rounds = 1 if quick else rounds
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    load = [os.getloadavg()[0]]
    for title, rows in tables().items():
        results[title] = measure(rows, rounds)
        show(title, results[title])
    results["load average, before and after"] = [*load, os.getloadavg()[0]]
    if not quick:
        save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
