"""Anyone's frames as a row of a table, and our own frames written in the same layout.

FOLDER/<name of the pair in pairs.json>/ holds one png or jpg per driving frame, in the order of
their numbers; or FOLDER/<name>.mkv (mov, avi, mp4) is a video of them, which is scored as it
decodes. A clip may also be given whole, one frame for each frame of the driving clip: those that
the pair names are scored.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ArgumentError, DataError, MediaError, requirement
from talking_heads_jax.evaluation.answers import Answer, DrivingBatch, Predict, Task
from talking_heads_jax.evaluation.clips import as_bytes, as_unit_float
from talking_heads_jax.evaluation.pairs import Pair
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.media.video import VideoReader

_PICTURES = (".png", ".jpg", ".jpeg")
_VIDEOS = (".mkv", ".mov", ".avi", ".mp4")


class FolderAnswer(Answer):
    """Frames that some system wrote; read one batch at a time."""

    def __init__(
        self,
        name: str,
        folder: Path,
        pairs: Sequence[Pair],
        *,
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> None:
        """Checks that every pair has its frames; decodes nothing but what has to be counted.

        Args:
          name: of the row.
          folder: see the module.
          pairs: that will be scored.
          limits: what is refused in a picture or video.

        Raises:
          DataError: a pair is missing, or has another number of frames; names it.
          MediaError: a file cannot be read.
        """
        self._name, self._folder, self._limits = name, Path(folder), limits
        if not self._folder.is_dir():
            raise DataError(
                requirement(
                    f"predictions '{name}'",
                    "be a folder",
                    self._folder,
                    "It holds a folder of frames per pair, named as in pairs.json.",
                )
            )
        self._sources = {pair.name: self._find(pair) for pair in pairs}

    def bind(self, task: Task) -> Predict:
        """Opens the frames of a pair."""
        pair = task.pair
        files, whole = self._sources[pair.name]
        wanted = pair.driving_frames if whole else range(len(pair.driving_frames))
        count = pair.driving_length if whole else len(pair.driving_frames)
        frames = self._frames(pair, files, list(wanted), count)
        shape = task.source.shape

        def predict(batch: DrivingBatch) -> np.ndarray:
            images = []
            for _ in range(batch.count):
                image = next(frames, None)
                if image is None:
                    raise self._wrong_count(pair, "fewer than its header states")
                if image.shape != shape:
                    raise DataError(
                        requirement(
                            f"predictions '{self._name}' of pair '{pair.name}'",
                            f"be {shape[1]} x {shape[0]} pixels, as the data",
                            f"{image.shape[1]} x {image.shape[0]}",
                            "Write them at that size, or score against data of their size.",
                        )
                    )
                images.append(image)
            if batch.start + batch.count == len(pair.driving_frames):
                next(frames, None)  # raises where a video goes on
                frames.close()  # with its file
            images += [images[-1]] * (len(batch.frames) - batch.count)
            return as_unit_float(np.stack(images))

        return predict

    def _find(self, pair: Pair) -> tuple[list[Path] | VideoReader, bool]:
        """The files of a pair, and whether they are the whole driving clip."""
        folder = self._folder / pair.name
        videos = [
            path for suffix in _VIDEOS if (path := folder.with_name(pair.name + suffix)).is_file()
        ]
        found: list[Path] | VideoReader
        if folder.is_dir() + len(videos) != 1:
            got = "none" if not videos and not folder.is_dir() else "more than one"
            raise DataError(
                requirement(
                    f"predictions '{self._name}'",
                    f"hold one folder or video '{pair.name}'",
                    f"{got} in {self._folder}",
                    "Name them as pairs.json does.",
                )
            )
        if videos:
            found = VideoReader(videos[0], self._limits)
            count = found.frame_count or sum(1 for _ in found)
        else:
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            for name in names:
                if not name.lower().endswith(_PICTURES):
                    raise DataError(
                        requirement(
                            f"predictions '{self._name}' of pair '{pair.name}'",
                            "hold png or jpg files only",
                            name,
                            "Remove it.",
                        )
                    )
            found = [folder / name for name in sorted(names, key=_in_numbers)]
            count = len(found)
            self._limits.check_frames(f"{folder}", count)
        if count not in (len(pair.driving_frames), pair.driving_length):
            raise self._wrong_count(pair, count)
        return found, count != len(pair.driving_frames)

    def _frames(
        self, pair: Pair, files: list[Path] | VideoReader, numbers: list[int], count: int
    ) -> Iterator[np.ndarray]:
        """The frames of these numbers, of a clip that has `count`."""
        try:
            if isinstance(files, VideoReader):
                wanted = set(numbers)
                # A header may understate: one frame more is looked for behind the last one.
                stop = numbers[-1] + (2 if numbers[-1] == count - 1 else 1)
                with contextlib.closing(files.frames(stop=stop)) as decoded:
                    for index, frame in enumerate(decoded):
                        if index == count:
                            raise self._wrong_count(pair, "more than its header states")
                        if index in wanted:
                            yield frame
                return
            for number in numbers:
                yield read_image(files[number], self._limits)
        except MediaError as error:
            raise MediaError(
                f"predictions '{self._name}' of pair '{pair.name}': {error}"
            ) from error

    def _wrong_count(self, pair: Pair, count: object) -> DataError:
        expected = f"{len(pair.driving_frames)} frames"
        if pair.driving_length != len(pair.driving_frames):
            expected += f" (or {pair.driving_length}, one for each of its driving clip)"
        return DataError(
            requirement(
                f"predictions '{self._name}' of pair '{pair.name}'",
                f"have {expected}",
                count,
                "Write one per driving frame of pairs.json, in order.",
            )
        )


class PredictionWriter:
    """Writes predictions as png files; a pair's folder appears when it is complete."""

    def __init__(self, folder: Path, pairs: Sequence[Pair]) -> None:
        """Creates the folder.

        Args:
          folder: see the module.
          pairs: that will be written; nothing of them may be there.

        Raises:
          ArgumentError: frames of a pair are there already.
        """
        self._folder = Path(folder)
        for pair in pairs:
            if (self._folder / pair.name).exists():
                raise ArgumentError(
                    requirement(
                        "the folder of predictions",
                        "hold none of these pairs yet",
                        self._folder / pair.name,
                        "Give a new folder.",
                    )
                )
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def open(self, pair: Pair) -> Iterator["PredictionSink"]:
        """Yields a sink for the frames of a pair; without an error they stay.

        Args:
          pair: which.
        """
        partial = self._folder / f".{pair.name[:200]}.{os.getpid()}.partial"
        partial.mkdir()
        try:
            yield PredictionSink(partial)
            partial.rename(self._folder / pair.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class PredictionSink:
    """Takes the frames of one pair in order."""

    def __init__(self, folder: Path) -> None:
        """Starts at frame 0.

        Args:
          folder: exists.
        """
        self._folder, self._count = folder, 0

    def write(self, frames: np.ndarray) -> None:
        """Appends frames, rounded to bytes.

        Args:
          frames: (b h w 3) in [0, 1].
        """
        for frame in as_bytes(frames):
            write_image(self._folder / f"frame_{self._count:06d}.png", frame)
            self._count += 1


def _in_numbers(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
