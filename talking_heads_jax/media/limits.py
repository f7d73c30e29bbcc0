"""Bounds on what a media file may ask for, checked before memory is spent on it."""

import dataclasses

from talking_heads_jax.errors import MediaError, requirement

#: Pixels of the shorter side below which a picture shows nothing to crop or animate.
SMALLEST_SIDE = 8


@dataclasses.dataclass(frozen=True)
class MediaLimits:
    """How large an image or video may be; anything beyond is refused before it is decoded.

    The command line's names are --max-pixels, --max-clip-frames and --max-duration.

    Attributes:
      max_pixels: pixels of one image or frame. 64 million is above 8K video and phone photographs.
      max_frames: frames of one video; two hours at 60 frames a second.
      max_duration_s: seconds of one video, as its container states them.
    """

    max_pixels: int = 64_000_000
    max_frames: int = 432_000
    max_duration_s: float = 7200.0

    def check_pixels(self, what: str, height: int, width: int) -> None:
        """Raises if an image of this size is empty or exceeds `max_pixels`.

        Args:
          what: the file, as the user knows it.
          height: rows.
          width: columns.

        Raises:
          MediaError: with the size and the limit.
        """
        if height < 1 or width < 1 or height * width > self.max_pixels:
            raise MediaError(
                requirement(
                    what,
                    f"have between 1 and {self.max_pixels} pixels",
                    f"{width} x {height}",
                    "Shrink it first, or raise --max-pixels if you trust it.",
                )
            )

    def check_duration(self, what: str, seconds: float | None) -> None:
        """Raises if a stated duration exceeds `max_duration_s`; an unknown one passes.

        Args:
          what: the file, as the user knows it.
          seconds: the duration the container states, or None.

        Raises:
          MediaError: with the duration and the limit.
        """
        if seconds is not None and seconds > self.max_duration_s:
            raise MediaError(
                requirement(
                    what,
                    f"last at most {self.max_duration_s:g} s",
                    f"{seconds:.1f} s",
                    "Cut it into parts, or raise --max-duration.",
                )
            )

    def check_frames(self, what: str, frames: int) -> None:
        """Raises if a video has delivered, or states, more than `max_frames` frames.

        Args:
          what: the file, as the user knows it.
          frames: the number of frames so far, or stated.

        Raises:
          MediaError: with the limit.
        """
        if frames > self.max_frames:
            raise MediaError(
                requirement(
                    what,
                    f"have at most {self.max_frames} frames",
                    f"{frames} or more",
                    "Cut it into parts, or raise --max-clip-frames.",
                )
            )


def check_side(what: str, height: int, width: int) -> None:
    """Raises if a picture is too small to show a face; no option changes that.

    Args:
      what: the file, as the user knows it.
      height: rows.
      width: columns.

    Raises:
      MediaError: with the size and the smallest side.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise MediaError(
            requirement(
                what,
                f"be at least {SMALLEST_SIDE} pixels high and wide",
                f"{width} x {height}",
                "Use a larger picture; enlarging this one would show nothing.",
            )
        )


DEFAULT_LIMITS = MediaLimits()
