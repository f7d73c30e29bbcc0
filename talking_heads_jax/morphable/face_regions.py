"""Parts of a head's skin, read off the mesh and its 68 landmarks for models that do not name them.

Lips and eyelids are the landmarks' outlines, dilated a little, seen from the front; ears, scalp and
neck follow from proportions of the face. All lengths are multiples of the distance between the
eyes. Letters: f faces, v vertices, n points.
"""

import numpy as np

from talking_heads_jax.morphable.landmarks import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from talking_heads_jax.morphable.parts import PARTS

_LIP_MARGIN = 0.02
_LID_MARGIN = 0.09
_LIP_DEPTH = 0.25  # behind the mouth's corners
_LID_DEPTH = 0.35  # behind the eyes' corners
_EAR_BEHIND = (0.3, 0.9)  # of the jaw line's upper end
_EAR_ABOVE, _EAR_BELOW = 0.1, 0.35
_EAR_OUTSIDE = 0.97  # of the jaw line's half width
_CHIN_BELOW = 0.12
_HAIRLINE = 0.75  # above the brows, of their height above the nose's base


def outline_distance(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Distance (n,) of points to a closed polygon; negative inside.

    Args:
      points: (n 2).
      outline: (corners 2), in order.
    """
    start, end = outline, np.roll(outline, -1, axis=0)
    edge = end - start
    offset = points[:, None] - start
    along = np.clip((offset * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-12), 0.0, 1.0)
    distance = np.linalg.norm(offset - along[..., None] * edge, axis=-1).min(axis=1)
    above = points[:, None, 1] < start[:, 1]
    crosses = above != (points[:, None, 1] < end[:, 1])
    rise = np.where(edge[:, 1] == 0.0, 1.0, edge[:, 1])
    at_x = start[:, 0] + (points[:, None, 1] - start[:, 1]) / rise * edge[:, 0]
    inside = (crosses & (points[:, None, 0] < at_x)).sum(axis=1) % 2 == 1
    return np.where(inside, -distance, distance)


def derived_parts(
    template: np.ndarray, faces: np.ndarray, landmarks: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """Divides the skin of a model into lips, eyelids, ears, scalp, neck and the rest of the face.

    Args:
      template: (v 3), +y up, +z out of the nose.
      faces: (f 3).
      landmarks: (68 3) on the template.
      base: (f,) uint8; only faces of class `face_skin` change.

    Returns:
      (f,) uint8 index into `PARTS`.
    """
    part = np.array(base, np.uint8)
    skin = np.flatnonzero(part == PARTS.index("face_skin"))
    center = template[faces[skin]].mean(axis=1)
    eyes = [landmarks[side].mean(axis=0) for side in (EYE_RIGHT, EYE_LEFT)]
    unit = float(np.linalg.norm(eyes[0] - eyes[1]))
    if unit == 0.0:
        return part
    x, y, z = np.abs(center[:, 0]), center[:, 1], center[:, 2]
    # The upper end of the jaw line, half-way down the ear, and the chin; both sides averaged.
    top = 0.5 * (landmarks[0] + landmarks[16]) * (0, 1, 1) + (np.abs(landmarks[0, 0]), 0, 0)
    lobe = 0.5 * (landmarks[2] + landmarks[14]) * (0, 1, 1) + (np.abs(landmarks[2, 0]), 0, 0)
    chin, brow = landmarks[8], landmarks[19:25].mean(axis=0)

    ear = (y < top[1] + _EAR_ABOVE * unit) & (y > lobe[1] - _EAR_BELOW * unit)
    ear &= (z < top[2] - _EAR_BEHIND[0] * unit) & (z > top[2] - _EAR_BEHIND[1] * unit)
    ear &= x > _EAR_OUTSIDE * lobe[0]

    # The hairline rises from the ear to the forehead.
    line = brow[1] + _HAIRLINE * (brow[1] - landmarks[33, 1])
    front, back = brow[2] - 0.15 * unit, top[2] - 0.05 * unit
    share = np.clip((z - back) / max(front - back, 1e-6), 0.0, 1.0)
    scalp = y > top[1] + share * (line - top[1])
    scalp |= z < top[2] - _EAR_BEHIND[1] * unit

    # The lower edge of the jaw falls from the ear's lobe to below the chin.
    ear_z, ear_y = top[2] - _EAR_BEHIND[0] * unit, lobe[1] - _EAR_BELOW * unit
    share = np.clip((z - ear_z) / max(chin[2] - ear_z, 1e-6), 0.0, 1.0)
    neck = y < ear_y + share * (chin[1] - _CHIN_BELOW * unit - ear_y)

    for name, chosen in (("scalp", scalp), ("ears", ear), ("neck", neck)):
        part[skin[chosen]] = PARTS.index(name)
    outlines = (
        ("eyelids", EYE_RIGHT, _LID_MARGIN, _LID_DEPTH),
        ("eyelids", EYE_LEFT, _LID_MARGIN, _LID_DEPTH),
        ("lips", LIPS_OUTER, _LIP_MARGIN, _LIP_DEPTH),
    )
    for name, which, margin, depth in outlines:
        outline = landmarks[which]
        near = outline_distance(center[:, :2], outline[:, :2]) <= margin * unit
        near &= z > outline[:, 2].min() - depth * unit
        part[skin[near]] = PARTS.index(name)
    return part
