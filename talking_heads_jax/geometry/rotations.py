"""Head angles ↔ rotation matrices, in the image convention: x right, y down, z away from us.

A face at rest looks at the camera, along −z. Angles are radians: yaw > 0 turns the nose towards the
right edge of the image, pitch > 0 raises it, roll > 0 turns the head clockwise in the image.
"""

import jax.numpy as jnp

from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float


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

    Returns:
      (yaw, pitch, roll) in radians.
    """
    matrix = jnp.asarray(matrix)
    yaw = jnp.arcsin(jnp.clip(matrix[..., 2, 0], -1.0, 1.0))
    pitch = -jnp.arctan2(matrix[..., 2, 1], matrix[..., 2, 2])
    roll = jnp.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return jnp.stack([yaw, pitch, roll], axis=-1)
