"""Linear blend skinning: joints turn, and every vertex follows a weighted mean of their motions.

Letters: b batch, v vertices, j joints, d pose features.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float, typechecked


@typechecked
def joint_rotations(pose: Float[Array, "b j 3"]) -> Float[Array, "b j 3 3"]:
    """Rotation of each joint relative to its parent.

    Args:
      pose: axis-angle, radians.
    """
    return matrix_from_axis_angle(pose)


@typechecked
def pose_features(rotations: Float[Array, "b j 3 3"]) -> Float[Array, "b d"]:
    """What pose-dependent correctives multiply: R − I of every joint but the root, row by row.

    Args:
      rotations: relative to the parents.

    Returns:
      d = 9 · (j − 1).

    Source: SMPL (Loper et al. 2015), section 3; FLAME (Li et al. 2017), equation 4.
    """
    offsets = rotations[:, 1:] - jnp.eye(3, dtype=rotations.dtype)
    return offsets.reshape(offsets.shape[0], -1)


@typechecked
def joint_motions(
    rotations: Float[Array, "b j 3 3"], joints: Float[Array, "b j 3"], parents: Sequence[int]
) -> tuple[Float[Array, "b j 3 3"], Float[Array, "b j 3"]]:
    """The rigid motion that each joint makes with all its ancestors.

    Args:
      rotations: relative to the parents.
      joints: positions at rest, in model space.
      parents: of each joint, a smaller number; −1 for the root.

    Returns:
      Rotations in model space, and where the joints end up.
    """
    turned = [rotations[:, 0]]
    placed = [joints[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = joints[:, joint] - joints[:, parent]
        placed.append(placed[parent] + matmul_highest(turned[parent], bone[..., None])[..., 0])
        turned.append(matmul_highest(turned[parent], rotations[:, joint]))
    return jnp.stack(turned, axis=1), jnp.stack(placed, axis=1)


@typechecked
def skin_vertices(
    rest: Float[Array, "b v 3"],
    rotations: Float[Array, "b j 3 3"],
    joints: Float[Array, "b j 3"],
    posed_joints: Float[Array, "b j 3"],
    weights: Float[Array, "v j"],
) -> Float[Array, "b v 3"]:
    """Moves vertices by the weighted mean of the joints' motions.

    Args:
      rest: vertices before the pose.
      rotations: in model space, from `joint_motions`.
      joints: at rest.
      posed_joints: from `joint_motions`.
      weights: rows add up to 1.
    """
    batch, num_joints = rotations.shape[:2]
    moved = matmul_highest(rotations, joints[..., None])[..., 0]
    motions = jnp.concatenate(
        [rotations.reshape(batch, num_joints, 9), posed_joints - moved], axis=-1
    )
    blended = matmul_highest(weights, motions)  # (b v 12)
    # Three products and a sum per coordinate: a batched 3x3 product of v matrices is slower.
    x, y, z = rest[..., 0], rest[..., 1], rest[..., 2]
    rows = [
        blended[..., 3 * i] * x
        + blended[..., 3 * i + 1] * y
        + blended[..., 3 * i + 2] * z
        + blended[..., 9 + i]
        for i in range(3)
    ]
    return jnp.stack(rows, axis=-1)
