"""Crop boxes that hold for a whole clip: FOMM's, and the one of `talking-heads prepare`.

Numpy only. Boxes are x0 y0 x1 y1 in pixels of the original frame, pixel (i, j) covers [j, j+1) x
[i, i+1). Letters: t time.
"""

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.tracking.crop_map import Alignment, alignment_from_box

Box = tuple[float, float, float, float]

#: Side of a landmark crop over the larger side of the landmarks' box. The 68 points reach from the
#: brows to the chin; this takes in hair, ears and the top of the shoulders, as FOMM's crops do.
LANDMARK_SCALE = 1.75
#: How far the crop's centre lies above the landmarks' centre, as a share of the crop's side: the
#: forehead has no landmarks.
LANDMARK_LIFT = 0.12

#: How much FOMM's preprocessing adds to each side of the face's box, as a share of its sides.
FOMM_INCREASE = 0.1
#: What `fomm_clip_box` does at the frame's border.
AT_BORDER = ("keep", "clamp")


def square_box(box: Box) -> Box:
    """Returns the smallest square with the same centre that contains a box."""
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def centre_box(height: int, width: int) -> Box:
    """Returns the largest centred square of a frame, on whole pixels."""
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    return float(x0), float(y0), float(x0 + side), float(y0 + side)


def landmark_box(points_px: np.ndarray, height: int, width: int) -> Box:
    """Returns the square around all landmarks of a clip, enlarged, moved and shrunk into the frame.

    Args:
      points_px: (t 68 2); points that are not finite are left out.
      height: of the frame.
      width: of the frame.

    Raises:
      ArgumentError: no point is finite.
    """
    flat = np.asarray(points_px).reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(-1)]
    _check_any("landmark", len(flat))
    (x0, y0), (x1, y1) = flat.min(0), flat.max(0)
    side = min(LANDMARK_SCALE * max(float(x1 - x0), float(y1 - y0), 2.0), height, width)
    left = float(x0 + x1) / 2 - side / 2
    top = float(y0 + y1) / 2 - LANDMARK_LIFT * side - side / 2
    left = min(max(left, 0.0), width - side)
    top = min(max(top, 0.0), height - side)
    return left, top, left + side, top + side


def prepare(points_px: np.ndarray, frame_size: tuple[int, int], *, size: int = 256) -> Alignment:
    """The crop of `talking-heads prepare`: one square per clip, inside the frame.

    Args:
      points_px: (t 68 2) of a clip; points that are not finite are left out.
      frame_size: height and width of the frames.
      size: of the crop, pixels.

    Returns:
      One alignment for all frames.

    Raises:
      ArgumentError: no point is finite.
    """
    return alignment_from_box("prepare", 1, landmark_box(points_px, *frame_size), size)


def fomm_clip_box(
    boxes_px: np.ndarray,
    frame_size: tuple[int, int],
    *,
    size: int = 256,
    increase: float = FOMM_INCREASE,
    at_border: str = "keep",
) -> Alignment:
    """FOMM's crop: the union of a clip's face boxes, enlarged and made square; one per clip.

    Every side of the union moves outwards by `increase` of its width or height, the shorter side by
    as much as makes a square. Corners are cut to whole pixels, towards zero.

    Args:
      boxes_px: (t 4) face boxes of the clip as a face detector gives them, forehead included; rows
        that are not finite are left out.
      frame_size: height and width of the frames.
      size: of the crop, pixels.
      increase: as a share of the union's sides.
      at_border: of a square that leaves the frame: 'keep' (square, the frame's edge is repeated) or
        'clamp' (cut at the frame and stretched to a square). FOMM's script for the user's videos
        clamps; the one that made its VoxCeleb data leaves such clips out, see
        `Alignment.is_inside`.

    Returns:
      One alignment for all frames.

    Raises:
      ArgumentError: no box is finite, the union is empty, or none of it is in the frame.

    Source: Siarohin et al. 2019; github.com/AliaksandrSiarohin first-order-model, crop-video.py
    (ffmpeg resizes), and video-preprocessing, util.py (skimage does: bilinear, antialiased).
    """
    check_choice("at_border", at_border, AT_BORDER)
    boxes = np.asarray(boxes_px, np.float64).reshape(-1, 4)
    boxes = boxes[np.isfinite(boxes).all(-1)]
    _check_any("face box", len(boxes))
    (x0, y0), (x1, y1) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    width, height = x1 - x0, y1 - y0
    if not (width > 0 and height > 0):
        raise ArgumentError(
            requirement(
                "A face box", "be x0 < x1, y0 < y1", (x0, y0, x1, y1), "Check the detector."
            )
        )
    side = (1 + 2 * increase) * max(width, height)
    grow_x, grow_y = (side - width) / 2, (side - height) / 2
    left, top, right, bottom = np.trunc([x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y])
    if at_border == "clamp":
        left, right = np.clip([left, right], 0, frame_size[1])
        top, bottom = np.clip([top, bottom], 0, frame_size[0])
    return alignment_from_box("fomm_clip_box", 1, (left, top, right, bottom), size)


def _check_any(what: str, count: int) -> None:
    if not count:
        raise ArgumentError(
            requirement(
                f"A clip that is cropped by its {what}s",
                f"have at least one finite {what}",
                "none",
                "Give a box, or leave the clip out.",
            )
        )
