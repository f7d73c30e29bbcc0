"""The checkpoints of a training run: atomic, written in the background, checked when they are read.

A step that turns out to be damaged is skipped for the one before and set aside as
`<step>.damaged`; a disk that is full leaves the last finished step as it is.
"""

import contextlib
import errno
import itertools
import logging
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from talking_heads_jax.checkpoint_description import (
    read_description,
    require_same_model,
    write_description,
)
from talking_heads_jax.checkpoint_items import (
    PARTIAL_MARK,
    STATE,
    STEPS,
    finished_steps,
    load_state,
    split_state,
    verify_items,
    write_checksums,
)
from talking_heads_jax.errors import CheckpointError, DamagedCheckpointError, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.typing import PyTree

_LOCK = ".lock"
_DAMAGED = ".damaged"  # follows the number of a step that was set aside
_THREAD_PATIENCE_S = 60.0
_PATIENCE_S = 3600  # for the other processes of a run
_AGREEMENTS = itertools.count()  # all processes agree equally often, so they count alike
_log = logging.getLogger(__name__)


class TrainingCheckpoints:
    """The checkpoints of one training run, written in the background.

    A state is any tree with an entry `networks`: {name: {params, collections, opt_state,
    ema_params}} (dictionaries or dataclasses); everything else of it is kept as it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: TalkingHead,
        config: Mapping[str, Any] | None = None,
        keep: int = 3,
        keep_period: int | None = None,
    ) -> None:
        """Opens or creates the run's folder, and removes what a killed run left half-written.

        Args:
          folder: the work directory; it may hold logs, and earlier checkpoints of the same model.
          model: written to model.json, or compared with it.
          config: written to config.json, the latest run's.
          keep: number of newest checkpoints to keep.
          keep_period: also keep every step divisible by it.

        Raises:
          CheckpointError: if the folder holds a saved model, or a run of another model.
        """
        self._folder = Path(folder).absolute()
        self._steps_folder = self._folder / STEPS
        if (self._folder / STATE).exists():
            raise CheckpointError(
                requirement(
                    "the training folder",
                    "be new or hold a training run",
                    f"a saved model in {self._folder}",
                    "Choose another --workdir.",
                )
            )
        if (self._folder / "model.json").exists():
            require_same_model(read_description(self._folder), model, self._folder)
        self._keep, self._keep_period = keep, keep_period
        # A run that is only read keeps its description; the first save renews it.
        self._description: tuple[TalkingHead, Mapping[str, Any] | None] | None = (model, config)
        self._manager: Any = None  # of Orbax; reading does without
        self._pending: int | None = None
        self._lock: IO[str] | None = None
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock_or_raise()
            self._remove_partial()
            if not (self._folder / "model.json").exists():
                self._describe()

    def _lock_or_raise(self) -> None:
        """Two runs in one folder would remove each other's half-written steps."""
        if jax.process_index() != 0:
            return
        lock = _open_ordinary(self._folder / _LOCK)
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not a POSIX system: runs without a lock
            pass
        except BlockingIOError as error:
            lock.close()
            raise CheckpointError(
                requirement(
                    f"the training folder {self._folder}",
                    "be used by one run at a time",
                    "another run that has it open",
                    "Wait for it or stop it, or choose another --workdir.",
                )
            ) from error
        except OSError:  # a file system without locks
            pass
        self._lock = lock  # the system frees it with the process, however that ends

    def _describe(self) -> None:
        if self._description is not None and jax.process_index() == 0:
            write_description(self._folder, *self._description)
        self._description = None

    def save(self, step: int, state_tree: PyTree, extra: Mapping[str, Any] | None = None) -> None:
        """Starts writing a checkpoint; returns once the arrays are copied.

        Args:
          step: number of finished steps; a step that exists is not written again.
          state_tree: the training state.
          extra: JSON values that belong to it, for instance the data position.

        Raises:
          CheckpointError: if this or the checkpoint before it cannot be written; the last finished
            one stays, and nothing half-written is left.
        """
        import orbax.checkpoint as ocp

        if step == self._pending or (self._steps_folder / str(step)).exists():
            return
        self.wait()
        with self._writing(step):
            self._describe()
            if self._manager is None:
                self._manager = self._open_manager()
            items = {
                name: ocp.args.StandardSave(tree)
                for name, tree in split_state(state_tree).items()
                if jax.tree.leaves(tree)
            }
            composite = ocp.args.Composite(extra=ocp.args.JsonSave(dict(extra or {})), **items)
            self._pending = step
            self._manager.save(step, args=composite, force=True)

    def _open_manager(self) -> Any:
        import orbax.checkpoint as ocp

        # It stays: after a failure, Orbax's threads may log when nobody listens any more.
        logging.getLogger("absl").addFilter(_quiet_about_errors)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            keep_period=self._keep_period,
            create=True,
            # Reading the steps' metadata would fail on a damaged one; nothing needs it.
            lightweight_initialize=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
        )
        return ocp.CheckpointManager(self._steps_folder, options=options)

    def _seal(self) -> None:
        """Called by Orbax when all items are on disk, before the step gets its name."""
        if jax.process_index() == 0:
            # Where Orbax named it otherwise this fails, and with it the save: never unsealed.
            write_checksums(self._steps_folder / f"{self._pending}{PARTIAL_MARK}")

    def latest_step(self) -> int | None:
        """The newest finished step, or None."""
        return max(finished_steps(self._folder), default=None)

    def restore(
        self, target_tree: PyTree, step: int | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Reads a checkpoint into the structure, dtypes and shardings of a state.

        Damaged steps that are newer than the one that is read are set aside as `<step>.damaged`,
        with a warning: the run will come to these steps again.

        Args:
          target_tree: a state, or its shapes (`jax.ShapeDtypeStruct`, with shardings if wanted).
          step: which; default: the newest that is intact.

        Returns:
          (state, extra).

        Raises:
          CheckpointError: if there is none, it cannot be read, or it does not fit the target.
        """
        self.wait()
        if step is not None:
            folder = self._steps_folder / str(step)
            return load_state(folder, target_tree, verified=verify_items(folder))
        state, extra, skipped = _restore_newest(self._folder, target_tree)
        if jax.process_index() == 0:
            for number in skipped:
                _set_aside(self._steps_folder / str(number))
        if skipped and jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("talking_heads_jax: damaged steps set aside")
        return state, extra

    def wait(self) -> None:
        """Blocks until every started checkpoint is on disk.

        Raises:
          CheckpointError: if one could not be written.
        """
        with self._writing():
            if self._manager is not None:
                self._manager.wait_until_finished()
        self._pending = None

    def close(self) -> None:
        """Finishes writing and releases the background threads.

        Raises:
          CheckpointError: if a checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            self._release()
            if self._lock is not None:
                self._lock.close()

    def _release(self) -> None:
        manager, self._manager, self._pending = self._manager, None, None
        if manager is not None:
            with contextlib.suppress(*_WRITE_ERRORS):  # told when it happened
                manager.close()
            # After a failure, the threads of other items may still write into the partial step.
            for thread in threading.enumerate():
                if type(thread).__module__.startswith("orbax."):
                    with contextlib.suppress(*_WRITE_ERRORS):  # its `join` raises what it met
                        thread.join(_THREAD_PATIENCE_S)

    @contextlib.contextmanager
    def _writing(self, step: int | None = None) -> Iterator[None]:
        """Turns a disk that cannot be written, also in the background, into one line."""
        try:
            yield
        except _WRITE_ERRORS as error:
            reason = _disk_error(error)
            if reason is None:
                raise
            failed = self._pending if self._pending is not None else step
            self._release()
            self._remove_partial()
            good = self.latest_step()
            what = f"checkpoint {failed}" if failed is not None else "the training folder"
            kept = f"Step {good} is intact" if good is not None else "No step was finished"
            raise CheckpointError(
                requirement(
                    f"{what} in {self._folder}",
                    "be writable",
                    reason,
                    f"{kept}; free space, or mend the folder, and run the same command again.",
                )
            ) from error

    def _remove_partial(self) -> None:
        """Removes steps without a name: their run was killed, or their disk was full."""
        if jax.process_index() == 0 and self._steps_folder.is_dir():
            for path in self._steps_folder.glob(f"*{PARTIAL_MARK}*"):
                shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            _log.warning("%s", error)  # the first error is the one to be raised


# What Orbax and TensorStore raise, at once or from the background, when they cannot write.
_WRITE_ERRORS = (OSError, ValueError, RuntimeError)


def restore_other_run(
    folder: Path, target_tree: PyTree, *, model: TalkingHead
) -> tuple[PyTree, dict[str, Any]]:
    """Reads the newest intact step of another run; writes nothing.

    Args:
      folder: of a training run.
      target_tree: see `TrainingCheckpoints.restore`.
      model: of this run.

    Returns:
      (state, extra).

    Raises:
      CheckpointError: if the folder is no training run, of another model, or not readable.
    """
    folder = Path(folder).absolute()
    require_same_model(read_description(folder), model, folder)
    state, extra, _ = _restore_newest(folder, target_tree)
    return state, extra


def _restore_newest(folder: Path, target: PyTree) -> tuple[PyTree, dict[str, Any], list[int]]:
    """(state, extra, newer steps that are damaged)."""
    steps = finished_steps(folder)
    if not steps:
        raise CheckpointError(
            requirement(
                f"training folder {folder}",
                "hold a finished checkpoint",
                "none",
                "Train first, or check --workdir.",
            )
        )
    skipped: list[int] = []
    newest: CheckpointError | None = None
    for step in reversed(steps):
        path = folder / STEPS / str(step)
        problem, found, verified = None, None, True
        try:
            if jax.process_index() == 0:  # looks at the bytes for all: they share the files
                verified = verify_items(path)
        except DamagedCheckpointError as error:
            problem = error
        if _everywhere(problem is None):  # else nobody reads it: some would fail, some wait
            verified = _everywhere(verified)
            try:
                found = load_state(path, target, verified=verified)
            except DamagedCheckpointError as error:
                problem = error
            if _everywhere(problem is None) and found is not None:
                return *found, skipped
        newest = newest or problem
        _log.warning(
            "skipping damaged checkpoint %d: %s", step, problem or "another process cannot read it"
        )
        skipped.append(step)
    raise CheckpointError(
        requirement(
            f"checkpoint {folder / STEPS / str(steps[-1])}",
            "be readable, or one before it",
            newest,
            "Nothing was changed: bring back a copy, or start again in another --workdir.",
        )
    ) from newest


def _everywhere(good: bool) -> bool:
    """Whether something holds in all processes; waits for them."""
    if jax.process_count() == 1:
        return good
    from jax.experimental import multihost_utils
    from orbax.checkpoint import multihost

    # Collectives give up after half a minute (gloo); looking at a large checkpoint takes longer.
    name = f"talking_heads_jax: agreement {next(_AGREEMENTS)}"
    everybody = set(range(jax.process_count()))
    multihost.sync_global_processes(name, timeout=_PATIENCE_S, processes=everybody)
    return bool(np.all(multihost_utils.process_allgather(np.array(good))))


def _set_aside(path: Path) -> None:
    target, number = path.with_name(path.name + _DAMAGED), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}{_DAMAGED}-{number}")
    _log.warning("the damaged checkpoint is kept as %s; remove it when it is of no use", target)
    path.rename(target)


def _open_ordinary(path: Path) -> IO[str]:
    """Opens a file for appending; a pipe would wait for ever, a link could lead elsewhere."""
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    number = os.open(path, os.O_RDWR | os.O_CREAT | careful, 0o644)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return os.fdopen(number, "a")


def _disk_error(error: BaseException) -> str | None:
    """What the operating system says about a file, or None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{os.strerror(error.errno)}{f' ({error.filename})' if error.filename else ''}"
    found = re.search(r"os_error_code='?(\d+)", str(error))  # TensorStore's words
    return os.strerror(int(found[1])) if found else None


def _quiet_about_errors(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that Orbax logs before it raises the same error."""
    return not (record.exc_info and "orbax" in record.pathname)
