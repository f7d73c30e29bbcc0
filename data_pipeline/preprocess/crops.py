"""Where to crop: one square box per clip, from a given box, stored landmarks, or the centre.

Boxes are x0 y0 x1 y1 in pixels of the original frame, pixel (i, j) covers [j, j+1) x [i, i+1). The
rules themselves are in `tracking.clip_boxes`, which animation shares.
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from talking_heads_jax.tracking.clip_boxes import Box

RULE_BOX = "box"
RULE_LANDMARKS = "landmarks"
RULE_CENTRE = "centre"


def find_landmarks(folder: Path, stem: str, *, tables: bool = False) -> Path | None:
    """Returns the landmark file of a clip.

    Tried in turn: `<stem>_landmarks.npz`, `<stem>.npz`, and both without a trailing size such as
    `_256`; with `tables` the same endings in .csv come after them.

    Args:
      folder: where to look.
      stem: the clip's file name without ending.
      tables: whether other programs' tables are wanted too.
    """
    names = dict.fromkeys((stem, re.sub(r"_\d+$", "", stem)))
    for suffix in (".npz", ".csv") if tables else (".npz",):
        for name in names:
            for candidate in (folder / f"{name}_landmarks{suffix}", folder / f"{name}{suffix}"):
                if candidate.is_file():
                    return candidate
    return None


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
