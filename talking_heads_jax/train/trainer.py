"""The loop: batches in, steps, logs, pictures, checkpoints. Nothing here knows a model."""

import collections
import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from talking_heads_jax.batch import FramePair
from talking_heads_jax.checkpoints import TrainingCheckpoints
from talking_heads_jax.errors import CheckpointError, DataError, NonFiniteError, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.train.distributed import compile_together, meet
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.restoration import position, start
from talking_heads_jax.train.rng import run_key, stream
from talking_heads_jax.train.sample_log import SampleLog
from talking_heads_jax.train.sharding import SpecRule, local_rows, prefetch, put_state, replicated
from talking_heads_jax.train.state import TrainState, network_variables
from talking_heads_jax.train.step import HelperFn, make_train_step
from talking_heads_jax.train.termination import Termination
from talking_heads_jax.train.throughput import Throughput, summary
from talking_heads_jax.train.writers import MetricWriter, create_writer, labelled_grid
from talking_heads_jax.typing import PyTree

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        log_sample_ids: bool = True,
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
          log_sample_ids: keep the record ids of every sample in `samples/`.
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
        self._log_sample_ids = log_sample_ids
        self._data_fingerprint = getattr(loader, "fingerprint", None)
        self._termination = Termination(mesh)

    def run(self) -> TrainState:
        """Trains until the stage's last step, or until SIGTERM; both save a checkpoint.

        Returns:
          The state after the last step.

        Raises:
          NonFiniteError: a loss or gradient was not finite; the last good state was saved first.
          DataError: the loader ended before the stage.
          CheckpointError: what should be restored is missing or does not fit.
        """
        clock = Throughput(self._stage.batch_size, self._log_every)
        checkpoints = TrainingCheckpoints(
            self._workdir,
            model=self._model,
            config=self._config,
            keep=self._keep,
            keep_period=self._keep_period,
        )
        with (
            _full_disk_is_told(checkpoints),
            checkpoints,
            self._termination.on_sigterm(),
            contextlib.closing(self._loader),
        ):
            with clock.overhead():
                begun = start(
                    self._model,
                    self._stage,
                    checkpoints,
                    mesh=self._mesh,
                    rules=self._rules,
                    seed=self._seed,
                    data_fingerprint=self._data_fingerprint,
                )
            first = int(begun.state.step)
            source = getattr(self._loader, "description", "")
            data = f"; data: {source}" if source else ""
            self._say(f"training '{self._stage.name}': {begun.origin}{data}")
            with contextlib.ExitStack() as files:
                writer = create_writer(
                    self._workdir, start_step=first, primary=jax.process_index() == 0
                )
                files.enter_context(contextlib.closing(writer))
                samples = self._open_sample_log(first)
                if samples is not None:
                    files.enter_context(contextlib.closing(samples))
                return self._loop(
                    begun.state, begun.sharding, _Records(checkpoints, writer, samples, clock)
                )

    def _open_sample_log(self, first: int) -> SampleLog | None:
        if not self._log_sample_ids:
            return None
        return SampleLog(
            self._workdir,
            start_step=first,
            rows=local_rows(self._mesh, self._stage.batch_size),
            process=jax.process_index(),
            processes=jax.process_count(),
        )

    def _loop(
        self,
        state: TrainState,
        sharding: PyTree,
        records: "_Records",
    ) -> TrainState:
        writer, clock = records.writer, records.clock
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
        key, helper_params = put_state((key, self._helper_params), replicated(self._mesh))
        batches = prefetch(self._host_batches(first), self._mesh, batch_size=stage.batch_size)
        unchecked: collections.deque[tuple[int, dict]] = collections.deque()

        def busy() -> bool:
            return bool(unchecked) and not unchecked[-1][1]["nonfinite/any"].is_ready()

        meet("the loop begins")
        bar = tqdm(total=stage.num_steps, initial=first, unit="step", disable=not self._progress)
        with bar:
            for step in range(first + 1, stage.num_steps + 1):
                stopping = self._termination.agreed()
                boundary = stopping or self._is_boundary(step)
                with clock.waiting_for_data(busy):
                    pair, record_ids = next(batches)
                # The first call compiles, which is no training either.
                with clock.overhead() if step == first + 1 else contextlib.nullcontext():
                    if step == first + 1:
                        step_fn = compile_together(step_fn, state, pair, helper_params, key)
                    state, metrics = step_fn(state, pair, helper_params, key)
                if records.samples is not None:
                    records.samples.add(step, record_ids)
                unchecked.append((step, metrics))
                # One step behind: the device works on `step` while the one before is read.
                # Nothing is lost by that, a halted state does not change any more.
                while len(unchecked) > (0 if boundary else 1):
                    self._check(*unchecked.popleft(), state, records)
                clock.add(step, metrics)
                bar.update()
                if step % self._log_every == 0 or step == stage.num_steps:
                    scalars = clock.flush()
                    writer.write_scalars(step, scalars)
                    bar.set_postfix_str(summary(scalars))
                if self._images_every and step % self._images_every == 0:
                    with clock.overhead():
                        pictures = jax.device_get(panels(state, pair))
                        grid = labelled_grid(pictures, rows=self._num_images)
                        writer.write_images(step, {"panels": grid})
                if boundary:
                    with clock.overhead():
                        self._save(state, records)
                if stopping:
                    self._say(f"SIGTERM: saved step {step}, stopping")
                    break
        with clock.overhead():
            records.checkpoints.wait()
        self._say(_last_line(first, int(state.step), clock))
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
        self, step: int, metrics: Mapping[str, Any], state: TrainState, records: "_Records"
    ) -> None:
        if not float(metrics["nonfinite/any"]):
            return
        names = sorted(
            name.removeprefix("nonfinite/")
            for name, value in metrics.items()
            if name.startswith("nonfinite/") and name != "nonfinite/any" and float(value)
        )
        saved = self._save(state.replace(halted=jax.numpy.zeros_like(state.halted)), records)
        records.checkpoints.wait()
        raise NonFiniteError(
            requirement(
                f"losses and gradients of step {step}",
                "be finite",
                f"NaN or infinity in {', '.join(names)}",
                f"The state before it is checkpoint {saved}; lower the learning rate, or look at "
                "the batch of that step.",
            )
        )

    def _save(self, state: TrainState, records: "_Records") -> int:
        step = int(state.step)
        if records.samples is not None:
            records.samples.flush()  # a checkpoint never knows more samples than the log
        records.checkpoints.save(
            step, state, position(self._stage, self._seed, step, self._data_fingerprint)
        )
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
        self._termination.request()


class _Records(NamedTuple):
    """What a run writes to, and its clock."""

    checkpoints: TrainingCheckpoints
    writer: MetricWriter
    samples: SampleLog | None
    clock: Throughput


def _last_line(first: int, last: int, clock: Throughput) -> str:
    if last == first:
        return f"step {last}: nothing was left to train"
    totals = clock.totals()
    return (
        f"step {last}: {last - first} steps in {totals.seconds:.0f} s, goodput "
        f"{totals.goodput:.1%}, input stall {totals.input_stall:.1%}"
    )


@contextlib.contextmanager
def _full_disk_is_told(checkpoints: TrainingCheckpoints) -> Iterator[None]:
    """A log that cannot grow ends the run like a checkpoint that cannot: in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        good = checkpoints.latest_step()
        kept = f"Checkpoint {good} is intact" if good is not None else "There is no checkpoint"
        raise CheckpointError(
            requirement(
                "the training folder",
                "have room for the logs",
                f"{os.strerror(error.errno)}{f' ({error.filename})' if error.filename else ''}",
                f"{kept}; free space, then run the same command: it continues from there.",
            )
        ) from error
