"""What a worker is given of one clip, and how its frames are read. Free of jax at import."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipeline.preprocess.crops import file_hash
from data_pipeline.preprocess.discovery import VIDEO, Source
from data_pipeline.preprocess.track_request import TrackRequest
from talking_heads_jax.errors import DataError, TalkingHeadsError, requirement
from talking_heads_jax.media.image import read_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.tracking.clip_boxes import Box
from talking_heads_jax.tracking.landmarks import Landmarks


@dataclasses.dataclass(frozen=True)
class StageOptions:
    """What decides the bytes of a clip's records.

    Attributes:
      size: height and width of the crops.
      image_format: 'jpeg' or 'png'.
      quality: of jpeg.
      frame_stride: every how many frames one is kept.
      max_frames: at most so many frames are kept of a clip; None for all.
      folder_fps: frames per second of folders of images.
    """

    size: int
    image_format: str = "jpeg"
    quality: int = 95
    frame_stride: int = 1
    max_frames: int | None = None
    folder_fps: float = 25.0


@dataclasses.dataclass(frozen=True)
class StageJob:
    """One clip for a worker.

    Attributes:
      source: the clip.
      staging: the folder that holds all staged clips.
      options: what decides the bytes.
      box: the user's box, or None.
      landmarks: the clip's landmark file, or None.
      limits: what is refused.
      track: how the face is tracked; None tracks nothing.
    """

    source: Source
    staging: Path
    options: StageOptions
    box: Box | None = None
    landmarks: Path | None = None
    limits: MediaLimits = DEFAULT_LIMITS
    track: TrackRequest | None = None


def source_state(source: Source) -> dict[str, int]:
    """Returns size and time stamp of a source, by which an unchanged one is known without reading.

    Args:
      source: the clip.
    """
    states = [path.stat() for path in (source.images or (source.path,))]
    return {
        "bytes": sum(state.st_size for state in states),
        "mtime_ns": max(state.st_mtime_ns for state in states),
    }


def source_hash(source: Source) -> str:
    """Returns the SHA-256 of a video, or of the names and hashes of a folder's images.

    Args:
      source: the clip.
    """
    if source.kind == VIDEO:
        return file_hash(source.path)
    total = hashlib.sha256()
    for path in source.images:
        total.update(f"{path.name} {file_hash(path)}\n".encode())
    return total.hexdigest()


def open_frames(
    job: StageJob, warnings: list[str]
) -> tuple[Iterator[tuple[int, np.ndarray]], int, int, float, int | None]:
    """Opens a clip.

    Args:
      job: the clip.
      warnings: gets a line for every image that is left out.

    Returns:
      (index, frame) pairs, height, width, frames per second, and the number of frames if known.

    Raises:
      MediaError: the video cannot be read.
      DataError: no image of a folder can be read.
    """
    if job.source.kind == VIDEO:
        reader = VideoReader(job.source.path, job.limits)
        return (
            enumerate(reader),
            reader.height,
            reader.width,
            float(reader.fps),
            reader.frame_count,
        )
    images = _read_images(job, warnings)
    first = next(images, None)
    if first is None:
        raise DataError(
            requirement(
                "A folder of images",
                "hold one that can be read",
                warnings[0] if warnings else "none",
                "Save the images again as png.",
            )
        )
    height, width = first[1].shape[:2]

    def same_size() -> Iterator[tuple[int, np.ndarray]]:
        yield first
        for index, image in images:
            if image.shape[:2] != (height, width):
                raise DataError(
                    requirement(
                        f"{job.source.images[index].name}",
                        f"have the size of the first image, {(width, height)}",
                        image.shape[1::-1],
                        "Put clips of different size into different folders.",
                    )
                )
            yield index, image

    return same_size(), height, width, job.options.folder_fps, len(job.source.images)


def _read_images(job: StageJob, warnings: list[str]) -> Iterator[tuple[int, np.ndarray]]:
    for index, path in enumerate(job.source.images):
        try:
            yield index, read_image(path, job.limits)
        except TalkingHeadsError as error:
            warnings.append(f"left out: {error}")


def check_landmark_count(job: StageJob, landmarks: Landmarks, frames: int) -> None:
    """Raises unless a clip's landmarks have a row per frame.

    Args:
      job: the clip.
      landmarks: of its file.
      frames: how many the clip has.

    Raises:
      DataError: another number of rows.
    """
    if len(landmarks.points_px) == frames:
        return
    raise DataError(
        requirement(
            f"{job.landmarks}",
            f"have one row for each of the {frames} frames",
            len(landmarks.points_px),
            "Make the landmarks again from this very video, or remove them.",
        )
    )
