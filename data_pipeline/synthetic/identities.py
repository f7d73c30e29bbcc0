"""Who is drawn: shape, texture, light and background of an identity, from (seed, number).

Letters: K shape coefficients, t texels, h w image.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.appearance import draw_shape, paint
from data_pipeline.synthetic.backgrounds import draw_background
from data_pipeline.synthetic.scene import Light, draw_light
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.morphable.base import MorphableModel

#: Split -> identity numbers. `extrapolation` shows the identities of `test` with |yaw| > 45°.
IDENTITY_RANGES: Mapping[str, range] = {
    "train": range(10_000),
    "val": range(10_000, 20_000),
    "test": range(20_000, 30_000),
    "probe": range(30_000, 40_000),
    "extrapolation": range(20_000, 30_000),
}
_LARGEST_NUMBER = 2**31 - 1

# Textures are painted finer than shown and averaged, up to a side beyond which painting takes
# longer than all else.
_PAINTED_FINER = 2
_PAINTED_SIDE = 512


class Identity(NamedTuple):
    """Everything about a head that does not move.

    Attributes:
      number: which one.
      shape_coeffs: (K) float32.
      texture: (t t 4) uint8: albedo and the strength of the highlight.
      light: `scene.Light`.
      background: (h w 3) float32 in [0, 1].
    """

    number: int
    shape_coeffs: np.ndarray
    texture: np.ndarray
    light: Light
    background: np.ndarray


def check_number(number: int) -> None:
    """Raises unless a number names an identity.

    Args:
      number: from 0; see `IDENTITY_RANGES`.

    Raises:
      ArgumentError: it is negative, too large, or no whole number.
    """
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or not 0 <= number <= _LARGEST_NUMBER:
        raise ArgumentError(
            requirement(
                "An identity",
                f"be a whole number from 0 to {_LARGEST_NUMBER}",
                repr(number),
                "The splits are ranges of it: train starts at 0, val at 10000, test at 20000.",
            )
        )


class Painter:
    """Paints the textures of a model's identities, at the resolution that frames of a size need."""

    def __init__(self, model: MorphableModel, *, size: int) -> None:
        """Prepares the painter of a model.

        Args:
          model: the head.
          size: of the frames, pixels.

        Raises:
          ArgumentError: the model has no texture coordinates or lacks eye joints.
        """
        if model.uv is None or not {"eye_L", "eye_R"} <= set(model.joint_names):
            raise ArgumentError(
                requirement(
                    "A model of the synthetic set",
                    "have texture coordinates and the joints eye_L and eye_R",
                    model.name,
                    "Use 'procedural' or 'ict'.",
                )
            )
        neutral = model.neutral(1)
        unit = model.centimetres_per_unit
        template = np.asarray(model.vertices(neutral)[0]) * unit
        landmarks = np.asarray(model.landmarks68(template[None], neutral))[0]
        distances = np.linalg.norm(landmarks[:, None] - template, axis=-1)
        self._arrays = {
            "v_template": template,
            "faces": model.faces,
            "uv": model.uv,
            "faces_uv": model.faces_uv,
            "face_part": model.face_part,
            "landmarks68": distances.argmin(axis=1),
            "joint_names": np.array(model.joint_names),
            "J_template": np.asarray(model.posed_joints(neutral)[0]) * unit,
        }
        self.corner_uv = np.asarray(model.uv, np.float32)[np.asarray(model.faces_uv)]
        self._side = _texture_side(size)

    def paint(self, seed: int, number: int) -> np.ndarray:
        """(t t 4) uint8 texture of an identity.

        Args:
          seed: of the set.
          number: of the identity.
        """
        finer = max(1, min(_PAINTED_FINER, _PAINTED_SIDE // self._side))
        painted = paint(seed, number, self._arrays, finer * self._side)
        blocks = painted.reshape(self._side, finer, self._side, finer, 4)
        total = blocks.sum(axis=(1, 3), dtype=np.uint32)
        return ((total + finer**2 // 2) // finer**2).astype(np.uint8)


def _texture_side(size: int) -> int:
    """Texels along the side of a texture whose texels are about as large as the samples."""
    return int(np.clip(2 ** np.ceil(np.log2(2 * size)), 128, 1024))


def draw_identity(
    seed: int, number: int, model: MorphableModel, painter: Painter, *, size: int
) -> Identity:
    """Draws an identity.

    Args:
      seed: of the set.
      number: which one.
      model: the head.
      painter: of that model.
      size: of the pictures, pixels.

    Raises:
      ArgumentError: the number names no identity.
    """
    check_number(number)
    streams = [np.random.default_rng([seed, 0, number, part]) for part in range(2)]
    return Identity(
        number=int(number),
        shape_coeffs=draw_shape(seed, int(number), tuple(model.shape_names)),
        texture=painter.paint(seed, int(number)),
        light=draw_light(streams[0]),
        background=draw_background(streams[1], size),
    )
