"""FLAME (Li et al. 2017), versions 2020 and 2023: identity, expression, neck, jaw and eyes.

The raw fields are those of the model pickle and of `landmark_embedding.npy`. Lengths are metres.
The two versions share the mesh, not the meaning of their coefficients. Letters: b batch,
v vertices, f faces, j joints.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import check_shape
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.morphable.clean_arrays import check_indices, numbers, refuse_arrays
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel, model_class
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float

NUM_VERTICES, NUM_FACES = 5023, 9976
JOINT_NAMES = ("root", "neck", "jaw", "eye_L", "eye_R")
#: Columns of `shapedirs` that are identity; the rest are expressions.
NUM_IDENTITY_COLUMNS = 300
#: What DECA, EMOCA and GDPW use of them.
DEFAULT_NUM_SHAPE, DEFAULT_NUM_EXPRESSION = 100, 50

_FIELDS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
_NUM_CONTOUR_ROWS, _NUM_CONTOUR, _NUM_INNER = 79, 17, 51
_MAX_YAW_DEG = 39
#: Fields of landmark_embedding.npy.
EMBEDDING_KEYS = (
    *("static_lmk_faces_idx", "static_lmk_bary_coords", "dynamic_lmk_faces_idx"),
    *("dynamic_lmk_bary_coords", "full_lmk_faces_idx", "full_lmk_bary_coords"),
)


def is_flame(tree: Any) -> bool:
    """Whether a structure has the fields of a FLAME pickle.

    Args:
      tree: what a reader returned.
    """
    return isinstance(tree, Mapping) and set(_FIELDS) <= set(tree)


def is_landmark_embedding(tree: Any) -> bool:
    """Whether a structure has the fields of FLAME's landmark embedding.

    Args:
      tree: what a reader returned.
    """
    return isinstance(tree, Mapping) and set(EMBEDDING_KEYS) <= set(tree)


def flame_arrays(
    fields: Mapping[str, Any], *, where: str, num_identity: int = NUM_IDENTITY_COLUMNS
) -> dict[str, np.ndarray]:
    """The clean keys of a FLAME pickle's fields.

    The joint regressor is linear, so that joints become a template and directions of their own.

    Args:
      fields: as the pickle names them.
      where: what to call the file in messages.
      num_identity: columns of `shapedirs` that are identity.

    Raises:
      ArgumentError: if fields do not fit together.
    """
    values = {key: numbers(fields, where, key) for key in _FIELDS}
    template = values["v_template"].astype(np.float64)
    directions = values["shapedirs"].astype(np.float64)
    count = len(template) if template.ndim else 0
    if directions.ndim != 3 or directions.shape[:2] != (count, 3):
        refuse_arrays(where, "'shapedirs'", f"have shape ({count}, 3, *)", directions.shape)
    if directions.shape[2] <= num_identity:
        constraint = f"have more than {num_identity} columns, identity before expression"
        refuse_arrays(where, "'shapedirs'", constraint, directions.shape[2])
    num_joints = len(JOINT_NAMES)
    regressor = values["J_regressor"].astype(np.float64)
    expected = {
        "v_template": (count, 3),
        "J_regressor": (num_joints, count),
        "weights": (count, num_joints),
        "posedirs": (count, 3, 9 * (num_joints - 1)),
        "kintree_table": (2, num_joints),
    }
    for key, shape in expected.items():
        if values[key].shape != shape:
            refuse_arrays(where, f"'{key}'", f"have shape {shape}", values[key].shape)
    check_indices(where, "f", values["f"], count, all_used=True)
    if not np.isfinite(values["kintree_table"]).all():
        refuse_arrays(where, "'kintree_table'", "be finite", "NaN or infinity")
    parents = values["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # the file holds 2**32 - 1
    joint_basis = np.einsum("jv,vck->jck", regressor, directions, optimize=True)
    features = values["posedirs"].shape[2]
    arrays = {
        "v_template": template,
        "faces": values["f"].astype(np.int32),
        "shapedirs": np.moveaxis(directions[..., :num_identity], -1, 0),
        "exprdirs": np.moveaxis(directions[..., num_identity:], -1, 0),
        "posedirs": values["posedirs"].reshape(-1, features).T,
        "J_template": regressor @ template,
        "J_shapedirs": joint_basis[..., :num_identity],
        "J_exprdirs": joint_basis[..., num_identity:],
        "lbs_weights": values["weights"],
    }
    arrays = {
        key: np.ascontiguousarray(value, np.float32 if value.dtype.kind == "f" else value.dtype)
        for key, value in arrays.items()
    }
    return arrays | {
        "joint_names": np.array(JOINT_NAMES),
        "parents": parents.astype(np.int32),
        "centimetres_per_unit": np.float32(100.0),
    }


def embedding_arrays(
    tree: Mapping[str, Any], faces: np.ndarray, *, where: str
) -> dict[str, np.ndarray]:
    """The clean landmark keys of FLAME's embedding.

    Args:
      tree: the embedding: triangle numbers and barycentric coordinates.
      faces: (f 3) of the mesh it belongs to.
      where: what to call the file in messages.

    Raises:
      ArgumentError: if it does not fit the mesh.
    """
    shapes = {
        "full": (68,),
        "static": (_NUM_INNER,),
        "dynamic": (_NUM_CONTOUR_ROWS, _NUM_CONTOUR),
    }
    stems = {"full": "landmark", "static": "contour_inner", "dynamic": "contour"}
    result = {}
    for kind, shape in shapes.items():
        index_key, weight_key = f"{kind}_lmk_faces_idx", f"{kind}_lmk_bary_coords"
        index = numbers(tree, where, index_key)
        weights = numbers(tree, where, weight_key).astype(np.float32)
        if index.size != np.prod(shape) or weights.size != 3 * index.size:
            got = f"{index.shape} and {weights.shape}"
            refuse_arrays(where, f"'{index_key}'", f"hold {shape} triangles and weights", got)
        check_indices(where, index_key, index, len(faces), all_used=False)
        result[f"{stems[kind]}_corners"] = faces[index.reshape(shape)].astype(np.int32)
        result[f"{stems[kind]}_weights"] = weights.reshape(*shape, 3)
    return result


def contour_row(pose: Float[Array, "b j 3"]) -> Array:
    """Which of the 79 jaw lines (b,) fits the turn of the head: 0-39 to one side, 40-78 the other.

    Args:
      pose: root first, then neck.

    Source: DECA's FLAME class: the yaw of R_root · R_neck in whole degrees, at most 39.
    """
    turn = matmul_highest(matrix_from_axis_angle(pose[:, 0]), matrix_from_axis_angle(pose[:, 1]))
    across = jnp.sqrt(turn[:, 0, 0] ** 2 + turn[:, 1, 0] ** 2)
    yaw_deg = jnp.round(jnp.rad2deg(jnp.arctan2(-turn[:, 2, 0], across)))
    yaw_deg = jnp.clip(yaw_deg, -_MAX_YAW_DEG, _MAX_YAW_DEG).astype(jnp.int32)
    return jnp.where(yaw_deg >= 0, yaw_deg, _MAX_YAW_DEG - yaw_deg)


@model_class
class FlameModel(SkinnedFaceModel):
    """FLAME: pose-dependent correctives, and a jaw line that follows the visible outline."""

    @classmethod
    def _further_leaves(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: value for key, value in arrays.items() if key.startswith("contour_")}

    def landmarks68(self, vertices: Array, coefficients: FaceCoefficients | None = None) -> Array:
        """The 68 landmarks (b 68 3) in Multi-PIE order.

        Args:
          vertices: (b v 3) of this model, in any affine frame.
          coefficients: whose root and neck turn the jaw line slides with, as detectors of 2-D
            landmarks see it; None gives the landmarks that are fixed to the mesh.

        Raises:
          ArgumentError: if the landmark embedding was not registered.
        """
        if (
            coefficients is None
            or coefficients.pose is None
            or "contour_corners" not in self.arrays
        ):
            return super().landmarks68(vertices)
        arrays = self.arrays
        batch = vertices.shape[0]
        check_shape("vertices", vertices.shape, (None, self.num_vertices, 3))
        pose = jnp.asarray(coefficients.pose).reshape(batch, len(self.joint_names), 3)
        row = contour_row(pose)
        inner = (batch, *arrays["contour_inner_corners"].shape)
        corners = jnp.concatenate(
            [
                arrays["contour_corners"][row],
                jnp.broadcast_to(arrays["contour_inner_corners"], inner),
            ],
            axis=1,
        )
        weights = jnp.concatenate(
            [
                arrays["contour_weights"][row],
                jnp.broadcast_to(arrays["contour_inner_weights"], inner),
            ],
            axis=1,
        )
        points = jnp.take_along_axis(vertices, corners.reshape(batch, -1, 1), axis=1)
        return jnp.sum(points.reshape(batch, -1, 3, 3) * weights[..., None], axis=2)
