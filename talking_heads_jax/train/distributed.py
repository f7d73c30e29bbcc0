"""Several processes that train one model: joining them, and waiting for each other.

Collectives give up when a process comes half a minute late (gloo on CPUs), so processes meet before
those that follow work of different length: restoring and compiling.
"""

from collections.abc import Callable
from typing import Any

import jax

from talking_heads_jax.errors import ConfigError, requirement

AUTOMATIC = "auto"
_PATIENCE_S = 3600  # compiling a large model on a busy host takes many minutes


def join_processes(
    coordinator: str | None,
    *,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_s: int = 300,
) -> None:
    """Connects this process with the others of the run; must come before any computation.

    Args:
      coordinator: None or '' for a single process; 'auto' where the cluster describes itself (TPU
        pods, Slurm, Open MPI); else HOST:PORT of process 0, the same for all.
      num_processes: how many there are; only with HOST:PORT.
      process_id: number of this one, from 0; only with HOST:PORT.
      timeout_s: how long to wait for the others, in seconds.

    Raises:
      ConfigError: if the arguments do not fit each other, or the processes do not find each other.
    """
    if not coordinator:
        if num_processes is not None or process_id is not None:
            raise ConfigError(
                requirement(
                    "--coordinator",
                    "be given with --num-processes and --process-id",
                    "nothing",
                    "Add --coordinator HOST:PORT, or leave the two out for a single process.",
                )
            )
        return
    options = {}
    if coordinator != AUTOMATIC:
        if num_processes is None or process_id is None or not 0 <= process_id < num_processes:
            raise ConfigError(
                requirement(
                    "--process-id and --num-processes",
                    "be given with --coordinator HOST:PORT, the first below the second",
                    f"{process_id} and {num_processes}",
                    "Start process i of n with --process-id i --num-processes n.",
                )
            )
        options = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
    try:
        jax.distributed.initialize(initialization_timeout=timeout_s, **options)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            requirement(
                "--coordinator",
                "lead to all processes of the run",
                f"{coordinator}: {' '.join(str(error).split())}",
                "Start all processes within the waiting time, with the same HOST:PORT of process "
                "0; 'auto' needs a TPU pod, Slurm or Open MPI.",
            )
        ) from error


def meet(name: str) -> None:
    """Waits until every process of the run is here; returns at once in a single process.

    Args:
      name: of the place, unique within the run.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    everybody = set(range(jax.process_count()))
    multihost.sync_global_processes(name, timeout=_PATIENCE_S, processes=everybody)


def compile_together(function: Any, *arguments: Any) -> Callable[..., Any]:
    """Compiles a jitted function and waits for the other processes to have done so.

    Args:
      function: jitted.
      *arguments: of its first call.

    Returns:
      What to call; in a single process the function itself, which compiles when it is called.
    """
    if jax.process_count() == 1:
        return function
    compiled = function.lower(*arguments).compile()
    meet("the program is compiled")
    return compiled
