"""Drawing on frames: keypoint discs and panels side by side (numpy, uint8 RGB).

Letters: h w image, k keypoints. Drawing is for people: nothing downstream reads it back.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from talking_heads_jax.errors import ArgumentError, requirement

RADIUS_FRACTION = 0.02  # 5 px on a 256 px frame, the size FOMM's visualiser draws
_LABEL_HEIGHT = 12  # of Pillow's built-in font


def keypoint_colors(count: int) -> UInt8[np.ndarray, "k 3"]:
    """Well separated colours, the same for the same number of keypoints.

    Args:
      count: how many.

    Returns:
      (count 3) uint8 RGB, hues evenly spaced from red.
    """
    hues = [colorsys.hsv_to_rgb(index / max(count, 1), 1.0, 1.0) for index in range(count)]
    return np.round(255 * np.array(hues, dtype=np.float64).reshape(count, 3)).astype(np.uint8)


def draw_keypoints(
    image: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "k 2"]
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with a disc at every keypoint, later ones on top.

    Args:
      image: (h w 3) uint8 RGB.
      points: (k 2) x, y in [-1, 1], -1 and +1 on the outer pixel centres; points outside are cut
        off, points that are not finite are left out.

    Returns:
      (h w 3) uint8.

    Raises:
      ArgumentError: if the image is not (h, w, 3) uint8 or the points are not (k, 2).
    """
    image, points = np.asarray(image), np.asarray(points, dtype=np.float64)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ArgumentError(
            requirement(
                "image", "be uint8 (h, w, 3)", f"{image.dtype} {image.shape}", "Pass an RGB frame."
            )
        )
    if points.ndim != 2 or points.shape[1] != 2:
        raise ArgumentError(
            requirement("points", "have shape (k, 2)", points.shape, "Pass x, y columns.")
        )
    height, width = image.shape[:2]
    radius = max(1.0, RADIUS_FRACTION * min(height, width))
    rows, columns = np.mgrid[:height, :width]
    canvas = image.copy()
    for (x, y), color in zip(points, keypoint_colors(len(points)), strict=True):
        if np.isfinite(x) and np.isfinite(y):
            column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
            canvas[(columns - column) ** 2 + (rows - row) ** 2 <= radius**2] = color
    return canvas


def side_by_side(panels: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h n 3"]:
    """Panels from left to right in one image.

    Args:
      panels: uint8 RGB images of one height.

    Returns:
      (h, sum of widths, 3) uint8.

    Raises:
      ArgumentError: if there are none, or their heights differ.
    """
    heights = sorted({panel.shape[0] for panel in panels})
    if len(heights) != 1:
        raise ArgumentError(
            requirement("panels", "have one height", heights, "Resize them to the same size.")
        )
    return np.concatenate(list(panels), axis=1)


def label_rows(
    frames: UInt8[np.ndarray, "r n h w 3"], labels: Sequence[Sequence[str]]
) -> UInt8[np.ndarray, "a b 3"]:
    """Rows of pictures in one image, each with its label above it.

    Args:
      frames: (r n h w 3) uint8 RGB.
      labels: r rows of n short texts; what does not fit the width is cut off.

    Returns:
      (r (h + label), n w, 3) uint8.

    Raises:
      ArgumentError: if there is not one label per picture.
    """
    from PIL import Image, ImageDraw

    rows, columns, _, width = frames.shape[:4]
    if [len(row) for row in labels] != [columns] * rows:
        raise ArgumentError(
            requirement("labels", f"be {rows} rows of {columns}", labels, "One per picture.")
        )
    strips = []
    for pictures, texts in zip(frames, labels, strict=True):
        header = Image.new("RGB", (width * columns, _LABEL_HEIGHT), "white")
        for column, text in enumerate(texts):
            cell = Image.new("RGB", (width, _LABEL_HEIGHT), "white")
            ImageDraw.Draw(cell).text((2, 0), text, fill="black")
            header.paste(cell, (column * width, 0))
        strips += [np.asarray(header), side_by_side(list(pictures))]
    return np.concatenate(strips)
