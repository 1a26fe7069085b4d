"""One step, four ways to run it: on one device, by jit, by pmap, by shard_map."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtrain import _check, _compat
from jaxtrain.train._step import Step, TrainState

AXIS = "data"
IN_FLIGHT = 8
HOW = ("single", "jit", "pmap", "shard_map")


def use_cpu_cores(n: int | None = None) -> None:
    """Makes one virtual CPU device per core, so that data-parallel steps use them all.

    Call it first in a program: it does nothing where a backend is already up, where the user has
    chosen a device count, or (on machines with accelerators) to the accelerators.

    Args:
        n: the number of devices; None means the cores that this process may use.
    """
    if n is not None:
        _check.integer("use_cpu_cores", "n", n)
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen and jax.config.values["jax_num_cpu_devices"] < 1:
        _compat.set_cpu_devices(n or len(os.sched_getaffinity(0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A step compiled for a set of devices. The state is replicated, without a device axis.

    Attributes:
        how: "single", "jit", "pmap" or "shard_map".
        mesh: the devices.
        init: `init(key, batch) -> ts`.
        place: puts any pytree, fresh or restored, on the devices in the one layout that the
            compiled programs take. The caller's own arrays stay valid when the result is donated.
        step: `step(ts, batch) -> ts, metrics`; ts is donated.
        steps: `steps(ts, data, indices) -> ts, metrics`: as many steps as `indices` (steps, batch)
            has rows, over the data set on the devices (a dict of image and label); -1 is padding;
            the metrics have a leading step axis.
        stream: `stream(ts, batches) -> ts, metrics`: the same of whole batches, arrays of the
            shape (steps, batch, ...), as `share` gives them.
        share: `share(n, read)` puts such arrays on the devices, split on axis 1: `read(rows)` is
            asked for those of the n rows of a batch that this process needs, host arrays.
        spread: compiles any `f(*args, axis_name=)` for these devices, `spread(f, axes, donate=())`:
            argument i is split on axes[i], or replicated where that is None; so are all results.
        put: copies host arrays to the devices, replicated, for reading.
    """

    how: str
    mesh: Mesh
    init: Callable[[jax.Array, Any], TrainState]
    place: Callable[[Any], Any]
    step: Callable[[TrainState, Any], tuple[TrainState, Any]]
    steps: Callable[[TrainState, Any, Any], tuple[TrainState, Any]]
    stream: Callable[[TrainState, Any], tuple[TrainState, Any]]
    share: Callable[[int, Callable[[np.ndarray], Any]], Any]
    spread: Callable[..., Callable]
    put: Callable[[Any], Any]

    @property
    def devices(self) -> list[jax.Device]:
        """The devices, in order."""
        return list(self.mesh.devices.flat)


def parallelize(
    step: Step,
    *,
    how: str = "shard_map",
    devices: int | Sequence[jax.Device] | None = None,
    unroll: bool = False,
    check_vma: bool = False,
) -> Run:
    """Compiles a step to run data-parallel: the same numbers in every mode and on every count.

    Args:
        step: from `make_step`.
        how: "single" for one device, "jit" (the compiler places the collectives), "pmap" or
            "shard_map".
        devices: the devices, or how many of those present; None means all (or one for "single").
        unroll: write out the steps of one `steps` call instead of looping: right for convolutions
            on CPU, slow to compile.
        check_vma: let `shard_map` prove that the new state is the same on all devices.

    Returns:
        A Run.

    Raises:
        ConfigError: more devices than there are, or an unknown mode.
    """
    _check.choice("parallelize", "how", how, HOW)
    mesh = _compat.make_mesh(_devices(how, devices), (AXIS,))
    # pmap takes what is replicated from the devices of its own process.
    replicated = NamedSharding(mesh.local_mesh if how == "pmap" else mesh, PartitionSpec())
    spread = functools.partial(_spread, how, mesh, check_vma)

    def many(ts, rows, batch_of, axis_name):
        def body(ts, row):
            return step.apply(ts, batch_of(row), axis_name)

        k = len(jax.tree.leaves(rows)[0])
        if not unroll and k > 1:
            return lax.scan(body, ts, rows)
        seen = []
        for i in range(k):
            ts, one = body(ts, jax.tree.map(lambda x, i=i: x[i], rows))
            seen.append(one)
        return ts, jax.tree.map(lambda *rows: jnp.stack(rows), *seen)

    def steps(ts, data, indices, axis_name=None):
        return many(ts, indices, functools.partial(take, data), axis_name)

    def stream(ts, batches, axis_name=None):
        return many(ts, batches, lambda batch: batch, axis_name)

    def share(n, read):
        if how == "pmap":
            return read(np.arange(n))
        split = NamedSharding(mesh, PartitionSpec(None, AXIS))
        mine = filter(None, split.addressable_devices_indices_map((1, n)).values())
        rows = np.unique(np.concatenate([np.arange(n)[row] for _, row in mine]))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(split, x, (len(x), n, *x.shape[2:])),
            read(rows),
        )

    one = spread(step.apply, (None, 0), donate=(0,))
    return Run(
        how=how,
        mesh=mesh,
        init=jax.jit(step.init, out_shardings=replicated),
        place=jax.jit(lambda pytree: pytree, out_shardings=replicated),
        step=lambda ts, batch: one(ts, complete(batch)),
        steps=spread(steps, (None, None, 1), donate=(0,)),
        stream=spread(stream, (None, 1), donate=(0,)),
        share=share,
        spread=spread,
        put=lambda pytree: _global(pytree, replicated),
    )


def _devices(how, devices):
    if devices is None or isinstance(devices, int):
        present = jax.devices()
        n = (1 if how == "single" else len(present)) if devices is None else devices
        if not 1 <= n <= len(present):
            rule = f"between 1 and the {len(present)} {present[0].platform} devices present"
            fix = "on CPU call train.use_cpu_cores(n) first"
            _check.fail("parallelize", "devices", rule, devices, fix)
        devices = present[:n]
    if how == "single" and len(devices) != 1:
        fix = 'use how="shard_map" for more'
        _check.fail("parallelize", "devices", 'one for how="single"', len(devices), fix)
    if {d.process_index for d in devices} != set(range(jax.process_count())):
        fix = 'leave it at None, with how="jit", "pmap" or "shard_map"'
        _check.fail("parallelize", "devices", "some of every process", devices, fix)
    return list(devices)


def _spread(how, mesh, check_vma, f, axes, donate=()):
    """Compiles `f(*args, axis_name=)`, argument i split on axes[i] over the mesh or replicated.

    All results are replicated.
    """
    specs = tuple(PartitionSpec() if a is None else PartitionSpec(*[None] * a, AXIS) for a in axes)
    if how == "pmap":
        return _by_pmap(f, mesh, axes, donate)
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    if how == "shard_map":
        f = jax.shard_map(
            functools.partial(f, axis_name=AXIS),
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
    out = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(f, in_shardings=shardings, out_shardings=out, donate_argnums=donate)
    if jax.process_count() == 1:
        return compiled

    def call(*args):
        return compiled(*map(_global, args, shardings))

    return call


def _by_pmap(f, mesh, axes, donate):
    n = mesh.size
    mine = [i for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()]
    compiled = jax.pmap(
        functools.partial(f, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=axes,
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=donate,
    )

    def split(x, axis):
        x = x.reshape(*x.shape[:axis], n, x.shape[axis] // n, *x.shape[axis + 1 :])
        return x if len(mine) == n else x.take(mine, axis)

    def call(*args):
        return compiled(
            *(
                arg if axis is None else jax.tree.map(lambda x, a=axis: split(x, a), arg)
                for arg, axis in zip(args, axes, strict=True)
            )
        )

    return call


def _global(arg, sharding):
    """Makes arrays over the devices of host arrays that every process has whole."""

    def put(x):
        if isinstance(x, jax.Array):
            return x
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

    return jax.tree.map(put, arg)


def fetched(results: Iterable[Any]) -> Iterator[Any]:
    """Yields results on the host, at most eight behind the newest dispatched.

    XLA on CPU aborts the process when too many collectives wait for each other.
    """
    waiting: collections.deque = collections.deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > IN_FLIGHT:
            yield jax.device_get(waiting.popleft())
    yield from map(jax.device_get, waiting)


def complete(batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the batch with `index` and `mask`, made up where they are missing."""
    if "index" in batch and "mask" in batch:
        return batch
    b = len(jax.tree.leaves(batch["image"])[0])
    return {"index": np.arange(b, dtype=np.int32), "mask": np.ones(b, np.float32), **batch}


def take(data: Any, index: jax.Array) -> dict[str, Any]:
    """Returns the batch of the examples `index` (batch,) of a device-resident data set; -1 pads."""
    real = jnp.maximum(index, 0)
    batch = jax.tree.map(lambda x: jnp.take(x, real, axis=0, mode="clip"), data)
    return {**batch, "index": real, "mask": (index >= 0).astype(jnp.float32)}
