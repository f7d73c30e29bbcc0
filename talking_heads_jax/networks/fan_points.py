"""Before and after the face alignment network: the crop it expects, and landmarks from heatmaps.

The rules, and their roundings, are those of the library face-alignment, because landmark distances
between papers (AKD) are measured with it. Its coordinates count pixels like an array index (the
centre of the first pixel is 0), and are kept here; `fan.find_landmarks` returns the coordinates of
the rest of the package. Numpy, no jax. Letters: h w image or map, k landmarks.

Source: the behaviour of the library face-alignment (Bulat & Tzimiropoulos, ICCV 2017).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from talking_heads_jax.assets import locate_asset
from talking_heads_jax.errors import ArgumentError, check_choice, requirement

FAN_SIDE = 256
#: Half the width plus height of a box around a face that fills the network's view as in training,
#: at 200 px: for the library's default detector.
REFERENCE_SIDE = 195.0
#: The library's value for each of its detectors; the later ones draw tighter boxes.
REFERENCE_SIDES: Mapping[str, float] = MappingProxyType(
    {"sfd": 195.0, "blazeface": 195.0, "retinaface": 165.0, "scrfd": 165.0, "yunet": 165.0}
)
#: Landmark -> the one it becomes when the image is mirrored: jaw, brows, nose, eyes, lips.
FAN_MIRROR = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)
ROUNDINGS = ("library", "none")
_SCALE_UNIT_PX = 200.0
_LIFT = 0.12  # of the box's height: the network looks at the face, the box ends at the chin


def locate_fan() -> Path:
    """Finds the network's converted weights without importing what runs it.

    Raises:
      AssetNotFoundError: they are not registered; says how to get them.
    """
    return locate_asset("fan")


class FanWindow(NamedTuple):
    """The square of a frame that the network looks at.

    Attributes:
      centre_px: x, y.
      side_px: of the square.
    """

    centre_px: tuple[float, float]
    side_px: float


def fan_window(box_px: Sequence[float], *, reference: float = REFERENCE_SIDE) -> FanWindow:
    """The square that belongs to a face's box.

    Args:
      box_px: x0, y0, x1, y1, and whatever follows (a score).
      reference: the detector's value of `REFERENCE_SIDES`, or one of your own: larger looks closer.

    Raises:
      ArgumentError: the box is empty or not finite, or the reference is not positive.
    """
    x0, y0, x1, y1 = (float(value) for value in box_px[:4])
    if not (np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1):
        raise ArgumentError(
            requirement(
                "a face's box",
                "be finite with x0 < x1 and y0 < y1",
                (x0, y0, x1, y1),
                "Give pixels of the frame.",
            )
        )
    if not reference > 0:
        remedy = f"Use one of {dict(REFERENCE_SIDES)}."
        raise ArgumentError(requirement("reference", "be positive", reference, remedy))
    centre = ((x0 + x1) / 2, (y0 + y1) / 2 - _LIFT * (y1 - y0))
    return FanWindow(centre, _SCALE_UNIT_PX * ((x1 - x0) + (y1 - y0)) / reference)


def crop_for_fan(
    frame: np.ndarray, box_px: Sequence[float], *, reference: float = REFERENCE_SIDE
) -> tuple[np.ndarray, FanWindow]:
    """Cuts out what the network looks at; what lies outside the frame is black.

    Args:
      frame: (h w 3) uint8 RGB.
      box_px: x0, y0, x1, y1 of the face.
      reference: see `fan_window`.

    Returns:
      (256 256 3) uint8, and the window for `decode_heatmaps`.

    Raises:
      ArgumentError: the box is empty or does not touch the frame, or the frame is of another kind.

    Differs from source: bilinear interpolation in float32, rounded; OpenCV's fixed-point form
      differs by at most one level.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        got = f"{frame.dtype} {frame.shape}"
        raise ArgumentError(requirement("a frame", "be uint8 (h w 3)", got, "Give RGB bytes."))
    window = fan_window(box_px, reference=reference)
    left, right = (_corner(window, 0, place) for place in (1, FAN_SIDE))
    top, bottom = (_corner(window, 1, place) for place in (1, FAN_SIDE))
    height, width = frame.shape[:2]
    x0, x1, y0, y1 = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if x0 >= x1 or y0 >= y1:
        raise ArgumentError(
            requirement(
                "a face's window",
                f"overlap the {width} x {height} frame",
                (left, top, right, bottom),
                "Give a box in pixels of this frame, more than a few pixels wide.",
            )
        )
    # Rows and columns of the canvas that are sampled, gathered from the frame: a canvas of a huge
    # box is never made.
    rows = _taps(bottom - top, top, y0, y1)
    columns = _taps(right - left, left, x0, x1)
    return _sample(frame, rows, columns), window


def _corner(window: FanWindow, axis: int, place: int) -> int:
    """A place of the crop, counted from 1, in the frame; rounded towards zero."""
    offset = (place - FAN_SIDE / 2) * window.side_px / FAN_SIDE
    return int(offset + window.centre_px[axis])


def _taps(size: int, start: int, first: int, last: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For the lower and the upper neighbour: index into the frame, weight (0 outside of it)."""
    place = np.clip((np.arange(FAN_SIDE) + 0.5) * (size / FAN_SIDE) - 0.5, 0, size - 1)
    lower = np.floor(place).astype(np.int64)
    fraction = (place - lower).astype(np.float32)
    taps = []
    neighbours = ((lower, 1 - fraction), (np.minimum(lower + 1, size - 1), fraction))
    for index, weight in neighbours:
        index = index + start
        inside = (index >= first) & (index < last)
        taps.append((np.clip(index, first, last - 1), weight * inside))
    return taps


def _sample(frame: np.ndarray, rows: list, columns: list) -> np.ndarray:
    mixed = np.zeros((FAN_SIDE, FAN_SIDE, 3), np.float32)
    for row, row_weight in rows:
        strip = frame[row]
        line = sum(strip[:, column] * weight[:, None] for column, weight in columns)
        mixed += line * row_weight[:, None, None]
    return np.rint(mixed).astype(np.uint8)


def decode_heatmaps(
    heatmaps: np.ndarray, window: FanWindow, *, round: str = "library"
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks from the heatmaps of one face.

    The peak (the first, row by row, of equals) moves by a quarter of a cell towards the larger of
    its two neighbours on each axis, unless it lies on the border.

    Args:
      heatmaps: (h w k), 64 cells a side.
      window: of `crop_for_fan`.
      round: 'library' cuts coordinates off towards zero, as the library does: whole pixels, half a
        pixel too low on average, for distances that are comparable with other people's. 'none'
        keeps the fraction.

    Returns:
      (k 2) float32 x, y in the library's coordinates (see the top of this file); (k,) float32
      values at the peaks.

    Raises:
      ArgumentError: `round` is neither.

    Differs from source: the closed form. The library inverts a matrix numerically, so that where
      the exact result is whole its truncation sometimes falls one pixel lower.
    """
    check_choice("round", round, ROUNDINGS)
    rows, columns, count = heatmaps.shape
    flat = heatmaps.reshape(rows * columns, count)
    peak = flat.argmax(axis=0)
    y, x = np.divmod(peak, columns)
    scores = flat[peak, np.arange(count)].astype(np.float32)
    moved = (x > 0) & (x < columns - 1) & (y > 0) & (y < rows - 1)
    safe_y, safe_x = np.clip(y, 1, rows - 2), np.clip(x, 1, columns - 2)
    each = np.arange(count)
    right, left = heatmaps[safe_y, safe_x + 1, each], heatmaps[safe_y, safe_x - 1, each]
    below, above = heatmaps[safe_y + 1, safe_x, each], heatmaps[safe_y - 1, safe_x, each]
    shift = 0.25 * np.stack([np.sign(right - left), np.sign(below - above)], -1) * moved[:, None]
    place = np.stack([x, y], -1).astype(np.float64) + 0.5 + shift
    scale = window.side_px / np.array([columns, rows], np.float64)
    points = (place - np.array([columns, rows]) / 2) * scale + np.asarray(window.centre_px)
    if round == "library":
        points = np.trunc(points)
    return points.astype(np.float32), scores
