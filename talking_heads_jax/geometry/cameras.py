"""Pinhole cameras: head pose ↔ camera, the 25 numbers of EG3D, projection to pixels and clip space.

World: y up, a face at rest looks along +z and its left ear lies at +x, so that in the picture of a
camera in front of it +x is to the right. Camera: OpenCV (x right, y down, z forward). Intrinsics
are normalised by the image size. Clip space, which the rasteriser eats: x right, y *down*, after
division by w inside [-1, 1] on the picture; z/w grows from 0 (near) to 1 (far). Letters: n points.
"""

import jax.numpy as jnp

from talking_heads_jax.batch import Camera
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.geometry.rotations import angles_from_matrix, matrix_from_angles
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float, FloatArray

#: Distance of EG3D's cameras from the pivot, in its world units.
EG3D_RADIUS = 2.7

_FLIP = (1.0, -1.0, -1.0)  # image axes (x right, y down, z away) <-> world axes (y up, z to us)


def _flipped(matrix: Array) -> Array:
    """The same rotation written in the other axes: F · R · F with F = diag(1, -1, -1)."""
    signs = jnp.asarray(_FLIP, matrix.dtype)
    return matrix * signs[:, None] * signs[None, :]


def head_rotation_from_angles(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Rotation, in world axes, of a head whose picture shows these angles from straight ahead.

    Args:
      angles: yaw, pitch, roll in radians: yaw > 0 turns the nose to the right edge of the image,
        pitch > 0 raises it, roll > 0 turns the head clockwise.

    Returns:
      Matrices that act on column vectors; the nose points along R · (0, 0, 1).
    """
    return _flipped(matrix_from_angles(angles))


def angles_from_head_rotation(rotation: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """Inverse of `head_rotation_from_angles` for |yaw| < 90 degrees.

    Args:
      rotation: matrices in world axes that act on column vectors.
    """
    return angles_from_matrix(_flipped(jnp.asarray(rotation)))


def frontal_camera(
    distance: float, focal: float, target: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Camera:
    """A camera that looks along -z at a point in the middle of its picture.

    Args:
      distance: from the camera to the point, in world units.
      focal: focal length in image sizes.
      target: the point.

    Returns:
      A batch of one camera.

    Raises:
      ArgumentError: distance or focal length is not positive.
    """
    for what, value in (("The camera's distance", distance), ("The focal length", focal)):
        if not value > 0:
            raise ArgumentError(requirement(what, "be positive", value, "Give a positive number."))
    position = jnp.asarray(target, jnp.float32) + jnp.asarray([0.0, 0.0, distance], jnp.float32)
    cam2world = jnp.eye(4, dtype=jnp.float32)
    cam2world = cam2world.at[:3, :3].set(jnp.diag(jnp.asarray(_FLIP, jnp.float32)))
    cam2world = cam2world.at[:3, 3].set(position)
    intrinsics = jnp.asarray([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], jnp.float32)
    return Camera(cam2world[None], intrinsics[None])


def camera_relative_to(
    camera: Camera,
    rotation: Float[Array, "b 3 3"],
    translation: Float[Array, "b 3"],
    *,
    scale: float = 1.0,
) -> Camera:
    """The same view described from a moved body: the body stands still, the camera moves.

    Args:
      camera: sees the moved body, whose points are x_world = rotation · x_body + translation.
      rotation: of the body.
      translation: of the body, world units.
      scale: length of a world unit in the units of the result.

    Returns:
      The camera with cam2world in the body's axes: projecting `scale * x_body` with it gives the
      pixels that `camera` gives for x_world.
    """
    turn = jnp.swapaxes(rotation, -1, -2)
    axes = matmul_highest(turn, camera.cam2world[..., :3, :3])
    offset = (camera.cam2world[..., :3, 3] - translation)[..., None]
    position = scale * matmul_highest(turn, offset)
    top = jnp.concatenate([axes, position], axis=-1)
    bottom = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    intrinsics = jnp.broadcast_to(camera.intrinsics, (*top.shape[:-2], 3, 3))
    return Camera(jnp.concatenate([top, bottom], axis=-2), intrinsics)


def camera25_from_camera(camera: Camera) -> Float[Array, "b 25"]:
    """The 25 numbers of EG3D: cam2world (16, row by row), then normalised intrinsics (9).

    Args:
      camera: a batch.
    """
    batch = camera.cam2world.shape[0]
    parts = [camera.cam2world.reshape(batch, 16), camera.intrinsics.reshape(batch, 9)]
    return jnp.concatenate(parts, axis=-1)


def camera_from_camera25(camera25: Float[Array, "b 25"]) -> Camera:
    """Inverse of `camera25_from_camera`.

    Args:
      camera25: as it returns them.
    """
    batch = camera25.shape[0]
    return Camera(camera25[:, :16].reshape(batch, 4, 4), camera25[:, 16:].reshape(batch, 3, 3))


def opengl_from_opencv(cam2world: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
    """cam2world of an OpenGL camera (x right, y up, z backward) from OpenCV's; its own inverse.

    Args:
      cam2world: of a camera with x right, y down, z forward.
    """
    return cam2world * jnp.asarray((*_FLIP, 1.0), cam2world.dtype)


def camera_points(camera: Camera, points: Float[Array, "b n 3"]) -> Float[Array, "b n 3"]:
    """Points in the camera's axes: x right, y down, z = depth along the optical axis.

    Args:
      camera: a batch of as many cameras, or of one.
      points: in world units.
    """
    cam2world = jnp.asarray(camera.cam2world)
    return matmul_highest(points - cam2world[:, None, :3, 3], cam2world[:, :3, :3])


def pixels_from_camera_points(
    intrinsics: Float[Array, "b 3 3"], points: Float[Array, "b n 3"], *, size: int
) -> Float[Array, "b n 2"]:
    """Perspective projection of points in front of the camera.

    Args:
      intrinsics: normalised by the image size, without skew.
      points: as `camera_points` returns them.
      size: height and width of the picture, pixels.

    Returns:
      x, y in px: x right, y down, (0, 0) is the outer corner of the first pixel.
    """
    focal = jnp.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], axis=-1)[:, None]
    center = intrinsics[:, None, :2, 2]
    return size * (focal * points[..., :2] / points[..., 2:] + center)


def clip_from_camera_points(
    intrinsics: Float[Array, "b 3 3"], points: Float[Array, "b n 3"], *, near: float, far: float
) -> Float[Array, "b n 4"]:
    """Clip-space positions of points in the camera's axes; nothing is divided or clipped.

    Args:
      intrinsics: normalised by the image size, without skew.
      points: as `camera_points` returns them.
      near: depth where z/w is 0.
      far: depth where z/w is 1.

    Returns:
      x, y, z, w with w = depth.

    Raises:
      ArgumentError: unless 0 < near < far.
    """
    if not 0 < near < far:
        raise ArgumentError(
            requirement("near and far", "satisfy 0 < near < far", (near, far), "Order them.")
        )
    focal = jnp.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], axis=-1)[:, None]
    center = intrinsics[:, None, :2, 2]
    depth = points[..., 2:]
    plane = 2 * focal * points[..., :2] + (2 * center - 1) * depth
    return jnp.concatenate([plane, (depth - near) * (far / (far - near)), depth], axis=-1)


def depth_from_clip(depth_ndc: FloatArray, *, near: float, far: float) -> FloatArray:
    """Depth along the optical axis from z/w of `clip_from_camera_points` with the same planes.

    Args:
      depth_ndc: z/w, 0 at `near` to 1 at `far`.
      near: as there.
      far: as there.
    """
    return near / (1 - depth_ndc * ((far - near) / far))
