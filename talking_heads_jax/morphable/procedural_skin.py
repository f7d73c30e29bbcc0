"""The skin of the procedural head: face, scalp and neck as one surface with eye and mouth slits.

The surface is a function of two parameters, evaluated on a grid: `across` runs from the middle of
the face (0) over the temple (7.5) to the back of the head, `down` is the height at the middle of
the face in cm, and below the chin a label of the rows that lead back to the throat. Horizontal
sections are superellipses; nose, lips, sockets and so on are smooth displacements. Every number is
a length in cm on an adult head, chosen by eye; every dimension that differs between people is a
field of `HeadShape`, so that the identity modes are derivatives of this function.
Axes: x towards the subject's left, y up, z out of the nose; origin between the ears.
"""

import dataclasses

import numpy as np
from scipy.interpolate import PchipInterpolator

REFERENCE_HALF_WIDTH = 7.5  # `across` of the temple
EYE_ACROSS, EYE_DOWN = 3.1, 3.5
EYE_HALF_WIDTH = 1.42  # of the lid slit
LID_REACH = 1.25  # rows so far from the eye line slide when the lids open
MOUTH_DOWN = -3.4
MOUTH_CORNER = 2.83
CHIN_DOWN = -7.45


@dataclasses.dataclass(frozen=True)
class HeadShape:
    """What differs between people; 0 is the average head, 1 one standard deviation.

    Attributes:
      head_width: of the skull.
      head_height: of the skull above the brows.
      head_depth: of the back of the head.
      face_length: from the eyes to the chin.
      jaw_width: at its angles.
      chin_width: of the chin.
      chin_forward: how far the chin stands out.
      chin_drop: how deep it reaches.
      cheekbones: how far they stand out.
      cheek_fullness: of the cheeks beside the mouth.
      forehead_slope: a forehead that leans back.
      brow_ridge: how far the brows stand out.
      eye_spacing: between the eyes.
      eye_size: of the opening.
      eye_tilt: outer corners higher.
      eye_depth: how deep the eyes lie.
      nose_length: how low the nose ends.
      nose_width: at the wings.
      nose_projection: how far the tip stands out.
      nose_bridge: height of the bridge.
      nose_tip: a tip that points up.
      mouth_width: between the corners.
      upper_lip: fullness.
      lower_lip: fullness.
      mouth_height: a mouth nearer to the nose.
      ear_size: of the ears.
      ear_flare: how far the ears stand out.
      neck_width: of the neck.
    """

    head_width: float = 0.0
    head_height: float = 0.0
    head_depth: float = 0.0
    face_length: float = 0.0
    jaw_width: float = 0.0
    chin_width: float = 0.0
    chin_forward: float = 0.0
    chin_drop: float = 0.0
    cheekbones: float = 0.0
    cheek_fullness: float = 0.0
    forehead_slope: float = 0.0
    brow_ridge: float = 0.0
    eye_spacing: float = 0.0
    eye_size: float = 0.0
    eye_tilt: float = 0.0
    eye_depth: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    nose_projection: float = 0.0
    nose_bridge: float = 0.0
    nose_tip: float = 0.0
    mouth_width: float = 0.0
    upper_lip: float = 0.0
    lower_lip: float = 0.0
    mouth_height: float = 0.0
    ear_size: float = 0.0
    ear_flare: float = 0.0
    neck_width: float = 0.0


SHAPE_NAMES = tuple(field.name for field in dataclasses.fields(HeadShape))

# Stations of the horizontal sections, top to bottom: `down`, height of the row at the middle of
# the face, how much the row rises towards the ears, half width, front depth, back depth.
_STATIONS = np.array(
    [
        (15.0, 15.0, 0.0, 0.0, 0.0, 0.0),
        (14.97, 14.97, 0.0, 0.75, 0.9, -0.75),
        (14.88, 14.88, 0.0, 1.45, 1.75, -1.45),
        (14.6, 14.6, 0.0, 2.6, 3.2, -2.7),
        (14.0, 14.0, 0.0, 3.9, 4.7, -4.1),
        (13.0, 13.0, 0.0, 5.25, 6.5, -5.6),
        (11.5, 11.5, 0.0, 6.55, 8.2, -7.2),
        (10.0, 10.0, 0.0, 7.2, 9.2, -8.1),
        (8.5, 8.5, 0.0, 7.55, 9.8, -8.6),
        (7.0, 7.0, 0.0, 7.7, 10.15, -8.8),
        (5.5, 5.5, 0.0, 7.7, 10.3, -8.8),
        (4.0, 4.0, 0.0, 7.6, 10.0, -8.6),
        (2.5, 2.5, 0.2, 7.45, 9.85, -8.2),
        (1.0, 1.0, 0.5, 7.25, 9.95, -7.6),
        (-0.5, -0.5, 0.8, 7.05, 10.2, -7.0),
        (-2.0, -2.0, 1.15, 6.8, 10.4, -6.4),
        (-3.5, -3.5, 1.5, 6.5, 10.45, -6.0),
        (-5.0, -5.0, 2.0, 6.05, 10.25, -5.7),
        (-6.5, -6.5, 2.6, 5.5, 10.05, -5.6),
        (-7.45, -7.45, 2.9, 5.15, 9.4, -5.5),
        (-8.0, -7.85, 2.6, 5.0, 8.1, -5.5),
        (-8.6, -8.1, 1.9, 4.9, 6.6, -5.5),
        (-9.2, -8.6, 1.2, 4.85, 5.4, -5.5),
        (-10.0, -9.4, 0.7, 4.9, 4.8, -5.6),
        (-11.0, -10.5, 0.3, 5.1, 4.6, -5.8),
        (-12.5, -12.2, 0.0, 5.6, 4.7, -6.2),
        (-14.0, -14.0, 0.0, 6.2, 4.9, -6.6),
    ]
)
_SECTION = PchipInterpolator(_STATIONS[::-1, 0], _STATIONS[::-1, 1:])
_NOSE_HEIGHT = PchipInterpolator(
    (-2.0, -1.55, -1.3, -1.05, -0.7, -0.2, 0.35, 0.9, 1.6, 2.4, 3.2, 4.0, 4.7, 5.4, 6.2),
    (0.0, 0.05, 0.3, 0.85, 1.75, 2.55, 2.75, 2.45, 1.95, 1.5, 1.1, 0.8, 0.5, 0.2, 0.0),
)
_NOSE_WIDTH = PchipInterpolator(
    (-2.0, -1.0, -0.4, 0.4, 1.2, 2.2, 3.2, 4.2, 5.5),
    (0.8, 0.85, 0.98, 0.95, 0.78, 0.68, 0.66, 0.8, 1.2),
)


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between (also with `low` > `high`, mirrored).

    Args:
      low: where it leaves 0.
      high: where it reaches 1.
      value: any shape.
    """
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(
    x: np.ndarray, y: np.ndarray, at: tuple[float, float], size: tuple[float, float]
) -> np.ndarray:
    """A Gaussian hill of height 1.

    Args:
      x: positions.
      y: positions, same shape.
      at: its centre.
      size: its standard deviations.
    """
    return np.exp(-0.5 * (((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2))


def lid_height(offset: np.ndarray, side: float, shape: HeadShape, closed: float) -> np.ndarray:
    """Height of a lid's edge above the eye line.

    Args:
      offset: horizontal distance from the eye's middle, towards the temple, cm.
      side: 1 for the upper lid, -1 for the lower one.
      shape: of the head.
      closed: 0 open, 1 shut.
    """
    span = np.clip(np.abs(offset) / EYE_HALF_WIDTH, 0.0, 1.0)
    arch = 1.0 - span**2.2
    size = 1.0 + 0.14 * shape.eye_size
    opened = size * np.where(side > 0, 0.66 - 0.06 * offset, -0.44 + 0.04 * offset) * arch
    # Both edges meet a little below the middle; the upper one overlaps, so that no slit stays.
    shut = np.where(side > 0, -0.33, -0.30) * arch
    return opened + closed * (shut - opened)


def open_rows(
    across: np.ndarray, down: np.ndarray, side: np.ndarray, shape: HeadShape, closed: float
) -> np.ndarray:
    """`down` after the lids have been opened: rows near the eye line slide apart.

    Args:
      across: signed.
      down: of the rows with shut lids.
      side: 1 for points on the upper side of the eye line, -1 below it.
      shape: of the head.
      closed: 0 open, 1 shut.
    """
    offset = np.abs(across) - EYE_ACROSS
    height = down - EYE_DOWN
    edge = lid_height(offset, side, shape, closed)
    share = np.clip(1.0 - np.abs(height) / LID_REACH, 0.0, 1.0)
    within = np.abs(offset) <= EYE_HALF_WIDTH
    return down + np.where(within, edge * share, 0.0)


def eye_center(shape: HeadShape, side: int) -> np.ndarray:
    """Centre of an eyeball.

    Args:
      shape: of the head.
      side: 1 for the subject's left eye, -1 for the right one.
    """
    x = side * (EYE_ACROSS * 1.013 + 0.16 * shape.eye_spacing + 0.02 * shape.head_width)
    return np.array([x, EYE_DOWN, 7.95 - 0.15 * shape.eye_depth])


def skin_surface(
    across: np.ndarray,
    down: np.ndarray,
    side: np.ndarray,
    shape: HeadShape,
    *,
    closed: float = 0.0,
) -> np.ndarray:
    """Points of the skin.

    Args:
      across: signed, 0 the middle of the face, ±7.5 the temples, ±15 the back of the head.
      down: row of the point with shut lids, see the module's docstring.
      side: 1 for points above the eye line or the mouth line, -1 below; tells the two edges of a
        slit apart.
      shape: of the head.
      closed: of the lids; 0 open, 1 shut.

    Returns:
      (... 3) positions in cm.
    """
    row = open_rows(across, down, side, shape, closed)
    height, lift, width, front, back = np.moveaxis(_SECTION(row), -1, 0)
    distance = np.abs(across)
    sign = np.sign(across)
    share = np.clip(distance / REFERENCE_HALF_WIDTH, 0.0, 1.0)
    behind = np.clip(distance / REFERENCE_HALF_WIDTH - 1.0, 0.0, 1.0) * np.pi / 2
    is_front = distance <= REFERENCE_HALF_WIDTH
    skull = smoothstep(4.0, 8.0, row)
    face = smoothstep(-9.0, -7.0, row) * (1.0 - skull)
    jaw = bump(row, np.zeros_like(row), (-5.2, 0.0), (2.2, 1.0))
    width = width + 0.32 * shape.head_width * smoothstep(-3.0, 4.0, row)
    width = width + 0.38 * shape.jaw_width * jaw
    width = width * (1.0 + 0.07 * shape.neck_width * smoothstep(-8.0, -10.0, row))
    back = back - 0.4 * shape.head_depth * smoothstep(-4.0, 2.0, row)
    exponent = 2.15 + 0.35 * face - 0.1 * skull
    across_front = width * share
    depth = (1.0 - share**exponent) ** (1.0 / exponent)
    x = sign * np.where(is_front, across_front, width * np.cos(behind))
    z = np.where(is_front, front * depth, back * np.sin(behind) ** 0.9)
    y = height + lift * smoothstep(3.2, 9.0, distance)
    return _sculpted(np.stack([x, y, z], axis=-1), across, row, shape)


def _sculpted(
    points: np.ndarray,
    across: np.ndarray,
    row: np.ndarray,
    shape: HeadShape,
) -> np.ndarray:
    """The sections with nose, lips, sockets, chin and so on."""
    x, y, z = np.moveaxis(points, -1, 0)
    a, sign = np.abs(across), np.sign(across)
    front = 1.0 - smoothstep(6.0, 7.8, a)
    # Forehead, brows, temples, cheeks.
    z = z - front * 0.35 * shape.forehead_slope * smoothstep(6.0, 12.0, row)
    ridge = bump(a, row, (2.6, 5.35), (2.0, 0.55)) + 0.5 * bump(a, row, (0.0, 5.3), (1.2, 0.6))
    z = z + (0.3 + 0.2 * shape.brow_ridge) * ridge
    x = x - 0.25 * sign * bump(a, row, (6.9, 6.3), (1.6, 1.6))
    bone = bump(a, row, (5.0, 0.9), (1.7, 1.1))
    x = x + sign * (0.35 + 0.25 * shape.cheekbones) * bone
    z = z + (0.35 + 0.2 * shape.cheekbones) * bone
    fullness = bump(a, row, (4.2, -2.4), (1.6, 1.5))
    x = x + sign * (0.35 * shape.cheek_fullness - 0.1) * fullness
    z = z + (0.3 * shape.cheek_fullness - 0.15) * fullness
    fold = np.exp(-0.5 * ((a - (2.1 - 0.35 * (row + 1.0))) / 0.42) ** 2)
    z = z - 0.14 * fold * smoothstep(-3.8, -2.2, row) * smoothstep(0.4, -0.8, row) * front
    # Sockets: deeper than the lids that will bulge out of them.
    socket = bump(a, row, (2.9, 3.65), (1.55, 0.95))
    inner = bump(a, row, (1.55, 3.75), (0.5, 0.7))
    z = z - (0.75 + 0.18 * shape.eye_depth) * socket - 0.35 * inner
    z, y = _nose(z, y, a, row, shape)
    x = x + sign * 0.3 * shape.nose_width * bump(a, row, (1.35, -0.5), (0.65, 0.7))
    z, y = _lips(z, y, a, row, shape)
    # Chin.
    z = z + (0.5 + 0.35 * shape.chin_forward) * bump(a, row, (0.0, -6.6), (1.7, 0.85))
    z = z - 0.28 * bump(a, row, (0.0, -5.25), (1.6, 0.42))
    chin = bump(a, row, (0.0, -7.2), (2.6, 1.2))
    y = y - (0.25 + 0.28 * shape.chin_drop) * chin
    corner = bump(a, row, (2.6, -7.0), (1.3, 1.1))
    x = x + sign * 0.3 * shape.chin_width * corner
    z = z + 0.2 * shape.chin_width * corner
    points = _with_lids(np.stack([x, y, z], axis=-1), across, row, shape)
    x, y, z = np.moveaxis(points, -1, 0)
    # Proportions: fields that move whole features, so that eyes and lids keep their form.
    mouth = bump(a, row, (0.0, MOUTH_DOWN), (3.2, 1.3))
    x = x * (1.0 + (0.06 + 0.085 * shape.mouth_width) * mouth)
    lower = smoothstep(2.6, -3.0, row)
    y = y - 0.33 * shape.face_length * lower
    y = y + 0.16 * shape.mouth_height * bump(a, row, (0.0, -3.2), (3.5, 1.3))
    y = y + 0.45 * shape.head_height * smoothstep(6.5, 13.0, row)
    eye = bump(a, row, (EYE_ACROSS, EYE_DOWN), (1.9, 1.7))
    x = x + sign * 0.16 * shape.eye_spacing * eye
    y = y + 0.12 * shape.eye_tilt * eye * np.clip((a - EYE_ACROSS) / EYE_HALF_WIDTH, -1.2, 1.2)
    return np.stack([x, y, z], axis=-1)


def _nose(
    z: np.ndarray, y: np.ndarray, a: np.ndarray, row: np.ndarray, shape: HeadShape
) -> tuple[np.ndarray, np.ndarray]:
    inside = np.clip(row, -2.0, 6.2)
    height = _NOSE_HEIGHT(inside) * (1.0 + 0.09 * shape.nose_projection)
    height = height + 0.2 * shape.nose_bridge * bump(
        row, np.zeros_like(row), (2.4, 0.0), (1.0, 1.0)
    )
    width = _NOSE_WIDTH(np.clip(inside, -2.0, 5.5)) * (1.0 + 0.07 * shape.nose_width)
    z = z + height * np.exp(-((a / width) ** 1.75))
    wing = bump(a, row, (1.22, -0.45), (0.36, 0.4))
    z = z + (0.9 + 0.12 * shape.nose_width) * wing
    z = z - 0.25 * bump(a, row, (0.98, 0.15), (0.2, 0.5))  # between tip and wing
    z = z - 0.45 * bump(a, row, (0.6, -1.0), (0.3, 0.2))  # nostrils
    tip = bump(a, row, (0.0, -0.3), (1.5, 1.0))
    y = y + 0.2 * shape.nose_tip * tip - 0.22 * shape.nose_length * tip
    return z, y


def _lips(
    z: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    row: np.ndarray,
    shape: HeadShape,
) -> tuple[np.ndarray, np.ndarray]:
    span = np.clip(a / MOUTH_CORNER, 0.0, 1.3)
    arch = np.clip(1.0 - span**2.4, 0.0, 1.0)
    near = np.exp(-0.5 * ((row - MOUTH_DOWN) / 1.5) ** 2)
    z = z + 0.55 * near * np.exp(-((a / 2.6) ** 2.4))  # the teeth behind
    bow = 1.0 - 0.3 * np.exp(-((a / 0.32) ** 2))
    upper = np.exp(-0.5 * ((row + 2.93) / 0.3) ** 2) * arch * bow
    lower = np.exp(-0.5 * ((row + 3.98) / 0.36) ** 2) * arch
    z = z + (0.36 + 0.14 * shape.upper_lip) * upper + (0.44 + 0.15 * shape.lower_lip) * lower
    y = y + 0.1 * shape.upper_lip * np.exp(-0.5 * ((row + 2.7) / 0.3) ** 2) * arch
    y = y - 0.1 * shape.lower_lip * np.exp(-0.5 * ((row + 4.2) / 0.3) ** 2) * arch
    line = np.exp(-0.5 * ((row - MOUTH_DOWN) / 0.17) ** 2)
    z = z - 0.22 * line * np.clip(1.3 - span, 0.0, 1.0)
    z = z - 0.12 * bump(a, row, (0.0, -2.05), (0.28, 0.5))  # philtrum
    z = z - 0.3 * bump(a, row, (2.95, -3.4), (0.45, 0.5))  # corners
    # The line between the lips is a shallow M, its corners a little lower.
    bend = 0.1 * np.exp(-((a / 0.9) ** 2)) - 0.1 * smoothstep(1.0, 2.8, a)
    return z, y + bend * np.exp(-0.5 * ((row - MOUTH_DOWN) / 0.6) ** 2)


def _with_lids(
    points: np.ndarray, across: np.ndarray, row: np.ndarray, shape: HeadShape
) -> np.ndarray:
    """Lays the skin around the eyes over the eyeballs."""
    sign = np.where(across < 0, -1.0, 1.0)
    offset = np.abs(across) - EYE_ACROSS
    height = row - EYE_DOWN
    reach = np.sqrt((offset / 1.95) ** 2 + (height / 1.25) ** 2)
    weight = 1.0 - smoothstep(0.62, 1.12, reach)
    bulge = np.sqrt(np.clip(1.0 - (offset / 2.05) ** 2 - (height / 1.75) ** 2, 0.05, 1.0))
    depth = eye_center(shape, 1)[2] + 1.42 * bulge
    lid = np.stack([sign * np.abs(across) * 1.013, EYE_DOWN + height, depth], axis=-1)
    return points + weight[..., None] * (lid - points)
