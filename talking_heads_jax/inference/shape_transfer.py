"""Another person's shape in meshes whose camera is not known: records hold vertices, no camera.

A record's vertices are its coefficients' vertices, turned, scaled, moved and perhaps seen in
perspective. That map is found from the vertices themselves, and applied to the mesh of the same
expression and pose with the other shape. Letters: t frames, v vertices, K shape coefficients.
"""

import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.morphable.base import MorphableModel

#: The largest root mean square distance, as a share of the mesh's extent, at which vertices still
#: count as those of the coefficients beside them. Half precision, in which records store them about
#: the middle, makes 2e-4 at most.
LARGEST_MISFIT = 1e-3


def transfer_shape(
    vertices: np.ndarray,
    coefficients: FaceCoefficients,
    model: MorphableModel,
    shape_coeffs: np.ndarray,
) -> np.ndarray:
    """Meshes with another shape, in the expression, pose and camera that they have.

    Args:
      vertices: (t v 3) in pixels, x, y, and z in the same scale, smaller nearer, as records have
        them.
      coefficients: of these vertices: shape (t K), expression (t E) and pose (t j 3).
      model: the morphable model of both.
      shape_coeffs: (K,) the other shape.

    Returns:
      (t v 3) float32.

    Raises:
      ArgumentError: the shapes do not fit, or the vertices are not finite, or not those of the
        coefficients.
    """
    vertices, shape = np.asarray(vertices, np.float64), np.asarray(shape_coeffs, np.float32)
    count = len(vertices)
    if vertices.shape != (count, model.num_vertices, 3) or shape.shape != (model.num_shape,):
        raise ArgumentError(
            requirement(
                "vertices and shape_coeffs",
                f"be (t {model.num_vertices} 3) and ({model.num_shape},) of '{model.name}'",
                (vertices.shape, shape.shape),
                "Take both from records of one face model.",
            )
        )
    if not np.isfinite(vertices).all():
        raise ArgumentError(
            requirement("vertices", "be finite", "NaN", "Leave frames without a face out.")
        )
    others = coefficients._replace(shape_coeffs=np.tile(shape, (count, 1)))
    own, other = (np.asarray(model.vertices(each), np.float64) for each in (coefficients, others))
    result = np.empty_like(vertices, np.float32)
    for row, seen in enumerate(vertices):
        camera = _Camera.of(own[row], seen)
        misfit = np.sqrt(np.mean((camera.project(own[row]) - seen) ** 2)) / np.ptp(seen[:, :2])
        if misfit > LARGEST_MISFIT:
            raise ArgumentError(
                requirement(
                    "the vertices",
                    "be those of the coefficients beside them",
                    f"a distance of {100 * misfit:.2f} % of the mesh in frame {row}",
                    "Take both from one record.",
                )
            )
        result[row] = camera.project(other[row])
    return result


class _Camera:
    """Points (v 3) of a model → pixels: z = d P and (x, y) = (A P) / (1 + k z), P = (p, 1).

    k is 0 under weak perspective; the principal point is part of A.
    """

    def __init__(self, depth: np.ndarray, plane: np.ndarray, nearness: float) -> None:
        self._depth, self._plane, self._nearness = depth, plane, nearness

    @classmethod
    def of(cls, points: np.ndarray, seen: np.ndarray) -> "_Camera":
        """The one that sees these points here, by linear least squares."""
        homogeneous = _homogeneous(points)
        depth = np.linalg.lstsq(homogeneous, seen[:, 2], rcond=None)[0]
        z, middle = homogeneous @ depth, seen[:, :2].mean(0)
        # About the middle, where the product with z says more about k than about A.
        x, y = (seen[:, :2] - middle).T
        zeros = np.zeros_like(homogeneous)
        equations = np.block(
            [[homogeneous, zeros, -(z * x)[:, None]], [zeros, homogeneous, -(z * y)[:, None]]]
        )
        solution = np.linalg.lstsq(equations, np.concatenate([x, y]), rcond=None)[0]
        nearness = float(solution[8])
        # x - m = (A P) / (1 + k z) is x = (A P + m (1 + k z)) / (1 + k z), and z is d P.
        unit = np.array([0.0, 0.0, 0.0, 1.0]) + nearness * depth
        plane = solution[:8].reshape(2, 4) + middle[:, None] * unit
        return cls(depth, plane, nearness)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(v 3) pixels, float64."""
        homogeneous = _homogeneous(points)
        z = homogeneous @ self._depth
        plane = homogeneous @ self._plane.T / (1.0 + self._nearness * z)[:, None]
        return np.concatenate([plane, z[:, None]], axis=1)


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)
