"""The record ids of every sample a run has seen, in files that a resumed run continues exactly.

`<workdir>/samples/from_<step>_process_<p>_of_<n>.bin`: one file per process, and a new set of files
wherever a run continued on another number of processes. Little-endian; a header of 40 bytes (magic,
version, samples per step in this process, process, processes, finished steps before the first row),
then four int64 per sample: step (from 1), row of the global batch, source record, driving record.
The samples of a step lie together. Processes whose devices share rows of the batch all log them.
"""

import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from talking_heads_jax.errors import DataError, requirement

FOLDER = "samples"
_MAGIC, _VERSION = b"THJAXIDS", 1
_HEADER = struct.Struct("<8sIIIIqq")  # the last number is reserved
_SAMPLE = np.dtype([("step", "<i8"), ("row", "<i8"), ("source", "<i8"), ("driving", "<i8")])
_NAME = re.compile(r"from_(\d{10})_process_(\d+)_of_(\d+)\.bin")


class _Segment(NamedTuple):
    """One file: process `process` of `processes`, from the step after `start` on."""

    path: Path
    start: int
    process: int
    processes: int


class SampleLog:
    """Appends the record ids of a process, step by step."""

    def __init__(
        self,
        workdir: Path,
        *,
        start_step: int,
        rows: Sequence[int],
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Continues the log of a run at a step, or begins it.

        What later steps left behind is cut off, a half-written row included.

        Args:
          workdir: of the run.
          start_step: finished steps of the restored state.
          rows: of the global batch that this process reads, in the order of its record ids.
          process: this process.
          processes: of the run.
        """
        folder = workdir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        mine: list[_Segment] = []
        foreign_start = -1
        for segment in _segments(folder):
            own = (segment.process, segment.processes) == (process, processes)
            # Files of other process counts are shortened by the first process, once.
            if own or (process == 0 and segment.processes != processes):
                if segment.start >= start_step and not (own and segment.start == start_step):
                    segment.path.unlink()
                    continue
                _cut(segment, start_step)
            if segment.processes != processes and segment.start < start_step:
                foreign_start = max(foreign_start, segment.start)
            if own:
                mine.append(segment)
        batch = len(rows)
        self._rows, self._batch, self._step = np.asarray(rows), batch, start_step
        newest = max(mine, key=lambda segment: segment.start, default=None)
        continues = (
            newest is not None
            and newest.start > foreign_start
            and _reaches(newest, start_step, batch)
        )
        header = _HEADER.pack(_MAGIC, _VERSION, batch, process, processes, start_step, 0)
        if continues:
            self._file = newest.path.open("ab")
        else:
            name = f"from_{start_step:010d}_process_{process}_of_{processes}.bin"
            self._file = (folder / name).open("wb")
            self._file.write(header)
            self._file.flush()

    def add(self, step: int, record_ids: np.ndarray) -> None:
        """Takes the samples of a step; they are on disk after `flush`.

        Args:
          step: its number, from 1; one more than the last.
          record_ids: (b 2) source and driving records of this process.

        Raises:
          DataError: if the batch has another size, or a step was left out.
        """
        ids = np.asarray(record_ids)
        if ids.shape != (self._batch, 2) or step != self._step + 1:
            raise DataError(
                requirement(
                    "the record ids of a step",
                    f"be {self._batch} pairs of step {self._step + 1}",
                    f"{ids.shape} of step {step}",
                    "A loader gives `record_ids` (b 2), or set log.sample_ids=False.",
                )
            )
        samples = np.empty(self._batch, _SAMPLE)
        samples["step"], samples["row"] = step, self._rows
        samples["source"], samples["driving"] = ids[:, 0], ids[:, 1]
        self._file.write(samples.tobytes())
        self._step = step

    def flush(self) -> None:
        """Puts everything on disk; comes before the checkpoint of the same step."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes; no more calls follow."""
        self._file.close()


def read_sample_log(workdir: Path) -> dict[int, np.ndarray]:
    """The samples of every step of a run.

    Args:
      workdir: of the run.

    Returns:
      Step (from 1) -> (b 2) int64, source and driving records in the order of the whole batch,
      whatever number of processes read it.

    Raises:
      DataError: if there is no log, a file is damaged, or the file of a process is missing.
    """
    segments = _segments(workdir / FOLDER)
    if not segments:
        raise _broken(workdir / FOLDER, "no sample log")
    groups: dict[tuple[int, int], dict[int, dict[int, np.ndarray]]] = {}
    for segment in segments:
        group = groups.setdefault((segment.start, segment.processes), {})
        group[segment.process] = _read(segment)
    steps: dict[int, np.ndarray] = {}
    for (start, processes), group in sorted(groups.items()):
        if set(group) != set(range(processes)):
            raise _broken(workdir / FOLDER, f"{len(group)} of {processes} files from step {start}")
        # A killed run may have written more in one process than in another.
        for step in sorted(set.intersection(*(set(rows) for rows in group.values()))):
            parts = np.concatenate([group[process][step] for process in range(processes)])
            _, first = np.unique(parts["row"], return_index=True)
            batch = parts[first]
            steps[step] = np.stack([batch["source"], batch["driving"]], axis=-1)
    return steps


def _segments(folder: Path) -> list[_Segment]:
    if not folder.is_dir():
        return []
    found = ((path, _NAME.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return [_Segment(path, *map(int, match.groups())) for path, match in found if match]


def _read_header(segment: _Segment) -> int | None:
    """Samples per step of a file, or None if it is not one of ours or cut within its header."""
    with segment.path.open("rb") as stream:
        header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, version, batch, process, processes, start, _ = _HEADER.unpack(header)
    named = (segment.process, segment.processes, segment.start)
    good = (magic, version) == (_MAGIC, _VERSION) and (process, processes, start) == named
    return batch if good and batch > 0 else None


def _cut(segment: _Segment, step: int) -> None:
    """Drops the rows after `step`, and a step that is not complete."""
    batch = _read_header(segment)
    if batch is None:
        return
    row = batch * _SAMPLE.itemsize
    complete = (segment.path.stat().st_size - _HEADER.size) // row
    os.truncate(segment.path, _HEADER.size + row * max(0, min(complete, step - segment.start)))


def _reaches(segment: _Segment, step: int, batch: int) -> bool:
    """Whether a file, already cut, ends with exactly this step and has this batch."""
    size = _HEADER.size + (step - segment.start) * batch * _SAMPLE.itemsize
    return _read_header(segment) == batch and segment.path.stat().st_size == size


def _read(segment: _Segment) -> dict[int, np.ndarray]:
    """Step -> samples of the file."""
    batch = _read_header(segment)
    if batch is None:
        raise _broken(segment.path, "no header of a sample log")
    data = segment.path.read_bytes()[_HEADER.size :]
    row = batch * _SAMPLE.itemsize
    samples = np.frombuffer(data[: len(data) // row * row], _SAMPLE).reshape(-1, batch)
    steps = segment.start + 1 + np.arange(len(samples))
    if not np.array_equal(samples["step"], np.broadcast_to(steps[:, None], samples.shape)):
        raise _broken(segment.path, "samples out of order")
    return dict(zip(steps.tolist(), samples, strict=True))


def _broken(path: Path, got: str) -> DataError:
    return DataError(
        requirement(
            f"the sample log {path}", "be complete", got, "Runs write it with log.sample_ids=True."
        )
    )
