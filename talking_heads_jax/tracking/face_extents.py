"""What a detector's box says about landmarks, and the other way round. Numpy only.

A detector's box begins above the brows and ends about at the chin; the 68 landmarks reach from the
brows to below it. Boxes are x0 y0 x1 y1 in pixels. Letters: t frames.
"""

import numpy as np

from talking_heads_jax.tracking.observation import landmark_boxes
from talking_heads_jax.tracking.track import ClipTrack

#: Where the landmarks' box lies in a detector's, as shares of its sides. Means over seven frontal
#: frames of different people, by scikit-image's cascade; single faces are off by up to 0.1.
LANDMARKS_IN_BOX = (0.1, 0.22, 0.9, 1.04)


def landmark_extents(track: ClipTrack) -> np.ndarray:
    """The boxes around the landmarks of every frame, guessed from the face's box without them.

    Args:
      track: of a clip.

    Returns:
      (t 4) float64; NaN in frames without a face.
    """
    around = landmark_boxes(track.landmarks68_px).astype(np.float64)
    guessed = _placed(track.box_px.astype(np.float64), LANDMARKS_IN_BOX)
    extents = np.where(np.isfinite(around), around, guessed)
    return np.where(track.face[:, None], extents, np.nan)


def detector_boxes(track: ClipTrack) -> np.ndarray:
    """The boxes a detector draws, guessed from the landmarks where there are some.

    Args:
      track: of a clip.

    Returns:
      (t 4) float64; NaN in frames without a face.
    """
    around = landmark_boxes(track.landmarks68_px).astype(np.float64)
    x0, y0, x1, y1 = LANDMARKS_IN_BOX
    width, height = x1 - x0, y1 - y0
    inverse = (-x0 / width, -y0 / height, (1 - x0) / width, (1 - y0) / height)
    boxes = np.where(np.isfinite(around), _placed(around, inverse), track.box_px)
    return np.where(track.face[:, None], boxes, np.nan)


def _placed(boxes: np.ndarray, shares: tuple[float, float, float, float]) -> np.ndarray:
    """The boxes (t 4) that lie at these shares of other boxes' sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.tile(boxes[:, :2], 2) + np.tile(sides, 2) * np.asarray(shares)
