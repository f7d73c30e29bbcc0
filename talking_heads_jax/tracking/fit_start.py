"""Where a fit starts: each frame's pose in closed form, from a rigid face.

Scaled orthography, robust by reweighting. Two candidates are tried per frame, the face turned as an
affine fit says and the face seen from the front; the one that explains more points wins, so that a
few wild points cannot turn a head around. Letters: t frames, n points.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float, typechecked

_ROUNDS = 6
# Points this far from the rigid face, in lengths of it, count a quarter; expressions move points by
# about as much.
_TOLERANCE = 0.15
# Keeps the affine fit defined for points in one plane: share of the face's own spread.
_RIDGE = 1e-3
_TINY = 1e-12

_Pose = tuple[Array, Array, Array]  # rotation (t 3 3), scale (t), offset (t 2)


def _weighted_mean(weights: Array, points: Array) -> Array:
    total = jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), _TINY)
    return jnp.sum(weights[..., None] * points, axis=-2) / total


def _orthonormal_rows(rows: Array) -> tuple[Array, Array]:
    """Nearest rotation (t 3 3) to two scaled rows (t 2 3), and the scale (t)."""
    gram = matmul_highest(rows, jnp.swapaxes(rows, -1, -2))
    root_det = jnp.sqrt(
        jnp.maximum(gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1] ** 2, _TINY)
    )
    trace = gram[..., 0, 0] + gram[..., 1, 1]
    norm = jnp.sqrt(trace + 2 * root_det)  # trace of the square root of the Gram matrix
    root = (gram + root_det[..., None, None] * jnp.eye(2)) / norm[..., None, None]
    # The root's determinant is the root of the determinant.
    inverse = jnp.stack(
        [
            jnp.stack([root[..., 1, 1], -root[..., 0, 1]], axis=-1),
            jnp.stack([-root[..., 1, 0], root[..., 0, 0]], axis=-1),
        ],
        axis=-2,
    )
    across, up = jnp.moveaxis(matmul_highest(inverse / root_det[..., None, None], rows), -2, 0)
    return jnp.stack([across, up, jnp.cross(across, up)], axis=-2), 0.5 * norm


def _affine(face: Array, points: Array, weights: Array) -> _Pose:
    """Rotation, scale and offset that carry the face (n 3) to points (t n 2, y up)."""
    middle = _weighted_mean(weights, face[None])
    center = _weighted_mean(weights, points)
    arms, legs = face - middle[:, None], points - center[:, None]
    spread = jnp.einsum("tn,tna,tnb->tab", weights, arms, arms)
    ridge = _RIDGE * jnp.trace(spread, axis1=-2, axis2=-1)[:, None, None] + _TINY
    cross = jnp.einsum("tn,tna,tnb->tab", weights, legs, arms)
    first, second, third = jnp.moveaxis(spread + ridge * jnp.eye(3), -2, 0)
    adjugate = jnp.stack(
        [jnp.cross(second, third), jnp.cross(third, first), jnp.cross(first, second)], axis=-1
    )
    inverse = adjugate / jnp.sum(first * jnp.cross(second, third), axis=-1)[:, None, None]
    rotation, scale = _orthonormal_rows(matmul_highest(cross, inverse))
    return (
        rotation,
        scale,
        center - scale[:, None] * matmul_highest(rotation[:, :2], middle[..., None])[..., 0],
    )


def _frontal(face: Array, points: Array, weights: Array) -> _Pose:
    """The same for a face that only rolls."""
    middle = _weighted_mean(weights, face[None])
    center = _weighted_mean(weights, points)
    arms, legs = (face - middle[:, None])[..., :2], points - center[:, None]
    norm = jnp.maximum(jnp.einsum("tn,tna,tna->t", weights, arms, arms), _TINY)
    cos = jnp.einsum("tn,tna,tna->t", weights, legs, arms) / norm
    sin = jnp.einsum("tn,tn->t", weights, legs[..., 1] * arms[..., 0] - legs[..., 0] * arms[..., 1])
    sin = sin / norm
    zero = jnp.zeros_like(cos)
    rows = jnp.stack([jnp.stack([cos, -sin, zero], -1), jnp.stack([sin, cos, zero], -1)], axis=-2)
    rotation, scale = _orthonormal_rows(rows)
    return (
        rotation,
        scale,
        center - scale[:, None] * matmul_highest(rotation[:, :2], middle[..., None])[..., 0],
    )


@typechecked
def rigid_start(
    face: Float[Array, "n 3"], points: Float[Array, "t n 2"], weights: Float[Array, "t n"]
) -> tuple[Float[Array, "t 3 3"], Float[Array, " t"], Float[Array, "t 2"]]:
    """Pose of a rigid face under scaled orthography, frame by frame.

    Args:
      face: points of the face, +y up, +z out of the nose.
      points: where they are seen, x right, y *up*, of about unit size.
      weights: of the points; frames whose weights are all 0 give an arbitrary finite pose.

    Returns:
      Rotation, scale and offset: points ≈ offset + scale · (rotation · face)[:2].
    """
    length = jnp.sqrt(jnp.mean(jnp.sum((face - face.mean(axis=0)) ** 2, axis=-1)))

    def robust(solve: Callable[..., _Pose]) -> tuple[Array, _Pose]:
        def refine(share: Array, _: None) -> tuple[Array, tuple[Array, _Pose]]:
            rotation, scale, offset = pose = solve(face, points, share)
            seen = matmul_highest(face[None], jnp.swapaxes(rotation[:, :2], -1, -2))
            error = points - offset[:, None] - scale[:, None, None] * seen
            size = jnp.maximum(scale * length, _TINY)[:, None] * _TOLERANCE
            factor = 1.0 / (1.0 + jnp.sum(error**2, axis=-1) / size**2)
            return weights * factor**2, (jnp.sum(weights * factor, axis=-1), pose)

        _, rounds = jax.lax.scan(refine, weights, None, length=_ROUNDS)
        return jax.tree.map(lambda values: values[-1], rounds)

    turned_score, turned = robust(_affine)
    frontal_score, frontal = robust(_frontal)
    better = turned_score >= frontal_score
    return tuple(
        jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
        for a, b in zip(turned, frontal, strict=True)
    )
