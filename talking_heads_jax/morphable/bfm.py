"""The Basel face model of 2009 as Deep3DFaceRecon uses it: 80 identity, 64 expression, 80 texture.

Lengths are decimetres, the mean face centred on its vertices' mean. The camera stands at z = 10 and
looks along −z, in units of the model. Letters: b batch, v vertices, f faces, K shape, E expression
and T texture coefficients.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import check_shape
from talking_heads_jax.geometry.deep3d_template import CAMERA_DISTANCE, CENTER_PX, FOCAL_PX
from talking_heads_jax.geometry.estimator_cameras import matrix_from_deep3d_angles
from talking_heads_jax.geometry.rotations import axis_angle_from_matrix
from talking_heads_jax.morphable.clean_arrays import check_indices, numbers, refuse_arrays
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel, model_class
from talking_heads_jax.ops.numerics import matmul_highest, safe_divide, safe_norm
from talking_heads_jax.typing import Array, Float, typechecked

NUM_VERTICES, NUM_FACES = 35_709, 70_789
NUM_SHAPE, NUM_EXPRESSION, NUM_TEXTURE = 80, 64, 80
#: Sizes of the parts of Deep3DFaceRecon's vector of 257, in order.
DEEP3D_SIZES = (NUM_SHAPE, NUM_EXPRESSION, NUM_TEXTURE, 3, 27, 3)
_MERGED = ("meanshape", "meantex", "idBase", "exBase", "texBase", "tri", "point_buf", "keypoints")
# Lambertian factors and normalisations of the first three bands, and the light before gamma.
_A = (np.pi, 2 * np.pi / np.sqrt(3.0), 2 * np.pi / np.sqrt(8.0))
_C = (
    1 / np.sqrt(4 * np.pi),
    np.sqrt(3.0) / np.sqrt(4 * np.pi),
    3 * np.sqrt(5.0) / np.sqrt(12 * np.pi),
)
_AMBIENT = 0.8
_SMALLEST_SINE = 1e-6  # between two edges of a triangle: below it float32 has no direction


class Deep3DCoefficients(NamedTuple):
    """What Deep3DFaceRecon's network returns, taken apart.

    Attributes:
      shape_coeffs: (b 80).
      expression_coeffs: (b 64).
      texture_coeffs: (b 80).
      angles: (b 3) radians about x, y, z in model space, applied in that order. They are Deep3D's
        own, not the yaw, pitch and roll of our interfaces.
      light: (b 3 9) spherical harmonics per colour, to which an ambient 0.8 is added.
      translation: (b 3) decimetres.
    """

    shape_coeffs: Any
    expression_coeffs: Any
    texture_coeffs: Any
    angles: Any
    light: Any
    translation: Any


@typechecked
def split_deep3d(vector: Float[Array, "b 257"]) -> Deep3DCoefficients:
    """Takes Deep3DFaceRecon's output apart.

    Args:
      vector: shape, expression, texture, angles, light, translation.
    """
    bounds = np.cumsum(DEEP3D_SIZES)[:-1].tolist()
    shape, expression, texture, angles, light, translation = jnp.split(vector, bounds, axis=-1)
    light = light.reshape(-1, 3, 9)
    return Deep3DCoefficients(shape, expression, texture, angles, light, translation)


@typechecked
def spherical_harmonic_colour(
    albedo: Float[Array, "b v 3"], normals: Float[Array, "b v 3"], light: Float[Array, "b 3 9"]
) -> Float[Array, "b v 3"]:
    """Albedo times the light that falls on a matt surface.

    Args:
      albedo: in [0, 1].
      normals: of length one, turned with the face.
      light: coefficients per colour, without the ambient 0.8.

    Returns:
      Colours, not clipped.

    Source: Deep3DFaceRecon (Deng et al. 2019), section 3.1; Ramamoorthi and Hanrahan 2001.
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    first, second = _A[1] * _C[1], _A[2] * _C[2]
    basis = jnp.stack(
        [
            jnp.full_like(x, _A[0] * _C[0]),
            -first * y,
            first * z,
            -first * x,
            second * x * y,
            -second * y * z,
            0.5 * second / np.sqrt(3.0) * (3 * z**2 - 1),
            -second * x * z,
            0.5 * second * (x**2 - y**2),
        ],
        axis=-1,
    )
    light = light.at[..., 0].add(_AMBIENT)
    return albedo * matmul_highest(basis, jnp.swapaxes(light, -1, -2))


@typechecked
def project_to_px(points: Float[Array, "b n 3"]) -> Float[Array, "b n 2"]:
    """Pixels of points in camera space, x right and y *up*: row = 223 − y.

    Args:
      points: z is the distance from the camera.
    """
    return FOCAL_PX * points[..., :2] / points[..., 2:] + CENTER_PX


@model_class
class BfmModel(SkinnedFaceModel):
    """BFM 2009: one rigid joint, and what Deep3DFaceRecon's vector of 257 means on it."""

    @classmethod
    def _further_leaves(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        further = {"faces": arrays["faces"]}
        keys = ("texture_mean", "texture_basis", "normal_faces")
        further |= {key: arrays[key] for key in keys if key in arrays}
        if "texture_basis" in further:
            basis = further["texture_basis"]
            further["texture_basis"] = basis.reshape(len(basis), -1)
        return further

    def coefficients_from_deep3d(self, vector: Float[Array, "b 257"]) -> FaceCoefficients:
        """Geometry of Deep3DFaceRecon's vector in the package's terms.

        Args:
          vector: see `split_deep3d`.
        """
        parts = split_deep3d(vector)
        turn = axis_angle_from_matrix(matrix_from_deep3d_angles(parts.angles))
        return FaceCoefficients(
            shape_coeffs=parts.shape_coeffs,
            expression_coeffs=parts.expression_coeffs,
            pose=turn[:, None],
            translation=parts.translation,
        )

    def camera_vertices(self, vector: Float[Array, "b 257"]) -> Float[Array, "b v 3"]:
        """Vertices in camera space: x right, y up, z = distance from the camera.

        Args:
          vector: see `split_deep3d`.
        """
        vertices = self.vertices(self.coefficients_from_deep3d(vector))
        return vertices.at[..., 2].set(CAMERA_DISTANCE - vertices[..., 2])

    def albedo(self, texture_coeffs: Float[Array, "b d"]) -> Float[Array, "b v 3"]:
        """Colour of every vertex without light, in [0, 1] for plausible coefficients.

        Args:
          texture_coeffs: T of them.
        """
        basis = self.arrays["texture_basis"]
        check_shape("texture_coeffs", texture_coeffs.shape, (None, len(basis)))
        offsets = matmul_highest(texture_coeffs, basis)
        offsets = offsets.reshape(-1, self.num_vertices, 3)
        return (self.arrays["texture_mean"] + offsets) / 255.0

    def normals(self, vertices: Float[Array, "b v 3"]) -> Float[Array, "b v 3"]:
        """Normals of length one: sums over the model's own list of triangles around each vertex.

        Args:
          vertices: of this model.
        """
        corners = vertices[:, self.arrays["faces"]]
        first, second = corners[:, :, 0] - corners[:, :, 1], corners[:, :, 1] - corners[:, :, 2]
        cross = jnp.cross(first, second)
        length = safe_norm(cross, keepdims=True)
        # Where a triangle is a line, what rounding leaves of the product points anywhere.
        scale = safe_norm(first, keepdims=True) * safe_norm(second, keepdims=True)
        length = jnp.where(length > _SMALLEST_SINE * scale, length, 0.0)
        of_faces = safe_divide(cross, length)
        nothing = jnp.zeros_like(of_faces[:, :1])  # lists shorter than 8 end in one past the last
        of_faces = jnp.concatenate([of_faces, nothing], axis=1)
        total = jnp.sum(of_faces[:, self.arrays["normal_faces"]], axis=2)
        return safe_divide(total, safe_norm(total, keepdims=True))

    def colours(self, vector: Float[Array, "b 257"]) -> Float[Array, "b v 3"]:
        """Lit colours of every vertex, not clipped.

        Args:
          vector: see `split_deep3d`.
        """
        parts = split_deep3d(vector)
        unposed = self.vertices(
            FaceCoefficients(parts.shape_coeffs, parts.expression_coeffs, None, None)
        )
        turn = matrix_from_deep3d_angles(parts.angles)
        normals = matmul_highest(self.normals(unposed), jnp.swapaxes(turn, -1, -2))
        return spherical_harmonic_colour(self.albedo(parts.texture_coeffs), normals, parts.light)


def is_merged_bfm(tree: Any) -> bool:
    """Whether arrays are those of `BFM_model_front.mat`.

    Args:
      tree: what a reader returned.
    """
    return isinstance(tree, Mapping) and set(_MERGED) <= set(tree)


def bfm_arrays(fields: Mapping[str, Any], *, where: str) -> dict[str, np.ndarray]:
    """The clean keys of the merged file; its indices count from 1, ours from 0.

    Args:
      fields: as `BFM_model_front.mat` names them.
      where: what to call the file in messages.

    Raises:
      ArgumentError: if fields do not fit together, or count from 0.
    """
    values = {key: numbers(fields, where, key) for key in _MERGED}
    for key, value in values.items():
        if not value.size:
            refuse_arrays(where, f"'{key}'", "hold numbers", value.shape)
    mean = values["meanshape"].reshape(-1)
    count = mean.size // 3
    if mean.size != 3 * count:
        refuse_arrays(where, "'meanshape'", "hold three numbers per vertex", mean.size)
    for key in ("idBase", "exBase", "texBase"):
        if values[key].ndim != 2 or len(values[key]) != 3 * count:
            refuse_arrays(where, f"'{key}'", f"have {3 * count} rows", values[key].shape)
    if values["meantex"].size != 3 * count:
        refuse_arrays(where, "'meantex'", f"hold {3 * count} numbers", values["meantex"].shape)
    if values["tri"].ndim != 2 or values["tri"].shape[1] != 3:
        refuse_arrays(where, "'tri'", "have shape (*, 3)", values["tri"].shape)
    faces = _from_one(where, "tri", values["tri"], count)
    keypoints = _from_one(where, "keypoints", values["keypoints"].reshape(-1), count)
    around = _from_one(where, "point_buf", values["point_buf"], len(faces) + 1)
    if around.ndim != 2 or len(around) != count:
        refuse_arrays(where, "'point_buf'", f"have {count} rows", around.shape)
    template = mean.reshape(count, 3).astype(np.float64)

    def directions(key: str) -> np.ndarray:
        moved = np.moveaxis(values[key].reshape(count, 3, -1), -1, 0)
        return np.ascontiguousarray(moved, np.float32)

    return {
        "v_template": (template - template.mean(axis=0)).astype(np.float32),
        "faces": faces,
        "shapedirs": directions("idBase"),
        "exprdirs": directions("exBase"),
        "landmarks68": keypoints,
        "texture_mean": values["meantex"].reshape(count, 3).astype(np.float32),
        "texture_basis": directions("texBase"),
        "normal_faces": around,
        "centimetres_per_unit": np.float32(10.0),
    }


def _from_one(where: str, key: str, indices: np.ndarray, count: int) -> np.ndarray:
    """Indices that count from 0, of a file that counts from 1."""
    whole = np.rint(indices)
    if indices.dtype.kind == "f" and (not np.isfinite(indices).all() or (whole != indices).any()):
        refuse_arrays(where, f"'{key}'", "hold whole numbers", "fractions")
    whole = whole.astype(np.int64)
    if whole.min() == 0:
        constraint = f"count from 1 to {count}, as the file is published"
        got = f"0 to {whole.max()}: it counts from 0; add 1"
        refuse_arrays(where, f"'{key}'", constraint, got)
    check_indices(where, f"{key} - 1", whole - 1, count, all_used=False)
    return (whole - 1).astype(np.int32)
