"""Head angles ↔ rotation matrices, in the image convention: x right, y down, z away from us.

A face at rest looks at the camera, along −z. Angles are radians: yaw > 0 turns the nose towards the
right edge of the image, pitch > 0 raises it, roll > 0 turns the head clockwise in the image.
"""

import jax.numpy as jnp

from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float

# Below this squared angle the Taylor series of the rotation's factors are exact in float32.
_SMALL_SQUARED_ANGLE = 1e-4


def _rotation(angle: Array, plane: tuple[int, int]) -> Array:
    """Rotation that carries axis plane[0] towards axis plane[1]."""
    first, second = plane
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.zeros((*angle.shape, 3, 3), angle.dtype)
    matrix = matrix.at[..., (0, 1, 2), (0, 1, 2)].set(1.0)
    matrix = matrix.at[..., first, first].set(cos).at[..., second, second].set(cos)
    return matrix.at[..., second, first].set(sin).at[..., first, second].set(-sin)


def matrix_from_angles(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Rotation matrix R = R_roll · R_yaw · R_pitch of (yaw, pitch, roll).

    Args:
      angles: yaw, pitch, roll in radians.

    Returns:
      Matrices that act on column vectors (x right, y down, z away). The nose points along
      R · (0, 0, −1).
    """
    angles = jnp.asarray(angles)
    yaw = _rotation(-angles[..., 0], (2, 0))
    pitch = _rotation(-angles[..., 1], (1, 2))
    roll = _rotation(angles[..., 2], (0, 1))
    return matmul_highest(roll, matmul_highest(yaw, pitch))


def angles_from_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """Inverse of `matrix_from_angles` for |yaw| < 90°.

    Args:
      matrix: rotations that act on column vectors (x right, y down, z away).

    Returns:
      (yaw, pitch, roll) in radians.
    """
    matrix = jnp.asarray(matrix)
    yaw = jnp.arcsin(jnp.clip(matrix[..., 2, 0], -1.0, 1.0))
    pitch = -jnp.arctan2(matrix[..., 2, 1], matrix[..., 2, 2])
    roll = jnp.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return jnp.stack([yaw, pitch, roll], axis=-1)


def matrix_from_axis_angle(rotation: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Rotation matrix of an axis-angle vector, smooth at zero.

    Args:
      rotation: axis times angle in radians; right-handed: the fingers of a right hand whose thumb
        points along the axis.

    Returns:
      Matrices that act on column vectors.

    Source: Rodrigues' formula, R = I + a·K + b·K² with a = sin θ/θ, b = (1 − cos θ)/θ².
    """
    rotation = jnp.asarray(rotation)
    squared = jnp.sum(jnp.square(rotation), axis=-1)
    small = squared < _SMALL_SQUARED_ANGLE
    # The argument is replaced before the singular operations: their gradient at zero is not finite.
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    first = jnp.where(small, 1.0 - squared / 6.0 + squared**2 / 120.0, jnp.sin(angle) / angle)
    half = jnp.sin(0.5 * angle) / angle
    second = jnp.where(small, 0.5 - squared / 24.0 + squared**2 / 720.0, 2.0 * half * half)
    x, y, z = rotation[..., 0], rotation[..., 1], rotation[..., 2]
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    cross = cross.reshape(*rotation.shape[:-1], 3, 3)
    outer = rotation[..., :, None] * rotation[..., None, :]
    identity = jnp.eye(3, dtype=rotation.dtype)
    squares = outer - squared[..., None, None] * identity
    return identity + first[..., None, None] * cross + second[..., None, None] * squares


def axis_angle_from_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3"]:
    """Inverse of `matrix_from_axis_angle`, for angles up to π.

    Args:
      matrix: rotations that act on column vectors.

    Returns:
      Axis times angle in radians; at an angle of π one of the two possible axes.

    Source: Shepperd 1978: the largest of a quaternion's components is computed first.
    """
    matrix = jnp.asarray(matrix)
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    trace = m[0][0] + m[1][1] + m[2][2]
    squares = jnp.stack(
        [
            1.0 + trace,
            1.0 + 2.0 * m[0][0] - trace,
            1.0 + 2.0 * m[1][1] - trace,
            1.0 + 2.0 * m[2][2] - trace,
        ],
        axis=-1,
    )
    w = (m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1])
    s = (m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2])
    rows = [
        (squares[..., 0], w[0], w[1], w[2]),
        (w[0], squares[..., 1], s[0], s[1]),
        (w[1], s[0], squares[..., 2], s[2]),
        (w[2], s[1], s[2], squares[..., 3]),
    ]
    candidates = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    largest = jnp.argmax(squares, axis=-1)[..., None, None]
    quaternion = jnp.take_along_axis(candidates, largest, axis=-2)[..., 0, :]
    quaternion = quaternion / jnp.linalg.norm(quaternion, axis=-1, keepdims=True)
    quaternion = quaternion * jnp.where(quaternion[..., :1] < 0, -1.0, 1.0)
    sine_squared = jnp.sum(jnp.square(quaternion[..., 1:]), axis=-1, keepdims=True)
    tiny = sine_squared < _SMALL_SQUARED_ANGLE
    sine = jnp.sqrt(jnp.where(tiny, 1.0, sine_squared))
    exact = 2.0 * jnp.arctan2(sine, quaternion[..., :1]) / sine
    series = 2.0 + sine_squared / 3.0  # 2 arcsin(s) / s
    return quaternion[..., 1:] * jnp.where(tiny, series, exact)
