"""All vertices of a procedural head in one order: skin, rims of lids and lips, then the parts."""

import numpy as np

from talking_heads_jax.morphable.procedural_grid import skin_grid
from talking_heads_jax.morphable.procedural_parts import (
    Patch,
    cavity,
    ear,
    eyeball,
    glasses,
    hair,
    teeth,
    tongue,
    torso,
)
from talking_heads_jax.morphable.procedural_skin import (
    EYE_DOWN,
    MOUTH_CORNER,
    HeadShape,
    eye_center,
    skin_surface,
)

#: (part of `PARTS`, region of the texture) of every patch, in order.
PATCH_PARTS = (
    ("eyeball", "eye"),
    ("eyeball", "eye"),
    ("teeth", "upper_teeth"),
    ("teeth", "lower_teeth"),
    ("mouth_interior", "cavity"),
    ("mouth_interior", "tongue"),
    ("ears", "ear"),
    ("ears", "ear"),
    ("hair", "hair"),
    ("clothes", "torso"),
    *(("glasses", "glasses"),) * 5,
)

LIP_DEPTHS = ((0.45, 0.1), (1.15, 0.22))  # inwards and away from the line, per row of the lip

_RIM_RADIUS = 1.12  # the lids' rims end inside the eyeball, so that no gap stays at the corners


def head_positions(
    shape: HeadShape, *, closed: float = 0.0, style: str | None = None, frame: str | None = None
) -> tuple[np.ndarray, list[Patch]]:
    """All vertices (v 3) in order, and the patches after the skin with its rims.

    Args:
      shape: of the head.
      closed: how far the lids are shut, 0 to 1.
      style: of `HAIR_STYLES`, or None for hair hidden below the scalp.
      frame: of `GLASSES`, or None for glasses hidden in the head.
    """
    grid = skin_grid()
    side = np.where(np.abs(grid.down - EYE_DOWN) < 2.0, grid.eye_side, grid.mouth_side)
    skin = skin_surface(grid.across, grid.down, side, shape, closed=closed)
    pieces = [skin]
    for name, sign in (("eye_L", 1), ("eye_R", -1)):
        middle = eye_center(shape, sign)
        for edge in grid.slit[name]:  # from the lid's edge inwards, onto the eyeball
            inwards = skin[edge] - middle
            inwards *= _RIM_RADIUS / np.linalg.norm(inwards, axis=-1, keepdims=True)
            pieces.append(middle + inwards)
    upper, lower = grid.slit["mouth"]
    for edge, away in ((upper, 1.0), (lower, -1.0)):
        taper = np.clip(1.0 - (grid.across[edge] / MOUTH_CORNER) ** 4, 0.15, 1.0)
        for depth, lift in LIP_DEPTHS:
            inner = skin[edge].copy()
            inner[:, 2] -= depth * taper
            inner[:, 1] += away * lift * taper
            inner[:, 0] *= 1.0 - 0.03 * depth
            pieces.append(inner)
    patches = [
        eyeball(shape, 1),
        eyeball(shape, -1),
        teeth(shape, upper=True),
        teeth(shape, upper=False),
        cavity(shape),
        tongue(shape),
        ear(shape, 1),
        ear(shape, -1),
        hair(shape, style),
        torso(shape),
        *glasses(shape, frame),
    ]
    pieces += [patch.points.reshape(-1, 3) for patch in patches]
    return np.concatenate(pieces), patches
