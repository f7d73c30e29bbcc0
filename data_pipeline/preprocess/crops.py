"""Where to crop: one square box per clip, from a given box, stored landmarks, or the centre.

Boxes are x0 y0 x1 y1 in pixels of the original frame, pixel (i, j) covers [j, j+1) x [i, i+1).
Letters: t time.
"""

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import DataError, UnsafeFileError, check_file, requirement
from talking_heads_jax.serialization.npz_file import read_npz

Box = tuple[float, float, float, float]

#: Side of a landmark crop over the larger side of the landmarks' box. The 68 points reach from the
#: brows to the chin; this takes in hair, ears and the top of the shoulders, as FOMM's crops do.
LANDMARK_SCALE = 1.75
#: How far the crop's centre lies above the landmarks' centre, as a share of the crop's side: the
#: forehead has no landmarks.
LANDMARK_LIFT = 0.12

RULE_BOX = "box"
RULE_LANDMARKS = "landmarks"
RULE_CENTRE = "centre"


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """What a landmark file holds about one clip.

    Attributes:
      points_px: (t 68 2) float32 x, y in pixels of the original frame, Multi-PIE order.
      visible: (t 68) uint8.
      angles: (t 3) float32 yaw, pitch, roll in radians, or None.
    """

    points_px: np.ndarray
    visible: np.ndarray
    angles: np.ndarray | None = None


def find_landmarks(folder: Path, stem: str) -> Path | None:
    """Returns the landmark file of a clip.

    Tried in turn: `<stem>_landmarks.npz`, `<stem>.npz`, and both without a trailing size such as
    `_256`.

    Args:
      folder: where to look.
      stem: the clip's file name without ending.
    """
    for name in (stem, re.sub(r"_\d+$", "", stem)):
        for candidate in (folder / f"{name}_landmarks.npz", folder / f"{name}.npz"):
            if candidate.is_file():
                return candidate
    return None


def read_landmarks(path: Path) -> Landmarks:
    """Reads a landmark file: `landmarks68_px` (t 68 2), and more where it is known.

    Optional are `visible` (t 68), and `yaw_pitch_roll_deg` (t 3) in the public convention: yaw > 0
    turns the nose to the image's right, pitch > 0 raises it, roll > 0 turns the head clockwise.

    Args:
      path: the file.

    Returns:
      The landmarks.

    Raises:
      DataError: the file is damaged, or arrays have other names, shapes or values.
    """
    check_file(path, DataError)
    try:
        content = read_npz(path, f"{path}")
        points = np.asarray(content["landmarks68_px"], np.float32)
        visible = (
            np.asarray(content["visible"]).astype(np.uint8)
            if "visible" in content
            else np.ones(points.shape[:2], np.uint8)
        )
        angles = None
        if "yaw_pitch_roll_deg" in content:
            angles = np.deg2rad(np.asarray(content["yaw_pitch_roll_deg"], np.float32))
    except UnsafeFileError as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            requirement(f"{path}", "hold landmarks68_px", error, "See docs/data.md.")
        ) from error
    fits = points.ndim == 3 and points.shape[1:] == (68, 2) and visible.shape == points.shape[:2]
    if angles is not None:
        fits = fits and angles.shape == (len(points), 3)
    if not fits or not len(points) or not np.isfinite(points).any():
        raise DataError(
            requirement(
                f"{path}", "hold landmarks68_px (t 68 2)", points.shape, "See docs/data.md."
            )
        )
    return Landmarks(points, visible, angles)


def square_box(box: Box) -> Box:
    """Returns the smallest square with the same centre that contains a box."""
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def centre_box(height: int, width: int) -> Box:
    """Returns the largest centred square of a frame, on whole pixels."""
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    return float(x0), float(y0), float(x0 + side), float(y0 + side)


def landmark_box(points_px: np.ndarray, height: int, width: int) -> Box:
    """Returns the square around all landmarks of a clip, enlarged, moved and shrunk into the frame.

    Args:
      points_px: (t 68 2); points that are not finite are left out.
      height: of the frame.
      width: of the frame.
    """
    flat = points_px.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(-1)]
    (x0, y0), (x1, y1) = flat.min(0), flat.max(0)
    side = min(LANDMARK_SCALE * max(float(x1 - x0), float(y1 - y0), 2.0), height, width)
    left = float(x0 + x1) / 2 - side / 2
    top = float(y0 + y1) / 2 - LANDMARK_LIFT * side - side / 2
    left = min(max(left, 0.0), width - side)
    top = min(max(top, 0.0), height - side)
    return left, top, left + side, top + side


def crop_matrix(box: Box, size: int) -> np.ndarray:
    """Returns the affine map (2 3) from original pixels to pixels of the size x size crop."""
    x0, y0, x1, y1 = box
    x_scale, y_scale = size / (x1 - x0), size / (y1 - y0)
    return np.array([[x_scale, 0, -x0 * x_scale], [0, y_scale, -y0 * y_scale]], np.float32)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies an affine map (2 3) to points (... 2)."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
