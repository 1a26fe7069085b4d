"""Times layers one by one, forward and backward, beside raw JAX, flax linen and torch.

python -m benchmarks.layers

The shapes are those of the convolutional network and of ResNet-20, with a batch of 128. Where one
of our layers could have been written in another way, that way is a row too; and in the last tables
it takes the layer's place in the training step of the convolutional network. All programs must give
the same outputs and gradients. Rounds are interleaved, and only ratios within a round count.
"""

import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

from benchmarks import _peers, step
from benchmarks import _raw as raw
from benchmarks.step import environment, quartiles, show, time_rounds
from jaxtrain import nn, train, tree
from jaxtrain.nn._norm import average, moments, statistics

RESULTS = pathlib.Path(__file__).parent / "results" / "layers.json"
BATCH = 128
GROUPS = 8
RATE = 0.5
EPS = 1e-5
# Relative to the largest number of an array: sums of 128 x 32 x 32 products in float32, whose order
# differs, are some hundred units in the last place apart.
TOLERANCE = 1e-4


SHAPES = (  # side of the image, channels in and out: of the CNN, and of ResNet-20
    (28, 1, 32),
    (14, 32, 64),
    (7, 64, 128),
    (32, 16, 16),
    (16, 32, 32),
    (8, 64, 64),
)
SIZES = (784, 512), (512, 512)


class Case(NamedTuple):
    """A layer of ours and the same by others.

    Attributes:
        layer: ours.
        shape: of an example.
        others: by name, `apply(params, state, x, ctx) -> y, state`, like that of a layer.
        flax: the module.
        torch: `f(torch.nn)`, the module.
        random: the programs that draw other numbers, and so give other outputs.
    """

    layer: nn.Layer
    shape: tuple[int, ...]
    others: Mapping[str, Callable]
    flax: linen.Module
    torch: Callable
    random: tuple[str, ...] = ()


def of(f: Callable) -> Callable:
    """Makes the `apply` of a layer of `f(params, x)`."""
    return lambda params, state, x, ctx: (f(params, x), state)


def im2col(params, x):
    kernel = params["kernel"]
    h, w, m, n = kernel.shape
    rows, columns = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    places = itertools.product(range(h), range(w))
    patches = jnp.concatenate([x[:, i : i + rows, j : j + columns] for i, j in places], axis=-1)
    return jnp.tensordot(patches, kernel.reshape(h * w * m, n), 1)


def batch_norm(params, state, x, ctx):
    return raw.batch_norm(params, state, x, ctx.mask, ctx.axis_name)


def batch_norm_by_difference(params, state, x, ctx):
    """The same moments, applied as (x - mean) * a + bias."""
    count, mean, m2 = moments(x, ctx)
    a = params["scale"] * lax.rsqrt(m2 / count + EPS)
    new = statistics(count, mean, m2, unbiased=True, running="var")
    y = (x - mean[None, None, None]) * a[None, None, None] + params["bias"][None, None, None]
    return y, average(state, new, raw.DECAY, count)


def batch_norm_in_two_passes(params, state, x, ctx):
    """The mean first, then the squares of the distances from it; applied as x * a + b."""

    def total(v):
        v = jnp.where(real, v, 0).sum((0, 1, 2))
        return v if ctx.axis_name is None else lax.psum(v, ctx.axis_name)

    real = ctx.mask[:, None, None, None] > 0
    count = total(jnp.ones((*x.shape[:-1], 1), x.dtype))
    mean = total(x) / count
    m2 = total((x - mean[None, None, None]) ** 2)
    a = params["scale"] * lax.rsqrt(m2 / count + EPS)
    b = params["bias"] - mean * a
    new = statistics(count, mean, m2, unbiased=True, running="var")
    return x * a[None, None, None] + b[None, None, None], average(state, new, raw.DECAY, count)


def max_pool_by_reduce_window(x):
    start, window = np.array(-jnp.inf, x.dtype), (1, 2, 2, 1)
    return lax.reduce_window(x, start, lax.max, window, window, "VALID")


def max_pool_by_max(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def scaled(params, y):
    shape = (1,) * (y.ndim - 1) + (-1,)
    return y * params["scale"].reshape(shape) + params["bias"].reshape(shape)


def two_passes(x, axes):
    """Two passes: the mean first, then the squares of the distances from it."""
    d = x - x.mean(axes, keepdims=True)
    return d * lax.rsqrt((d * d).mean(axes, keepdims=True) + EPS)


def moments_of_one_pass(x, axes):
    """Returns the distances d from the mean of the first slice, their mean, and 1 / std."""
    d = x - lax.stop_gradient(lax.slice_in_dim(x, 0, 1, axis=axes[0]).mean(axes, keepdims=True))
    mean = d.mean(axes, keepdims=True)
    return d, mean, lax.rsqrt((d * d).mean(axes, keepdims=True) - mean * mean + EPS)


def one_pass(x, axes):
    d, mean, a = moments_of_one_pass(x, axes)
    return d * a - mean * a


def difference(x, axes):
    d, mean, a = moments_of_one_pass(x, axes)
    return (d - mean) * a


def grouped(f):
    """Makes group normalization of `f(x, axes)`."""

    def apply(params, x):
        y = x.reshape(*x.shape[:-1], GROUPS, -1)
        return scaled(params, f(y, (1, 2, 4)).reshape(x.shape))

    return of(apply)


def dropout(params, state, x, ctx):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(ctx.key, ctx.index)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - RATE, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - RATE), 0), state


def dropout_by_one_key(params, state, x, ctx):
    return jnp.where(jax.random.bernoulli(ctx.key, 1 - RATE, x.shape), x / (1 - RATE), 0), state


def block(params, state, x, ctx):
    x = raw.conv(params["conv0"], x)
    x, new = batch_norm(params["batch_norm0"], state["batch_norm0"], x, ctx)
    return raw.max_pool(jax.nn.relu(x)), {"batch_norm0": new}


class LinenBlock(linen.Module):
    """Convolution, BatchNorm, ReLU and pooling."""

    features: int

    @linen.compact
    def __call__(self, x):
        """Returns the pooled block."""
        x = linen.Conv(self.features, (3, 3), use_bias=False, name="conv0")(x)
        x = linen.BatchNorm(False, momentum=raw.DECAY, name="batch_norm0")(x)
        return linen.max_pool(linen.relu(x), (2, 2), (2, 2))


class LinenFunction(linen.Module):
    """A function without params."""

    f: Callable

    def __call__(self, x):
        """Returns f(x)."""
        return self.f(x)


# What stands instead of ours in the training step: the layer's kind, and the other way.
CHOICES = {
    "max_pool by reduce_window": ("max_pool", of(lambda p, x: max_pool_by_reduce_window(x))),
    "max_pool by max of a reshape": ("max_pool", of(lambda p, x: max_pool_by_max(x))),
    "batch_norm in two passes": ("batch_norm", batch_norm_in_two_passes),
    "batch_norm by (x - mean) * a": ("batch_norm", batch_norm_by_difference),
}


def images(side: int, m: int, n: int) -> dict[str, Case]:
    """Returns the layers of a block from (side, side, m) to n channels."""
    shape = (side, side, n)
    made = {
        f"conv {side}x{side}x{m}, {n}": Case(
            nn.conv(n, 3, bias=False),
            (side, side, m),
            {"raw": of(raw.conv), "im2col": of(im2col)},
            linen.Conv(n, (3, 3), use_bias=False),
            lambda torch: torch.Conv2d(m, n, 3, padding=1, bias=False),
        ),
        f"batch_norm {side}x{side}x{n}": Case(
            nn.batch_norm(),
            shape,
            {
                "raw": batch_norm,
                "two passes": batch_norm_in_two_passes,
                "(x - mean) * a": batch_norm_by_difference,
            },
            linen.BatchNorm(False, momentum=raw.DECAY),
            lambda torch: torch.BatchNorm2d(n),
        ),
        f"layer_norm {side * side}x{n}": Case(
            nn.layer_norm(),
            (side * side, n),
            {
                "raw": of(lambda params, x: scaled(params, one_pass(x, (2,)))),
                "two passes": of(lambda params, x: scaled(params, two_passes(x, (2,)))),
                "(d - mean) * a": of(lambda params, x: scaled(params, difference(x, (2,)))),
            },
            linen.LayerNorm(epsilon=EPS),
            lambda torch: torch.LayerNorm(n),
        ),
        f"group_norm {side}x{side}x{n}": Case(
            nn.group_norm(GROUPS),
            shape,
            {
                "raw": grouped(one_pass),
                "two passes": grouped(two_passes),
                "(d - mean) * a": grouped(difference),
            },
            linen.GroupNorm(GROUPS, epsilon=EPS),
            lambda torch: torch.GroupNorm(GROUPS, n),
        ),
        f"relu {side}x{side}x{n}": Case(
            nn.serial(nn.relu),
            shape,
            {"raw": of(lambda params, x: jnp.where(x > 0, x, 0))},
            LinenFunction(linen.relu),
            lambda torch: torch.ReLU(),
        ),
        f"dropout {side}x{side}x{n}": Case(
            nn.dropout(RATE),
            shape,
            {"raw": dropout, "one key": dropout_by_one_key},
            linen.Dropout(RATE, deterministic=False),
            lambda torch: torch.Dropout(RATE),
            random=("one key", "flax linen", "torch"),
        ),
    }
    if side % 2:
        return made
    made[f"max_pool {side}x{side}x{n}"] = Case(
        nn.max_pool(2),
        shape,
        {
            "raw": of(lambda params, x: raw.max_pool(x)),
            "reduce_window": of(lambda params, x: max_pool_by_reduce_window(x)),
            "max of a reshape": of(lambda params, x: max_pool_by_max(x)),
        },
        LinenFunction(lambda x: linen.max_pool(x, (2, 2), (2, 2))),
        lambda torch: torch.MaxPool2d(2),
    )
    made[f"block {side}x{side}x{m}, {n}"] = Case(
        nn.serial(nn.conv(n, 3, bias=False), nn.batch_norm(), nn.relu, nn.max_pool(2)),
        (side, side, m),
        {"raw": block},
        LinenBlock(n),
        lambda torch: _peers.torch_serial(
            conv0=torch.Conv2d(m, n, 3, padding=1, bias=False),
            batch_norm0=torch.BatchNorm2d(n),
            relu=torch.ReLU(),
            pool=torch.MaxPool2d(2),
        ),
    )
    return made


def dense(m: int, n: int) -> dict[str, Case]:
    raw_dense = {"raw": of(raw.dense)}
    make = lambda torch: torch.Linear(m, n)  # noqa: E731
    return {f"dense {m}, {n}": Case(nn.dense(n), (m,), raw_dense, linen.Dense(n), make)}


def cases() -> dict[str, Case]:
    found = itertools.chain(itertools.starmap(images, SHAPES), itertools.starmap(dense, SIZES))
    every = {name: case for some in found for name, case in some.items()}
    return dict(sorted(every.items(), key=lambda item: item[0].split()[0]))  # a layer's together


class Program(NamedTuple):
    """A function without arguments, and what makes arrays by name of its result."""

    run: Callable[[], Any]
    arrays: Callable[[Any], dict[str, np.ndarray]]


def by_jax(apply: Callable, given: tuple, backward: bool) -> Program:
    def both(params, state, x, ctx, dy):
        if not backward:
            y, new = apply(params, state, x, ctx)
            return {"y": y}, new
        f = lambda params, x: apply(params, state, x, ctx)  # noqa: E731
        y, pull, new = jax.vjp(f, params, x, has_aux=True)
        return {"y": y, **dict(zip(("params", "x"), pull(dy), strict=True))}, new

    compiled = jax.jit(both)

    def arrays(result):
        leaves = jax.tree_util.tree_leaves_with_path(result[0])
        return {tree.path_name(path): np.asarray(leaf) for path, leaf in leaves}

    return Program(lambda: jax.block_until_ready(compiled(*given)), arrays)


def by_linen(module: linen.Module) -> Callable:
    """Makes the `apply` of a layer of a module."""

    def apply(params, state, x, ctx):
        variables = {"params": params, "batch_stats": state}
        rngs = {"dropout": ctx.key}
        y, new = module.apply(variables, x, rngs=rngs, mutable=["batch_stats"])
        return y, new.get("batch_stats", {})

    return apply


def by_torch(make: Callable, given: tuple, backward: bool) -> Program:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def theirs(a):
        a = torch.from_numpy(np.array(a))
        return a.permute(0, 3, 1, 2) if a.ndim == 4 else a

    def ours(a):
        return np.moveaxis(a, 1, -1) if a.ndim == 4 else a

    params, _, x, _, dy = given
    net = _peers.torch_load(make(torch.nn), params).to(memory_format=torch.channels_last)
    x, dy = theirs(x).requires_grad_(), theirs(dy)

    def run():
        if not backward:
            with torch.no_grad():
                return net(x)
        x.grad = None
        net.zero_grad()
        y = net(x)
        y.backward(dy)
        return y

    def arrays(y):
        outputs = {"y": y.detach()} | ({"x": x.grad} if backward else {})
        found = {name: ours(value.numpy()) for name, value in outputs.items()}
        if backward:
            for name, p in _peers.torch_paths(net).items():
                found[f"params/{name}"] = _peers.from_torch(p.grad.numpy())
        return found

    return Program(run, arrays)


def programs(case: Case, backward: bool) -> dict[str, Program]:
    random = np.random.default_rng(0)

    def normal(like):
        return random.standard_normal(like.shape, np.float32)

    x = normal(np.empty((BATCH, *case.shape)))
    params, state = jax.jit(case.layer.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + np.float32(0.1) * normal(p), params)
    index, mask = np.arange(BATCH, dtype=np.int32), np.ones(BATCH, np.float32)
    ctx = nn.Context(True, jax.random.key(1), index, mask)
    dy = normal(jax.eval_shape(case.layer.apply, params, state, x, ctx)[0])
    given = jax.device_put((params, state, x, ctx, dy))
    applies = {"ours": case.layer.apply, **case.others, "flax linen": by_linen(case.flax)}
    made = {name: by_jax(apply, given, backward) for name, apply in applies.items()}
    if importlib.util.find_spec("torch"):
        made["torch"] = by_torch(case.torch, given, backward)
    return made


def differences(case: Case, made: Mapping[str, Program]) -> dict[str, float]:
    """Returns how far each program's arrays are from ours, relative to the largest of each.

    Raises:
        RuntimeError: too far.
    """
    ours = made["ours"].arrays(made["ours"].run())
    found = {}
    for name, program in made.items():
        theirs = program.arrays(program.run())
        if name not in case.random:
            found[name] = max(
                float(abs(theirs[k] - a).max() / max(abs(a).max(), 1e-30)) for k, a in ours.items()
            )
    if wrong := {name: d for name, d in found.items() if not d <= TOLERANCE}:
        raise RuntimeError(f"layers: arrays must be ours within {TOLERANCE}, got {wrong}")
    return found


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Returns milliseconds and ratios as JSON values."""
    results: dict[str, Any] = {}
    for backward in False, True:
        made = programs(case, backward)
        differences(case, made)
        title = "forward + backward" if backward else "forward"
        seconds = time_rounds({name: program.run for name, program in made.items()}, rounds)
        results[f"{title}, ms"] = {name: quartiles(1e3 * s) for name, s in seconds.items()}
        results[f"{title}, ours / theirs"] = {
            name: quartiles(seconds["ours"] / s) for name, s in seconds.items() if name != "ours"
        }
    return results


def exchanged(net: nn.Layer, kind: str, apply: Callable) -> nn.Layer:
    """Returns the net with another `apply`, in train mode, in its layers of this kind."""

    def other(path, layer):
        def either(params, state, x, ctx):
            return (apply if ctx.train else layer.apply)(params, state, x, ctx)

        return dataclasses.replace(layer, apply=either) if layer.kind == kind else layer

    return nn.rewrite(net, other)


def measure_choices(model: step.Model, rounds: int, devices: int) -> dict[str, Any]:
    """Times the training step with each of our choices undone."""
    nets = {"ours": model.net}
    nets |= {name: exchanged(model.net, kind, apply) for name, (kind, apply) in CHOICES.items()}
    batch = step.make_batch(model.image)
    weights = jax.jit(model.net.init)(jax.random.key(0), batch["image"])
    made = {name: step.ours(net, weights, batch, devices=devices) for name, net in nets.items()}
    made, _ = step.checked(made, "ours", step.TOLERANCE)
    seconds = step.interleave(made, model.steps, rounds)
    return {
        "milliseconds": {name: quartiles(1e3 * s) for name, s in seconds.items()},
        "ours / other": {
            name: quartiles(seconds["ours"] / s) for name, s in seconds.items() if name != "ours"
        },
    }


def main(
    *,
    rounds: int = 21,
    only: tuple[str, ...] = (),
    quick: bool = False,
    save: pathlib.Path = RESULTS,
) -> None:
    """Prints the tables and writes the results file.

    Args:
        rounds: of interleaved measurement.
        only: what to time, such as max_pool or step; all if empty.
        quick: 3 rounds, to see that it runs; nothing is written.
        save: the file to write.
    """
    train.use_cpu_cores(2)
    rounds = 3 if quick else rounds
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    load = [os.getloadavg()[0]]
    for name, case in cases().items():
        if not only or name.split()[0] in only:
            results[name] = measure(case, rounds)
            show(name, results[name])
    for devices in range(1, min(len(jax.devices()), 2) + 1):
        if not only or "step" in only:
            title = f"step of the cnn, devices: {devices}"
            results[title] = measure_choices(step.MODELS["cnn"], rounds, devices)
            show(title, results[title])
    results["load average, before and after"] = [*load, os.getloadavg()[0]]
    if not quick:
        save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
