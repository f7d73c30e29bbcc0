"""The source of an animation, still or video. Letters: h w image, r the model's side."""

import collections
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from talking_heads_jax.inference.animate_options import AnimateOptions
from talking_heads_jax.inference.clips import held_frames, is_video, still_or_first_frame
from talking_heads_jax.inference.framing import find_framing
from talking_heads_jax.media.limits import check_side
from talking_heads_jax.tracking.paste import paste_back
from talking_heads_jax.tracking.track import ClipTrack


class Scene:
    """The source: its picture, what the model sees of it, and the way back.

    Attributes:
      portrait: (h w 3) uint8, the still or the video's first frame.
      framing: which part of it the model sees.
    """

    def __init__(
        self,
        path: Path,
        resolution: int,
        options: AnimateOptions,
        note: Callable[[str | None], None],
        *,
        track: ClipTrack | None = None,
    ) -> None:
        """Reads the source, or its first frame, and finds its crop.

        Args:
          path: an image or video.
          resolution: r.
          options: the crop, and what becomes of it.
          note: takes what was done.
          track: what is known of the source already, see `find_framing`.

        Raises:
          ArgumentError: it cannot be cropped as asked for.
          DataError: its landmark file cannot be used.
          MediaError: it cannot be read.
        """
        self.portrait = still_or_first_frame(path, options.limits)
        check_side(f"{path}", *self.portrait.shape[:2])
        self.framing = find_framing(
            "source",
            path,
            self.portrait.shape[:2],
            resolution,
            options.framing("source"),
            options.limits,
            track=track,
        )
        for text in self.framing.notes:
            note(text)
        self._path, self._options = path, options
        # Frames on their way through the network: two batches at most.
        self._under_way: collections.deque[tuple[int, np.ndarray]] = collections.deque()

    def sources(self) -> Iterator[np.ndarray] | None:
        """The model's squares of a source video, without end; None for a still."""
        return self._crops() if is_video(self._path) else None

    def _crops(self) -> Iterator[np.ndarray]:
        for index, frame in held_frames(self._path, self._options.limits):
            if self._options.paste_back:
                self._under_way.append((index, frame))
            yield self.framing.crop(frame, index)

    def output_size(self, resolution: int) -> tuple[int, int]:
        """Height and width of what is written.

        Args:
          resolution: r.
        """
        if self._options.paste_back:
            return self.portrait.shape[:2]
        return resolution, resolution * (3 if self._options.side_by_side else 1)

    def finished(self, prediction: np.ndarray) -> np.ndarray:
        """The next source frame with the prediction in its place.

        Args:
          prediction: (r r 3) uint8.
        """
        index, frame = self._under_way.popleft() if self._under_way else (0, self.portrait)
        return paste_back(frame, prediction, self.framing.alignment(index))
