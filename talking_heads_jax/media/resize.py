"""Resizing and cropping of images, antialiased when shrinking. Letters: h w image.

The filter is Pillow's BILINEAR: a triangle whose support grows with the shrinking factor, so it is
an antialiased area-weighted mean when shrinking and plain bilinear (half-pixel centres, edges
repeated) when enlarging. Boxes are x0 y0 x1 y1 in pixels, pixel (i, j) covers [j, j+1) x [i, i+1).
"""

import numpy as np
from PIL import Image

from talking_heads_jax.errors import ArgumentError, requirement


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
    image: np.ndarray, box_px: tuple[float, float, float, float], size: int | tuple[int, int]
) -> np.ndarray:
    """Crops a box, with parts of a pixel, and resizes it with Pillow's BILINEAR.

    What lies outside the image repeats its edge.

    Args:
      image: uint8 or floating (h w 3).
      box_px: x0, y0, x1, y1 in pixels of `image`; may reach outside.
      size: (height, width), or one number for a square.

    Returns:
      The crop in the image's dtype.

    Raises:
      ArgumentError: another shape or dtype, or a box that is empty or wholly outside.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(image)
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
    before = (max(int(np.ceil(-y0)), 0), max(int(np.ceil(-x0)), 0))
    after = (max(int(np.ceil(y1 - rows)), 0), max(int(np.ceil(x1 - columns)), 0))
    if any(before) or any(after):
        pads = ((before[0], after[0]), (before[1], after[1]), (0, 0))
        image = np.pad(image, pads, mode="edge")
    box = (x0 + before[1], y0 + before[0], x1 + before[1], y1 + before[0])
    if box == (0, 0, width, height) == (0, 0, *image.shape[1::-1]):
        return image
    return _resample(image, (width, height), box)


def _resample(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> np.ndarray:
    filtering = Image.Resampling.BILINEAR
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
