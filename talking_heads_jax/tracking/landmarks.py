"""The 68 landmarks of a clip: from our files, MediaPipe's 478 points, or OpenFace's tables.

Points are x, y in pixels of the original frame, pixel (i, j) covers [j, j+1) x [i, i+1). Their
order is that of `morphable.landmarks`. Only numpy is imported here. Letters: t frames.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import DataError, UnsafeFileError, check_file, requirement
from talking_heads_jax.morphable.landmarks import LANDMARK_MIRROR, NUM_LANDMARKS
from talking_heads_jax.serialization.npz_file import read_npz

__all__ = [
    "INNER_51",
    "JAW_17",
    "LANDMARK_MIRROR",
    "MEDIAPIPE_68",
    "NUM_MEDIAPIPE",
    "OUTER_EYE_CORNERS",
    "Landmarks",
    "outer_eye_distance",
    "read_landmarks",
]

#: The jaw line. A detector may slide it with the pose: MediaPipe's is the outline of the face seen
#: from the front, FAN's the outline in the image.
JAW_17 = slice(0, 17)
INNER_51 = slice(17, 68)  # everything else: brows, nose, eyes, mouth
OUTER_EYE_CORNERS = (36, 45)

NUM_MEDIAPIPE = 478
#: (68,) the MediaPipe face-mesh point that stands for each landmark; chosen by looking at frames.
MEDIAPIPE_68 = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
        *(168, 197, 5, 4, 75, 97, 2, 326, 305),
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
        *(78, 82, 13, 312, 308, 317, 14, 87),
    ],
    np.int32,
)

SOURCE_FILE, SOURCE_MEDIAPIPE, SOURCE_OPENFACE = "file", "mediapipe", "openface"
MAX_FILE_BYTES = 2**31  # two hours of MediaPipe's points as text are less
MAX_FRAMES = 432_000  # of a clip, as media.limits has it
_LARGEST_PX = 1e6  # no frame is that wide: what lies beyond is damage, not a landmark
_REMEDY = "See docs/tracking.md for the landmark files that are read."


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """What a landmark file holds about one clip.

    Attributes:
      points_px: (t 68 2) float32, NaN in frames without a face.
      visible: (t 68) uint8.
      angles: (t 3) float32 yaw, pitch, roll in radians, or None.
      source: 'file', 'mediapipe' or 'openface'.
      notes: what a user should know, one sentence each.
    """

    points_px: np.ndarray
    visible: np.ndarray
    angles: np.ndarray | None = None
    source: str = SOURCE_FILE
    notes: tuple[str, ...] = ()


def outer_eye_distance(points_px: np.ndarray) -> float:
    """The distance of the outer eye corners, the yardstick of landmark errors.

    Args:
      points_px: (t 68 2) or (68 2); frames without a face are NaN.

    Returns:
      The median over the frames, pixels; NaN without a frame that has both corners apart.
    """
    points = np.asarray(points_px, np.float64).reshape(-1, NUM_LANDMARKS, 2)
    first, second = (points[:, corner] for corner in OUTER_EYE_CORNERS)
    distances = np.linalg.norm(first - second, axis=-1)
    distances = distances[np.isfinite(distances) & (distances > 0)]
    return float(np.median(distances)) if len(distances) else float("nan")


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
        from talking_heads_jax.tracking.landmark_tables import read_table

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


def from_mediapipe(points_px: np.ndarray) -> Landmarks:
    """The 68 landmarks among MediaPipe's 478 points (468, without the irises, serve as well).

    Args:
      points_px: (t n 2 or 3), n at least 468; NaN in frames without a face.

    Returns:
      The landmarks; the jaw line is the outline of MediaPipe's face oval, see `JAW_17`.
    """
    points = np.asarray(points_px)[:, MEDIAPIPE_68, :2].astype(np.float32)
    return Landmarks(points, np.ones(points.shape[:2], np.uint8), source=SOURCE_MEDIAPIPE)


def _read_archive(path: Path) -> Landmarks:
    try:
        content = read_npz(path, f"{path}")
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
