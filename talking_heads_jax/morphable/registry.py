"""Models by name: the built-in head, and those whose files the user has registered."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from talking_heads_jax.assets import locate_asset, registered_assets
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.morphable import flame
from talking_heads_jax.morphable.asset_files import FLAME_LANDMARKS, FLAME_UV
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.bfm import BfmModel
from talking_heads_jax.morphable.flame import FlameModel, embedding_arrays
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.serialization.npz_file import read_npz

PROCEDURAL = "procedural"
_CLASSES = {
    PROCEDURAL: SkinnedFaceModel,
    "ict": SkinnedFaceModel,
    "flame2020": FlameModel,
    "flame2023": FlameModel,
    "bfm09": BfmModel,
}
#: Every name `load_morphable` knows; the same words as in records.
MORPHABLE_NAMES = tuple(_CLASSES)


def load_morphable(
    name: str, *, num_shape: int | None = None, num_expression: int | None = None
) -> MorphableModel:
    """A morphable model by name.

    Args:
      name: 'procedural' needs no file; the others were registered by `talking-heads assets add`.
      num_shape: how many shape coefficients to keep; None: 100 of FLAME, all of the others.
      num_expression: how many expression coefficients to keep; None: 50 of FLAME, all of the
        others.

    Raises:
      ArgumentError: for an unknown name.
      AssetNotFoundError: if its file is not registered; names it, its licence page and the open
        models to use instead.
      UnsafeFileError: if the registered file is damaged.
    """
    if name not in _CLASSES:
        raise ArgumentError(
            requirement(
                "the morphable model", "be known", name, f"Use one of {', '.join(_CLASSES)}."
            )
        )
    if name == PROCEDURAL:
        from talking_heads_jax.morphable.procedural_head import procedural_head_arrays

        return SkinnedFaceModel.from_arrays(
            procedural_head_arrays(), name=name, num_shape=num_shape, num_expression=num_expression
        )
    return model_from_file(
        name, locate_asset(name), num_shape=num_shape, num_expression=num_expression
    )


def model_from_file(
    name: str, path: Path, *, num_shape: int | None = None, num_expression: int | None = None
) -> MorphableModel:
    """A morphable model from a clean npz.

    Args:
      name: of the model; decides its class.
      path: the file.
      num_shape: as `load_morphable`.
      num_expression: as `load_morphable`.

    Raises:
      ArgumentError: if its arrays do not fit together.
      UnsafeFileError: if it is damaged.
    """
    arrays = read_npz(path, f"file '{path.name}'")
    kind = _CLASSES[name]
    if kind is FlameModel:
        arrays |= _flame_companions(arrays["faces"])
        if num_shape is None:
            num_shape = min(flame.DEFAULT_NUM_SHAPE, len(arrays["shapedirs"]))
        if num_expression is None:
            num_expression = min(flame.DEFAULT_NUM_EXPRESSION, len(arrays["exprdirs"]))
    return kind.from_arrays(arrays, name=name, num_shape=num_shape, num_expression=num_expression)


def _flame_companions(faces: np.ndarray) -> Mapping[str, np.ndarray]:
    """Landmarks and texture coordinates, as far as their files are registered."""
    found: dict[str, np.ndarray] = {}
    index = registered_assets()
    if FLAME_LANDMARKS in index:
        tree = read_npz(locate_asset(FLAME_LANDMARKS), f"asset '{FLAME_LANDMARKS}'")
        found |= embedding_arrays(tree, faces, where=f"asset '{FLAME_LANDMARKS}'")
    if FLAME_UV in index:
        template = read_npz(locate_asset(FLAME_UV), f"asset '{FLAME_UV}'")
        if not np.array_equal(template["faces"], faces):
            raise ArgumentError(
                requirement(
                    f"asset '{FLAME_UV}'",
                    "have the model's triangles",
                    "others",
                    "Register the head_template.obj that came with the model.",
                )
            )
        found |= {"uv": template["uv"], "faces_uv": template["faces_uv"]}
    return found
