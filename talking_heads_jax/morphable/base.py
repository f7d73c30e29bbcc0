"""What every morphable face model offers, whatever file it came from.

Model space: +y up, +z out of the nose, +x towards the subject's left ear; lengths in the model's
own unit, `centimetres_per_unit` converts. Letters: b batch, v vertices, f faces, j joints, K shape
and E expression coefficients.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.typing import Array


@runtime_checkable
class MorphableModel(Protocol):
    """Coefficients → vertices, landmarks and per-vertex attributes; a JAX pytree.

    Pass a model to a jitted function as an argument: what a function closes over becomes a constant
    of the compiled program, and the bases are tens of megabytes.

    Attributes:
      name: as records store it: flame2020, flame2023, bfm09, ict or procedural.
      num_vertices: v.
      num_shape: K.
      num_expression: E.
      shape_names: one per shape coefficient.
      expression_names: one per expression coefficient.
      joint_names: one per row of the pose: root, neck, jaw, eye_L, eye_R where the model has them.
      faces: (f 3) int32 vertex numbers, counter-clockwise seen from outside.
      uv: (t 2) float32 texture coordinates in [0, 1], u right, v down; None if the model has none.
      faces_uv: (f 3) int32 rows of `uv`; None likewise.
      face_part: (f,) uint8 index into `parts.PARTS`.
      mirror: (v,) int32, the vertex at each vertex's mirror image.
      centimetres_per_unit: length of the model's unit.
    """

    name: str
    num_vertices: int
    num_shape: int
    num_expression: int
    shape_names: tuple[str, ...]
    expression_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    faces: np.ndarray
    uv: np.ndarray | None
    faces_uv: np.ndarray | None
    face_part: np.ndarray
    mirror: np.ndarray
    centimetres_per_unit: float

    def neutral(self, batch: int = 1) -> FaceCoefficients:
        """All-zero coefficients: the mean face, at rest.

        Args:
          batch: how many.
        """
        ...

    def vertices(self, coefficients: FaceCoefficients) -> Array:
        """Posed vertices (b v 3) in model space.

        Args:
          coefficients: `pose` is (b j 3), axis-angle per joint of `joint_names` relative to its
            parent, and `translation` (b 3) is added last; None means zero for both.
        """
        ...

    def posed_joints(self, coefficients: FaceCoefficients) -> Array:
        """Where the joints (b j 3) of `joint_names` end up in model space.

        Args:
          coefficients: as `vertices`.
        """
        ...

    def landmarks68(self, vertices: Array, coefficients: FaceCoefficients | None = None) -> Array:
        """The 68 landmarks (b 68 3) in Multi-PIE order.

        Args:
          vertices: (b v 3) of this model, in any affine frame.
          coefficients: those of the vertices, for models whose jaw line follows the pose; None
            takes the jaw line of a frontal face.
        """
        ...

    def attributes(self, kind: str) -> np.ndarray:
        """Constant per-vertex attributes (v d) float32, to be interpolated over the image.

        Args:
          kind: 'nmfc', 'ncc' or 'secc' (see `coordinate_code`).
        """
        ...
