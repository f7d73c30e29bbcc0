"""Resizing and cropping of images, antialiased when shrinking. Letters: h w image.

The filter is Pillow's BILINEAR unless another is named: a triangle whose support grows with the
shrinking factor, so it is an antialiased area-weighted mean when shrinking and plain bilinear
(half-pixel centres, edges repeated) when enlarging. Boxes are x0 y0 x1 y1 in pixels, pixel (i, j)
covers [j, j+1) x [i, i+1).
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from talking_heads_jax.errors import ArgumentError, check_choice, requirement

#: Names of the filters, and how far each reaches, in pixels of the coarser of the two grids.
INTERPOLATIONS = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
#: What a crop shows outside the image: its edge repeated, black or white.
OUTSIDE = ("edge", "black", "white")


def resize_image(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes to `size` with Pillow's BILINEAR (antialiased when shrinking).

    Args:
      image: uint8 or floating (h w 3); floating values keep their range and precision (float32).
      size: (height, width), or one number for a square. The aspect ratio is not kept.

    Returns:
      The image in its own dtype; the same array when the size already fits.

    Raises:
      ArgumentError: another shape or dtype.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(image)
    if image.shape[:2] == (height, width):
        return image
    return _resample(image, (width, height), (0, 0, image.shape[1], image.shape[0]))


def crop_and_resize(
    image: np.ndarray,
    box_px: tuple[float, float, float, float],
    size: int | tuple[int, int],
    *,
    interpolation: str = "bilinear",
    outside: str = "edge",
) -> np.ndarray:
    """Crops a box, with parts of a pixel, and resizes it with one of Pillow's filters.

    Args:
      image: uint8 or floating (h w 3).
      box_px: x0, y0, x1, y1 in pixels of `image`; may reach outside.
      size: (height, width), or one number for a square.
      interpolation: 'bilinear', 'bicubic' or 'lanczos'. The last two overshoot beside edges; bytes
        are clipped, floating values are not.
      outside: what lies outside the image: 'edge' (repeated), 'black' or 'white'.

    Returns:
      The crop in the image's dtype.

    Raises:
      ArgumentError: another shape, dtype or name, or a box that is empty or wholly outside.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(image)
    check_choice("interpolation", interpolation, tuple(INTERPOLATIONS))
    check_choice("outside", outside, OUTSIDE)
    x0, y0, x1, y1 = (float(value) for value in box_px)
    rows, columns = image.shape[:2]
    if not (x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0 and x0 < columns and y0 < rows):
        raise ArgumentError(
            requirement(
                "A crop box",
                f"be x0 < x1, y0 < y1 and overlap the {columns} x {rows} image",
                (x0, y0, x1, y1),
                "Give pixels of the original frame.",
            )
        )
    reach = INTERPOLATIONS[interpolation]
    x, y = _span(x0, x1, columns, width, reach), _span(y0, y1, rows, height, reach)
    image = _pad(image, y.around, x.around, outside)
    box = (x.start, y.start, x.stop, y.stop)
    sizes = (y.last - y.first, x.last - x.first)
    if box == (0, 0, *sizes[::-1]) == (0, 0, *image.shape[1::-1]):
        crop = image
    else:
        crop = _resample(image, sizes[::-1], box, interpolation)
    return _pad(crop, (y.first, height - y.last), (x.first, width - x.last), outside)


class _Span(NamedTuple):
    """One axis of a crop: the part of it that the image can reach, which alone is resampled.

    Attributes:
      around: pixels that are added before and after the image.
      start: where that part begins, in pixels of the image with them.
      stop: where it ends.
      first: the part's first pixel in the crop.
      last: one past its last.
    """

    around: tuple[int, int]
    start: float
    stop: float
    first: int
    last: int


def _span(start: float, stop: float, pixels: int, count: int, reach: int) -> _Span:
    scale = count / (stop - start)
    margin = math.ceil(reach * max(scale, 1.0)) + 1
    first = max(math.floor(-start * scale) - margin, 0)
    last = min(math.ceil((pixels - start) * scale) + margin, count)
    if last < count:
        stop = start + last / scale
    if first > 0:
        start += first / scale
    before, after = max(math.ceil(-start), 0), max(math.ceil(stop - pixels), 0)
    return _Span((before, after), start + before, stop + before, first, last)


def _pad(
    image: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], outside: str
) -> np.ndarray:
    if not (any(rows) or any(columns)):
        return image
    if outside == "edge":
        return np.pad(image, (rows, columns, (0, 0)), mode="edge")
    white = 255 if image.dtype == np.uint8 else 1
    value = white if outside == "white" else 0
    return np.pad(image, (rows, columns, (0, 0)), constant_values=value)


def _resample(
    image: np.ndarray,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    interpolation: str = "bilinear",
) -> np.ndarray:
    filtering = Image.Resampling[interpolation.upper()]
    if image.dtype == np.uint8:
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize(size, filtering, box=box))
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., index], np.float32)).resize(
                size, filtering, box=box
            )
        )
        for index in range(3)
    ]
    return np.stack(channels, axis=-1).astype(image.dtype)


def _check(image: np.ndarray) -> None:
    floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim != 3 or image.shape[2] != 3 or not (image.dtype == np.uint8 or floating):
        raise ArgumentError(
            requirement(
                "An image",
                "be uint8 or floating (h w 3)",
                f"{image.dtype} {image.shape}",
                "Read it with media.image.read_image.",
            )
        )
