"""Streaming video decoding with PyAV: constant memory, one decoder, no file but the one named.

Letters: h w image.
"""

import contextlib
import os
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from talking_heads_jax.errors import MediaError, requirement
from talking_heads_jax.media.containers import check_complete, sniff_container
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits

#: Used when neither the container nor the codec states a rate (some GIFs, raw streams).
FALLBACK_FPS = Fraction(25)

# No protocol at all: the bytes come from a Python file object, nothing may be opened by name.
_NO_PROTOCOLS = {"protocol_whitelist": "none"}
_DAMAGED = "Download it again, or re-encode it."


class VideoReader:
    """A video file as a stream of uint8 RGB frames (h w 3), upright.

    Every iteration opens the file anew and holds one decoder, so a reader can be iterated any
    number of times and memory does not grow with the clip. Alpha is dropped, YUV is converted by
    the colour space the file states, rotation metadata (phones) is applied.

    Attributes:
      path: the file.
      container: 'mov', 'matroska', 'gif' or 'avi'.
      fps: average frames per second as the container states it (an exact fraction); the codec's
        guess, then `FALLBACK_FPS`, where it states none.
      frame_count: frames as the container states them, None when it does not.
      height: rows of a delivered frame, after rotation.
      width: columns of a delivered frame, after rotation.
      rotation: degrees of counter-clockwise turn applied to the stored frames: 0, 90, 180 or 270.
      duration_s: seconds as the container states them, or None.
      has_audio: whether there is an audio stream.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        limits: MediaLimits = DEFAULT_LIMITS,
        *,
        threads: int = 1,
    ) -> None:
        """Reads the header and the first frame.

        Args:
          path: an mp4, mov, webm, mkv, gif or avi file, whatever its name.
          limits: what is refused.
          threads: decoder threads; 0 lets libav choose. The frames do not depend on it.

        Raises:
          MediaError: the file is not a video, is empty, truncated or too large, or has no video
            stream that can be decoded.
        """
        self.path = Path(path)
        self._limits = limits
        self._threads = threads
        self._open_iterations = weakref.WeakSet()
        self.container = sniff_container(self.path)
        check_complete(self.path, self.container)
        with _open(self.path, self.container) as (container, stream):
            context = stream.codec_context
            limits.check_pixels(f"{self.path}", context.height, context.width)
            self.duration_s = None
            if container.duration is not None:
                self.duration_s = container.duration / av.time_base
            limits.check_duration(f"{self.path}", self.duration_s)
            self.frame_count = stream.frames or None
            limits.check_frames(f"{self.path}", self.frame_count or 0)
            self.fps = Fraction(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)
            self.has_audio = bool(container.streams.audio)
            first = next(_decode(self.path, container, stream, threads, limits), None)
            if first is None:
                raise MediaError(
                    requirement(f"{self.path}", "have a decodable frame", "none", _DAMAGED)
                )
            self.rotation = round(first.rotation / 90) * 90 % 360
            self._stored_size = (first.height, first.width)
        turned = self.rotation in (90, 270)
        self.height, self.width = self._stored_size[::-1] if turned else self._stored_size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a delivered frame."""
        return self.height, self.width

    def __iter__(self) -> Iterator[np.ndarray]:
        """Iterates over every frame, uint8 (h w 3) RGB."""
        return self.frames()

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1
    ) -> Iterator[np.ndarray]:
        """Iterates over the frames of `range(start, stop, step)`; no other is converted.

        Args:
          start: first frame.
          stop: one past the last frame, None for the end.
          step: distance of the delivered frames.

        Returns:
          An iterator over uint8 (h w 3) RGB; it holds the file open until it ends or is closed.

        Raises:
          MediaError: while iterating: a frame cannot be decoded or changes size, or there are too
            many.
        """
        return self._images(self.timed_frames(start, stop, step))

    def timed_frames(
        self, start: int = 0, stop: int | None = None, step: int = 1
    ) -> Iterator[tuple[float | None, np.ndarray]]:
        """Iterates as `frames`, with the moment at which each frame is shown.

        Args:
          start: first frame.
          stop: one past the last frame, None for the end.
          step: distance of the delivered frames.

        Returns:
          An iterator over (seconds as the container states them, None where it does not; uint8
          (h w 3) RGB). With a variable frame rate the seconds are not evenly spaced.

        Raises:
          MediaError: while iterating, as `frames`.
        """
        iteration = self._frames(start, stop, step)
        self._open_iterations.add(iteration)
        return iteration

    def close(self) -> None:
        """Ends the iterations that are still under way and closes their files."""
        for iteration in list(self._open_iterations):
            iteration.close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _images(timed: Iterator[tuple[float | None, np.ndarray]]) -> Iterator[np.ndarray]:
        with contextlib.closing(timed):
            for _, image in timed:
                yield image

    def _frames(
        self, start: int, stop: int | None, step: int
    ) -> Iterator[tuple[float | None, np.ndarray]]:
        with _open(self.path, self.container) as (container, stream):
            stored = _decode(self.path, container, stream, self._threads, self._limits)
            for index, frame in enumerate(stored):
                if stop is not None and index >= stop:
                    return
                self._limits.check_frames(f"{self.path}", index + 1)
                if (frame.height, frame.width) != self._stored_size:
                    raise MediaError(
                        requirement(
                            f"{self.path} frame {index}",
                            f"have the size of the first, {self._stored_size[::-1]}",
                            (frame.width, frame.height),
                            "Re-encode the video at one size.",
                        )
                    )
                if index >= start and (index - start) % step == 0:
                    image = frame.to_ndarray(format="rgb24")
                    if self.rotation:
                        image = np.ascontiguousarray(np.rot90(image, self.rotation // 90))
                    yield frame.time, image


class _open:
    """Context manager: (container, first video stream) of a file, opened by handle."""

    def __init__(self, path: Path, container: str) -> None:
        self._path, self._format = path, container

    def __enter__(self) -> tuple["av.container.InputContainer", "av.VideoStream"]:
        self._file = self._path.open("rb")
        try:
            self._container = av.open(
                self._file, "r", format=self._format, options=dict(_NO_PROTOCOLS)
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            self._file.close()
            raise MediaError(
                requirement(f"{self._path}", "be a readable video", _reason(error), _DAMAGED)
            ) from error
        streams = self._container.streams.video
        if not streams or streams[0].codec_context is None:
            found = [f"{s.type}" for s in self._container.streams] or "no stream"
            self.__exit__(None, None, None)
            raise MediaError(
                requirement(
                    f"{self._path}", "have a video stream that can be decoded", found, _DAMAGED
                )
            )
        return self._container, streams[0]

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._file.close()


def _decode(
    path: Path,
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    threads: int,
    limits: MediaLimits,
) -> Iterator[av.VideoFrame]:
    context = stream.codec_context
    context.thread_count = threads
    context.thread_type = "AUTO" if threads != 1 else "SLICE"
    # The decoder allocates by the stream's own header, which may differ from the container's.
    context.options = {"max_pixels": str(limits.max_pixels)}
    index = 0
    try:
        for frame in container.decode(stream):
            yield frame
            index += 1
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            requirement(f"{path} frame {index}", "be decodable", _reason(error), _DAMAGED)
        ) from error


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
