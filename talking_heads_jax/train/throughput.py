"""Where the time of a run goes, and the means of its metrics.

Wall time counts from the start of the run: restoring and compiling included. It is split into
* stall: the host waited for a batch while the device had nothing left to do;
* overhead: restoring, compiling, saving (what does not happen in the background), pictures;
* the rest, which is productive: steps. `goodput` is its share of the wall time.
"""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Totals(NamedTuple):
    """A run so far.

    Attributes:
      seconds: wall time.
      goodput: share of it spent on steps.
      input_stall: share of it spent waiting for data.
    """

    seconds: float
    goodput: float
    input_stall: float


class Throughput:
    """Means of the metrics since the last line, and where the time went."""

    def __init__(
        self, batch_size: int, log_every: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Starts the clock.

        Args:
          batch_size: samples of a step over all processes.
          log_every: at most so many steps between two calls of `flush`.
          clock: seconds.
        """
        self._batch_size, self._clock = batch_size, clock
        self._rows: collections.deque[dict] = collections.deque(maxlen=max(1, log_every))
        self._born = self._since = clock()
        self._stall = self._other = 0.0  # of the window
        self._all_stall = self._all_other = 0.0  # of the windows before it
        self._step, self._examples = 0, 0

    @contextlib.contextmanager
    def waiting_for_data(self, busy: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Times the wait for a batch.

        Args:
          busy: asked afterwards: whether the device still works on the step before. Then it did not
            wait, and nothing is counted; else the whole wait is, an upper bound.
        """
        before = self._clock()
        yield
        waited = self._clock() - before
        if not busy():
            self._stall += waited

    @contextlib.contextmanager
    def overhead(self) -> Iterator[None]:
        """Times what is neither waiting nor training."""
        before = self._clock()
        yield
        self._other += self._clock() - before

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a step, still on the device."""
        self._rows.append(dict(metrics))
        self._step, self._examples = step, self._examples + self._batch_size

    def flush(self) -> dict[str, float]:
        """The scalars of the window, and throughput; waits for the last step.

        Images per second count waiting for data, but not the overhead.
        """
        rows = jax.device_get(list(self._rows))
        scalars = window_means(rows)
        now = self._clock()
        window = max(now - self._since, 1e-9)
        scalars["perf/images_per_second"] = self._examples / max(window - self._other, 1e-9)
        scalars["perf/input_stall"] = self._stall / window
        scalars["perf/goodput"] = self.totals(now).goodput
        scalars["samples"] = float(self._step * self._batch_size)
        self._rows.clear()
        self._all_stall, self._all_other = (
            self._all_stall + self._stall,
            self._all_other + self._other,
        )
        self._since, self._stall, self._other, self._examples = now, 0.0, 0.0, 0
        return scalars

    def totals(self, now: float | None = None) -> Totals:
        """The run so far.

        Args:
          now: on the clock; default: its time.
        """
        seconds = max((self._clock() if now is None else now) - self._born, 1e-9)
        stall = self._all_stall + self._stall
        lost = stall + self._all_other + self._other
        return Totals(seconds, max(0.0, 1.0 - lost / seconds), stall / seconds)


def window_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of metrics over steps; a phase with an interval counts where it ran.

    Args:
      rows: the metrics of each step, on the host.

    Returns:
      Metric -> mean; without those of phases that never ran, and without `nonfinite/...` zeros.
    """
    means = {}
    for name in rows[0] if rows else ():
        kind, _, rest = name.partition("/")
        if kind == "nonfinite":
            continue
        values = np.array([float(row[name]) for row in rows])
        phase = f"active/{rest.split('/')[0]}"
        if kind in ("loss", "grad_norm") and phase in rows[0]:
            values = values[np.array([bool(row[phase]) for row in rows])]
        if values.size:
            means[name] = float(values[-1] if kind == "learning_rate" else values.mean())
    return means


def summary(scalars: Mapping[str, float]) -> str:
    """A few of the scalars, for the progress bar.

    Args:
      scalars: of `Throughput.flush`.
    """
    totals = [
        f"{name.split('/')[1]} {value:.3g}"
        for name, value in scalars.items()
        if name.startswith("loss/") and name.endswith("/total")
    ]
    speed = f"{scalars['perf/images_per_second']:.1f} images/s"
    stall = f"stall {scalars['perf/input_stall']:.0%}"
    return ", ".join([*totals, speed, stall, f"goodput {scalars['perf/goodput']:.0%}"])
