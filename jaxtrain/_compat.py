"""Every difference between the supported versions of JAX, 0.7.2 to 0.12, that reaches our code.

`jax.shard_map` (with `check_vma`) and `jax.lax.axis_size` are the same in all of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

if hasattr(jax, "enable_x64"):
    enable_x64 = jax.enable_x64
else:
    enable_x64 = jax.experimental.enable_x64  # type: ignore[attr-defined]


def to_varying(tree: Any, axis_name: str | None) -> Any:
    """Marks every leaf of `tree` as one that may differ between the devices of a mapped axis.

    Under `shard_map`, the gradient with respect to an unmarked value is already summed over the
    axis; with respect to a marked one it is the device's own part, as in `pmap`. So a step marks
    its params, differentiates its local loss, and sums once. Leaves that are marked already, and
    axes that no `shard_map` made, are left alone.

    Args:
      tree: a pytree of arrays.
      axis_name: the mapped axis; None means no axis.

    Returns:
      The tree with the same values, shapes and dtypes.

    Example:
      >>> def step(w, x):
      ...     return jax.lax.psum(jax.grad(lambda w: w * x.sum())(to_varying(w, "data")), "data")
      >>> P = jax.sharding.PartitionSpec
      >>> mesh = make_mesh(jax.devices()[:1], ("data",))
      >>> float(jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())(
      ...     jax.numpy.ones(()), jax.numpy.arange(4.0)))
      6.0
    """
    if axis_name not in jax.sharding.get_abstract_mesh().manual_axes:
        return tree

    def mark(x):
        kind = jax.typeof(x)
        varying = kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
        if axis_name in varying:
            return x
        if hasattr(jax.lax, "pcast"):
            return jax.lax.pcast(x, axis_name, to="varying")
        return jax.lax.pvary(x, axis_name)  # type: ignore[attr-defined]

    return jax.tree.map(mark, tree)


def make_mesh(devices: Any, names: Sequence[str]) -> Mesh:
    """Builds a mesh whose axes are all Auto; those of `jax.make_mesh` are Explicit from 0.10 on.

    Args:
      devices: the devices, an array or nested list with one dimension per name.
      names: the names of the axes.

    Returns:
      The mesh.

    Example:
      >>> dict(make_mesh(jax.devices()[:1], ("data",)).shape)
      {'data': 1}
    """
    return Mesh(np.array(devices), tuple(names), axis_types=(AxisType.Auto,) * len(names))


def set_cpu_devices(n: int) -> bool:
    """Asks for `n` virtual CPU devices, without starting a backend.

    Args:
      n: the number of devices, at least 1.

    Returns:
      True if the request holds, False if a backend is already up and it came too late.
    """
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError:
        return False
    return True
