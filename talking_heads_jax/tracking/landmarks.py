"""The 68 landmarks of a clip: from our files, MediaPipe's 478 points, or OpenFace's tables.

Points are x, y in pixels of the original frame, pixel (i, j) covers [j, j+1) x [i, i+1). Their
order is that of `morphable.landmarks`. Only numpy is imported here. Letters: t frames.
"""

import dataclasses

import numpy as np

from talking_heads_jax.morphable.landmarks import LANDMARK_MIRROR, NUM_LANDMARKS

__all__ = [
    "INNER_51",
    "JAW_17",
    "LANDMARK_MIRROR",
    "MEDIAPIPE_68",
    "NUM_MEDIAPIPE",
    "OUTER_EYE_CORNERS",
    "Landmarks",
    "outer_eye_distance",
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
MAX_FRAMES = 432_000  # of a clip, as media.limits has it


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


def from_mediapipe(points_px: np.ndarray) -> Landmarks:
    """The 68 landmarks among MediaPipe's 478 points (468, without the irises, serve as well).

    Args:
      points_px: (t n 2 or 3), n at least 468; NaN in frames without a face.

    Returns:
      The landmarks; the jaw line is the outline of MediaPipe's face oval, see `JAW_17`.
    """
    points = np.asarray(points_px)[:, MEDIAPIPE_68, :2].astype(np.float32)
    return Landmarks(points, np.ones(points.shape[:2], np.uint8), source=SOURCE_MEDIAPIPE)
