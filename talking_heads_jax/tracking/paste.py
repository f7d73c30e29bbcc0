"""Puts an animated crop back into the frame it was cut from, with a soft border. Numpy only.

Pixels as in `crop_map`. Letters: h w image, n side of the crop.
"""

import math

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.media.resize import crop_and_resize
from talking_heads_jax.tracking.crop_map import Alignment

#: Width of the soft border as a share of the crop's side.
FEATHER = 0.08


def paste_back(
    frame: np.ndarray,
    crop: np.ndarray,
    alignment: Alignment,
    *,
    mask: np.ndarray | None = None,
    feather: float = FEATHER,
    interpolation: str = "bicubic",
) -> np.ndarray:
    """The frame with a crop in its place; pixels outside the crop stay as they are.

    Towards the sides of the crop that lie inside the frame its weight falls smoothly to zero; a
    side on or beyond the frame's border has nothing to blend with and stays hard.

    Args:
      frame: uint8 (h w 3), the original; it is not changed.
      crop: uint8 (n n 3); any n: a result of another resolution covers the same part of the frame.
      alignment: by which the crop was cut.
      mask: (m m) of any m, over the crop's area: what of the crop to take, 0 to 1 (bool or
        floating) or 0 to 255 (uint8). It multiplies the soft border.
      feather: width of the soft border as a share of the crop's side, 0 to 0.5; 0 is a hard edge.
      interpolation: see `media.resize.crop_and_resize`. A crop that fits the frame's pixels one to
        one is copied.

    Returns:
      uint8 (h w 3).

    Raises:
      ArgumentError: another dtype, shape or range, or a crop wholly outside the frame.
    """
    _check_image("A frame", frame)
    _check_image("A crop to paste", crop)
    if crop.shape[0] != crop.shape[1]:
        raise ArgumentError(
            requirement("A crop to paste", "be square", crop.shape, "Give the whole crop.")
        )
    if not 0 <= feather <= 0.5:
        raise ArgumentError(
            requirement(
                "feather", "be a share of the crop's side from 0 to 0.5", feather, "Try 0.08."
            )
        )
    rows, columns = _area(alignment, frame.shape[:2])
    placed = _bring_back(crop, alignment, rows, columns, interpolation)
    weight = _border_weight(alignment, frame.shape[:2], rows, columns, feather)
    if mask is not None:
        levels = _mask_levels(mask)
        levels = np.repeat(levels[..., None], 3, axis=-1)
        weight = weight * _bring_back(levels, alignment, rows, columns, "bilinear")[..., 0]
    part = frame[rows, columns]
    blended = part + weight[..., None] * (placed.astype(np.float32) - part)
    result = frame.copy()
    result[rows, columns] = np.rint(blended).astype(np.uint8)
    return result


def _area(alignment: Alignment, frame_size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the frame whose pixel centres lie in the crop."""
    height, width = frame_size
    x0, y0, x1, y1 = alignment.box_px
    spans = []
    for low, high, count in ((y0, y1, height), (x0, x1, width)):
        first = min(max(math.ceil(low - 0.5), 0), count)
        last = min(max(math.ceil(high - 0.5), 0), count)
        if first >= last:
            raise ArgumentError(
                requirement(
                    "A crop to paste back",
                    f"cover a pixel of the {width} x {height} frame",
                    alignment.box_px,
                    "Use the alignment of that frame.",
                )
            )
        spans.append(slice(first, last))
    return spans[0], spans[1]


def _bring_back(
    image: np.ndarray, alignment: Alignment, rows: slice, columns: slice, interpolation: str
) -> np.ndarray:
    """The crop resampled on the frame's pixels of an area."""
    corners = np.array([[columns.start, rows.start], [columns.stop, rows.stop]], np.float64)
    (x0, y0), (x1, y1) = alignment.to_crop(corners) * (image.shape[0] / alignment.size)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    box = tuple(_whole(value) for value in (x0, y0, x1, y1))
    return crop_and_resize(image, box, size, interpolation=interpolation)


def _whole(value: float) -> float:
    """A coordinate on a pixel's border, but for rounding, is on it: then pixels are copied."""
    nearest = round(value)
    return float(nearest) if abs(value - nearest) < 1e-6 else float(value)


def _border_weight(
    alignment: Alignment, frame_size: tuple[int, int], rows: slice, columns: slice, feather: float
) -> np.ndarray:
    """Weight of the crop at the frame's pixels of an area, (h w) float32."""
    x0, y0, x1, y1 = alignment.box_px
    profiles = []
    for span, low, high, count in ((rows, y0, y1, frame_size[0]), (columns, x0, x1, frame_size[1])):
        centres = np.arange(span.start, span.stop) + 0.5
        nearest = np.full(centres.shape, np.inf)
        if low > 0:
            nearest = np.minimum(nearest, centres - low)
        if high < count:
            nearest = np.minimum(nearest, high - centres)
        profiles.append(nearest / (high - low))
    distance = np.minimum(profiles[0][:, None], profiles[1][None, :])
    if feather == 0:
        return np.ones(distance.shape, np.float32)
    ramp = np.clip(distance / feather, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def _mask_levels(mask: np.ndarray) -> np.ndarray:
    """A mask as (m m) float32 in [0, 1]."""
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    square = mask.ndim == 2 and mask.shape[0] == mask.shape[1] > 0
    known = mask.dtype in (np.uint8, np.bool_) or np.issubdtype(mask.dtype, np.floating)
    levels = mask.astype(np.float32) / (255 if mask.dtype == np.uint8 else 1) if known else mask
    if not (square and known and (levels >= 0).all() and (levels <= 1).all()):
        raise ArgumentError(
            requirement(
                "A mask to paste by",
                "be square (m m), bool or floating in [0, 1], or uint8",
                f"{mask.dtype} {mask.shape}",
                "Give the mask of the crop.",
            )
        )
    return levels


def _check_image(what: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ArgumentError(
            requirement(what, "be uint8 (h w 3)", f"{image.dtype} {image.shape}", "Convert it.")
        )
