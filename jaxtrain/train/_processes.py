"""Several processes, on one machine or many, that train one model together."""

import os

import jax
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 10


def use_processes(
    coordinator: str | None = None,
    *,
    process_id: int | None = None,
    processes: int | None = None,
) -> None:
    """Joins the processes of one job; after it, `jax.devices()` are those of all of them.

    Call it first in every process, before anything uses a device. From then on SIGTERM to any of
    them makes `fit` save and leave in all of them, after the same step; and when one dies the
    others end too, at the latest when it has been silent for 10 seconds.

    Args:
        coordinator: "HOST:PORT" of process 0, which listens on that address alone unless the
            variable JAX_COORDINATOR_BIND_ADDRESS names another; None asks the cluster (Slurm, Open
            MPI, Google Kubernetes Engine, TPU pods) for all that is not given.
        process_id: the number of this process, from 0.
        processes: how many there are.

    Raises:
        ValueError: there is no such cluster, or the arguments are incomplete.
    """
    jax.distributed.initialize(
        coordinator,
        processes,
        process_id,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        coordinator_bind_address=os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator),
    )


def barrier(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
