"""Reading the landmark files of a clip: ours, MediaPipe's and OpenFace's, .npz and .csv.

Nothing of a file is trusted: size, names, shapes and values are checked. Letters: t frames.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import DataError, UnsafeFileError, check_file, requirement
from talking_heads_jax.serialization.npz_file import read_npz
from talking_heads_jax.tracking.landmark_tables import read_table
from talking_heads_jax.tracking.landmarks import (
    MAX_FRAMES,
    NUM_LANDMARKS,
    NUM_MEDIAPIPE,
    Landmarks,
    from_mediapipe,
)

MAX_FILE_BYTES = 2**31  # two hours of MediaPipe's points as text are less
_LARGEST_PX = 1e6  # no frame is that wide: what lies beyond is damage, not a landmark
_REMEDY = "See docs/tracking.md for the landmark files that are read."


def read_landmarks(path: Path, *, frame_size: tuple[int, int] | None = None) -> Landmarks:
    """Reads a landmark file: our .npz, MediaPipe's points as .npz or .csv, OpenFace's .csv.

    An .npz holds `landmarks68_px` (t 68 2), or (68 2) for a still, and optionally `visible` (t 68)
    and `yaw_pitch_roll_deg` (t 3) in the public convention; or else `landmarks478_px` (t 478 2 or
    3). What a .csv holds, `landmark_tables` says. A motion file of ours is such an .npz.

    Args:
      path: the file.
      frame_size: height, width of the clip's frames; only needed for a .csv whose coordinates are
        shares of the frame.

    Returns:
      The landmarks.

    Raises:
      DataError: the file is missing, damaged, too large, or holds other names, shapes or values.
    """
    path = Path(path)
    check_file(path, DataError, max_bytes=MAX_FILE_BYTES)
    if path.suffix.lower() == ".csv":
        return check_landmarks(path, read_table(path, frame_size))
    return check_landmarks(path, _read_archive(path))


def check_landmarks(path: Path, landmarks: Landmarks) -> Landmarks:
    """Raises unless the arrays of a file fit each other and hold a face.

    Args:
      path: the file, for messages.
      landmarks: what was read.

    Returns:
      The same, invisible where a point is missing.

    Raises:
      DataError: for misshapen arrays, no finite point at all, or points outside any frame.
    """
    points, visible, angles = landmarks.points_px, landmarks.visible, landmarks.angles
    fits = points.ndim == 3 and points.shape[1:] == (NUM_LANDMARKS, 2)
    fits = fits and visible.shape == points.shape[:2] and 0 < len(points) <= MAX_FRAMES
    fits = fits and (angles is None or angles.shape == (len(points), 3))
    if not fits:
        raise _unlike(path, "hold landmarks68_px (t 68 2)", points.shape)
    known = np.isfinite(points).all(-1)
    if not known.any():
        raise _unlike(path, "hold a face", "no finite point in any frame")
    if (np.abs(points[known]) > _LARGEST_PX).any():
        raise _unlike(path, f"hold pixels up to {_LARGEST_PX:.0f}", np.abs(points[known]).max())
    points = np.where(known[..., None], points, np.float32(np.nan))
    visible = (visible.astype(bool) & known).astype(np.uint8)
    return dataclasses.replace(landmarks, points_px=points, visible=visible)


def _read_archive(path: Path) -> Landmarks:
    try:
        content = read_npz(path, f"{path}", max_bytes=MAX_FILE_BYTES)
        if "landmarks68_px" in content:
            return _ours(content)
        if "landmarks478_px" in content:
            points = np.asarray(content["landmarks478_px"], np.float32)
            points = points[None] if points.ndim == 2 else points
            if points.ndim != 3 or points.shape[1] != NUM_MEDIAPIPE or points.shape[2] < 2:
                raise _unlike(path, "hold landmarks478_px (t 478 2 or 3)", points.shape)
            return from_mediapipe(points)
    except UnsafeFileError as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, TypeError) as error:
        raise _unlike(path, "hold landmarks68_px", error) from error
    raise _unlike(path, "hold landmarks68_px or landmarks478_px", sorted(content) or "nothing")


def _ours(content: dict[str, Any]) -> Landmarks:
    points = np.asarray(content["landmarks68_px"], np.float32)
    points = points[None] if points.ndim == 2 else points
    visible, angles = np.ones(points.shape[:2], np.uint8), None
    if "visible" in content:
        visible = np.asarray(content["visible"]).astype(np.uint8).reshape(-1, NUM_LANDMARKS)
    if "yaw_pitch_roll_deg" in content:
        angles = np.deg2rad(np.asarray(content["yaw_pitch_roll_deg"], np.float32)).reshape(-1, 3)
    return Landmarks(points, visible, angles)


def _unlike(path: Path, constraint: str, got: object) -> DataError:
    return DataError(requirement(f"{path}", constraint, got, _REMEDY))
