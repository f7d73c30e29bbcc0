"""Colours that say where on the face a pixel is: NMFC, NCC and SECC.

All three colour vertex v by its place on the mean face, axis by axis:
`code_d(v) = (mean_d(v) − min_d) / (max_d − min_d)`, in [0, 1], red = x (0 at the subject's right),
green = y (0 at the bottom), blue = z (0 at the back), where min and max run over all vertices. They
differ in the mesh they are drawn on: NMFC (normalised mean face coordinates) and NCC (normalised
coordinate code, the colours of 3DDFA's PNCC) on the posed mesh, in the view of the image; SECC on a
mesh that has the expression but no pose (`pose_free`), seen from the front, so that head motion
does not show. Letters: b batch, v vertices.
"""

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import check_choice

KINDS = ("nmfc", "ncc", "secc")


def vertex_code(kind: str, template: np.ndarray) -> np.ndarray:
    """The code of every vertex.

    Args:
      kind: 'nmfc' and 'ncc': in [0, 1], to be drawn over 0. 'secc': the same mapped to [−1, 1] by
        2c − 1, to be drawn over −1, as the models that use it expect.
      template: (v 3) the mean face.

    Returns:
      (v 3) float32.

    Raises:
      ArgumentError: for another kind.

    Source: GDPW section 4 (NMFC), 3DDFA (Zhu et al. 2016) section 3.2 (NCC, PNCC), HiDe-NeRF
      section 3.3 (SECC).
    """
    check_choice("kind", kind, KINDS)
    points = np.asarray(template, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    code = (points - low) / np.where(high > low, high - low, 1.0)
    return (2.0 * code - 1.0 if kind == "secc" else code).astype(np.float32)


def pose_free(
    coefficients: FaceCoefficients, joint_names: tuple[str, ...], *, expression: bool = True
) -> FaceCoefficients:
    """The same face as SECC draws it: without translation and rotation of root and neck.

    Args:
      coefficients: of a model with these joints.
      joint_names: of its pose. The jaw and the eyes count as expression.
      expression: False gives the canonical map: no expression, jaw and eyes at rest.
    """
    pose, translation = coefficients.pose, coefficients.translation
    if pose is not None:
        kept = [float(expression and name not in ("root", "neck")) for name in joint_names]
        pose = pose * jnp.asarray(kept)[:, None]
    if translation is not None:
        translation = jnp.zeros_like(translation)
    values = coefficients.expression_coeffs
    return FaceCoefficients(
        shape_coeffs=coefficients.shape_coeffs,
        expression_coeffs=values if expression else jnp.zeros_like(values),
        pose=pose,
        translation=translation,
    )
