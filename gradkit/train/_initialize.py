"""Make a process one of several that train together."""

from __future__ import annotations

from collections.abc import Sequence

import jax

_HEARTBEAT = 30  # seconds; JAX's own 100 leaves the others waiting for longer than a minute


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    local_device_ids: int | Sequence[int] | None = None,
    heartbeat_seconds: int = _HEARTBEAT,
    startup_seconds: int = 300,
) -> None:
    """Join the processes of a run, before anything else of JAX is used.

    Each process of the run calls this, and then the same `fit`. On a cluster that JAX knows
    (Slurm, Open MPI, Kubernetes, TPU pods) nothing has to be given. On CPUs the processes talk by
    gloo. Does nothing if it was called before.

    Args:
        coordinator_address: `"host:port"` of process 0; the port has to be free there.
        num_processes: How many.
        process_id: This one's number, from 0 on.
        local_device_ids: Which of the host's accelerators are this process's. Default: all.
        heartbeat_seconds: After so long without a sign of life, a process counts as lost, and the
            others end.
        startup_seconds: How long to wait for the others.

    Raises:
        ValueError: If something is neither given nor known from the cluster.
        RuntimeError: If JAX was used already, or the others do not come.

    Example:
        >>> initialize("10.0.0.1:1234", num_processes=2, process_id=0)  # doctest: +SKIP
    """
    if jax.distributed.is_initialized():
        return
    if jax.config.jax_cpu_collectives_implementation is None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator_address,
        num_processes,
        process_id,
        local_device_ids,
        initialization_timeout=startup_seconds,
        heartbeat_timeout_seconds=heartbeat_seconds,
        shutdown_timeout_seconds=heartbeat_seconds,
    )
