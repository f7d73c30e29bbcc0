"""Head poses of Deep3DFaceRecon and DECA, to and from the package's angles and pixels.

Two forms stand between all conventions. `HeadPose`: yaw, pitch, roll and the place of the face
model's origin in the camera's axes (x right, y down, z forward), for pinhole cameras.
`WeakPerspective`: the same angles, pixels per centimetre and the pixel of that origin. The pixels
of a picture count from its outer corner. Model space, in which the heads stand still: +x towards
the subject's left ear, +y up, +z out of the nose; centimetres. EG3D's 25 numbers are in
`eg3d_cameras`. Letters: b batch, n points.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from talking_heads_jax.geometry.cameras import (
    angles_from_head_rotation,
    head_rotation_from_angles,
)
from talking_heads_jax.geometry.deep3d_template import CAMERA_DISTANCE, SIZE_PX
from talking_heads_jax.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float, typechecked

_CM_PER_DECIMETRE = 10.0
_CM_PER_METRE = 100.0
_FLIP = (1.0, -1.0, -1.0)  # camera axes (y down, z away) <-> axes of the world (y up, z to us)
# DECA's picture reaches from -1 to 1; its sources take the pixels made of that as counted from the
# first pixel's centre.
_CENTRE_PX = 0.5


class HeadPose(NamedTuple):
    """A head before a pinhole camera.

    Attributes:
      angles: (b 3) yaw, pitch, roll in radians, as at every interface of the package.
      position: (b 3) of the face model's origin in the camera's axes: x right, y down, z forward,
        centimetres.
    """

    angles: Any
    position: Any


class WeakPerspective(NamedTuple):
    """A head under scaled parallel projection: px = offset + scale · (x, -y) of the turned head.

    Attributes:
      angles: (b 3) yaw, pitch, roll in radians.
      scale_px: (b) pixels per centimetre.
      offset_px: (b 2) pixel of the face model's origin.
    """

    angles: Any
    scale_px: Any
    offset_px: Any


@typechecked
def matrix_from_deep3d_angles(angles: Float[Array, "b 3"]) -> Float[Array, "b 3 3"]:
    """R = R_z · R_y · R_x for column vectors; Deep3DFaceRecon multiplies rows by its transpose.

    Args:
      angles: radians about x, y, z.
    """
    axes = jnp.eye(3, dtype=angles.dtype)
    x, y, z = (matrix_from_axis_angle(angles[:, i : i + 1] * axes[i]) for i in range(3))
    return matmul_highest(z, matmul_highest(y, x))


def angles_from_deep3d(deep3d_angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Yaw, pitch, roll from Deep3DFaceRecon's angles.

    Both turn first about x, then y, then z, and differ in signs only: exact for all angles.

    Args:
      deep3d_angles: radians about x, y, z in model space.
    """
    x, y, z = jnp.moveaxis(jnp.asarray(deep3d_angles), -1, 0)
    return jnp.stack([y, -x, -z], axis=-1)


def deep3d_from_angles(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Inverse of `angles_from_deep3d`.

    Args:
      angles: yaw, pitch, roll in radians.
    """
    yaw, pitch, roll = jnp.moveaxis(jnp.asarray(angles), -1, 0)
    return jnp.stack([-pitch, yaw, -roll], axis=-1)


def head_pose_from_deep3d(
    deep3d_angles: Float[Array, "b 3"], translation: Float[Array, "b 3"]
) -> HeadPose:
    """The head that Deep3DFaceRecon saw, before its camera.

    That camera stands 10 dm before the origin, has a focal length of 1015 px and its centre at 112
    px of 224; `deep3d_template` names these. Its authors' renderer counts pixels from the picture's
    corner, as we do. Their landmarks (row = 223 - y) are read as counted from pixel centres, which
    is (+0.5, -0.5) px from that.

    Args:
      deep3d_angles: radians about x, y, z.
      translation: decimetres, x right, y up, z towards the camera.
    """
    moved = jnp.asarray(translation) - jnp.asarray([0.0, 0.0, CAMERA_DISTANCE])
    return HeadPose(
        angles_from_deep3d(deep3d_angles), _CM_PER_DECIMETRE * moved * jnp.asarray(_FLIP)
    )


def deep3d_from_head_pose(pose: HeadPose) -> tuple[Array, Array]:
    """Inverse of `head_pose_from_deep3d`: (angles, translation).

    Args:
      pose: of a head seen with Deep3DFaceRecon's focal length.
    """
    moved = jnp.asarray(pose.position) * jnp.asarray(_FLIP) / _CM_PER_DECIMETRE
    translation = moved + jnp.asarray([0.0, 0.0, CAMERA_DISTANCE])
    return deep3d_from_angles(pose.angles), translation


def weak_perspective_from_deca(
    global_pose: Float[Array, "b 3"],
    cam: Float[Array, "b 3"],
    *,
    root_joint: Float[Array, "b 3"] | None = None,
    size: int = SIZE_PX,
) -> WeakPerspective:
    """DECA's head pose and camera in pixels of its crop.

    DECA draws a FLAME vertex at s · (x + t_x, y + t_y) with y and z negated, on a picture that
    reaches from -1 to 1, so u = (s · (x + t_x) / 2 + 1 / 2) · size. The released GDPW fitter counts
    u from pixel centres; ours is u + 0.5.

    Args:
      global_pose: axis-angle, radians; the first three numbers of DECA's pose.
      cam: s, t_x, t_y; metres.
      root_joint: of FLAME at rest, metres: FLAME turns about it, not about its origin. None leaves
        the difference out, as if the joint were the origin.
      size: of the crop, pixels.

    Returns:
      The turned head is that of FLAME without its global pose, turned about its origin.
    """
    rotation = matrix_from_axis_angle(global_pose)
    cam = jnp.asarray(cam)
    shift = cam[:, 1:]
    if root_joint is not None:
        shift = shift + _lever(rotation, root_joint)[:, :2]
    half = 0.5 * size
    scale = half * cam[:, :1]
    offset = scale * shift * jnp.asarray(_FLIP[:2]) + half + _CENTRE_PX
    return WeakPerspective(angles_from_head_rotation(rotation), scale[:, 0] / _CM_PER_METRE, offset)


def deca_from_weak_perspective(
    weak: WeakPerspective,
    *,
    root_joint: Float[Array, "b 3"] | None = None,
    size: int = SIZE_PX,
) -> tuple[Array, Array]:
    """Inverse of `weak_perspective_from_deca`: (global_pose, cam).

    Args:
      weak: in pixels of the crop.
      root_joint: as there.
      size: as there.
    """
    rotation = head_rotation_from_angles(weak.angles)
    half = 0.5 * size
    scale = jnp.asarray(weak.scale_px)[:, None] * _CM_PER_METRE
    offset = jnp.asarray(weak.offset_px) - half - _CENTRE_PX
    shift = offset * jnp.asarray(_FLIP[:2]) / scale
    if root_joint is not None:
        shift = shift - _lever(rotation, root_joint)[:, :2]
    return axis_angle_from_matrix(rotation), jnp.concatenate([scale / half, shift], axis=-1)


def head_pose_from_pixels(
    angles: Float[Array, "b 3"],
    offset_px: Float[Array, "b 2"],
    depth_cm: Float[Array, " b"],
    *,
    focal_px: float,
    principal_px: tuple[float, float],
) -> HeadPose:
    """The pose of a head whose model's origin is seen at a pixel, so far away.

    Args:
      angles: yaw, pitch, roll in radians.
      offset_px: pixel of the origin.
      depth_cm: its distance along the camera's axis.
      focal_px: focal length in pixels of the same picture.
      principal_px: x, y where the camera's axis meets it.
    """
    depth = jnp.asarray(depth_cm)[:, None]
    across = (jnp.asarray(offset_px) - jnp.asarray(principal_px)) * depth / focal_px
    return HeadPose(jnp.asarray(angles), jnp.concatenate([across, depth], axis=-1))


def head_pose_from_weak_perspective(
    weak: WeakPerspective,
    *,
    focal_px: float,
    principal_px: tuple[float, float],
    anchor: Float[Array, "3"] | tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> HeadPose:
    """The pinhole pose that draws one point of the head, and its surroundings, as `weak` does.

    What lies nearer than that point is drawn larger, what lies farther smaller: the two pictures
    agree at its depth only. A fit to landmarks holds where the landmarks are.

    Args:
      weak: in pixels of a picture.
      focal_px: focal length to assume, in pixels of the same picture.
      principal_px: x, y where the camera's axis meets it.
      anchor: the point, in model space, centimetres.
    """
    from_origin = _anchor(anchor, weak.angles)
    scale = jnp.asarray(weak.scale_px)
    pixel = jnp.asarray(weak.offset_px) + scale[:, None] * from_origin[:, :2]
    pose = head_pose_from_pixels(
        weak.angles, pixel, focal_px / scale, focal_px=focal_px, principal_px=principal_px
    )
    return pose._replace(position=pose.position - from_origin)


def weak_perspective_from_head_pose(
    pose: HeadPose,
    *,
    focal_px: float,
    principal_px: tuple[float, float],
    anchor: Float[Array, "3"] | tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> WeakPerspective:
    """Inverse of `head_pose_from_weak_perspective`.

    Args:
      pose: before a camera.
      focal_px: its focal length in pixels.
      principal_px: x, y where its axis meets the picture.
      anchor: as there.
    """
    from_origin = _anchor(anchor, pose.angles)
    place = jnp.asarray(pose.position) + from_origin
    scale = focal_px / place[:, 2]
    offset = scale[:, None] * (place - from_origin)[:, :2] + jnp.asarray(principal_px)
    return WeakPerspective(jnp.asarray(pose.angles), scale, offset)


def project_head(
    points: Float[Array, "b n 3"],
    pose: HeadPose,
    *,
    focal_px: float,
    principal_px: tuple[float, float],
) -> Float[Array, "b n 2"]:
    """Pixels of a head's points under a pinhole camera.

    Args:
      points: in model space, centimetres.
      pose: of the head.
      focal_px: focal length in pixels.
      principal_px: x, y where the camera's axis meets the picture.
    """
    seen = _turned(points, pose.angles) + jnp.asarray(pose.position)[:, None]
    return focal_px * seen[..., :2] / seen[..., 2:] + jnp.asarray(principal_px)


def project_head_weakly(
    points: Float[Array, "b n 3"], weak: WeakPerspective
) -> Float[Array, "b n 2"]:
    """Pixels of a head's points under weak perspective.

    Args:
      points: in model space, centimetres.
      weak: the projection.
    """
    seen = _turned(points, weak.angles)[..., :2]
    scale = jnp.asarray(weak.scale_px)[:, None, None]
    return jnp.asarray(weak.offset_px)[:, None] + scale * seen


def _anchor(anchor: Array | tuple[float, float, float], angles: Array) -> Array:
    """A point of the head from the model's origin, in the camera's axes, (b 3)."""
    point = jnp.broadcast_to(jnp.asarray(anchor, jnp.float32), (len(angles), 1, 3))
    return _turned(point, angles)[:, 0]


def _turned(points: Array, angles: Array) -> Array:
    """Points of a turned head in the camera's axes, (b n 3)."""
    rotation = head_rotation_from_angles(angles)
    return matmul_highest(jnp.asarray(points), jnp.swapaxes(rotation, -1, -2)) * jnp.asarray(_FLIP)


def _lever(rotation: Array, joint: Array) -> Array:
    """What turning about a joint adds to turning about the origin: (I - R) · joint, (b 3)."""
    joint = jnp.broadcast_to(jnp.asarray(joint), (rotation.shape[0], 3))
    return joint - matmul_highest(rotation, joint[..., None])[..., 0]
