"""Crops of one frame's face as the estimators and EG3D were shown it: DECA's and Deep3D's.

Numpy only. Landmarks are in pixels of the original frame whose centres lie at +0.5. The sources put
pixel centres on whole numbers wherever they handle points, so 0.5 is taken off first and the
matrices hold what follows from it.
"""

import math
from collections.abc import Callable

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.geometry.deep3d_template import (
    SIZE_PX,
    TEMPLATE_FIVE_POINTS,
    TEMPLATE_SCALE_PX,
    five_points,
)
from talking_heads_jax.tracking.crop_map import Alignment

_CENTRE = 0.5  # of a pixel, from the corner our coordinates count from
_FARTHEST_PX = 1e7  # of a landmark: beyond it is a mistake, and squares of it lose the pixels

#: DECA enlarges the mean side of the landmarks' box by this before anything else: 68 landmarks
#: leave out the forehead.
DECA_LANDMARK_SCALE = 1.1
#: Side of DECA's crop over that.
DECA_SCALE = 1.25
#: Side of GDPW's final crop over the same, and the share of it that lies above the centre.
GDPW_SCALE, GDPW_ABOVE = 1.35, 0.6

#: EG3D: pixels per decimetre of the template on its canvas, and the canvas.
EG3D_SCALE_PX, EG3D_CANVAS_PX = 300.0, 1024
#: The middle of the canvas that is kept, and the size it is brought to.
EG3D_KEPT_PX, EG3D_SIZE_PX = 700, 512


def deca_224(
    points_px: np.ndarray,
    frame_size: tuple[int, int] | None = None,
    *,
    size: int = SIZE_PX,
    anchor: float | None = None,
) -> Alignment:
    """DECA's input as the released GDPW fitter crops it: a square around the landmarks.

    With q and p counted from pixel centres, q = anchor / S · (p - c + S / 2); c is the middle of
    the landmarks' box, S = int(1.25 · 1.1 · mean of its sides).

    Args:
      points_px: (68 2) of the frame.
      frame_size: not used; recipes are called alike.
      size: of the crop, pixels.
      anchor: the pixel that the box's far side falls on; None: `size`, as the fork has it. Upstream
        DECA's is size - 1.

    Raises:
      ArgumentError: another shape, or points that are not finite or coincide.

    Source: github.com/yataoz/face_reenact_GDPW, Fit-DECA/fit_image.py (anchor 224);
    github.com/yfeng95/DECA, decalib/datasets (anchor 223). Both warp bilinearly without
    antialiasing (`warp_to_crop(..., antialias=False)`), black outside.
    """
    del frame_size
    center, side = _deca_box(points_px, DECA_SCALE)
    scale = (size if anchor is None else anchor) / side
    return _between_centres("deca_224", scale, center - side / 2, size)


def gdpw_256(
    points_px: np.ndarray,
    frame_size: tuple[int, int] | None = None,
    *,
    size: int = 256,
    anchor: float | None = None,
) -> Alignment:
    """GDPW's final crop: wider than DECA's, more of it above the landmarks than below.

    q = anchor / S · (p - (c_x - S / 2, c_y - 0.6 S)), S = int(1.35 · 1.1 · mean of the landmark
    box's sides); c as in `deca_224`.

    Args:
      points_px: (68 2) of the frame.
      frame_size: not used; recipes are called alike.
      size: of the crop, pixels.
      anchor: the pixel that the box's far side falls on; None: size - 1, as in the source.

    Raises:
      ArgumentError: another shape, or points that are not finite or coincide.

    Source: as `deca_224`.
    """
    del frame_size
    center, side = _deca_box(points_px, GDPW_SCALE)
    scale = (size - 1 if anchor is None else anchor) / side
    corner = center - side * np.array([0.5, GDPW_ABOVE])
    return _between_centres("gdpw_256", scale, corner, size)


def deep3d_224(
    points_px: np.ndarray,
    frame_size: tuple[int, int],
    *,
    size: int = SIZE_PX,
    rounded: bool = True,
) -> Alignment:
    """Deep3DFaceRecon's input: 102 pixels per decimetre of its template, origin in the middle.

    Args:
      points_px: (68 2) of the frame, or its 5 points (eyes, nose, corners of the mouth).
      frame_size: height and width of the frame.
      size: of the crop, pixels; other than 224 the same part of the frame.
      rounded: as released: the frame is first resized to whole pixels, then a crop is cut out at
        whole pixels, which moves it by up to a pixel. False leaves both out: steadier in videos.

    Raises:
      ArgumentError: another shape, or points that are not finite or lie on a line.

    Source: Deng et al. 2019; github.com/sicxu/Deep3DFaceRecon_pytorch, util/preprocess.py (bicubic,
    black outside).
    """
    matrix = _template_matrix(points_px, frame_size, TEMPLATE_SCALE_PX, SIZE_PX, rounded=rounded)
    crop = Alignment("deep3d_224", 1, matrix, SIZE_PX, "bicubic", "black")
    return crop.resized(size)


def eg3d_512(
    points_px: np.ndarray,
    frame_size: tuple[int, int],
    *,
    size: int = EG3D_SIZE_PX,
    rounded: bool = True,
) -> Alignment:
    """EG3D's crop of photographs in the wild: `deep3d_224` zoomed out by 17/16 about its centre.

    300 pixels per decimetre of the template on a canvas of 1024, of which the middle 700 are
    brought to 512. The source resamples twice (bicubic to the canvas, Lanczos to 512);
    `warp_to_crop` does it once, with Lanczos.

    Args:
      points_px: (68 2) of the frame, or its 5 points (eyes, nose, corners of the mouth).
      frame_size: height and width of the frame.
      size: of the crop, pixels; other than 512 the same part of the frame.
      rounded: see `deep3d_224`; here by up to a pixel of the canvas.

    Raises:
      ArgumentError: another shape, or points that are not finite or lie on a line.

    Source: Chan et al. 2022; github.com/NVlabs/eg3d, dataset_preprocessing/ffhq,
    crop_images_in_the_wild.py.
    """
    canvas = _template_matrix(points_px, frame_size, EG3D_SCALE_PX, EG3D_CANVAS_PX, rounded=rounded)
    canvas[:, 2] -= (EG3D_CANVAS_PX - EG3D_KEPT_PX) // 2
    matrix = canvas * (EG3D_SIZE_PX / EG3D_KEPT_PX)
    return Alignment("eg3d_512", 1, matrix, EG3D_SIZE_PX, "lanczos", "black").resized(size)


def template_scale_px(points_px: np.ndarray) -> float:
    """Pixels per decimetre of Deep3D's template: how large the face is, whatever its pose.

    Args:
      points_px: (68 2), or 5 points.

    Raises:
      ArgumentError: another shape, or points that are not finite or lie on a line.
    """
    return _place_template(points_px)[1]


def _between_centres(name: str, scale: float, corner: np.ndarray, size: int) -> Alignment:
    """Map q = scale · (p - corner) between pixel centres, written for our coordinates."""
    shift = _CENTRE - scale * (corner + _CENTRE)
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    return Alignment(name, 1, matrix, size, "bilinear", "black")


def _deca_box(points_px: np.ndarray, factor: float) -> tuple[np.ndarray, int]:
    """Centre of the landmarks' box, counted from pixel centres, and a side in whole pixels."""
    points = _finite(points_px, "68 landmarks", lambda shape: shape == (68, 2)) - _CENTRE
    low, high = points.min(0), points.max(0)
    side = int(float((high - low).mean()) * DECA_LANDMARK_SCALE * factor)
    if side < 1:
        raise ArgumentError(
            requirement(
                "The landmarks' box", "be a pixel or more wide", side, "Check the landmarks."
            )
        )
    return (low + high) / 2, side


def _place_template(points_px: np.ndarray) -> tuple[np.ndarray, float]:
    """Where the template's origin falls, from pixel centres, and pixels per decimetre.

    The best affine camera is found by linear least squares; its scale is the mean length of its two
    rows, its rotation is not used.
    """
    points = five_points(
        _finite(points_px, "68 landmarks or 5 points", lambda shape: shape in ((68, 2), (5, 2)))
    )
    unknowns = np.concatenate([TEMPLATE_FIVE_POINTS, np.ones((5, 1))], axis=1)
    camera = np.linalg.lstsq(unknowns, points - _CENTRE, rcond=None)[0]
    scale = float(np.linalg.norm(camera[:3], axis=0).mean())
    spread = float(np.linalg.svd(points - points.mean(0), compute_uv=False)[-1])
    if not spread > 1e-6:
        raise ArgumentError(
            requirement(
                "The five points of a face", "not lie on one line", spread, "Check the landmarks."
            )
        )
    return camera[3], scale


def _template_matrix(
    points_px: np.ndarray,
    frame_size: tuple[int, int],
    scale_px: float,
    canvas_px: int,
    *,
    rounded: bool,
) -> np.ndarray:
    """(2 3) original px to a canvas with the template's origin in its middle.

    The source counts y upwards from the centre of the last row and then measures from the picture's
    outer corner, x and y from another zero: the middle comes half a pixel too far left and too low.
    """
    origin, scale = _place_template(points_px)
    scale = scale_px / scale
    height, width = frame_size
    sizes = np.array([width, height], np.float64)
    middle = origin + np.array([0.0, 1.0])
    if not rounded:
        shift = canvas_px / 2 - middle * scale
        return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    whole = np.trunc(sizes * scale)
    if not (whole >= 1).all():
        raise ArgumentError(
            requirement(
                "A frame scaled to its crop",
                "keep at least a pixel",
                sizes * scale,
                "Check the landmarks: the face cannot be larger than the frame by so much.",
            )
        )
    # Operations in the source's order, so that the same fractions are cut off.
    corner = [
        math.trunc(size / 2 - canvas_px / 2 + (center - length / 2) * scale)
        for size, center, length in zip(whole, middle, sizes, strict=True)
    ]
    ratio = whole / sizes
    return np.array([[ratio[0], 0.0, -corner[0]], [0.0, ratio[1], -corner[1]]])


def _finite(
    points_px: np.ndarray, what: str, fits: Callable[[tuple[int, ...]], bool]
) -> np.ndarray:
    points = np.asarray(points_px, np.float64)
    got = None
    if not fits(points.shape):
        got = points.shape
    elif not (np.abs(points) < _FARTHEST_PX).all():
        got = "NaN, infinity or a point far outside any picture"
    if got is not None:
        raise ArgumentError(
            requirement(
                "A frame's face", f"have {what}, all finite", got, "Skip frames without a face."
            )
        )
    return points
