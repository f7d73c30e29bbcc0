"""EG3D's cameras of faces: the 25 numbers from a head's pose, their normalisations, NOFA's shifts.

The head stands still and the camera moves. Its axes are those of the face model (`cameras`: +x to
the picture's right, y up, the face looks along +z), 0.027 world units to a centimetre. A point v
of the model lies at 0.027 v + offset; the normalising modes then scale world and camera about a
point. Letters: b batch, n points.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import Camera
from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.geometry.cameras import (
    EG3D_RADIUS,
    angles_from_head_rotation,
    camera25_from_camera,
    camera_from_camera25,
    camera_points,
    camera_relative_to,
    frontal_camera,
    head_rotation_from_angles,
)
from talking_heads_jax.geometry.deep3d_template import TEMPLATE_FIVE_POINTS, five_points
from talking_heads_jax.geometry.estimator_cameras import HeadPose
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float

#: Focal length of every face camera of EG3D, in sizes of its crop. Source: preprocess_cameras.py;
#: 1015 px at 102 px/dm is 2985.29 px at 300 px/dm, of which 700 are kept.
EG3D_FOCAL = 2985.29 / 700
#: World units per centimetre before any normalisation (0.27 per decimetre of BFM).
EG3D_UNITS_PER_CM = 0.027
#: Where BFM's origin lies, world units. Source: 3dface2idr_mat.py.
EG3D_OFFSET = (0.0, 0.006, 0.161)
#: Normalisations: 'none' keeps the estimated distance; 'orig', of the released models, brings the
#: camera to radius 2.7 about the world's origin; 'cor' about (0, 0, 0.175), 'simplify' likewise and
#: then looks at that point without roll.
EG3D_MODES = ("none", "orig", "cor", "simplify")
_CENTRE_OF_ROTATION = (0.0, 0.0, 0.175)
_FLIP = (1.0, -1.0, -1.0)
_CM_PER_DECIMETRE = 10.0


class EG3DView(NamedTuple):
    """A camera of EG3D, and what it takes to find the head in its world.

    Attributes:
      camera25: (b 25).
      scale: (b) by which the mode scaled world and camera; 1 in mode 'none'.
    """

    camera25: Any
    scale: Any


class HeadTranslation(NamedTuple):
    """How far a head moved in the picture, beyond what an aligned crop shows.

    Attributes:
      shift: (b 2) du, dv: right and down, in widths of the crop.
      size_ratio: (b) how many times larger the head is seen.
    """

    shift: Any
    size_ratio: Any


def camera25_from_head_pose(
    pose: HeadPose,
    *,
    mode: str = "none",
    offset: tuple[float, float, float] = EG3D_OFFSET,
    focal: float = EG3D_FOCAL,
) -> EG3DView:
    """The 25 numbers that show a still head as a fixed camera shows the posed one.

    Args:
      pose: before a camera of that focal length whose axis meets the middle of the picture. Of a
        head from Deep3DFaceRecon it gives EG3D's camera for the crop `eg3d_512`.
      mode: one of `EG3D_MODES`. All but 'simplify' keep the picture, of a world that is scaled.
      offset: world position of the face model's origin; see `eg3d_offset` for other models.
      focal: in sizes of the picture.

    Raises:
      ArgumentError: an unknown mode.

    Source: Chan et al. 2022; github.com/NVlabs/eg3d, dataset_preprocessing/ffhq.
    """
    check_choice("the mode of an EG3D camera", mode, EG3D_MODES)
    position = jnp.asarray(pose.position)
    rotation = head_rotation_from_angles(pose.angles)
    fixed = frontal_camera(1.0, focal)
    fixed = Camera(fixed.cam2world.at[:, :3, 3].set(0.0), fixed.intrinsics)
    camera = camera_relative_to(
        fixed, rotation, position * jnp.asarray(_FLIP), scale=EG3D_UNITS_PER_CM
    )
    center = _center(mode)
    place = camera.cam2world[:, :3, 3] + jnp.asarray(offset) - center
    scale = jnp.ones_like(place[:, 0])
    if mode != "none":
        scale = EG3D_RADIUS / jnp.linalg.norm(place, axis=-1)
    place = center + scale[:, None] * place
    cam2world = camera.cam2world.at[:, :3, 3].set(place)
    if mode == "simplify":
        cam2world = cam2world.at[:, :3, :3].set(_looking_at(place, center))
    return EG3DView(camera25_from_camera(Camera(cam2world, camera.intrinsics)), scale)


def head_pose_from_camera25(
    camera25: Float[Array, "b 25"],
    *,
    mode: str = "none",
    scale: Float[Array, " b"] | float = 1.0,
    offset: tuple[float, float, float] = EG3D_OFFSET,
) -> HeadPose:
    """Inverse of `camera25_from_head_pose`.

    Args:
      camera25: whose intrinsics are not looked at.
      mode: by which it was normalised. From 'simplify' roll and the place beside the camera's axis
        cannot be found again.
      scale: `EG3DView.scale`. Normalisation hides the distance: for cameras of unknown scale, 1
        puts the head where a normal one would be.
      offset: as there.

    Raises:
      ArgumentError: an unknown mode.
    """
    check_choice("the mode of an EG3D camera", mode, EG3D_MODES)
    cam2world = camera_from_camera25(jnp.asarray(camera25)).cam2world
    rotation = _head_rotation(cam2world)
    center = _center(mode)
    factor = jnp.broadcast_to(jnp.asarray(scale, cam2world.dtype), cam2world.shape[:1])[:, None]
    place = center + (cam2world[:, :3, 3] - center) / factor - jnp.asarray(offset)
    position = -matmul_highest(rotation, place[..., None])[..., 0] / EG3D_UNITS_PER_CM
    return HeadPose(angles_from_head_rotation(rotation), position * jnp.asarray(_FLIP))


def eg3d_points(
    points: Float[Array, "b n 3"],
    scale: Float[Array, " b"] | float = 1.0,
    *,
    mode: str = "none",
    offset: tuple[float, float, float] = EG3D_OFFSET,
) -> Float[Array, "b n 3"]:
    """Points of a face model in EG3D's world.

    Args:
      points: of the head at rest, model space, centimetres.
      scale: `EG3DView.scale`. Leaving it out of a normalised view moves points by pixels.
      mode: of the view.
      offset: as in `camera25_from_head_pose`.

    Raises:
      ArgumentError: an unknown mode.
    """
    check_choice("the mode of an EG3D camera", mode, EG3D_MODES)
    center = _center(mode)
    still = EG3D_UNITS_PER_CM * jnp.asarray(points) + jnp.asarray(offset) - center
    return center + jnp.reshape(jnp.asarray(scale, still.dtype), (-1, 1, 1)) * still


def eg3d_offset(landmarks: Float[Array, "68 3"]) -> tuple[float, float, float]:
    """Where to put the origin of another face model so that its face lies where BFM's does.

    Args:
      landmarks: (68 3) or 5 points of the model's mean face at rest, model space, centimetres.

    Returns:
      `offset` of the other functions: the mean of the five alignment points coincides with that of
      Deep3DFaceRecon's template.

    Raises:
      ArgumentError: another number of points.
    """
    points = five_points(np.asarray(landmarks))
    apart = _CM_PER_DECIMETRE * TEMPLATE_FIVE_POINTS.mean(0) - points.mean(0)
    x, y, z = np.asarray(EG3D_OFFSET) + EG3D_UNITS_PER_CM * apart
    return float(x), float(y), float(z)


def camera25_from_angles(
    angles: Float[Array, "b 3"],
    *,
    radius: float = EG3D_RADIUS,
    target: tuple[float, float, float] = (0.0, 0.0, 0.0),
    focal: float = EG3D_FOCAL,
) -> Float[Array, "b 25"]:
    """A camera that circles a point and shows the head there turned by these angles.

    Args:
      angles: yaw, pitch, roll in radians.
      radius: distance from the point, world units.
      target: the point, in the middle of the picture. EG3D's own viewer uses (0, 0, 0.2).
      focal: in sizes of the picture.

    Raises:
      ArgumentError: radius or focal length is not positive.
    """
    angles = jnp.asarray(angles)
    rotation = head_rotation_from_angles(angles)
    camera = camera_relative_to(
        frontal_camera(radius, focal), rotation, jnp.zeros_like(angles), scale=1.0
    )
    cam2world = camera.cam2world.at[:, :3, 3].add(jnp.asarray(target))
    return camera25_from_camera(Camera(cam2world, camera.intrinsics))


def angles_from_camera25(camera25: Float[Array, "b 25"]) -> Float[Array, "b 3"]:
    """Yaw, pitch, roll of a head as this camera shows it, for |yaw| < 90 degrees.

    Args:
      camera25: of any mode.
    """
    return angles_from_head_rotation(
        _head_rotation(camera_from_camera25(jnp.asarray(camera25)).cam2world)
    )


def head_translation(
    source_px: Float[Array, "68 2"],
    driving_px: Float[Array, "b 68 2"],
    *,
    width_px: float,
    source_scale_px: float,
    driving_scale_px: Float[Array, " b"],
) -> HeadTranslation:
    """What an aligned crop hides: where the head is in the unaligned picture, and how large.

    Args:
      source_px: landmarks of the source in its original frame; for motion relative to a clip's own
        start, those of its first frame.
      driving_px: landmarks of the driving frames, in pixels of the same size.
      width_px: of the source's crop, in pixels of its original frame.
      source_scale_px: pixels per centimetre, or another measure of the head's size that yaw does
        not change (`tracking.face_crops.template_scale_px`).
      driving_scale_px: likewise, of the driving frames.

    Raises:
      ArgumentError: the width or the source's scale is not positive.

    Source: NOFA (Yu et al. 2023) states that the absolute translation is used; the formula is ours.
    """
    for what, value in (("The crop's width", width_px), ("The source's scale", source_scale_px)):
        if not value > 0:
            raise ArgumentError(
                requirement(what, "be positive", value, "Measure it on the source's landmarks.")
            )
    moved = jnp.mean(jnp.asarray(driving_px), axis=1) - jnp.mean(jnp.asarray(source_px), axis=0)
    return HeadTranslation(moved / width_px, jnp.asarray(driving_scale_px) / source_scale_px)


def translate_camera25(
    camera25: Float[Array, "b 25"],
    translation: HeadTranslation,
    *,
    target: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Float[Array, "b 25"]:
    """Moves a camera so that the head's middle is seen shifted, and larger or smaller.

    Exactly: the target's pixel moves by shift · size, and its depth becomes Z' = Z / size_ratio. On
    the axis and at ratio 1 that is the camera's shift (-du Z / f, -dv Z / f, 0) in its own axes.

    Args:
      camera25: of the aligned crop.
      translation: of the head.
      target: world point that stands for the head's middle.
    """
    camera = camera_from_camera25(jnp.asarray(camera25))
    point = jnp.broadcast_to(jnp.asarray(target, camera.cam2world.dtype), (len(camera25), 1, 3))
    before = camera_points(camera, point)[:, 0]
    depth = before[:, 2:] / jnp.asarray(translation.size_ratio)[:, None]
    focal = jnp.stack([camera.intrinsics[:, 0, 0], camera.intrinsics[:, 1, 1]], axis=-1)
    seen = before[:, :2] / before[:, 2:] + jnp.asarray(translation.shift) / focal
    after = jnp.concatenate([seen * depth, depth], axis=-1)
    axes = camera.cam2world[:, :3, :3]
    moved = matmul_highest(axes, (before - after)[..., None])[..., 0]
    cam2world = camera.cam2world.at[:, :3, 3].add(moved)
    return camera25_from_camera(Camera(cam2world, camera.intrinsics))


def _center(mode: str) -> Array:
    """The point that a mode scales about."""
    return jnp.asarray(_CENTRE_OF_ROTATION if mode in ("cor", "simplify") else (0.0, 0.0, 0.0))


def _head_rotation(cam2world: Array) -> Array:
    """Rotation of the head, in world axes, that a still camera in front of it would see."""
    return jnp.swapaxes(cam2world[:, :3, :3] * jnp.asarray(_FLIP), -1, -2)


def _looking_at(place: Array, center: Array) -> Array:
    """Axes of a camera that looks at a point and keeps y in the upright plane, (b 3 3)."""

    def unit(vector: Array) -> Array:
        return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)

    forward = unit(center - place)
    right = unit(jnp.cross(forward, jnp.asarray([0.0, 1.0, 0.0])))
    down = jnp.cross(forward, right)
    return jnp.stack([right, down, forward], axis=-1)
