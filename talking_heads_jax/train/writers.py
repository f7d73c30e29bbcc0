"""Where scalars and pictures of a run go: `metrics.jsonl` and TensorBoard, without TensorFlow.

The interface is that of `clu.metric_writers`: `write_scalars(step, scalars)`, `write_images(step,
images)`, `flush`, `close`.
"""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_LABEL_HEIGHT = 14


class MetricWriter(Protocol):
    """Receives what a run measures; calls come in the order of the steps."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records numbers of a step."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Records RGB pictures (h w 3) in [0, 1]."""

    def flush(self) -> None:
        """Puts everything on disk."""

    def close(self) -> None:
        """Flushes; no more calls follow."""


class JsonLinesWriter:
    """One JSON object per call, `{"step": ..., name: number, ...}`; pictures are not kept.

    A resumed run first drops the lines of steps that it will repeat. Where its checkpoint lies
    between two lines, the next line averages the steps since the checkpoint only; elsewhere the
    file reads as if the run had never stopped.
    """

    def __init__(self, path: Path, *, start_step: int = 0) -> None:
        """Opens the file for appending.

        Args:
          path: of the file; its folder exists.
          start_step: lines of later steps, and a last line cut short by a crash, are dropped.
        """
        if path.exists():
            kept = [
                line for line in path.read_text("utf-8").splitlines() if _up_to(line, start_step)
            ]
            temporary = path.with_suffix(".partial")
            temporary.write_text("".join(f"{line}\n" for line in kept), "utf-8")
            os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends a line; a number that is not finite is written as its name."""
        row: dict[str, Any] = {"step": step}
        for name, value in scalars.items():
            number = float(value)
            row[name] = number if math.isfinite(number) else str(number)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Flushes the file."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _up_to(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


class TensorBoardWriter:
    """Event files that TensorBoard reads, through tensorboardX.

    Every call writes at once. tensorboardX's own writer hands over to a thread, and waits for it
    for ever once the disk was full: here the caller gets the error.
    """

    def __init__(self, folder: Path, *, start_step: int = 0) -> None:
        """Starts an event file.

        Args:
          folder: of the event files.
          start_step: TensorBoard hides what an interrupted run logged after it.
        """
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._summary, self._protocol = summary, event_pb2
        folder.mkdir(parents=True, exist_ok=True)
        # Two starts within a second must not share a file.
        suffix = f".{os.getpid()}.{start_step}.{time.monotonic_ns()}"
        self._events = EventsWriter(str(folder / "events"), suffix)
        if start_step:
            begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(start_step + 1, session_log=begin)

    def _write(self, step: int, **content: Any) -> None:
        event = self._protocol.Event(wall_time=time.time(), step=step, **content)
        self._events.write_event(event)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds one point to each curve."""
        for name, value in scalars.items():
            self._write(step, summary=self._summary.scalar(name, float(value)))
        self.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Adds pictures."""
        for name, image in images.items():
            picture = self._summary.image(name, to_uint8(image), dataformats="HWC")
            self._write(step, summary=picture)
        self.flush()

    def flush(self) -> None:
        """Flushes the event file."""
        self._events.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()


class MultiWriter:
    """Passes every call to several writers."""

    def __init__(self, writers: Sequence[MetricWriter]) -> None:
        """Keeps the writers, in order."""
        self._writers = tuple(writers)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records numbers of a step."""
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Records RGB pictures (h w 3) in [0, 1]."""
        for writer in self._writers:
            writer.write_images(step, images)

    def flush(self) -> None:
        """Puts everything on disk."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Closes all."""
        for writer in self._writers:
            writer.close()


def create_writer(workdir: Path, *, start_step: int = 0, primary: bool = True) -> MultiWriter:
    """The writers of a run: `metrics.jsonl`, and `tensorboard/` where tensorboardX is installed.

    Args:
      workdir: folder of the run; created.
      start_step: where the run continues.
      primary: False writes nothing (all processes but the first).
    """
    if not primary:
        return MultiWriter([])
    workdir.mkdir(parents=True, exist_ok=True)
    writers: list[MetricWriter] = [
        JsonLinesWriter(workdir / "metrics.jsonl", start_step=start_step)
    ]
    try:
        writers.append(TensorBoardWriter(workdir / "tensorboard", start_step=start_step))
    except ImportError:
        (workdir / "tensorboard-missing.txt").write_text(
            "TensorBoard files need tensorboardX: pip install 'talking_heads_jax[tensorboard]'\n"
        )
    return MultiWriter(writers)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """[0, 1] -> 0..255, rounded; values outside are clipped.

    Args:
      image: float, any shape.
    """
    return np.round(np.clip(np.asarray(image, np.float32), 0, 1) * 255).astype(np.uint8)


def labelled_grid(panels: Mapping[str, np.ndarray], *, rows: int) -> np.ndarray:
    """One picture: a column per panel with its name above, a row per example.

    Args:
      panels: name -> (b h w 3) in [0, 1], all of one size.
      rows: at most this many examples.

    Returns:
      (H W 3) float32 in [0, 1].
    """
    from PIL import Image, ImageDraw

    columns = []
    for name, images in panels.items():
        images = np.asarray(images, np.float32)[:rows]
        width = images.shape[2]
        label = Image.new("RGB", (width, _LABEL_HEIGHT), "white")
        ImageDraw.Draw(label).text((1, 1), name.replace("_", " "), fill="black")
        strip = np.clip(images.reshape(-1, width, 3), 0, 1)
        columns.append(np.concatenate([np.asarray(label, np.float32) / 255, strip]))
    return np.concatenate(columns, axis=1)
