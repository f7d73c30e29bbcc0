"""Small pictures for the quality report: a frame and what was found in it. For people only."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from talking_heads_jax.media.image import encode_image

PICTURE_HEIGHT = 240
_LONGEST_WIDTH = 480
_JPEG_QUALITY = 80
_GREEN, _ORANGE, _MAGENTA = (60, 230, 90), (255, 150, 30), (240, 70, 230)
_BLUE, _YELLOW = (70, 130, 255), (255, 230, 60)


def overlay_frames(frames: Sequence[int], errors: np.ndarray, count: int) -> list[int]:
    """Which frames of a clip to show: evenly spaced ones, and the worst in place of the last.

    Args:
      frames: numbers of the frames that may be shown, increasing.
      errors: (len(frames),) of the fit; NaN where unknown.
      count: how many at most.

    Returns:
      Frame numbers, increasing, without doubles.
    """
    if not len(frames):
        return []
    places = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    chosen = set(places.tolist())
    if len(frames) > count and np.isfinite(errors).any():
        worst = int(np.nanargmax(errors))
        if worst not in chosen:
            chosen = {*sorted(chosen)[:-1], worst}
    return [int(frames[place]) for place in sorted(chosen)]


def draw_overlay(
    frame: np.ndarray,
    *,
    box_px: np.ndarray | None = None,
    landmarks_px: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    fitted_px: np.ndarray | None = None,
    crop_matrix: np.ndarray | None = None,
    crop_size: int = 0,
) -> bytes:
    """A frame, shrunk, with the face's box, landmarks, fitted landmarks and the crop's outline.

    Args:
      frame: (h w 3) uint8 RGB.
      box_px: x0 y0 x1 y1; what is not finite is not drawn, here and below.
      landmarks_px: (68 2).
      visible: (68) 1 where seen.
      fitted_px: (68 2) of the face model.
      crop_matrix: (2 3) original pixels → crop pixels.
      crop_size: of the crop.

    Returns:
      JPEG bytes.
    """
    height, width = frame.shape[:2]
    scale = min(PICTURE_HEIGHT / height, _LONGEST_WIDTH / width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    if crop_matrix is not None:
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * crop_size
        linear = np.linalg.inv(crop_matrix[:, :2].astype(np.float64))
        outline = (corners - crop_matrix[:, 2]) @ linear.T * scale
        draw.polygon([(float(x), float(y)) for x, y in outline], outline=_YELLOW)
    if box_px is not None and np.isfinite(box_px).all():
        draw.rectangle([float(value) * scale for value in box_px], outline=_BLUE)
    _draw_points(draw, fitted_px, scale, [_MAGENTA] * 68, radius=1.6)
    seen = np.ones(68) if visible is None else visible
    colors = [_GREEN if value else _ORANGE for value in seen]
    _draw_points(draw, landmarks_px, scale, colors, radius=1.0)
    return encode_image(np.asarray(picture), "jpeg", quality=_JPEG_QUALITY)


def _draw_points(
    draw: ImageDraw.ImageDraw,
    points_px: np.ndarray | None,
    scale: float,
    colors: Sequence[tuple[int, int, int]],
    *,
    radius: float,
) -> None:
    if points_px is None:
        return
    for (x, y), color in zip(points_px * scale, colors, strict=True):
        if np.isfinite(x) and np.isfinite(y):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
