"""The typed structs that all layers agree on: units, ranges and letters per field.

They are named tuples, so JAX treats them as pytrees (a `None` field has no leaves) while this file
needs neither jax nor numpy: a spawned data worker imports it for free. Letters: b batch, h w image,
k keypoints, v vertices.
"""

from typing import Any, NamedTuple

#: One level of an 8-bit image in [0, 1]. Bytes become floats by multiplying with it in float32:
#: compilers turn a division into that anyway, so training, evaluation and animation agree bitwise.
BYTE_LEVEL = 1.0 / 255.0


class Keypoints(NamedTuple):
    """Learned 2-D keypoints with their local affine frames.

    Attributes:
      value: (b k 2) x, y in [-1, 1]; -1 and +1 lie on the outer pixel *centres* (the corner-aligned
        grid of FOMM, FNeVR and GDPW).
      jacobian: (b k 2 2) d(image)/d(reference frame), row-major [[xx, xy], [yx, yy]]; None for
        detectors without Jacobians.
    """

    value: Any
    jacobian: Any = None


class FaceCoefficients(NamedTuple):
    """Coefficients of a morphable face model.

    Attributes:
      shape_coeffs: (b d) in standard deviations of the model.
      expression_coeffs: (b d) as the model defines them.
      pose: (b j 3) axis-angle per joint, radians.
      translation: (b 3) in the model's length unit.
    """

    shape_coeffs: Any
    expression_coeffs: Any
    pose: Any = None
    translation: Any = None


class Camera(NamedTuple):
    """A pinhole camera, OpenCV convention (x right, y down, z forward).

    Attributes:
      cam2world: (b 4 4).
      intrinsics: (b 3 3) normalised by the image size.
    """

    cam2world: Any
    intrinsics: Any


class FaceInputs(NamedTuple):
    """What a model may ask for about one face image; `TalkingHead.required_inputs` lists fields.

    Attributes:
      image: (b h w 3) float32 RGB in [0, 1].
      keypoints: `Keypoints`.
      coefficients: `FaceCoefficients`.
      vertices: (b v 3) x, y in crop pixels, z in the same scale (smaller is nearer).
      camera: `Camera`.
      mask: (b h w 1) uint8 classes, 0 for background, numbered as `morphable.parts.PARTS`.
      angles: (b 3) yaw, pitch, roll in radians.
    """

    image: Any = None
    keypoints: Any = None
    coefficients: Any = None
    vertices: Any = None
    camera: Any = None
    mask: Any = None
    angles: Any = None


class FramePair(NamedTuple):
    """A training or evaluation pair: animate `source` so that it becomes `driving`.

    Attributes:
      source: `FaceInputs` of the identity image.
      driving: `FaceInputs` of the motion image, and the target.
      record_ids: (b 2) int64, the global record numbers of source and driving.
      weight: (b,) float32, 1 for real examples and 0 for padding; None means all real.
    """

    source: FaceInputs
    driving: FaceInputs
    record_ids: Any = None
    weight: Any = None
