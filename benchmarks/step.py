"""Times a training step of ours beside raw JAX, flax linen + optax and torch, where installed.

python -m benchmarks.step

All programs start from the same weights, see the same batch and must give the same losses. Rounds
are interleaved, and only ratios within a round count: neighbours on the machine move all times.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import _peers
from benchmarks import _raw as raw
from jaxtrain import _compat, losses, models, nn, optim, train

RESULTS = pathlib.Path(__file__).parent / "results" / "step.json"
# Losses move enough to show a wrong gradient, but the batch is not learnt by heart: gradients would
# become denormal, which slows torch.
LEARNING_RATE = 1e-5
FIRST_STEPS = 12
UNROLLED = 4  # steps in one call
# What rounding may do to the losses of the first steps, relative: a few units in the last place of
# float32. A gradient that is 2 % wrong does more.
TOLERANCE = 2e-6
ROUGH = 1e-2  # in bfloat16, and on accelerators, where float32 products may be rounded to less
RATIOS = (
    ("ours", "raw"),
    ("ours, 2 devices", "raw, 2 devices"),
    ("ours, 2 devices", "ours"),
    ("ours, 2 devices", "raw"),
    ("ours, 2 devices, unrolled", "raw"),
    ("ours, 2 devices, unrolled", "torch"),
    ("flax linen + optax", "raw"),
    ("torch", "raw"),
)


class Model(NamedTuple):
    """A network of ours, the same by hand and by the peers, and what they are timed on.

    Attributes:
        net: ours; all start from its params and state.
        raw: by hand.
        linen: `f(dtype)`, by flax.
        torch: `f()`, by torch.
        steps: in one round.
        image: the shape of a batch.
    """

    net: nn.Layer
    raw: Callable
    linen: Callable
    torch: Callable
    steps: int
    image: tuple[int, ...] = (128, 28, 28, 1)


def cnn() -> nn.Layer:
    layers: list = []
    for width in _peers.WIDTHS:
        layers += [nn.max_pool(2)] if layers else []
        layers += [nn.conv(width, 3, bias=False), nn.batch_norm(decay=raw.DECAY), jax.nn.relu]
    return nn.serial(*layers, nn.global_avg_pool(), nn.dense(_peers.CLASSES))


MODELS = {
    "mlp": Model(
        models.mlp([512, 512, _peers.CLASSES]), raw.mlp, _peers.MLP, _peers.torch_mlp, steps=20
    ),
    "cnn": Model(cnn(), raw.cnn, _peers.CNN, _peers.torch_cnn, steps=4),
    "resnet20": Model(
        models.resnet(20),
        raw.resnet,
        _peers.ResNet,
        _peers.torch_resnet,
        steps=4,
        image=(64, 32, 32, 3),
    ),
}


class Program(NamedTuple):
    """A step(ts, batch) -> (ts, seen), or several in one call.

    Attributes:
        step: the function.
        ts: its first state.
        batch: its batch.
        loss: `f(seen)`, the loss of each step.
        compiled: the jitted function, where its cost is asked for.
        steps: in one call.
    """

    step: Callable
    ts: Any
    batch: Any
    loss: Callable[[Any], Any]
    compiled: Any = None
    steps: int = 1


def make_batch(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.standard_normal(shape, np.float32),
        "label": random.integers(_peers.CLASSES, size=shape[0], dtype=np.int32),
        "index": np.arange(shape[0], dtype=np.int32),
        "mask": np.ones(shape[0], np.float32),
    }


def ours(
    net,
    weights,
    batch,
    *,
    devices=1,
    steps=1,
    learning_rate=LEARNING_RATE,
    precision="float32",
    augment=None,
):
    tx = optim.momentum(learning_rate, momentum=raw.MOMENTUM, nesterov="shifted")
    options = dict(precision=precision, augment=augment)
    step = train.make_step(net, losses.softmax_cross_entropy, tx, **options)
    how = "single" if devices == 1 else "shard_map"
    run = train.parallelize(step, how=how, devices=devices, unroll=True)
    params, stats = weights
    ts = run.init(jax.random.key(0), batch)._replace(params=params, state=stats)
    loss = lambda seen: seen["loss"].value  # noqa: E731
    if steps > 1:
        data = run.put({name: batch[name] for name in ("image", "label")})
        indices = np.tile(batch["index"], (steps, 1))
        call = lambda ts, batch: run.steps(ts, *batch)  # noqa: E731
        return Program(call, run.place(ts), (data, indices), loss, steps=steps)
    compiled = run.spread(step.apply, (None, 0), donate=(0,))
    return Program(run.step, run.place(ts), split(batch, run.mesh), loss, compiled)


def by_hand(apply, weights, batch, *, devices=1, learning_rate=LEARNING_RATE, precision="float32"):
    mesh = _compat.make_mesh(jax.devices()[:devices], ("data",))
    step = raw.compiled(apply, mesh, learning_rate=learning_rate, dtype=jnp.dtype(precision))
    place = jax.jit(lambda ts: ts, out_shardings=NamedSharding(mesh, PartitionSpec()))
    ts = place(raw.init_state(*weights, jax.random.key(0)))
    loss = lambda seen: seen["loss"]["total"] / seen["loss"]["count"]  # noqa: E731
    return Program(step, ts, split(batch, mesh), loss, step)


def split(batch, mesh):
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(mesh.axis_names[0])))


def makers(model: Model, precision: str = "float32") -> dict[str, Callable[[], Program]]:
    """Returns by name the functions that make the programs."""
    batch = make_batch(model.image)
    weights = jax.jit(model.net.init)(jax.random.key(0), batch["image"])

    def peer(make, net):
        step, ts = make(net, *weights, batch, LEARNING_RATE, precision)
        on_device = jax.device_put(batch, jax.devices()[0])
        return Program(step, ts, on_device, lambda seen: seen["loss"])

    made = {}
    for devices, suffix in ((1, ""), (2, ", 2 devices"))[: len(jax.devices())]:
        options = dict(devices=devices, precision=precision)
        made["ours" + suffix] = functools.partial(ours, model.net, weights, batch, **options)
        made["raw" + suffix] = functools.partial(by_hand, model.raw, weights, batch, **options)
    if len(jax.devices()) > 1:
        made["ours, 2 devices, unrolled"] = functools.partial(
            made["ours, 2 devices"], steps=UNROLLED
        )
    made["flax linen + optax"] = functools.partial(peer, _peers.by_linen, model.linen)
    if importlib.util.find_spec("torch"):
        made["torch"] = functools.partial(peer, _peers.by_torch, model.torch)
    return made


def programs(model: Model, precision: str = "float32") -> dict[str, Program]:
    return {name: make() for name, make in makers(model, precision).items()}


def first_losses(program: Program, steps: int = FIRST_STEPS) -> tuple[Program, np.ndarray]:
    """Runs the first steps; returns the program with its new state, and the losses."""
    ts, values = program.ts, []
    for _ in range(steps // program.steps):
        ts, seen = program.step(ts, program.batch)
        values.append(np.ravel(program.loss(seen)))
    return program._replace(ts=ts), np.concatenate(values)


def checked(made: Mapping[str, Program], yardstick: str, tolerance: float):
    """Runs the first steps of all.

    Returns:
        The programs with their new states, and the differences of their losses to the yardstick's,
        relative.

    Raises:
        RuntimeError: a difference is larger than the tolerance.
    """
    ran = {name: first_losses(program) for name, program in made.items()}
    _, expected = ran[yardstick]
    difference = {name: float(abs(found / expected - 1).max()) for name, (_, found) in ran.items()}
    if wrong := {name: d for name, d in difference.items() if not d <= tolerance}:
        raise RuntimeError(f"step: losses must be {yardstick}'s within {tolerance}, got {wrong}")
    return {name: program for name, (program, _) in ran.items()}, difference


def cost(program: Program) -> dict[str, float]:
    """Returns XLA's own count for one step, on each device."""
    compiled = program.compiled.lower(program.ts, program.batch).compile()
    analysis = compiled.cost_analysis()
    return {
        "flops": analysis["flops"],
        "bytes accessed": analysis["bytes accessed"],
        "bytes of temporaries": compiled.memory_analysis().temp_size_in_bytes,
    }


def cost_ratios(ours: Program, raw: Program) -> dict[str, float]:
    ours_cost, raw_cost = cost(ours), cost(raw)
    return {name: ours_cost[name] / raw_cost[name] for name in ours_cost}


def interleave(programs: Mapping[str, Program], steps: int, rounds: int, *, wait: bool = True):
    """Returns seconds per step, {name: (rounds,)}; `wait` for every call, or for the last."""

    def stepper(program):
        ts = program.ts

        def run():
            nonlocal ts
            for _ in range(steps // program.steps):
                ts, seen = program.step(ts, program.batch)
                if wait:
                    jax.block_until_ready(seen)
            jax.block_until_ready(ts)

        return run

    runs = {name: stepper(program) for name, program in programs.items()}
    return {name: seconds / steps for name, seconds in time_rounds(runs, rounds).items()}


def time_rounds(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Returns the seconds of each call, {name: (rounds,)}; the order alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in list(runs)[:: -1 if i % 2 else 1]:
            began = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def quartiles(x: np.ndarray) -> list[float]:
    return [float(f"{q:.4g}") for q in np.percentile(x, [25, 50, 75])]


def measure(model: Model, rounds: int, precision: str) -> dict[str, Any]:
    """Returns the times, ratios, losses and costs of one model as JSON values."""
    exact = precision == "float32" and jax.default_backend() == "cpu"
    made, difference = checked(programs(model, precision), "raw", TOLERANCE if exact else ROUGH)
    costs = {"1 device": cost_ratios(made["ours"], made["raw"])}
    if "ours, 2 devices" in made:
        costs["2 devices"] = cost_ratios(made["ours, 2 devices"], made["raw, 2 devices"])
    seconds = interleave(made, model.steps, rounds)
    return {
        "milliseconds": {name: quartiles(1e3 * s) for name, s in seconds.items()},
        "ratio": {
            f"{a} / {b}": quartiles(seconds[a] / seconds[b])
            for a, b in RATIOS
            if a in seconds and b in seconds
        },
        "cost of ours / raw": costs,
        "loss, first steps, relative difference to raw": difference,
    }


def dispatch(rounds: int) -> dict[str, Any]:
    """Returns microseconds per step of a net so small that dispatch is all that counts."""
    net, batch = models.mlp([8, 8, 10]), make_batch((1, 8))
    weights = net.init(jax.random.key(0), batch["image"])
    made = {"ours": ours(net, weights, batch), "raw": by_hand(raw.mlp, weights, batch)}
    made = {name: first_losses(program)[0] for name, program in made.items()}
    # Short rounds, so that some are free of neighbours: the fastest ones say what it costs alone.
    seconds = interleave(made, 30, 20 * rounds, wait=False)
    fastest = {name: float(f"{1e6 * s.min():.4g}") for name, s in seconds.items()}
    return {
        "microseconds": {name: quartiles(1e6 * s) for name, s in seconds.items()},
        "ours / raw": quartiles(seconds["ours"] / seconds["raw"]),
        "fastest, microseconds": fastest,
    }


def environment() -> dict[str, Any]:
    packages = ("jaxtrain", "jax", "jaxlib", "flax", "optax", "torch")
    installed = [name for name in packages if importlib.util.find_spec(name)]
    return {
        "versions": {name: importlib.metadata.version(name) for name in installed},
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": len(os.sched_getaffinity(0)),
    }


def main(
    *,
    rounds: int = 21,
    quick: bool = False,
    precision: str = "float32",
    save: pathlib.Path = RESULTS,
) -> None:
    """Prints the table and writes the results file.

    Args:
        rounds: of interleaved measurement.
        quick: 3 rounds, to see that it runs; nothing is written.
        precision: "float32" or "bfloat16".
        save: the file to write.
    """
    train.use_cpu_cores(2)
    rounds = 3 if quick else rounds
    results = {"environment": environment(), "precision": precision, "rounds": rounds}
    load = [os.getloadavg()[0]]
    if not importlib.util.find_spec("torch"):
        print("torch is not installed: left out")
    for name, model in MODELS.items():
        results[name] = measure(model, rounds, precision)
        show(name, results[name])
    results["dispatch"] = dispatch(rounds)
    show("dispatch", results["dispatch"])
    results["load average, before and after"] = [*load, os.getloadavg()[0]]
    print(results["environment"], "load average", results["load average, before and after"])
    if not quick:
        save.write_text(json.dumps(results, indent=2) + "\n")


def show(title: str, results: Mapping[str, Any]) -> None:
    print(f"\n{title}")
    for name, value in results.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for row, numbers in rows:
            print(f"  {name:46} {row:32} {numbers}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
