"""A morphable model reduced to its landmarks: what the fit evaluates instead of all vertices.

While only joints turn that do not hang on each other, skinning is `x = r + W (R - I) (r - p)` with
the point at rest r, the turning joint's position p and its share W of the skin. r and p are affine
in the coefficients, hence x is: the fit needs no derivative of a mesh, and nothing is approximated.
Lengths are centimetres. Letters: n landmarks, m vertices under them, q free joints, K shape and
E expression coefficients, c = K + E.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array

#: Joints that the 68 landmarks can tell, where a model has them; none hangs on another. The head's
#: rotation stands for root and neck; the landmarks are on the lids, not on the iris, so that the
#: eyes stay at rest.
TOLD_JOINTS = ("jaw",)
# A joint that moves no landmark by more than this share is not told by them.
_SMALLEST_INFLUENCE = 0.05


class Skeleton(NamedTuple):
    """What of the reduced model is no array; a static argument of the jitted programs.

    Attributes:
      free: numbers of the joints that are fitted.
      jaw_open_angle: radians about the x axis of the first of them at which `jaw_corrective`, where
        there is one, is complete.
      num_shape: K.
      num_expression: E.
    """

    free: tuple[int, ...]
    jaw_open_angle: float
    num_shape: int
    num_expression: int


class LandmarkModel(NamedTuple):
    """The rows of a model's arrays that its landmarks touch, in cm.

    Attributes:
      template: (m 3) the mean face at rest.
      basis: (c m 3) shape, then expression.
      pivots: (q 3) the free joints at rest.
      pivot_basis: (c q 3).
      follow: (m q) share of each vertex that a free joint carries, with all that hangs on it.
      corners: (n 3) the vertices of each landmark's triangle, numbered in m; None where every
        landmark is a vertex: then m = n.
      corner_weights: (n 3) barycentric, or None.
      jaw_corrective: (m 3), or None.
      pose_basis: (q 9 3m) correctives of the free joints' R - I, or None.
    """

    template: Array
    basis: Array
    pivots: Array
    pivot_basis: Array
    follow: Array
    corners: Array | None
    corner_weights: Array | None
    jaw_corrective: Array | None
    pose_basis: Array | None


def landmark_model(
    model: MorphableModel, landmarks: np.ndarray, *, fit_joints: bool = True
) -> tuple[LandmarkModel, Skeleton]:
    """Reduces a model to some of its 68 landmarks.

    Args:
      model: any of `talking_heads_jax.morphable`. Of FLAME's jaw line, which slides with the pose,
        the landmarks that are fixed to the mesh are taken.
      landmarks: (n,) which of the 68.
      fit_joints: whether the joints of `TOLD_JOINTS` are free.

    Raises:
      ArgumentError: if the model came without landmarks, or is no skinned model.
    """
    if not isinstance(model, SkinnedFaceModel):
        raise ArgumentError(
            requirement(
                "the model of a fit",
                "be a SkinnedFaceModel",
                type(model).__name__,
                "Load it with `morphable.registry.load_morphable` or build it with `from_arrays`.",
            )
        )
    arrays = model.arrays
    if "landmark_corners" not in arrays:
        raise ArgumentError(
            requirement(
                f"the model '{model.name}' of a fit",
                "have the 68 landmarks",
                "none",
                "FLAME's are a file of their own: talking-heads assets add landmark_embedding.npy.",
            )
        )
    corners = np.asarray(arrays["landmark_corners"])[landmarks]
    corner_weights = np.asarray(arrays["landmark_weights"])[landmarks]
    if (corner_weights[:, 0] == 1).all() and (corner_weights[:, 1:] == 0).all():
        used, index, corner_weights = corners[:, 0], None, None
    else:
        used, index = np.unique(corners, return_inverse=True)
        index = index.reshape(corners.shape).astype(np.int32)
    unit, count = np.float32(model.centimetres_per_unit), model.num_vertices

    def rows(name: str) -> np.ndarray:
        """(* m 3) in cm of an array (* 3v)."""
        table = arrays[name]
        return unit * np.asarray(table.reshape(-1, count, 3)[:, used])

    weights = np.asarray(arrays["weights"])[used]
    names = model.joint_names
    told = [names.index(name) for name in TOLD_JOINTS if fit_joints and name in names]
    follow = _followers(weights, model.description.parents, told)
    kept = np.flatnonzero(follow.max(axis=0, initial=0.0) > _SMALLEST_INFLUENCE)
    free = [told[number] for number in kept]
    corrective = pose_basis = None
    if "jaw_corrective" in arrays and free:
        corrective = unit * np.asarray(arrays["jaw_corrective"])[used]
    if "posedirs" in arrays and free:
        by_joint = rows("posedirs").reshape(len(names) - 1, 9, 3 * len(used))
        pose_basis = by_joint[np.array(free) - 1]  # the root has none
    reduced = LandmarkModel(
        template=unit * np.asarray(arrays["template"])[used],
        basis=rows("basis"),
        pivots=unit * np.asarray(arrays["joints"])[free],
        pivot_basis=unit * np.asarray(arrays["joint_basis"])[:, free],
        follow=follow[:, kept],
        corners=index,
        corner_weights=corner_weights,
        jaw_corrective=corrective,
        pose_basis=pose_basis,
    )
    skeleton = Skeleton(
        free=tuple(free),
        jaw_open_angle=float(model.description.jaw_open_angle or 1.0),
        num_shape=model.num_shape,
        num_expression=model.num_expression,
    )
    return reduced, skeleton


def _followers(weights: np.ndarray, parents: Sequence[int], told: Sequence[int]) -> np.ndarray:
    """(m q) share of the skin that follows each told joint: its own and its descendants'."""
    result = np.zeros((len(weights), len(told)), np.float32)
    for column, joint in enumerate(told):
        below = {joint}
        for number, parent in enumerate(parents):  # parents come first
            if parent in below:
                below.add(number)
        result[:, column] = weights[:, sorted(below)].sum(axis=1)
    return result


def _correctives(parts: LandmarkModel, skeleton: Skeleton, pose: Array, turns: Array) -> Array:
    """(m 3) what the pose adds at rest; `turns` (q 3 3) are R - I."""
    added = jnp.zeros_like(parts.template)
    if parts.jaw_corrective is not None:
        opening = pose[0, 0] / skeleton.jaw_open_angle
        # No maximum: a fit starts with a shut mouth, where the slope must be that of opening it.
        added += jnp.where(opening >= 0, opening, 0.0) * parts.jaw_corrective
    if parts.pose_basis is not None:
        features = turns.reshape(1, -1)
        added += matmul_highest(features, jnp.concatenate(parts.pose_basis)).reshape(-1, 3)
    return added


def _at_landmarks(parts: LandmarkModel, vertices: Array) -> Array:
    """(n 3 *) landmarks of (m 3 *) vertices."""
    if parts.corners is None:
        return vertices
    corners = vertices[parts.corners]  # (n 3 3 *)
    shape = (*parts.corner_weights.shape, *(1,) * (corners.ndim - 2))
    return jnp.sum(corners * parts.corner_weights.reshape(shape), axis=1)


def affine_landmarks(
    parts: LandmarkModel, skeleton: Skeleton, free_pose: Array
) -> tuple[Array, Array]:
    """Landmarks of a frame as an affine function of the coefficients.

    Args:
      parts: the reduced model.
      skeleton: belongs to it.
      free_pose: (q 3) axis-angle of the free joints.

    Returns:
      base (n 3) and linear (n 3 c), cm in head axes: the landmarks are base + linear · c.
    """
    turns = matrix_from_axis_angle(free_pose) - jnp.eye(3)
    rest = parts.template + _correctives(parts, skeleton, free_pose, turns)
    base, linear = rest, jnp.transpose(parts.basis, (1, 2, 0))
    for number in range(len(skeleton.free)):
        share = parts.follow[:, number]
        arm = rest - parts.pivots[number]
        base += share[:, None] * matmul_highest(arm, turns[number].T)
        # (3 m c): one product with all columns; many small ones are slower.
        arms = jnp.transpose(parts.basis - parts.pivot_basis[:, None, number], (2, 1, 0))
        moved = matmul_highest(turns[number], arms.reshape(3, -1)).reshape(arms.shape)
        linear += share[:, None, None] * jnp.swapaxes(moved, 0, 1)
    return _at_landmarks(parts, base), _at_landmarks(parts, linear)


def posed_landmarks(
    parts: LandmarkModel, skeleton: Skeleton, coefficients: Array, free_pose: Array
) -> Array:
    """Landmarks (n 3) of a frame, cm in head axes.

    Args:
      parts: the reduced model.
      skeleton: belongs to it.
      coefficients: (c,) shape, then expression.
      free_pose: (q 3) axis-angle of the free joints.
    """
    turns = matrix_from_axis_angle(free_pose) - jnp.eye(3)
    count = len(parts.basis)
    rest = parts.template + _correctives(parts, skeleton, free_pose, turns)
    rest += matmul_highest(coefficients, parts.basis.reshape(count, -1)).reshape(-1, 3)
    points = rest
    for number in range(len(skeleton.free)):
        moves = parts.pivot_basis[:, number]
        pivot = parts.pivots[number] + matmul_highest(coefficients, moves)
        moved = matmul_highest(rest - pivot, turns[number].T)
        points += parts.follow[:, number, None] * moved
    return _at_landmarks(parts, points)


def compressed(
    parts: LandmarkModel,
    skeleton: Skeleton,
    *,
    smallest_cm: float | None,
    expressions: np.ndarray,
) -> tuple[LandmarkModel, Skeleton, np.ndarray]:
    """The model without what its landmarks cannot tell: smaller systems, hardly another answer.

    Identity modes have one independent standard deviation each, so that any rotation of them has
    too: the ones that move the landmarks most are kept, the others stay at their mean.

    Args:
      parts: the reduced model.
      skeleton: of it.
      smallest_cm: modes that move all landmarks together (root of the sum of squares) by less are
        dropped; None keeps the model's own modes as they are.
      expressions: (E,) bool, which expressions are kept.

    Returns:
      The model with r identity modes and the kept expressions, its skeleton, and the modes (K r) in
      the model's shape coefficients.
    """
    num_shape = skeleton.num_shape
    modes = np.eye(num_shape, dtype=np.float32)
    if smallest_cm is not None:
        table = np.asarray(parts.basis[:num_shape], np.float64).reshape(num_shape, -1)
        modes, sizes, _ = np.linalg.svd(table, full_matrices=False)
        modes = modes[:, sizes >= smallest_cm].astype(np.float32)

    def mixed(basis: Array) -> np.ndarray:
        flat = modes.T @ np.asarray(basis[:num_shape]).reshape(num_shape, -1)
        shape = flat.reshape(modes.shape[1], *basis.shape[1:])
        return np.concatenate([shape, np.asarray(basis[num_shape:])[expressions]])

    parts = parts._replace(basis=mixed(parts.basis), pivot_basis=mixed(parts.pivot_basis))
    skeleton = skeleton._replace(
        num_shape=modes.shape[1], num_expression=int(np.count_nonzero(expressions))
    )
    return parts, skeleton, modes
