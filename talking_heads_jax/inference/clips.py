"""Files around an animation: square frames in; sinks of a video, a picture or a folder out.

Everything streams: a reader holds one frame, a sink keeps none. Letters: t time, h w image.
"""

import contextlib
import errno
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


class _OnePicture:
    """Keeps one frame for a picture."""

    def __init__(self) -> None:
        self.frame: np.ndarray | None = None

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        if self.frame is not None:
            raise MediaError(
                requirement("a picture", "take one frame", "more", f"Write a {VIDEO_SUFFIX}.")
            )
        self.frame = frame


def is_picture(output: Path) -> bool:
    """Whether an output is one picture, by its name, and not a folder of that name.

    Args:
      output: what a user named.
    """
    return output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir()


def check_output(output: Path, inputs: tuple[Path, ...], *, pictures: bool = False) -> None:
    """Raises if the output could not be written, or would destroy what is there.

    To know the first, a file is created beside the output, or in an existing folder, and removed.

    Args:
      output: a video file (replaced if it exists), or a name without suffix: a folder of pictures,
        which must be new or empty.
      inputs: the files that are read.
      pictures: whether it may be a picture, too (replaced if it exists).

    Raises:
      ArgumentError: if the output is one of the inputs, a folder with files, of an unknown suffix,
        or its folder does not exist or cannot be written to.
    """
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise ArgumentError(
            requirement("output", "differ from the inputs", output, "Give another file name.")
        )
    known = output.suffix.lower() in ("", VIDEO_SUFFIX) or (pictures and is_picture(output))
    if not known and not output.is_dir():
        may_be = "a picture, a video or a folder" if pictures else "a video or a folder"
        endings = ", ".join((*(IMAGE_SUFFIXES if pictures else ()), VIDEO_SUFFIX))
        raise ArgumentError(
            requirement(
                "output",
                f"be {may_be}",
                output.name,
                f"End it in {endings}, or in nothing for a folder of png files.",
            )
        )
    if not output.suffix and (output.exists() or output.is_symlink()) and not output.is_dir():
        what = "file" if output.exists() else "broken link"
        raise ArgumentError(
            requirement(
                "output",
                "be a new folder, or a video",
                f"the {what} {output}",
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
    folder = output if output.is_dir() else output.absolute().parent
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{output.name}.", suffix=".partial", dir=folder):
            pass
    except OSError as error:
        raise ArgumentError(
            requirement(
                f"output {output}",
                "be writable",
                error.strerror or error,
                "Choose another folder, or check its rights and space.",
            )
        ) from error


@contextlib.contextmanager
def open_sink(
    output: Path, *, fps: float, size: tuple[int, int], audio_from: Path | None
) -> Iterator[FrameSink]:
    """Opens a video writer, a picture of one frame, or a folder of png files without a suffix.

    In any case nothing appears at `output` unless the block ends without an error.

    Args:
      output: where to; see `check_output`.
      fps: frames per second of the video.
      size: height, width of the frames in pixels.
      audio_from: a video whose sound is carried over; None for silence. Of videos only.

    Yields:
      A sink with `write`.

    Raises:
      MediaError: if it cannot be written, or a picture is given a second frame.
    """
    if is_picture(output):
        picture = _OnePicture()
        yield picture
        if picture.frame is not None:
            write_image(output, picture.frame)
    elif output.suffix and not output.is_dir():
        with VideoWriter(output, fps, size, audio_from=audio_from) as writer:
            yield writer
    else:
        with _picture_folder(output) as folder:
            yield folder


@contextlib.contextmanager
def _picture_folder(output: Path) -> Iterator[_PictureFolder]:
    """Frames are collected in a hidden folder, which is only thrown away if the block fails."""
    # A folder that is there may be a link, a mount point or where we stand: it cannot be replaced.
    inside = output.is_dir()
    home = output if inside else output.absolute().parent
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=home))
    try:
        yield _PictureFolder(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    try:
        if inside:
            _move_up(partial, output)
        else:
            partial.chmod(0o755)
            partial.rename(output)
    except OSError as error:
        raise MediaError(
            requirement(
                f"{output}",
                "take the finished frames",
                error.strerror or error,
                f"They are kept: take them from {partial}.",
            )
        ) from error


def _move_up(partial: Path, folder: Path) -> None:
    """Moves all files of a folder into the one it lies in, if nothing else has come there."""
    if any(path.name != partial.name for path in folder.iterdir()):
        raise FileExistsError(errno.EEXIST, "other files that have come there meanwhile")
    for path in sorted(partial.iterdir()):
        path.rename(folder / path.name)
    partial.rmdir()
