"""The 68 landmarks: their order, their mirror images, and points inside triangles.

Order of Multi-PIE and iBUG 300-W, from the image's left (the subject's right): 0-16 jaw line,
17-21 and 22-26 brows, 27-30 bridge and 31-35 base of the nose, 36-41 and 42-47 eyes from their
image-left corner clockwise, 48-59 outer and 60-67 inner outline of the lips, likewise.
"""

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement

NUM_LANDMARKS = 68
EYE_RIGHT, EYE_LEFT = slice(36, 42), slice(42, 48)  # of the subject
LIPS_OUTER, LIPS_INNER = slice(48, 60), slice(60, 68)
_EYE_MIRROR = (45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40)
_MOUTH_MIRROR = (54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65)

#: (68,) which landmark each one becomes when the image is mirrored; an involution.
LANDMARK_MIRROR = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *_EYE_MIRROR,
        *_MOUTH_MIRROR,
    ],
    np.int32,
)


def mirror_vertices(template: np.ndarray) -> np.ndarray:
    """For each vertex, the one nearest to its mirror image in the plane x = 0.

    Where two vertices are each other's nearest the map is an involution; on an asymmetric template
    a few are not.

    Args:
      template: (v 3), the subject's left at +x.

    Returns:
      (v,) int32.

    Raises:
      ArgumentError: if there are no vertices.
    """
    from scipy.spatial import cKDTree

    points = np.asarray(template, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ArgumentError(
            requirement("the template", "have shape (v, 3)", points.shape, "Check the model.")
        )
    return cKDTree(points).query(points * (-1.0, 1.0, 1.0))[1].astype(np.int32)
