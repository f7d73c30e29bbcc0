"""What the procedural head has besides skin: eyes, teeth, mouth, ears, hair, shoulders, glasses.

Each part is a rectangular patch of points (rows, columns, 3) whose size never changes, so that the
parts of every head correspond point by point. Lengths in cm, axes as in `procedural_skin`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from talking_heads_jax.morphable.procedural_skin import (
    CHIN_DOWN,
    HeadShape,
    bump,
    eye_center,
    skin_surface,
    smoothstep,
)

EYE_RADIUS = 1.25
HAIR_STYLES = ("hair_short", "hair_volume", "hair_afro", "hair_bob", "hair_long", "hair_fringe")
GLASSES = ("glasses", "glasses_round")

_EAR = np.array([7.35, 1.9, -0.6])  # middle of the ear's root
_HAIR_ROWS, _HAIR_COLUMNS = 26, 60
_HANG_DOWN = 4.5  # hair below this row of the head hangs instead of lying on the skin
_HIDDEN = 0.6  # depth below the scalp of hair that is not worn


class Patch(NamedTuple):
    """A rectangular piece of surface.

    Attributes:
      points: (rows columns 3).
      flipped: whether the triangles' order is reversed, so that fronts face outwards.
    """

    points: np.ndarray
    flipped: bool


def eyeball(shape: HeadShape, side: int) -> Patch:
    """The front of an eyeball, rings about the line of sight.

    Args:
      shape: of the head.
      side: 1 for the subject's left, -1 for the right.
    """
    angle, ring = np.meshgrid(
        np.linspace(0, 2 * np.pi, 25), np.linspace(0.0, np.deg2rad(105), 14), indexing="xy"
    )
    radius = EYE_RADIUS * np.sin(ring)
    sphere = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), EYE_RADIUS * np.cos(ring)], -1
    )
    return Patch(eye_center(shape, side) + sphere, flipped=False)


def _arch(columns: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, columns)


def teeth(shape: HeadShape, *, upper: bool) -> Patch:
    """A row of teeth: a strip along the dental arch with a bulge for every tooth.

    Args:
      shape: of the head.
      upper: which row.
    """
    t, height = np.meshgrid(_arch(61), np.linspace(0.0, 1.0, 5), indexing="xy")
    angle = t * np.deg2rad(78)
    width, depth = (2.05, 3.55) if upper else (1.9, 3.35)
    tooth = np.abs(np.sin(np.pi * 7 * t))
    grow = 1.0 + 0.035 * np.sqrt(tooth)
    x = width * np.sin(angle) * grow
    z = 6.75 + depth * np.cos(angle) * grow - 0.12 * (1 - height) ** 2
    long = 1.0 - 0.35 * np.abs(t) ** 1.5
    chipped = 0.08 * (1 - tooth) ** 2
    if upper:
        y = -2.75 - height * (1.05 * long - chipped)
    else:
        y = -4.5 + height * (0.86 * long - chipped)
    y = y - 0.33 * shape.face_length * 0.93 + 0.16 * shape.mouth_height
    return Patch(np.stack([x, y, z], -1), flipped=not upper)


def cavity(shape: HeadShape) -> Patch:
    """The bag behind the lips, seen from the front when the mouth opens.

    Args:
      shape: of the head.
    """
    angle, depth = np.meshgrid(
        np.linspace(0, 2 * np.pi, 29), np.linspace(0.0, 1.0, 9), indexing="xy"
    )
    reach = np.sqrt(1.0 - depth**2)
    x = 2.75 * reach * np.cos(angle)
    y = -3.4 + 2.3 * reach * np.sin(angle)
    z = 9.75 - 0.14 * x**2 - 5.2 * depth
    y = y - 0.3 * shape.face_length + 0.16 * shape.mouth_height
    return Patch(np.stack([x, y, z], -1), flipped=True)


def tongue(shape: HeadShape) -> Patch:
    """The tongue, resting behind the lower teeth.

    Args:
      shape: of the head.
    """
    angle, ring = np.meshgrid(
        np.linspace(0, 2 * np.pi, 21), np.linspace(0.0, np.pi * 0.62, 9), indexing="xy"
    )
    x = 1.55 * np.sin(ring) * np.cos(angle)
    z = 7.2 + 2.45 * np.sin(ring) * np.sin(angle)
    y = -4.75 + 0.75 * np.cos(ring) - 0.12 * np.exp(-((x / 0.25) ** 2))
    y = y - 0.3 * shape.face_length + 0.16 * shape.mouth_height
    return Patch(np.stack([x, y, z], -1), flipped=True)


def ear(shape: HeadShape, side: int) -> Patch:
    """An ear: a raised rim around a hollow, its back joined to the head.

    Args:
      shape: of the head.
      side: 1 for the subject's left, -1 for the right.
    """
    angle, ring = np.meshgrid(
        np.linspace(0, 2 * np.pi, 33), np.linspace(0.0, 1.0, 11), indexing="xy"
    )
    outline = 1.0 + 0.1 * np.sin(angle) + 0.1 * np.sin(2 * angle + 0.6)
    size = 1.0 + 0.09 * shape.ear_size
    inside = np.clip(ring / 0.85, 0.0, 1.0)
    back = smoothstep(0.88, 1.0, ring)
    along = 1.55 * size * outline * inside * np.cos(angle) * (1.0 - 0.3 * back)
    up = 2.95 * size * outline * inside * np.sin(angle) * (1.0 - 0.12 * back)
    rim = np.exp(-0.5 * ((inside - 0.88) / 0.09) ** 2) * smoothstep(-1.25, -0.2, np.sin(angle))
    inner = (
        0.65 * np.exp(-0.5 * ((inside - 0.58) / 0.09) ** 2) * smoothstep(-0.3, 0.5, np.sin(angle))
    )
    hollow = bump(along, up, (0.25, -0.35), (0.5, 0.75))
    tragus = bump(along, up, (0.95, -0.25), (0.25, 0.35))
    height = 0.5 + 0.32 * rim + 0.22 * inner - 0.5 * hollow + 0.3 * tragus - 1.2 * back
    flare = np.deg2rad(24 + 6 * shape.ear_flare)
    # `along` points forwards; the rear edge stands away from the head.
    x = height * np.cos(flare) + (1.2 - along) * np.sin(flare)
    z = along * np.cos(flare) + height * np.sin(flare)
    lean = 0.16 * up  # the upper end leans back
    root = _EAR + np.array([0.3 * shape.head_width - 0.05, 0.0, 0.0])
    points = np.stack([x, up, z - lean], -1) + root - np.array([0.55, 0.0, 0.0])
    points[..., 0] *= side
    return Patch(points, flipped=side > 0)


def torso(shape: HeadShape) -> Patch:
    """Collar, shoulders and chest.

    Args:
      shape: of the head.
    """
    stations = np.array(
        [  # height at the middle of the front, rise towards the sides, width, front, back
            (-12.6, 1.0, 5.2, 4.3, -5.9),
            (-11.7, 1.0, 5.75, 5.05, -6.5),
            (-11.9, 0.6, 6.4, 5.6, -7.0),
            (-12.6, 0.2, 8.3, 6.2, -7.7),
            (-13.5, -0.2, 11.0, 6.9, -8.3),
            (-14.6, -0.8, 14.5, 7.5, -8.8),
            (-16.2, -1.6, 18.0, 8.2, -9.2),
            (-18.5, -2.6, 20.4, 9.0, -9.6),
            (-22.0, -3.4, 21.6, 9.9, -10.0),
            (-28.0, -3.0, 22.0, 10.6, -10.3),
            (-40.0, 0.0, 22.0, 11.0, -10.5),
        ]
    )
    angle = np.linspace(-np.pi, np.pi, 57)
    height, rise, width, front, back = (column[:, None] for column in stations.T)
    sine, cosine = np.sin(angle), np.cos(angle)
    collar = np.linspace(1.0, 0.0, len(stations))[:, None] ** 3
    width = width * (1.0 + 0.07 * shape.neck_width * collar)
    x = width * np.sign(sine) * np.abs(sine) ** 0.85
    depth = np.where(cosine > 0, front, -back)
    z = depth * np.sign(cosine) * np.abs(cosine) ** 0.9 - 0.8
    y = height + rise * np.abs(sine) ** 2 + 0.9 * collar * np.where(cosine < 0, -cosine, 0.0)
    return Patch(np.stack([x, y, z], -1), flipped=False)


def _hair_grid() -> tuple[np.ndarray, np.ndarray]:
    across = np.linspace(-15.0, 15.0, _HAIR_COLUMNS + 1)
    # Denser where the rim turns around the face.
    across = 15.0 * np.sign(across) * np.abs(across / 15.0) ** 1.15
    return np.meshgrid(across, np.linspace(0.0, 1.0, _HAIR_ROWS), indexing="xy")


def _hairline(distance: np.ndarray) -> np.ndarray:
    """The row where the scalp's hair ends, by distance from the middle of the face."""
    stations = (0.0, 2.5, 4.5, 5.6, 6.3, 6.9, 7.6, 8.8, 9.6, 10.5, 12.5, 15.0)
    rows = (10.4, 10.5, 9.9, 8.6, 6.6, 5.6, 5.7, 5.4, 2.0, -2.5, -4.8, -5.2)
    return np.interp(distance, stations, rows)


def _laid_hair(
    shape: HeadShape,
    rim: Callable[[np.ndarray], np.ndarray],
    thickness: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    *,
    flare: float | None = None,
) -> np.ndarray:
    """Hair over the head down to a rim; it hangs where it reaches below the temples.

    Args:
      shape: of the head.
      rim: distance from the middle of the face -> row where the hair ends.
      thickness: (signed across, row, share of the way to the rim) -> cm.
      flare: how much hanging hair widens, per cm; None for hair that lies on the head everywhere.
    """
    across, share = _hair_grid()
    row = 14.98 + (rim(np.abs(across)) - 14.98) * share**0.92
    hangs = (np.abs(across) > 5.8) & (flare is not None)
    on_skin = np.where(hangs, np.maximum(row, _HANG_DOWN), np.maximum(row, CHIN_DOWN))
    points = skin_surface(across, on_skin, np.ones_like(across), shape)
    outwards = points - np.array([0.0, 3.0, 0.0])
    outwards[..., 1] *= 1 - smoothstep(9.0, 5.0, row)  # level where hair hangs
    outwards /= np.maximum(np.linalg.norm(outwards, axis=-1, keepdims=True), 1e-6)
    points = points + outwards * thickness(across, row, share)[..., None]
    if flare is not None:
        drop = on_skin - row
        points[..., 1] -= drop
        points[..., 0] *= 1.0 + flare * drop
        points[..., 2] -= 0.06 * np.minimum(drop, 8.0)
    return points


def _lumps(across: np.ndarray, share: np.ndarray, amount: float, waves: int = 9) -> np.ndarray:
    """Locks: waves around the head that agree at the seam and vanish at the crown."""
    turn = np.pi / 15.0 * waves * across
    wave = np.sin(turn + 5 * share) + 0.6 * np.sin(2 * turn - 9 * share)
    return amount * wave * smoothstep(0.0, 0.3, share)


def _hanging(side: float, back: float) -> Callable[[np.ndarray], np.ndarray]:
    """The rim of hair that hangs beside the face down to `side`, and behind it to `back`."""

    def rim(distance: np.ndarray) -> np.ndarray:
        low = side + (back - side) * smoothstep(8.0, 12.0, distance)
        curtain = smoothstep(5.5, 6.6, distance)
        return _hairline(np.minimum(distance, 5.5)) * (1 - curtain) + low * curtain

    return rim


def _fringe(distance: np.ndarray) -> np.ndarray:
    wavy = 6.6 + 0.25 * np.cos(1.4 * distance)
    return np.where(distance < 5.5, wavy, _hanging(-5.0, -6.5)(distance))


class _Cut(NamedTuple):
    """A hair style: where it ends and how thick it is (cm).

    Attributes:
      rim: distance from the middle of the face -> row of the rim.
      inner: thickness at the rim.
      thickness: away from it.
      sides: more beside the face, where it hangs.
      top: more on the top of the head.
      front: more above the forehead.
      locks: height of the waves.
      waves: number of them around the head.
      taper: share of the way to the rim where it begins to thin.
      flare: see `_laid_hair`.
    """

    rim: Callable[[np.ndarray], np.ndarray]
    inner: float
    thickness: float
    sides: float = 0.0
    top: float = 0.0
    front: float = 0.0
    locks: float = 0.0
    waves: int = 9
    taper: float = 0.9
    flare: float | None = None

    def __call__(self, across: np.ndarray, row: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Thickness, for `_laid_hair`."""
        distance = np.abs(across)
        beside = smoothstep(6.5, 3.0, row) * smoothstep(5.4, 7.0, distance)
        above = smoothstep(8.5, 11.5, row) * smoothstep(13.0, 6.0, distance)
        full = self.thickness + self.sides * beside + self.top * smoothstep(9.0, 13.0, row)
        full = full + self.front * above * smoothstep(14.9, 12.5, row)
        full = full + _lumps(across, share, self.locks, self.waves)
        return self.inner + full * (1.0 - smoothstep(self.taper, 1.0, share))


_CUTS = {
    None: _Cut(_hairline, -_HIDDEN, 0.0),
    "hair_short": _Cut(_hairline, 0.12, 0.5, locks=0.04),
    "hair_volume": _Cut(_hairline, 0.12, 0.35, top=1.1, front=1.5, locks=0.08, taper=0.86),
    "hair_afro": _Cut(_hairline, 0.2, 3.2, locks=0.1, waves=21),
    "hair_bob": _Cut(
        _hanging(-5.5, -6.0), 0.15, 1.0, sides=0.75, locks=0.06, taper=0.93, flare=0.006
    ),
    "hair_long": _Cut(
        _hanging(-17.0, -19.0), 0.15, 0.9, sides=0.9, locks=0.07, taper=0.96, flare=0.004
    ),
    "hair_fringe": _Cut(_fringe, 0.3, 0.85, sides=0.6, locks=0.05, flare=0.005),
}


def hair(shape: HeadShape, style: str | None) -> Patch:
    """The hair as one shell; without a style it lies hidden below the scalp.

    Args:
      shape: of the head.
      style: of `HAIR_STYLES`, or None.
    """
    cut = _CUTS[style]
    return Patch(_laid_hair(shape, cut.rim, cut, flare=cut.flare), flipped=False)


def _tube(path: np.ndarray, radius: float, sectors: int = 7) -> np.ndarray:
    """(n sectors+1 3) points of a tube along a path (n 3)."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    reference = np.where(
        np.abs(tangent[:, 2:]) > 0.8, np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
    )
    first = np.cross(tangent, reference)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    second = np.cross(tangent, first)
    angle = np.linspace(0, 2 * np.pi, sectors + 1)[:, None]
    ring = np.cos(angle)[None] * first[:, None] + np.sin(angle)[None] * second[:, None]
    return path[:, None] + radius * ring


def glasses(shape: HeadShape, style: str | None) -> tuple[Patch, ...]:
    """Frame of a pair of glasses: two rims, bridge, two temples; hidden in the head without style.

    Args:
      shape: of the head.
      style: of `GLASSES`, or None.
    """
    angle = np.linspace(0, 2 * np.pi, 41)
    square = 2.0 if style == "glasses_round" else 3.6
    half_width, half_height = (2.1, 2.05) if style == "glasses_round" else (2.45, 1.7)
    cosine, sine = np.cos(angle), np.sin(angle)
    ring_x = half_width * np.sign(cosine) * np.abs(cosine) ** (2 / square)
    ring_y = half_height * np.sign(sine) * np.abs(sine) ** (2 / square)
    middle = eye_center(shape, 1) + np.array([0.15, -0.25, 0.0])

    def front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([x, y, 11.15 - 0.085 * x**2], axis=-1)

    paths = []
    for side in (1.0, -1.0):
        paths.append(front(side * (middle[0] + ring_x), middle[1] + ring_y))
    bridge = np.linspace(-1.0, 1.0, 12)
    gap = middle[0] - half_width
    paths.append(front(gap * bridge, middle[1] + 0.55 + 0.3 * (1 - bridge**2)))
    for side in (1.0, -1.0):
        start = front(np.array(middle[0] + half_width), np.array(middle[1] + 0.55))
        end = _EAR + np.array([0.75 + 0.3 * shape.head_width, 2.0, -0.8])
        t = np.linspace(0.0, 1.0, 16)[:, None]
        path = start + (end - start) * t
        path[:, 0] += 0.9 * np.sin(np.pi * t[:, 0]) ** 0.7
        paths.append(path * np.array([side, 1.0, 1.0]))
    patches = []
    for path in paths:
        points = _tube(path, 0.13)
        if style is None:  # a speck inside the skull
            points = np.array([0.0, 5.0, 1.0]) + 0.01 * (points - points.mean((0, 1)))
        patches.append(Patch(points, flipped=True))
    return tuple(patches)
