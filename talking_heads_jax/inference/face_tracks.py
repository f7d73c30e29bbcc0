"""The tracks that a mesh-driven system needs of its pictures: from a motion file, or made now.

The code behind them is that of `talking-heads track`.
"""

from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.mesh_motion import check_track_model
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.tracking.detection import Landmarker
from talking_heads_jax.tracking.motion_file import load_motion
from talking_heads_jax.tracking.track import ClipTrack
from talking_heads_jax.tracking.tracker import (
    TrackOptions,
    find_landmarker,
    open_clip,
    track_file,
)


def read_track(
    what: str,
    path: Path,
    morphable: MorphableModel,
    *,
    motion: Path | None = None,
    landmarks: Path | None = None,
    detector: str = "auto",
    landmarker: Landmarker | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> ClipTrack:
    """The fitted track of an image or video, in pixels of its frames.

    Args:
      what: "source" or "driving", for messages; it is part of the options' names.
      path: an image or video, or the motion file itself.
      morphable: the model that the track has to be fitted with.
      motion: the motion file of `path`; then nothing is looked for or fitted.
      landmarks: its landmark file; None finds landmarks by FAN.
      detector: of `detection.DETECTORS`, for FAN.
      landmarker: FAN, if it is loaded already.
      limits: what is refused.

    Returns:
      A track of which at least one frame is fitted.

    Raises:
      ArgumentError: no landmarks can be had, no face is in them, or the motion file is of another
        face model or of other frames.
      DataError: a motion or landmark file cannot be used.
      MediaError: the file cannot be read.
    """
    if motion is not None:
        track = load_motion(motion)
        check_track_model(f"the {what} motion file {motion.name}", track, morphable.name)
        if motion != path:
            _check_frames(what, path, motion, track, limits)
    else:
        if landmarks is None and landmarker is None:
            landmarker = load_landmarker(what)
        options = TrackOptions(detector=detector, landmarks=landmarks, morphable=morphable.name)
        track = track_file(path, options, limits=limits, model=morphable, landmarker=landmarker)
    if not (track.fitted and np.isfinite(track.angles).all(-1).any()):
        raise ArgumentError(
            requirement(
                f"the {what} {path.name}",
                "show a face to which the face model can be fitted",
                "no frame with enough landmarks",
                "Choose other pictures, or check the landmarks: talking-heads track --overlay.",
            )
        )
    return track


def load_landmarker(what: str) -> Landmarker:
    """FAN, for pictures without a landmark file.

    Args:
      what: "source" or "driving".

    Raises:
      ArgumentError: its weights are not registered; says what to give instead.
    """
    landmarker = find_landmarker("auto")
    if landmarker is None:
        raise ArgumentError(
            requirement(
                f"the {what}",
                "have landmarks, because its face is fitted to them",
                "none",
                f"Give --{what}-landmarks FILE (npz, MediaPipe's or OpenFace's csv) or "
                f"--{what}-motion NPZ (of talking-heads track --save), or register FAN's weights "
                "(talking-heads assets add).",
            )
        )
    return landmarker


def _check_frames(
    what: str, path: Path, motion: Path, track: ClipTrack, limits: MediaLimits
) -> None:
    """Raises unless a motion file can be of a picture file: one frame for a still, and its size."""
    with open_clip(path, limits) as clip:
        size, is_still = clip.size, clip.is_still
    if track.frame_size != size or (is_still and len(track) != 1):
        frames = "one frame" if is_still else "frames"
        raise ArgumentError(
            requirement(
                f"the {what} motion file {motion.name}",
                f"be of {path.name}, {frames} of {size[1]}x{size[0]}",
                f"{len(track)} of {track.frame_size[1]}x{track.frame_size[0]}",
                f"Make it again: talking-heads track {path.name} --save {motion.name}.",
            )
        )
