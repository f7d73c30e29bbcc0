"""A morphable model with a skeleton, made from the arrays of a clean npz.

It serves the built-in head and ICT-FaceKit as it is; FLAME and BFM add what only they have. The
arrays are the leaves of a JAX pytree, everything else is static. Letters: b batch, v vertices,
f faces, j joints, K shape and E expression coefficients.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError, check_shape, requirement
from talking_heads_jax.morphable import coordinate_code
from talking_heads_jax.morphable.clean_arrays import checked_arrays, first_coefficients
from talking_heads_jax.morphable.ict import ICT_NAME, is_ict, with_parts
from talking_heads_jax.morphable.landmarks import mirror_vertices
from talking_heads_jax.morphable.linear_blend_skinning import (
    joint_motions,
    joint_rotations,
    pose_features,
    skin_vertices,
)
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array

_JAW, _JAW_OPEN = "jaw", "jawOpen"
_Model = TypeVar("_Model")


@dataclasses.dataclass(frozen=True, eq=False)
class MeshDescription:
    """The part of a model that no gradient flows through; compared by identity.

    Attributes:
      name: of the model.
      shape_names: K names.
      expression_names: E names.
      joint_names: j names.
      parents: of each joint, −1 for the root.
      faces: (f 3) int32.
      uv: (t 2) float32, u right, v down, or None.
      faces_uv: (f 3) int32, or None.
      face_part: (f,) uint8.
      mirror: (v,) int32.
      centimetres_per_unit: length of the unit.
      template: (v 3) float32, the mean face at rest.
      jaw_open_angle: radians of the jaw's x axis at which the corrective is complete, or None.
    """

    name: str
    shape_names: tuple[str, ...]
    expression_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    faces: np.ndarray
    uv: np.ndarray | None
    faces_uv: np.ndarray | None
    face_part: np.ndarray
    mirror: np.ndarray
    centimetres_per_unit: float
    template: np.ndarray
    jaw_open_angle: float | None


def model_class(cls: type[_Model]) -> type[_Model]:
    """Makes a class of models a JAX pytree; every subclass needs it too."""
    return jax.tree_util.register_pytree_node_class(cls)


@model_class
class SkinnedFaceModel:
    """Shape and expression bases, joints that follow them, linear blend skinning.

    Vertices are `skin(template + shape + expression + correctives)`. Two correctives exist:
    `posedirs`, linear in the joints' rotation matrices (FLAME), and, for models with an expression
    `jawOpen` and the angle it stands for, one that makes the jaw joint open the mouth exactly as
    that expression does. Turn the joint or raise the expression, never both.
    """

    def __init__(self, arrays: Mapping[str, Array], description: MeshDescription) -> None:
        """Wraps arrays that are known to fit; use `from_arrays`.

        Args:
          arrays: template, bases, joints, weights, landmarks.
          description: everything static.
        """
        self.arrays = dict(arrays)
        self.description = description

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """Leaves and structure, for JAX."""
        names = tuple(sorted(self.arrays))
        return tuple(self.arrays[name] for name in names), (names, self.description)

    @classmethod
    def tree_unflatten(cls, structure: Any, leaves: tuple[Any, ...]) -> Self:
        """Inverse of `tree_flatten`, for JAX.

        Args:
          structure: names of the leaves and the description.
          leaves: the arrays, or what JAX puts in their place.
        """
        names, description = structure
        return cls(dict(zip(names, leaves, strict=True)), description)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        *,
        name: str | None = None,
        num_shape: int | None = None,
        num_expression: int | None = None,
    ) -> Self:
        """Builds the model from the keys of a clean npz.

        Args:
          arrays: see docs/morphable.md for the keys. Of ICT-FaceKit's, the faces get our parts, the
            iris discs are dropped (see `ict.with_parts`).
          name: of the model; default: what the arrays say.
          num_shape: keep the first shape coefficients only; None keeps all.
          num_expression: keep the first expression coefficients only; None keeps all.

        Raises:
          ArgumentError: if a key is missing, or shapes or indices do not fit together.
        """
        if is_ict(arrays):
            arrays = with_parts(arrays)
            name = name or ICT_NAME
        where = f"the arrays of '{name or 'the model'}'"
        arrays = first_coefficients(checked_arrays(arrays, where=where), num_shape, num_expression)
        template = arrays["v_template"]
        basis = np.concatenate([arrays["shapedirs"], arrays["exprdirs"]])
        leaves = {
            "template": template,
            "basis": basis.reshape(len(basis), -1),
            "joints": arrays["J_template"],
            "joint_basis": np.concatenate(
                [np.moveaxis(arrays[key], -1, 0) for key in ("J_shapedirs", "J_exprdirs")]
            ),
            "weights": arrays["lbs_weights"],
        }
        further = ("landmark_corners", "landmark_weights", "posedirs")
        leaves |= {key: arrays[key] for key in further if key in arrays}
        names = tuple(arrays["joint_names"].tolist())
        expressions = tuple(arrays["expr_names"].tolist())
        parents = tuple(int(parent) for parent in arrays["parents"])
        angle = arrays.get("jawopen_angle_rad")
        if angle is not None and _JAW in names and _JAW_OPEN in expressions:
            opened = arrays["exprdirs"][expressions.index(_JAW_OPEN)]
            leaves["jaw_corrective"] = _jaw_corrective(
                template,
                opened,
                arrays["J_template"][names.index(_JAW)],
                arrays["lbs_weights"][:, names.index(_JAW)],
                float(angle),
            )
        mirror = arrays.get("mirror")
        description = MeshDescription(
            name=name or str(arrays.get("name", "custom")),
            shape_names=tuple(arrays["shape_names"].tolist()),
            expression_names=expressions,
            joint_names=names,
            parents=parents,
            faces=arrays["faces"],
            uv=arrays.get("uv"),
            faces_uv=arrays.get("faces_uv"),
            face_part=arrays["face_part"],
            mirror=mirror_vertices(template) if mirror is None else mirror,
            centimetres_per_unit=float(arrays["centimetres_per_unit"]),
            template=template,
            jaw_open_angle=float(angle) if "jaw_corrective" in leaves else None,
        )
        leaves |= cls._further_leaves(arrays)
        return cls({key: jnp.asarray(leaf) for key, leaf in leaves.items()}, description)

    @classmethod
    def _further_leaves(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays that only a subclass has."""
        del arrays
        return {}

    @property
    def name(self) -> str:
        """As records store it."""
        return self.description.name

    @property
    def num_vertices(self) -> int:
        """Vertices of the mesh."""
        return len(self.description.template)

    @property
    def num_shape(self) -> int:
        """Shape coefficients."""
        return len(self.description.shape_names)

    @property
    def num_expression(self) -> int:
        """Expression coefficients."""
        return len(self.description.expression_names)

    @property
    def shape_names(self) -> tuple[str, ...]:
        """One per shape coefficient."""
        return self.description.shape_names

    @property
    def expression_names(self) -> tuple[str, ...]:
        """One per expression coefficient."""
        return self.description.expression_names

    @property
    def joint_names(self) -> tuple[str, ...]:
        """One per row of the pose."""
        return self.description.joint_names

    @property
    def faces(self) -> np.ndarray:
        """(f 3) int32."""
        return self.description.faces

    @property
    def uv(self) -> np.ndarray | None:
        """(t 2) float32 texture coordinates, or None."""
        return self.description.uv

    @property
    def faces_uv(self) -> np.ndarray | None:
        """(f 3) int32 rows of `uv`, or None."""
        return self.description.faces_uv

    @property
    def face_part(self) -> np.ndarray:
        """(f,) uint8 index into `parts.PARTS`."""
        return self.description.face_part

    @property
    def mirror(self) -> np.ndarray:
        """(v,) int32, each vertex's mirror image."""
        return self.description.mirror

    @property
    def centimetres_per_unit(self) -> float:
        """Length of the model's unit."""
        return self.description.centimetres_per_unit

    @property
    def template(self) -> np.ndarray:
        """(v 3) float32, the mean face at rest."""
        return self.description.template

    def neutral(self, batch: int = 1) -> FaceCoefficients:
        """All-zero coefficients.

        Args:
          batch: how many.
        """
        return FaceCoefficients(
            shape_coeffs=jnp.zeros((batch, self.num_shape)),
            expression_coeffs=jnp.zeros((batch, self.num_expression)),
            pose=jnp.zeros((batch, len(self.joint_names), 3)),
            translation=jnp.zeros((batch, 3)),
        )

    @jax.jit
    def vertices(self, coefficients: FaceCoefficients) -> Array:
        """Posed vertices (b v 3) in model space.

        Args:
          coefficients: shape_coeffs (b K), expression_coeffs (b E), pose (b j 3) or None,
            translation (b 3) or None.

        Raises:
          ArgumentError: if a shape does not fit the model.
        """
        return self._posed(coefficients)[0]

    @jax.jit
    def posed_joints(self, coefficients: FaceCoefficients) -> Array:
        """Where the joints (b j 3) end up.

        Args:
          coefficients: as `vertices`.
        """
        return self._posed(coefficients)[1]

    def _coefficients(self, coefficients: FaceCoefficients) -> tuple[Array, Array]:
        """Both coefficient vectors side by side (b K+E), and the pose (b j 3)."""
        shape = jnp.asarray(coefficients.shape_coeffs, jnp.float32)
        expression = jnp.asarray(coefficients.expression_coeffs, jnp.float32)
        check_shape(f"shape_coeffs of {self.name}", shape.shape, (None, self.num_shape))
        check_shape(
            f"expression_coeffs of {self.name}",
            expression.shape,
            (shape.shape[0], self.num_expression),
        )
        num_joints = len(self.joint_names)
        if coefficients.pose is None:
            pose = jnp.zeros((shape.shape[0], num_joints, 3))
        else:
            pose = jnp.asarray(coefficients.pose, jnp.float32)
            if pose.size != shape.shape[0] * num_joints * 3:
                check_shape(f"pose of {self.name}", pose.shape, (shape.shape[0], num_joints, 3))
            pose = pose.reshape(shape.shape[0], num_joints, 3)
        return jnp.concatenate([shape, expression], axis=-1), pose

    def _posed(self, coefficients: FaceCoefficients) -> tuple[Array, Array]:
        both, pose = self._coefficients(coefficients)
        batch, arrays = both.shape[0], self.arrays
        offsets = matmul_highest(both, arrays["basis"])
        joints = arrays["joints"] + jnp.einsum(
            "bk,kjd->bjd", both, arrays["joint_basis"], precision=jax.lax.Precision.HIGHEST
        )
        rotations = joint_rotations(pose)
        if "posedirs" in arrays:
            offsets += matmul_highest(pose_features(rotations), arrays["posedirs"])
        rest = arrays["template"] + offsets.reshape(batch, -1, 3)
        if "jaw_corrective" in arrays:
            opening = pose[:, self.joint_names.index(_JAW), 0] / self.description.jaw_open_angle
            rest += jnp.maximum(opening, 0.0)[:, None, None] * arrays["jaw_corrective"]
        turned, placed = joint_motions(rotations, joints, self.description.parents)
        posed = skin_vertices(rest, turned, joints, placed, arrays["weights"])
        if coefficients.translation is not None:
            translation = jnp.asarray(coefficients.translation, jnp.float32)[:, None]
            posed, placed = posed + translation, placed + translation
        return posed, placed

    def landmarks68(self, vertices: Array, coefficients: FaceCoefficients | None = None) -> Array:
        """The 68 landmarks (b 68 3) in Multi-PIE order; the jaw line is fixed to the mesh.

        Args:
          vertices: (b v 3) of this model, in any affine frame.
          coefficients: unused here; see `FlameModel`.

        Raises:
          ArgumentError: if the model came without landmarks.
        """
        del coefficients
        if "landmark_corners" not in self.arrays:
            raise ArgumentError(
                requirement(
                    f"the landmarks of {self.name}",
                    "be registered",
                    "a model without them",
                    "FLAME's are a file of their own: talking-heads assets add "
                    "landmark_embedding.npy.",
                )
            )
        corners = vertices[..., self.arrays["landmark_corners"], :]
        return jnp.sum(corners * self.arrays["landmark_weights"][..., None], axis=-2)

    def attributes(self, kind: str) -> np.ndarray:
        """Constant per-vertex attributes (v d) float32.

        Args:
          kind: 'nmfc', 'ncc' or 'secc'.

        Raises:
          ArgumentError: for another kind.
        """
        return coordinate_code.vertex_code(kind, self.template)


def _jaw_corrective(
    template: np.ndarray, opened: np.ndarray, pivot: np.ndarray, weight: np.ndarray, angle: float
) -> np.ndarray:
    """What to add at rest (v 3) so that the jaw, turned by `angle`, gives template + opened.

    The skin of a vertex is a fixed affine map x → A (x − p) + p with A between the identity and the
    jaw's rotation, so the corrective is A⁻¹ (template + opened − p) + p − template.
    """
    if not 0.0 < angle < np.pi / 2:
        raise ArgumentError(
            requirement("jawopen_angle_rad", "lie in (0, π/2)", angle, "Convert the model again.")
        )
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    blend = np.eye(3) + weight[:, None, None].astype(np.float64) * (turn - np.eye(3))
    target = (template + opened - pivot).astype(np.float64)
    rest = np.linalg.solve(blend, target[..., None])[..., 0] + pivot
    return (rest - template).astype(np.float32)
