"""Video reading and writing; the implementation is in `video_reader` and `video_writer`."""

from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.media.video_reader import FALLBACK_FPS, VideoReader
from talking_heads_jax.media.video_writer import VideoWriter

__all__ = ["DEFAULT_LIMITS", "FALLBACK_FPS", "MediaLimits", "VideoReader", "VideoWriter"]
