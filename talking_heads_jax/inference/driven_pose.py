"""A motion file as the driver: which models take one, and the head's turns it asks for.

Angles are yaw, pitch, roll in radians, signs as in `geometry.rotations`. Letters: t frames.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.animator import POSE_EDITOR, check_pose_editor
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.models.registry import list_models, model_class
from talking_heads_jax.tracking.motion_file import MAX_FRAMES, SUFFIX
from talking_heads_jax.tracking.track import ClipTrack

#: What a motion file holds of `TalkingHead.required_inputs`.
MOTION_INPUTS = frozenset({"coefficients", "vertices", "camera"})


@dataclasses.dataclass(frozen=True)
class PoseMotion:
    """The turns of a motion file, evenly spaced in time.

    Attributes:
      offsets_rad: (t 3) changes of yaw, pitch, roll since the rest frame.
      fps: frames per second.
      rest: number of the rest frame in the file.
      notes: what the user should know.
    """

    offsets_rad: np.ndarray
    fps: float
    rest: int
    notes: tuple[str, ...]


def is_motion_file(path: Path) -> bool:
    """Whether a driving input is taken for a motion file rather than for a video.

    Args:
      path: a file name.
    """
    return path.suffix.lower() == SUFFIX


def check_motion_model(model: TalkingHead, variables: Mapping[str, Any]) -> None:
    """Raises unless a motion file can drive the model: by its pose editor.

    Args:
      model: the system.
      variables: network name -> variables, of trained networks only.

    Raises:
      ArgumentError: the model has no pose editor; says which models take motion files.
      CheckpointError: it has one, but the checkpoint did not train it.
    """
    if POSE_EDITOR in model.networks:
        check_pose_editor(model, variables)
        return
    classes = {name: model_class(name) for name in list_models()}
    editors = [name for name in classes if POSE_EDITOR in classes[name].optional_inference_networks]
    by_mesh = [name for name in classes if classes[name].required_inputs & MOTION_INPUTS]
    raise ArgumentError(
        requirement(
            f"the driving input of {model.name}",
            "be a video: its motion is keypoints that it sees in pictures",
            "a motion file, which holds angles and coefficients",
            "Give the video itself. Motion files drive models with a trained pose editor "
            f"({', '.join(editors) or 'none here'}: the head's turn only) and models that need "
            f"coefficients or a mesh ({', '.join(by_mesh) or 'none here'}).",
        )
    )


def pose_motion(
    track: ClipTrack, *, rest: int | None = None, pose_deg: tuple[float, float, float] | None = None
) -> PoseMotion:
    """The head's turns in a tracked clip, relative to a frame of it.

    Frames without a face hold the turn before them. Frames at uneven times are interpolated to the
    clip's average rate.

    Args:
      track: of a fitted clip.
      rest: frame whose pose counts as rest; None takes the first with a face.
      pose_deg: yaw, pitch, roll in degrees, added to every frame.

    Returns:
      The motion.

    Raises:
      ArgumentError: no frame has angles, or the rest frame is not there or has none; or the times
        and the rate of an unevenly timed clip ask for too many frames.
    """
    known = np.isfinite(track.angles).all(-1)
    if not known.any():
        raise ArgumentError(
            requirement(
                "the motion file",
                "hold the head's angles",
                "none in any frame",
                "Make it with a face model: talking-heads track VIDEO --morphable procedural.",
            )
        )
    frames = np.flatnonzero(known)
    rest = int(frames[0]) if rest is None else rest
    if not (0 <= rest < len(track) and known[rest]):
        raise ArgumentError(
            requirement(
                "best frame",
                f"be a frame of the motion file with a face, 0 to {len(track) - 1}",
                rest,
                "Choose another one, or auto.",
            )
        )
    before = np.maximum.accumulate(np.where(known, np.arange(len(track)), frames[0]))
    angles = np.unwrap(track.angles[before].astype(np.float64), axis=0)
    angles -= angles[rest]
    notes = []
    if not known.all():
        notes.append(f"motion: {np.sum(~known)} of {len(track)} frames have no face: held still")
    if track.variable_frame_rate:
        if (track.time_s[-1] - track.time_s[0]) * track.fps > MAX_FRAMES:
            raise ArgumentError(
                requirement(
                    "the motion file",
                    f"be of at most {MAX_FRAMES} evenly spaced frames",
                    f"{track.fps:g} a second up to second {track.time_s[-1]:.0f}",
                    "Track the clip again, or a part of it.",
                )
            )
        times = np.arange(track.time_s[0], track.time_s[-1] + 0.5 / track.fps, 1 / track.fps)
        angles = np.stack([np.interp(times, track.time_s, angle) for angle in angles.T], axis=-1)
        notes.append(f"motion: frames at uneven times, interpolated to {track.fps:g} frames/s")
    if pose_deg is not None:
        angles = angles + np.deg2rad(pose_deg)
    return PoseMotion(angles.astype(np.float32), track.fps, rest, tuple(notes))
