"""Files around an animation: square frames in, video or picture-folder sinks out.

Everything streams: a reader holds one frame, a sink keeps none. Letters: t time, h w image.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from talking_heads_jax.errors import ArgumentError, MediaError, requirement
from talking_heads_jax.media.image import IMAGE_SUFFIXES, read_image, write_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.media.resize import resize_image
from talking_heads_jax.media.video import VideoReader, VideoWriter

VIDEO_SUFFIX = ".mp4"


def is_video(path: Path) -> bool:
    """Whether a file is taken for a video (or animated gif) rather than for a still.

    Args:
      path: a file name.

    Returns:
      True unless the name ends as an image's does; the readers then judge by content.
    """
    return path.suffix.lower() not in IMAGE_SUFFIXES


def centre_square(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """The largest square about the centre of an image; a view, not a copy.

    Args:
      image: (h w 3).

    Returns:
      (s s 3), s the shorter side; an odd surplus goes to the bottom or right.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def fit_frame(image: UInt8[np.ndarray, "h w 3"], resolution: int) -> UInt8[np.ndarray, "r r 3"]:
    """The centre square of an image at the model's resolution, antialiased when it shrinks.

    Args:
      image: (h w 3) uint8 RGB.
      resolution: pixels a side.

    Returns:
      (r r 3) uint8; the pixels themselves when they already fit.
    """
    square = centre_square(image)
    if square.shape[0] == resolution:
        return np.ascontiguousarray(square)
    return resize_image(square, (resolution, resolution))


def framing_note(what: str, size: tuple[int, int], resolution: int) -> str | None:
    """What `fit_frame` does to frames of a size, for the user to read.

    Args:
      what: "source" or "driving".
      size: height, width in pixels.
      resolution: the model's.

    Returns:
      One line, or None when the frames stay as they are.
    """
    height, width = size
    if height != width:
        side = min(size)
        return (
            f"{what}: {width}x{height} is not square; the centre {side}x{side} is used and resized "
            f"to {resolution}x{resolution} (crop it yourself if the face is elsewhere)"
        )
    if height != resolution:
        return f"{what}: resized from {width}x{height} to {resolution}x{resolution}"
    return None


def still_or_first_frame(
    path: Path, limits: MediaLimits = DEFAULT_LIMITS
) -> UInt8[np.ndarray, "h w 3"]:
    """The image of a still, or the first frame of a video.

    Args:
      path: an image or video file.
      limits: what is refused.

    Returns:
      (h w 3) uint8 RGB.

    Raises:
      MediaError: if the file cannot be read.
    """
    return frame_at(path, 0, limits) if is_video(path) else read_image(path, limits)


def frame_at(
    path: Path, index: int, limits: MediaLimits = DEFAULT_LIMITS
) -> UInt8[np.ndarray, "h w 3"]:
    """One frame of a video, found by decoding from its start (exact for every codec).

    Args:
      path: a video.
      index: which frame, from 0.
      limits: what is refused.

    Returns:
      (h w 3) uint8 RGB.

    Raises:
      MediaError: if the file cannot be read, or has not that many frames.
    """
    for frame in VideoReader(path, limits).frames(index, index + 1):
        return frame
    raise MediaError(
        requirement(
            f"{path}",
            f"have a frame number {index}",
            "a shorter clip",
            "Choose another best frame, or check that the landmarks are of this clip.",
        )
    )


def held_frames(
    path: Path, limits: MediaLimits = DEFAULT_LIMITS
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """The frames of a video and their numbers, the last one repeated for ever.

    Args:
      path: a video.
      limits: what is refused.

    Yields:
      Number of the frame, (h w 3) uint8.

    Raises:
      MediaError: if the file cannot be read.
    """
    for numbered in enumerate(VideoReader(path, limits)):
        last = numbered
        yield numbered
    while True:
        yield last


class FrameSink(Protocol):
    """What takes finished frames."""

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Takes the next frame."""


class _PictureFolder:
    """Writes frames as numbered png files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        write_image(self._folder / f"frame_{self._count:06d}.png", frame)
        self._count += 1


def check_output(output: Path, inputs: tuple[Path, ...]) -> None:
    """Raises if the output could not be written, or would destroy what is there.

    Args:
      output: a video file (replaced if it exists), or a name without suffix: a folder of pictures,
        which must be new or empty.
      inputs: the files that are read.

    Raises:
      ArgumentError: if the output is one of the inputs, a folder with files, of an unknown suffix,
        or its parent folder does not exist.
    """
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise ArgumentError(
            requirement("output", "differ from the inputs", output, "Give another file name.")
        )
    if output.suffix.lower() not in ("", VIDEO_SUFFIX) and not output.is_dir():
        raise ArgumentError(
            requirement(
                "output",
                "be a video or a folder",
                output.name,
                f"End it in {VIDEO_SUFFIX}, or in nothing for a folder of png files.",
            )
        )
    if not output.suffix and output.exists() and not output.is_dir():
        raise ArgumentError(
            requirement(
                "output",
                "be a new folder, or a video",
                f"the file {output}",
                f"Give another name, or end it in {VIDEO_SUFFIX}.",
            )
        )
    if output.is_dir() and any(output.iterdir()):
        raise ArgumentError(
            requirement("output folder", "be new or empty", output, "Give another name.")
        )
    if not output.absolute().parent.is_dir():
        raise ArgumentError(
            requirement("output", "lie in an existing folder", output, "Create the folder first.")
        )


@contextlib.contextmanager
def open_sink(
    output: Path, *, fps: float, size: tuple[int, int], audio_from: Path | None
) -> Iterator[FrameSink]:
    """Opens a video writer, or a folder of png files when the name has no suffix.

    Either way nothing appears at `output` unless the block ends without an error.

    Args:
      output: where to; see `check_output`.
      fps: frames per second of the video.
      size: height, width of the frames in pixels.
      audio_from: a video whose sound is carried over; None for silence. Ignored for folders.

    Yields:
      A sink with `write`.

    Raises:
      MediaError: if the video cannot be written.
    """
    if output.suffix and not output.is_dir():
        with VideoWriter(output, fps, size, audio_from=audio_from) as writer:
            yield writer
        return
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.absolute().parent))
    try:
        yield _PictureFolder(partial)
        partial.chmod(0o755)
        if output.is_dir():
            output.rmdir()
        partial.rename(output)
    finally:
        if partial.exists():
            shutil.rmtree(partial, ignore_errors=True)
