"""Streaming H.264 writing with PyAV: constant memory, deterministic, an old file is never lost.

Letters: h w image.
"""

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from talking_heads_jax.errors import ArgumentError, MediaError, requirement
from talking_heads_jax.media.audio import AudioCopy

# Tags and matrix of standard-definition video (ITU-R BT.601); stated in the file, so every player
# and `VideoReader` convert back with the same one.
_BT601 = 6
_TV_RANGE = 1


class VideoWriter:
    """Writes uint8 RGB frames as an H.264 yuv420p mp4.

    Use as a context manager. The file is written beside its place under a temporary name and
    renamed when the block ends without an exception; otherwise it is removed and whatever stood
    there before is untouched. One encoder thread and no time stamps: the same frames give the same
    bytes. Odd sizes are padded by repeating the last row or column (H.264 stores even sizes).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | Fraction,
        size: tuple[int, int],
        *,
        audio_from: str | os.PathLike[str] | None = None,
        crf: int = 17,
        preset: str = "medium",
    ) -> None:
        """Prepares the writer; nothing is created before the block is entered.

        Args:
          path: ends in .mp4.
          fps: frames per second; below 1 / 1001 that is taken.
          size: (height, width) of the frames.
          audio_from: a video whose sound is carried over, cut at the end of the written frames:
            its packets as they are where mp4 can hold them, as AAC otherwise. A video without
            sound is fine.
          crf: x264 quality, 0 (lossless) to 51.
          preset: x264 speed.

        Raises:
          ArgumentError: a size or rate that makes no video.
          MediaError: the name does not end in .mp4.
        """
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise MediaError(
                requirement("The output video", "end in .mp4", self.path.name, "Rename it.")
            )
        self.size = (int(size[0]), int(size[1]))
        if min(self.size) < 2:
            raise ArgumentError(
                requirement("A video frame", "be at least 2 x 2", size, "Give (height, width).")
            )
        if not fps or fps < 0:
            raise ArgumentError(
                requirement("fps", "be positive", fps, "Use the source's rate, or 25.")
            )
        # A slide show may be slower than the slowest rate of that form, which is not 0.
        self._rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
        self._options = {"crf": str(crf), "preset": preset, "threads": "1"}
        self._audio_from = audio_from
        self._written = 0
        self._container = None

    def __enter__(self) -> "VideoWriter":
        """Opens the temporary file.

        Raises:
          MediaError: the folder cannot be written to, or the sound cannot be read.
        """
        self._temporary = self.path.absolute().with_name(
            f".{self.path.stem}.{os.getpid()}.partial.mp4"
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self._temporary), "w", format="mp4", options={"fflags": "+bitexact"}
            )
            self._open_streams()
        except BaseException as error:
            self._discard()
            if isinstance(error, (av.FFmpegError, OSError)):
                raise self._failure(error) from error
            raise
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame.

        Args:
          frame: uint8 (h w 3) RGB.

        Raises:
          ArgumentError: another dtype or size.
          MediaError: it cannot be encoded or stored.
        """
        if self._container is None:
            raise ArgumentError(
                requirement("VideoWriter", "be open", "a closed writer", "Use it in a with block.")
            )
        if frame.dtype != np.uint8 or frame.shape != (*self.size, 3):
            raise ArgumentError(
                requirement(
                    "A video frame",
                    f"be uint8 {(*self.size, 3)}",
                    f"{frame.dtype} {frame.shape}",
                    "Scale [0, 1] images by 255 and round.",
                )
            )
        odd = (self.size[0] % 2, self.size[1] % 2)
        if any(odd):
            frame = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
        try:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(
                format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG"
            )
            picture.pts, picture.time_base = self._written, 1 / self._rate
            self._container.mux(self._video.encode(picture))
            self._written += 1
            if self._audio is not None:
                self._audio.copy_until(self._container, float(self._written / self._rate))
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finishes the file and moves it to its place, or removes it after an exception.

        Raises:
          MediaError: no frame was written, or the file cannot be stored.
        """
        if kind is not None:
            self._discard()
            return
        try:
            if not self._written:
                raise MediaError(
                    requirement(
                        f"{self.path}",
                        "have at least one frame",
                        "none",
                        "Check that the driving video is not empty.",
                    )
                )
            self._container.mux(self._video.encode(None))
            if self._audio is not None:
                self._audio.finish(self._container)
                self._audio.close()
            self._container.close()
            self._container = None
            self._temporary.replace(self.path)
        except (av.FFmpegError, OSError) as failure:
            raise self._failure(failure) from failure
        finally:
            self._discard()

    def _open_streams(self) -> None:
        video = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        height, width = self.size
        video.height, video.width = height + height % 2, width + width % 2
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.time_base = 1 / self._rate
        context.flags |= av.codec.context.Flags.bitexact.value
        context.colorspace = context.color_primaries = context.color_trc = _BT601
        context.color_range = _TV_RANGE
        self._video = video
        self._audio = None
        if self._audio_from is not None:
            self._audio = AudioCopy.open(self._audio_from, self._container)

    def _discard(self) -> None:
        """Closes what is open and removes the temporary file, if it still exists."""
        audio = getattr(self, "_audio", None)
        if audio is not None:
            audio.close()
        if self._container is not None:
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()
            self._container = None
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _failure(self, error: BaseException) -> MediaError:
        reason = getattr(error, "strerror", None) or error
        return MediaError(
            requirement(
                f"{self.path}", "be writable", reason, "Check the folder, its space and rights."
            )
        )
