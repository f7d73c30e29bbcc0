"""The loop: batches in, steps, logs, pictures, checkpoints. Nothing here knows a model."""

import collections
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from talking_heads_jax.batch import FramePair
from talking_heads_jax.checkpoints import TrainingCheckpoints
from talking_heads_jax.errors import DataError, NonFiniteError, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.restoration import position, start
from talking_heads_jax.train.rng import run_key, stream
from talking_heads_jax.train.sharding import SpecRule, prefetch, replicated
from talking_heads_jax.train.state import TrainState, network_variables
from talking_heads_jax.train.step import HelperFn, make_train_step
from talking_heads_jax.train.writers import MetricWriter, create_writer, labelled_grid
from talking_heads_jax.typing import PyTree


class Loader(Protocol):
    """What the loop needs of a data loader; the batch of a step depends on the step alone."""

    def iterate(self, start_step: int) -> Iterator[FramePair]:
        """Batches of this process from `start_step` on."""

    def close(self) -> None:
        """Stops threads and workers."""


class Trainer:
    """Runs one stage from wherever it stands to its last step."""

    def __init__(
        self,
        *,
        model: TalkingHead,
        stage: Stage,
        workdir: Path,
        config: Mapping[str, Any],
        mesh: Mesh,
        loader: Loader,
        seed: int,
        helpers: Mapping[str, HelperFn] | None = None,
        helper_params: Mapping[str, PyTree] | None = None,
        sharding_rules: Sequence[SpecRule] = (),
        log_every: int = 50,
        images_every: int = 1000,
        num_images: int = 4,
        save_every: int = 1000,
        keep: int = 3,
        keep_period: int | None = None,
        progress: bool = True,
    ) -> None:
        """Keeps its arguments; files and arrays are made by `run`.

        Args:
          model: the system.
          stage: what is trained, with what, for how long.
          workdir: folder of checkpoints and logs; the run continues what it finds there.
          config: the whole config as JSON types, stored beside the checkpoints.
          mesh: the devices.
          loader: batches of `FramePair`.
          seed: of parameters and random streams.
          helpers: frozen networks by name.
          helper_params: their parameters.
          sharding_rules: see `state_sharding`.
          log_every: steps between two lines of scalars.
          images_every: steps between two picture grids; 0: none.
          num_images: rows of a grid.
          save_every: steps between two checkpoints; the last step is always saved.
          keep: newest checkpoints to keep.
          keep_period: also keep the steps divisible by it.
          progress: show a progress bar.
        """
        self._model, self._stage, self._mesh, self._loader = model, stage, mesh, loader
        self._workdir, self._config, self._seed = Path(workdir), config, seed
        self._helpers = dict(helpers or {})
        self._helper_params = dict(helper_params or {})
        self._rules = tuple(sharding_rules)
        self._log_every, self._images_every = log_every, images_every
        self._num_images, self._save_every = num_images, save_every
        self._keep, self._keep_period = keep, keep_period
        self._progress = progress and jax.process_index() == 0
        self._terminated = False

    def run(self) -> TrainState:
        """Trains until the stage's last step, or until SIGTERM; both save a checkpoint.

        Returns:
          The state after the last step.

        Raises:
          NonFiniteError: a loss or gradient was not finite; the last good state was saved first.
          DataError: the loader ended before the stage.
          CheckpointError: what should be restored is missing or does not fit.
        """
        checkpoints = TrainingCheckpoints(
            self._workdir,
            model=self._model,
            config=self._config,
            keep=self._keep,
            keep_period=self._keep_period,
        )
        with checkpoints, _sigterm_sets(self), contextlib.closing(self._loader):
            begun = start(
                self._model,
                self._stage,
                checkpoints,
                mesh=self._mesh,
                rules=self._rules,
                seed=self._seed,
            )
            first = int(begun.state.step)
            self._say(f"training '{self._stage.name}': {begun.origin}")
            writer = create_writer(
                self._workdir, start_step=first, primary=jax.process_index() == 0
            )
            with contextlib.closing(writer):
                return self._loop(begun.state, begun.sharding, checkpoints, writer)

    def _loop(
        self,
        state: TrainState,
        sharding: PyTree,
        checkpoints: TrainingCheckpoints,
        writer: MetricWriter,
    ) -> TrainState:
        stage, first = self._stage, int(state.step)
        step_fn = make_train_step(
            self._model.networks,
            stage.phases,
            stage.optimizers,
            ema=stage.ema,
            helpers=self._helpers,
            accumulation=stage.accumulation,
            mesh=self._mesh,
            state_sharding=sharding,
        )
        panels = self._compile_panels()
        key = stream(run_key(self._seed), "steps")
        key, helper_params = jax.device_put((key, self._helper_params), replicated(self._mesh))
        batches = prefetch(self._host_batches(first), self._mesh)
        log = _Log(stage.batch_size, self._log_every)
        unchecked: collections.deque[tuple[int, dict]] = collections.deque()
        bar = tqdm(total=stage.num_steps, initial=first, unit="step", disable=not self._progress)
        with bar:
            for step in range(first + 1, stage.num_steps + 1):
                stopping = self._terminated  # read once: the signal may come at any moment
                boundary = stopping or self._is_boundary(step)
                with log.waiting_for_data():
                    pair, _ = next(batches)
                # The first call compiles, which is no training either.
                with log.overhead() if step == first + 1 else contextlib.nullcontext():
                    state, metrics = step_fn(state, pair, helper_params, key)
                unchecked.append((step, metrics))
                # One step behind: the device works on `step` while the one before is read.
                # Nothing is lost by that, a halted state does not change any more.
                while len(unchecked) > (0 if boundary else 1):
                    self._check(*unchecked.popleft(), state, checkpoints)
                log.add(step, metrics)
                bar.update()
                if step % self._log_every == 0 or step == stage.num_steps:
                    scalars = log.flush()
                    writer.write_scalars(step, scalars)
                    bar.set_postfix_str(_summary(scalars))
                if self._images_every and step % self._images_every == 0:
                    with log.overhead():
                        pictures = jax.device_get(panels(state, pair))
                        grid = labelled_grid(pictures, rows=self._num_images)
                        writer.write_images(step, {"panels": grid})
                if boundary:
                    with log.overhead():
                        self._save(state, checkpoints)
                if stopping:
                    self._say(f"SIGTERM: saved step {step}, stopping")
                    break
        checkpoints.wait()
        return state

    def _is_boundary(self, step: int) -> bool:
        """Whether the state after `step` is saved in any case."""
        return step == self._stage.num_steps or step % self._save_every == 0

    def _host_batches(self, first: int) -> Iterator[tuple[FramePair, Any]]:
        """(what the device needs, record ids) from step `first` on."""
        step = first
        for pair in self._loader.iterate(first):
            yield pair._replace(record_ids=None), pair.record_ids
            step += 1
        raise DataError(
            requirement(
                "the data loader",
                f"last until step {self._stage.num_steps}",
                f"an end after {step} steps",
                "Loaders for training repeat their data set.",
            )
        )

    def _check(
        self, step: int, metrics: Mapping[str, Any], state: TrainState, checkpoints: Any
    ) -> None:
        if not float(metrics["nonfinite/any"]):
            return
        names = sorted(
            name.removeprefix("nonfinite/")
            for name, value in metrics.items()
            if name.startswith("nonfinite/") and name != "nonfinite/any" and float(value)
        )
        saved = self._save(state.replace(halted=jax.numpy.zeros_like(state.halted)), checkpoints)
        checkpoints.wait()
        raise NonFiniteError(
            requirement(
                f"losses and gradients of step {step}",
                "be finite",
                f"NaN or infinity in {', '.join(names)}",
                f"The state before it is checkpoint {saved}; lower the learning rate, or look at "
                "the batch of that step.",
            )
        )

    def _save(self, state: TrainState, checkpoints: TrainingCheckpoints) -> int:
        step = int(state.step)
        checkpoints.save(step, state, position(self._stage, self._seed, step))
        return step

    def _compile_panels(self) -> Callable[[TrainState, FramePair], dict[str, jax.Array]]:
        names, count = self._model.inference_networks, self._num_images

        def panels(state: TrainState, pair: FramePair) -> dict[str, jax.Array]:
            few = jax.tree.map(lambda x: x[:count], pair)
            return self._model.panels(network_variables(state, names=names), few)

        return jax.jit(panels, out_shardings=replicated(self._mesh))

    def _say(self, line: str) -> None:
        if self._progress:
            tqdm.write(line)

    def terminate(self) -> None:
        """Makes `run` save and return after the step in progress."""
        self._terminated = True


class _Log:
    """Means of the metrics since the last line, and where the time went."""

    def __init__(self, batch_size: int, log_every: int) -> None:
        self._batch_size = batch_size
        self._rows: collections.deque[dict] = collections.deque(maxlen=max(1, log_every))
        self._born = self._since = time.monotonic()
        self._stall = self._other = self._unproductive = 0.0
        self._step, self._examples = 0, 0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Times the wait for a batch."""
        before = time.monotonic()
        yield
        self._stall += time.monotonic() - before

    @contextlib.contextmanager
    def overhead(self) -> Iterator[None]:
        """Times what is neither waiting nor training."""
        before = time.monotonic()
        yield
        self._other += time.monotonic() - before

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a step, still on the device."""
        self._rows.append(dict(metrics))
        self._step, self._examples = step, self._examples + self._batch_size

    def flush(self) -> dict[str, float]:
        """The scalars of the window, and throughput; waits for the last step.

        Images per second count waiting for data, but not compilation, saving and pictures.
        """
        rows = jax.device_get(list(self._rows))
        scalars = window_means(rows)
        now = time.monotonic()
        window = max(now - self._since, 1e-9)
        self._unproductive += self._stall + self._other
        scalars["perf/images_per_second"] = self._examples / max(window - self._other, 1e-9)
        scalars["perf/input_stall"] = self._stall / window
        scalars["perf/goodput"] = 1.0 - self._unproductive / max(now - self._born, 1e-9)
        scalars["samples"] = float(self._step * self._batch_size)
        self._rows.clear()
        self._since, self._stall, self._other, self._examples = now, 0.0, 0.0, 0
        return scalars


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


def _summary(scalars: Mapping[str, float]) -> str:
    totals = [
        f"{name.split('/')[1]} {value:.3g}"
        for name, value in scalars.items()
        if name.startswith("loss/") and name.endswith("/total")
    ]
    speed = f"{scalars['perf/images_per_second']:.1f} images/s"
    return ", ".join([*totals, speed, f"stall {scalars['perf/input_stall']:.0%}"])


@contextlib.contextmanager
def _sigterm_sets(trainer: Trainer) -> Iterator[None]:
    """While inside, SIGTERM asks the trainer to stop; only the main thread may do this."""

    def handler(number: int, frame: FrameType | None) -> None:
        trainer.terminate()

    try:
        previous = signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
