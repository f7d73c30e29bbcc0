"""How the procedural head moves: expression fields and joint weights of skin and rims.

Fields are written on the skin's grid (`across`, `down`, see `procedural_skin`), in cm at full
strength.
"""

import numpy as np

from talking_heads_jax.morphable.procedural_assembly import LIP_DEPTHS, head_positions
from talking_heads_jax.morphable.procedural_grid import skin_grid
from talking_heads_jax.morphable.procedural_skin import (
    MOUTH_CORNER,
    MOUTH_DOWN,
    HeadShape,
    bump,
    smoothstep,
)

EXPRESSION_NAMES = (
    "smile_L",
    "smile_R",
    "frown_L",
    "frown_R",
    "pucker",
    "funnel",
    "lip_upper_up",
    "lip_lower_down",
    "mouth_left",
    "mouth_right",
    "cheek_puff",
    "brow_inner_up",
    "brow_outer_up_L",
    "brow_outer_up_R",
    "brow_down_L",
    "brow_down_R",
    "blink_L",
    "blink_R",
    "squint",
)


def field_coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """across, down, side of the mouth line and weight of every skin and rim vertex."""
    grid = skin_grid()
    index = [np.arange(grid.count)]
    scale = [np.ones(grid.count)]
    for name in ("eye_L", "eye_R"):
        for edge in grid.slit[name]:
            index.append(edge)
            scale.append(np.ones(len(edge)))
    for edge in grid.slit["mouth"]:
        for depth, _ in LIP_DEPTHS:
            index.append(edge)
            scale.append(np.full(len(edge), 1.0 - 0.2 * depth))
    parent = np.concatenate(index)
    return (
        grid.across[parent],
        grid.down[parent],
        grid.mouth_side[parent],
        np.concatenate(scale),
    )


def expression_fields(neutral: np.ndarray) -> np.ndarray:
    """(E v 3) displacements at full strength.

    Args:
      neutral: (v 3) the average head at rest.
    """
    across, down, side, scale = field_coordinates()
    count = len(across)
    a, sign = np.abs(across), np.sign(across)
    left, right = smoothstep(-0.6, 0.6, across), smoothstep(0.6, -0.6, across)
    fields = {name: np.zeros((len(neutral), 3)) for name in EXPRESSION_NAMES}
    front = 1.0 - smoothstep(6.2, 7.6, a)

    def add(name: str, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        fields[name][:count] += (
            np.stack(np.broadcast_arrays(x, y, z), -1) * (scale * front)[:, None]
        )

    corner = bump(a, down, (2.75, -3.4), (1.25, 1.25))
    wide = np.clip(a / MOUTH_CORNER, 0.0, 1.6)
    cheek = bump(a, down, (4.1, -0.4), (1.5, 1.4))
    zero = np.zeros(count)
    for name, half in (("L", left), ("R", right)):
        add(
            f"smile_{name}",
            half * sign * (0.95 * corner + 0.3 * cheek),
            half * (0.95 * corner * np.clip(wide, 0.2, 1.2) + 0.4 * cheek),
            half * (-0.55 * corner + 0.42 * cheek),
        )
        add(
            f"frown_{name}",
            half * sign * 0.15 * corner,
            half * -0.9 * corner * np.clip(wide, 0.1, 1.2),
            half * -0.2 * corner,
        )
        outer = bump(a, down, (4.3, 5.7), (1.6, 1.2))
        add(f"brow_outer_up_{name}", zero, half * 0.85 * outer, half * -0.1 * outer)
        lower = bump(a, down, (2.2, 5.5), (1.9, 0.95))
        add(
            f"brow_down_{name}",
            half * sign * -0.3 * lower,
            half * -0.65 * lower,
            half * 0.22 * lower,
        )
    lips = bump(a, down, (0.0, -3.4), (3.0, 1.35))
    add(
        "pucker",
        -sign * 0.42 * np.minimum(a, 3.4) * lips,
        zero,
        0.75 * lips * np.exp(-((a / 2.2) ** 2)),
    )
    ring = bump(a, down, (0.0, -3.4), (2.7, 1.2))
    inside = np.clip(1.0 - (a / (MOUTH_CORNER + 0.02)) ** 2, 0.0, 1.0)
    near = np.exp(-0.5 * ((down - MOUTH_DOWN) / 0.85) ** 2) * inside
    upper, below = near * (side > 0), near * (side < 0)
    add(
        "funnel",
        -sign * 0.25 * np.minimum(a, 3.4) * ring,
        0.5 * upper - 0.6 * below,
        0.6 * ring * np.exp(-((a / 2.2) ** 2)),
    )
    add("lip_upper_up", zero, 0.62 * upper, 0.12 * upper)
    add("lip_lower_down", zero, -0.68 * below, 0.1 * below)
    whole = bump(a, down, (0.0, -3.8), (3.0, 1.9))
    add("mouth_left", 0.9 * whole, 0.12 * whole * left, zero)
    add("mouth_right", -0.9 * whole, 0.12 * whole * right, zero)
    puff = bump(a, down, (4.3, -2.8), (1.5, 1.6))
    add("cheek_puff", sign * 0.95 * puff, zero, 0.75 * puff)
    inner = bump(a, down, (1.5, 5.7), (1.2, 1.2))
    add("brow_inner_up", zero, 0.85 * inner, zero)
    lid = bump(a, down, (3.2, 2.6), (1.5, 0.55))
    add("squint", zero, 0.22 * lid + 0.25 * cheek, 0.12 * lid + 0.15 * cheek)
    shut, _ = head_positions(HeadShape(), closed=1.0)
    blink = shut - neutral
    fields["blink_L"] += blink * (neutral[:, :1] > 0)
    fields["blink_R"] += blink * (neutral[:, :1] < 0)
    # The lower lid rises on the eyeball, not through it: part of the blink.
    fields["squint"] += 0.5 * blink
    return np.stack([fields[name] for name in EXPRESSION_NAMES])


def skin_weights() -> np.ndarray:
    """(n 5) joint weights of skin and rims."""
    across, down, side, _ = field_coordinates()
    a = np.abs(across)
    c = np.clip(a / MOUTH_CORNER, 0.0, 1.2)
    at_line = 0.45 * smoothstep(0.5, 1.0, c)
    upper = at_line * smoothstep(1.6, 0.0, down - MOUTH_DOWN)
    lower_line = 1.0 - 0.55 * smoothstep(0.5, 1.0, c)
    t = smoothstep(0.0, 1.7, MOUTH_DOWN - down)
    lower = lower_line + (1.0 - lower_line) * t
    jaw = np.where(side > 0, upper, lower)
    jaw *= 1.0 - smoothstep(4.8, 7.6, a)
    jaw *= smoothstep(-9.3, -7.5, down)
    neck = smoothstep(-12.4, -8.4, down)
    weights = np.zeros((len(a), 5))
    weights[:, 2] = jaw * neck
    weights[:, 1] = neck * (1.0 - jaw)
    weights[:, 0] = 1.0 - neck
    return weights
