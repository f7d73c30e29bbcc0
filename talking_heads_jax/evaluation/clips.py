"""What an evaluation reads: clips whose frames can be asked for by number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from talking_heads_jax.batch import BYTE_LEVEL


class Clip(NamedTuple):
    """One video to evaluate on; nothing is read until a frame is asked for.

    Attributes:
      clip_id: its name in the data set and in reports.
      frames: number -> (h w 3) uint8, or float in [0, 1].
      identity_id: who is shown; clips of one person are not independent. Empty: nobody else's.
      masks: number -> (h w) uint8 of classes, 0 for background (see `metrics.regions`); None where
        the data has none.
      landmarks: number -> (n 2) in pixels, NaN where there is no face; None where the data has
        none.
      angles: number -> (3,) yaw, pitch, roll in radians; None likewise.
      expression_coeffs: number -> (d,) of the data set's morphable model; None likewise.
      joint_pose: number -> (3 j,) axis-angle per joint of that model, radians; None likewise.
      vertices: number -> (v 3) of the face mesh: x, y in pixels, z in the same scale (smaller is
        nearer); None likewise.
      shape_coeffs: number -> (d,) of the morphable model; None likewise.
      morphable: number -> name of the model that coefficients and vertices belong to, '' where the
        clip has none; None likewise.
    """

    clip_id: str
    frames: Sequence[np.ndarray]
    identity_id: str = ""
    masks: Sequence[np.ndarray] | None = None
    landmarks: Sequence[np.ndarray] | None = None
    angles: Sequence[np.ndarray] | None = None
    expression_coeffs: Sequence[np.ndarray] | None = None
    joint_pose: Sequence[np.ndarray] | None = None
    vertices: Sequence[np.ndarray] | None = None
    shape_coeffs: Sequence[np.ndarray] | None = None
    morphable: Sequence[str] | None = None

    @property
    def person(self) -> str:
        """Who is shown; the clip's name where that is not known."""
        return str(self.identity_id or self.clip_id)


def as_unit_float(frame: np.ndarray) -> np.ndarray:
    """A frame as float32 in [0, 1]; bytes are multiplied by `BYTE_LEVEL`.

    Args:
      frame: (... h w 3) uint8, or float in [0, 1].
    """
    frame = np.asarray(frame)
    if frame.dtype == np.uint8:
        return frame.astype(np.float32) * np.float32(BYTE_LEVEL)
    return frame.astype(np.float32)


def as_bytes(frame: np.ndarray) -> np.ndarray:
    """A frame as uint8: clipped to [0, 1] and rounded to the nearest of 256 levels.

    Args:
      frame: (... h w 3) float in [0, 1], or uint8, which is left alone.
    """
    frame = np.asarray(frame)
    if frame.dtype == np.uint8:
        return frame
    return np.rint(np.clip(frame.astype(np.float32), 0, 1) * np.float32(255)).astype(np.uint8)
