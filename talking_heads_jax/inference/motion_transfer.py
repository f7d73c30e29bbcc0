"""Whose motion goes where: keypoint transfer between faces, movement scale, best first frame.

Coordinates: keypoints are (x, y) in [-1, 1], corner-aligned (see `batch.Keypoints`); landmarks may
be in any unit, pixels as a rule. Letters: b batch, t time, k keypoints, n landmarks.
"""

import numpy as np
from jaxtyping import Float

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.ops.numerics import inverse_2x2, matmul_highest
from talking_heads_jax.typing import Array

NO_SCALE = 1.0
# A hull below this (a quarter of a pixel across at 256 px) says nothing about size: it may be the
# rounding noise of collapsed keypoints in float32.
SMALLEST_AREA = 1e-6


def transfer_keypoints(
    source: Keypoints,
    driving: Keypoints,
    initial: Keypoints | None,
    *,
    relative: bool,
    scale: float | Array = NO_SCALE,
) -> Keypoints:
    """The keypoints the source shall take, from those of a driving frame.

    Relative: the driving face's movement since its initial frame is applied to the source's own
    keypoints, `p = scale (p_D - p_D0) + p_S` and `J = J_D inv(J_D0) J_S`. At the initial frame the
    source is therefore not moved at all. Absolute: the driving keypoints, untouched; `source`,
    `initial` and `scale` have no effect.

    Args:
      source: (1 or b, k) keypoints of the source image.
      driving: (b, k) keypoints of driving frames.
      initial: (1 or b, k) keypoints of the driving frame that counts as rest; may be None when
        absolute.
      relative: movement since the initial frame (True) or the driving keypoints themselves.
      scale: factor of the movement, () or (b 1 1), see `movement_scale`; Jacobians are not scaled.

    Returns:
      (b, k) keypoints; no Jacobian when the driving keypoints have none.

    Raises:
      ArgumentError: if `initial` is missing for relative motion, or only some of the three have
        Jacobians.

    Source: the animation demo of FOMM and FNeVR.
    """
    if not relative:
        return driving
    if initial is None:
        raise ArgumentError(
            requirement(
                "initial keypoints", "be given for relative motion", None, "Or use relative=False."
            )
        )
    value = scale * (driving.value - initial.value) + source.value
    present = [points.jacobian is not None for points in (source, driving, initial)]
    if not any(present):
        return Keypoints(value, None)
    if not all(present):
        raise ArgumentError(
            requirement(
                "keypoints",
                "all have Jacobians, or none",
                dict(zip(("source", "driving", "initial"), present, strict=True)),
                "Use one detector for all three.",
            )
        )
    change = matmul_highest(driving.jacobian, inverse_2x2(initial.jacobian))
    return Keypoints(value, matmul_highest(change, source.jacobian))


def hull_area(points: Float[np.ndarray, "n 2"]) -> float:
    """Area of the convex hull of points, in their unit squared.

    Args:
      points: (n 2) finite coordinates.

    Returns:
      The area; 0 for fewer than three points, or points on one line.

    Raises:
      ArgumentError: if the points are not (n 2) or not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ArgumentError(
            requirement("points", "have shape (n, 2)", points.shape, "Pass x, y columns.")
        )
    if not np.isfinite(points).all():
        raise ArgumentError(
            requirement("points", "be finite", "nan or inf", "Drop frames without a face.")
        )
    if len(points) < 3:
        return 0.0
    from scipy.spatial import ConvexHull, QhullError

    try:
        return float(ConvexHull(points).volume)  # of a 2-D hull, `volume` is the area
    except QhullError:
        return 0.0


def movement_scale(source: Float[np.ndarray, "k 2"], initial: Float[np.ndarray, "k 2"]) -> float:
    """How much larger the source face is than the driving face, as a factor of movement.

    `sqrt(hull area of the source keypoints / hull area of the initial driving keypoints)`.

    Args:
      source: (k 2) keypoint values of the source image.
      initial: (k 2) keypoint values of the initial driving frame.

    Returns:
      The factor. When either hull has no area (all keypoints on one line or in one place, as an
      untrained detector gives) no size can be compared, and the factor is 1: no adaptation. Ask
      `hull_area` first to tell the two apart.

    Raises:
      ArgumentError: if the points are not (k 2) or not finite.

    Source: `adapt_movement_scale` of FOMM and FNeVR.
    """
    numerator, denominator = hull_area(source), hull_area(initial)
    if min(numerator, denominator) < SMALLEST_AREA:
        return NO_SCALE
    return float(np.sqrt(numerator / denominator))


def normalise_landmarks(landmarks: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"] | None:
    """Landmarks about their mean, in units of the square root of their hull's area.

    Args:
      landmarks: (n 2) in any unit; NaN where there is no face.

    Returns:
      (n 2), the same for any shift and size of one face; None when there is no face: a
      coordinate is not finite or the hull has no area.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if not np.isfinite(landmarks).all():
        return None
    area = hull_area(landmarks)
    if area <= 0.0:
        return None
    return (landmarks - landmarks.mean(axis=0)) / np.sqrt(area)


def best_frame(source: Float[np.ndarray, "n 2"], driving: Float[np.ndarray, "t n 2"]) -> int:
    """The driving frame whose face looks most like the source's: where relative motion starts.

    The frame with the least sum of squared differences of normalised landmarks, the first of equal
    ones. Frames without a face (NaN, infinite or degenerate landmarks) are never chosen.

    Args:
      source: (n 2) landmarks of the source image.
      driving: (t n 2) landmarks of the driving frames, the same points in the same order.

    Returns:
      Index of the frame.

    Raises:
      ArgumentError: if the shapes do not fit, the source has no face, or no driving frame has one.

    Source: `find_best_frame` of the FOMM and FNeVR demos, which stop at a frame without a face.
    """
    source, driving = np.asarray(source), np.asarray(driving)
    fits = source.ndim == 2 and source.shape[1] == 2 and driving.shape[1:] == source.shape
    if not fits:
        raise ArgumentError(
            requirement(
                "landmarks",
                "be (n, 2) of the source and (t, n, 2) of the driving clip",
                f"{source.shape} and {driving.shape}",
                "Use the same landmark scheme for both.",
            )
        )
    wanted = normalise_landmarks(source)
    if wanted is None:
        raise ArgumentError(
            requirement(
                "source landmarks",
                "show a face",
                "nan, inf or a degenerate shape",
                "Give other landmarks, or choose the first driving frame with best_frame=0.",
            )
        )
    faces = (normalise_landmarks(frame) for frame in driving)
    distances = [np.inf if face is None else np.sum((face - wanted) ** 2) for face in faces]
    if not np.isfinite(distances).any():
        raise ArgumentError(
            requirement(
                "driving landmarks",
                "show a face in at least one frame",
                f"none in {len(driving)} frames",
                "Give other landmarks, or choose the first driving frame with best_frame=0.",
            )
        )
    return int(np.argmin(distances))
