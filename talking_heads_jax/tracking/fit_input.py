"""A clip's landmarks, checked, in the units of the solver.

Its origin is the middle of the clip's faces, its unit about the distance of their eyes, x right, y
*up*: a fit does not depend on where in the picture a face is, nor on how large it is. Letters:
t frames, n landmarks that are looked at, K shape coefficients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_shape, requirement
from talking_heads_jax.morphable.landmarks import NUM_LANDMARKS
from talking_heads_jax.tracking.fit_options import FitOptions
from talking_heads_jax.tracking.landmarks import JAW_17

#: A frame with fewer usable points counts as one without a face.
FEWEST_POINTS = 6


class NormalisedClip(NamedTuple):
    """A checked clip in the solver's units, n of the landmarks; not padded."""

    points_px: np.ndarray  # (t 68 2) as given
    face: np.ndarray  # (t,) bool
    points: np.ndarray  # (t n 2) y up
    weights: np.ndarray  # (t n)
    link: np.ndarray  # (t,) of each frame with the next
    center: np.ndarray  # (2,) px of the solver's origin
    unit: float  # px of the solver's unit
    principal_px: np.ndarray  # (2,)
    principal: np.ndarray  # (2,) in the solver's units
    shape: np.ndarray | None = None  # (K,) given
    bias: np.ndarray | None = None  # (68 3) cm, given

    def part(self, frames: np.ndarray, link: np.ndarray) -> "NormalisedClip":
        """Some frames of the clip, linked in another way."""
        return self._replace(
            points_px=self.points_px[frames],
            face=self.face[frames],
            points=self.points[frames],
            weights=self.weights[frames],
            link=link,
        )


def normalised_clip(
    points: np.ndarray,
    weights: np.ndarray | None,
    segments: Sequence[tuple[int, int]] | None,
    image_size: tuple[int, int],
    chosen: np.ndarray,
    options: FitOptions,
) -> NormalisedClip:
    """Checks a clip and brings it into the solver's units.

    Args:
      points: (t 68 2) px.
      weights: (t 68) or None.
      segments: between cuts, or None.
      image_size: height, width of the frames.
      chosen: (n,) the landmarks that are looked at.
      options: of the fit.

    Raises:
      ArgumentError: shapes do not fit, or no frame has enough points.
    """
    points = np.asarray(points, np.float64)
    check_shape("points_px of a fit", points.shape, (None, NUM_LANDMARKS, 2))
    height, width = _checked_size(image_size)
    weights = _checked_weights(weights, points, options)[:, chosen]
    chosen_points = points[:, chosen]
    times = len(points)
    face = (weights > 0).sum(axis=1) >= FEWEST_POINTS
    if not face.any():
        most = int((weights > 0).sum(axis=1).max(initial=0))
        raise ArgumentError(
            requirement(
                "the landmarks of a clip",
                f"have at least {FEWEST_POINTS} points of weight above 0 in some frame",
                f"{most} at most in {times} frames",
                "The jaw line counts only with jaw_line_weight above 0.",
            )
        )
    weights[~face] = 0.0
    seen = np.where(weights[..., None] > 0, chosen_points, np.nan)[face]
    middle = np.nanmedian(seen, axis=1, keepdims=True)
    # About the eye distance: half of a face's coordinates lie within half of it.
    unit = 2.0 * float(np.nanmedian(np.abs(seen - middle)))
    if not unit > 0:
        remedy = "Check the landmarks."
        raise ArgumentError(
            requirement("the landmarks of a clip", "be in different places", "one", remedy)
        )
    center = np.median(middle, axis=(0, 1))
    flip = np.array([1.0, -1.0])
    link = np.ones(times)
    link[-1] = 0.0
    for start, stop in _checked_segments(segments, times):
        link[[number - 1 for number in (start, stop) if 0 < number < times]] = 0.0
    given = options.principal_px
    principal = np.array((width / 2, height / 2) if given is None else given, np.float64)
    check_shape("principal_px of a fit", principal.shape, (2,))
    scaled = np.where(weights[..., None] > 0, (chosen_points - center) / unit * flip, 0.0)
    return NormalisedClip(
        points_px=points,
        face=face,
        points=scaled,
        weights=weights,
        link=link,
        center=center,
        unit=unit,
        principal_px=principal,
        principal=(principal - center) / unit * flip,
    )


def nearest_face(face: np.ndarray) -> np.ndarray:
    """(t,) the nearest frame with a face.

    Args:
      face: (t,) bool, somewhere True.
    """
    known, now = np.flatnonzero(face), np.arange(len(face))
    after = np.searchsorted(known, now).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(known[before] - now) < np.abs(known[after] - now)
    return known[np.where(nearer, before, after)]


def _checked_weights(
    weights: np.ndarray | None, points: np.ndarray, options: FitOptions
) -> np.ndarray:
    """(t 68) weights, 0 where a point is missing."""
    usable = np.isfinite(points).all(axis=-1)
    result = np.ones(usable.shape)
    result[:, JAW_17] = options.jaw_line_weight
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        check_shape("weights of a fit", weights.shape, usable.shape)
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ArgumentError(
                requirement(
                    "weights of a fit",
                    "be finite and not negative",
                    "other values",
                    "Use 0 for landmarks to leave out.",
                )
            )
        result *= weights
    result[~usable] = 0.0
    return result


def _checked_size(image_size: tuple[int, int]) -> tuple[float, float]:
    size = np.asarray(image_size, np.float64)
    if size.shape != (2,) or not np.isfinite(size).all() or (size <= 0).any():
        raise ArgumentError(
            requirement("image_size", "be a positive height and width", image_size, "Give pixels.")
        )
    return float(size[0]), float(size[1])


def _checked_segments(
    segments: Sequence[tuple[int, int]] | None, times: int
) -> Sequence[tuple[int, int]]:
    if segments is None:
        return ()
    for start, stop in segments:
        if not 0 <= start < stop <= times:
            raise ArgumentError(
                requirement(
                    "segments",
                    f"have 0 <= start < stop <= {times}",
                    (start, stop),
                    "Count frames from 0; stop is the first that is not part of it.",
                )
            )
    return segments
