"""A fitted clip, and what it says in pixels: landmarks, joints and vertices.

Letters: t frames, v vertices, j joints, K shape and E expression coefficients, n landmarks, q free
joints.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.landmarks import NUM_LANDMARKS
from talking_heads_jax.tracking.fit_model import (
    TOLD_JOINTS,
    LandmarkModel,
    Skeleton,
    landmark_model,
    posed_landmarks,
)
from talking_heads_jax.tracking.landmarks import OUTER_EYE_CORNERS
from talking_heads_jax.tracking.track import PERSPECTIVE
from talking_heads_jax.typing import Array

#: Frames are padded to one of these numbers, so that few programs are compiled.
LENGTHS = (1, 4, 16, 32, 64, 96, 128, 192, 256, 320, 384, 512)
# Vertices of so many frames are computed at a time.
_FRAMES_AT_ONCE = 16


class FaceFit(NamedTuple):
    """A fitted clip, in numpy arrays; frames without a face are NaN.

    A point p of the model, posed by its joints, in centimetres, becomes q = R p with
    R = `head_rotation_from_angles(angles)`. Under weak perspective it is seen at
    offset_px + scale_px · (q_x, -q_y), under perspective at
    principal_px + (offset_px - principal_px + scale_px · (q_x, -q_y)) / (1 - q_z / depth_cm).

    Attributes:
      shape_coeffs: (K,) float32.
      expression_coeffs: (t E) float32.
      joint_pose: (t 3j) float32 axis-angle of the model's joints. A fit leaves root and neck at 0;
        exact states and edits may turn them.
      angles: (t 3) float32 yaw, pitch, roll of the head in radians.
      scale_px: (t,) float32 pixels per centimetre at the model's origin.
      offset_px: (t 2) float32 where the model's origin is seen.
      depth_cm: (t,) float32 from the camera to the model's origin; NaN under weak perspective.
      focal_px: focal length; 0 under weak perspective.
      camera: 'weak_perspective' or 'perspective'.
      reprojection_px: (t,) float32, root mean square distance of the points that were fitted.
      principal_px: (2,) float32, of the perspective camera.
      landmark_bias_cm: (68 3) float32 offsets on the unturned head, 0 unless they were asked for.
      iterations: of the optimiser.
    """

    shape_coeffs: np.ndarray
    expression_coeffs: np.ndarray
    joint_pose: np.ndarray
    angles: np.ndarray
    scale_px: np.ndarray
    offset_px: np.ndarray
    depth_cm: np.ndarray
    focal_px: float
    camera: str
    reprojection_px: np.ndarray
    principal_px: np.ndarray
    landmark_bias_cm: np.ndarray
    iterations: int


def fit_landmarks_px(model: MorphableModel, fit: FaceFit) -> np.ndarray:
    """The model's 68 landmarks (t 68 2) of a fit, in pixels; with their biases, if it has them.

    All joints count: where others than a fit's own are turned (root and neck, of exact states and
    of edits), landmarks are those of the posed vertices.

    Args:
      model: that was fitted.
      fit: of `fit_clip`, or of a track: `tracker.fit_of`.

    Raises:
      ArgumentError: if the fit is not of this model, or has biases and such joints: biases are of
        the unturned head.
    """
    _check_fit(model, fit)
    if _turns_other_joints(model, fit):
        return _posed_landmarks_px(model, fit)
    parts, skeleton = landmark_model(model, np.arange(NUM_LANDMARKS))
    times = len(fit.angles)
    joints = fit.joint_pose.reshape(times, -1, 3)[:, list(skeleton.free)]
    shape = np.broadcast_to(fit.shape_coeffs, (times, len(fit.shape_coeffs)))
    coefficients = np.concatenate([shape, fit.expression_coeffs], axis=-1)
    points = _landmark_points(
        parts, _with_padding(coefficients), _with_padding(joints), skeleton=skeleton
    )
    points = np.asarray(points)[:times] + fit.landmark_bias_cm
    return _to_px(points, fit, slice(None))[..., :2]


def fit_vertices_px(model: MorphableModel, fit: FaceFit) -> np.ndarray:
    """All vertices (t v 3) float32 of a fit: x, y px, z in the same scale, smaller is nearer.

    z is 0 at the model's origin.

    Args:
      model: that was fitted.
      fit: of `fit_clip`.

    Raises:
      ArgumentError: if the fit is not of this model.
    """
    _check_fit(model, fit)
    result = np.empty((len(fit.angles), model.num_vertices, 3), np.float32)
    for here, vertices in _vertices(model, fit):
        result[here] = _to_px(vertices * model.centimetres_per_unit, fit, here)
    return result


def fit_joints_px(model: MorphableModel, fit: FaceFit) -> np.ndarray:
    """The joints (t j 2) float32 of a fit, x, y px, in the order of the model's `joint_names`.

    Args:
      model: that was fitted.
      fit: of `fit_clip`.

    Raises:
      ArgumentError: if the fit is not of this model.
    """
    _check_fit(model, fit)
    times = len(fit.angles)
    expression, pose = _with_padding(fit.expression_coeffs), _with_padding(fit.joint_pose)
    shape = np.broadcast_to(fit.shape_coeffs, (len(pose), len(fit.shape_coeffs)))
    joints = model.posed_joints(FaceCoefficients(shape, expression, pose.reshape(len(pose), -1, 3)))
    points = np.asarray(joints)[:times] * model.centimetres_per_unit
    return _to_px(points, fit, slice(None))[..., :2]


def _vertices(model: MorphableModel, fit: FaceFit) -> Iterator[tuple[slice, np.ndarray]]:
    """The posed vertices (n v 3), in the model's units, of some frames of a fit at a time."""
    times = len(fit.angles)
    for start in range(0, times, _FRAMES_AT_ONCE):
        here = slice(start, min(start + _FRAMES_AT_ONCE, times))
        expression = _with_padding(fit.expression_coeffs[here])
        pose = _with_padding(fit.joint_pose[here])
        shape = np.broadcast_to(fit.shape_coeffs, (len(pose), len(fit.shape_coeffs)))
        vertices = model.vertices(
            FaceCoefficients(shape, expression, pose.reshape(len(pose), -1, 3))
        )
        yield here, np.asarray(vertices)[: here.stop - start]


def _turns_other_joints(model: MorphableModel, fit: FaceFit) -> bool:
    """Whether joints are turned that the reduced model of `fit_model` keeps at rest."""
    known = set(TOLD_JOINTS)
    rows = [row for row, name in enumerate(model.joint_names) if name not in known]
    pose = fit.joint_pose.reshape(len(fit.angles), len(model.joint_names), 3)[:, rows]
    return bool((np.abs(pose) > 0).any())  # NaN, a frame without a face, is not turned


def _posed_landmarks_px(model: MorphableModel, fit: FaceFit) -> np.ndarray:
    """`fit_landmarks_px` by way of all vertices."""
    if fit.landmark_bias_cm.any():
        raise ArgumentError(
            requirement(
                "a fit with landmark biases",
                "leave all joints but the jaw at rest",
                "turned ones",
                "Set landmark_bias_cm to 0.",
            )
        )
    result = np.empty((len(fit.angles), NUM_LANDMARKS, 2), np.float32)
    for here, vertices in _vertices(model, fit):
        points = np.asarray(model.landmarks68(vertices)) * model.centimetres_per_unit
        result[here] = _to_px(points, fit, here)[..., :2]
    return result


@functools.partial(jax.jit, static_argnames="skeleton")
def _landmark_points(
    parts: LandmarkModel, coefficients: Array, joints: Array, *, skeleton: Skeleton
) -> Array:
    """(t n 3) landmarks of (t c) coefficients and (t q 3) joints."""
    return jax.vmap(lambda c, pose: posed_landmarks(parts, skeleton, c, pose))(coefficients, joints)


def _to_px(points: np.ndarray, fit: FaceFit, frames: slice) -> np.ndarray:
    """(t n 3) pixels of points in cm on the unturned head, of some frames of a fit."""
    turned = points @ np.swapaxes(_rotations(fit.angles[frames]), -1, -2)
    scale = fit.scale_px[frames, None, None]
    px = scale * turned * (1.0, -1.0, -1.0)
    px[..., :2] += fit.offset_px[frames, None]
    if fit.camera == PERSPECTIVE:
        nearness = 1.0 / fit.depth_cm[frames, None, None]
        px[..., :2] -= fit.principal_px
        px[..., :2] /= 1.0 - nearness * turned[..., 2:]
        px[..., :2] += fit.principal_px
    return px.astype(np.float32)


_rotation_program = jax.jit(head_rotation_from_angles)


def _rotations(angles: np.ndarray) -> np.ndarray:
    """(t 3 3) float64 rotations of the head."""
    matrices = _rotation_program(_with_padding(angles.astype(np.float32)))
    return np.asarray(matrices, np.float64)[: len(angles)]


def padded_count(times: int) -> int:
    """The number of frames that a program for so many frames is compiled for.

    Args:
      times: frames of a clip.
    """
    fitting = (length for length in LENGTHS if length >= times)
    return next(fitting, -(-times // 128) * 128)


def _with_padding(values: np.ndarray) -> np.ndarray:
    """Frames (t *), the last one repeated up to `padded_count`."""
    more = padded_count(len(values)) - len(values)
    return np.pad(values, ((0, more), *((0, 0),) * (values.ndim - 1)), mode="edge")


def _check_fit(model: MorphableModel, fit: FaceFit) -> None:
    """Raises unless a fit has the sizes of a model."""
    sizes = (fit.shape_coeffs.shape[-1], fit.expression_coeffs.shape[-1], fit.joint_pose.shape[-1])
    wanted = (model.num_shape, model.num_expression, 3 * len(model.joint_names))
    if sizes != wanted:
        raise ArgumentError(
            requirement(
                f"a fit of '{model.name}'",
                f"have {wanted} shape, expression and pose numbers",
                sizes,
                "Use the model that was fitted.",
            )
        )


def eye_distance_cm(model: MorphableModel) -> float:
    """Outer-eye-corner distance of the mean face, cm.

    Args:
      model: with landmarks.
    """
    parts, skeleton = landmark_model(model, np.array(OUTER_EYE_CORNERS))
    rest = np.zeros((1, model.num_shape + model.num_expression), np.float32)
    joints = np.zeros((1, len(skeleton.free), 3), np.float32)
    corners = np.asarray(_landmark_points(parts, rest, joints, skeleton=skeleton))[0]
    return float(np.linalg.norm(corners[0] - corners[1]))
