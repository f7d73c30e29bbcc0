"""Stopping on SIGTERM: every process of a run after the same step."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from talking_heads_jax.train.sharding import replicated


class Termination:
    """Whether to stop; with several processes, whether any of them was asked to.

    One process answers from its own flag. Several put their flags into a maximum over the mesh
    which is computed behind the step that is under way and read at the next call: the answer is one
    step old, the same everywhere, and nobody waits for it.
    """

    def __init__(self, mesh: Mesh, *, processes: int | None = None) -> None:
        """Nothing is asked for yet.

        Args:
          mesh: of the run.
          processes: that must agree; default: all of JAX.
        """
        self._requested = False
        self._alone = (jax.process_count() if processes is None else processes) == 1
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(lambda flags: flags.max(), out_shardings=replicated(mesh))
        self._answer: jax.Array | None = None

    def request(self) -> None:
        """Asks to stop; may be called at any moment, in any thread."""
        self._requested = True

    def agreed(self) -> bool:
        """Whether the step that comes is the last. Call it once before every step."""
        if self._alone:
            return self._requested
        mine = np.full(len(self._sharding.addressable_devices), self._requested, np.int32)
        flags = jax.make_array_from_process_local_data(self._sharding, mine)
        answer, self._answer = self._answer, self._any(flags)
        return answer is not None and bool(answer)

    @contextlib.contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """While inside, SIGTERM is a request; only the main thread can do this."""

        def handler(number: int, frame: FrameType | None) -> None:
            self.request()

        try:
            previous = signal.signal(signal.SIGTERM, handler)
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            # None: it was not set from Python, as by `jax.distributed`.
            signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
