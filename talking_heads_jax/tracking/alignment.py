"""Alignment recipes by name: which part of a frame a system or an estimator is shown.

Numpy only. Every recipe is a named, versioned function from landmarks or boxes in the original
frame's pixels to an `Alignment`; `RECIPES` lists them and `align_clip` applies one to a clip.
Letters: t time, h w image.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, check_shape, requirement
from talking_heads_jax.tracking.clip_boxes import fomm_clip_box, prepare
from talking_heads_jax.tracking.crop_map import Alignment, alignment_from_box, warp_to_crop
from talking_heads_jax.tracking.face_crops import deca_224, deep3d_224, eg3d_512, gdpw_256

__all__ = [
    "RECIPES",
    "Alignment",
    "Recipe",
    "align_clip",
    "alignment_from_box",
    "warp_to_crop",
]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A way to crop, as `align_clip` needs to know it.

    Attributes:
      function: (landmarks or boxes, frame_size, *, size) → `Alignment`.
      size: of its crop, pixels, unless another is asked for.
      clip_wise: one crop for all frames of a clip, from (t 68 2) or (t 4); else one per frame, from
        (68 2).
      by: 'landmarks' or 'boxes', what it is computed from.
    """

    function: Callable[..., Alignment]
    size: int
    clip_wise: bool
    by: str = "landmarks"


#: Every recipe by name.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "prepare": Recipe(prepare, 256, clip_wise=True),
        "fomm_clip_box": Recipe(fomm_clip_box, 256, clip_wise=True, by="boxes"),
        "deca_224": Recipe(deca_224, 224, clip_wise=False),
        "gdpw_256": Recipe(gdpw_256, 256, clip_wise=False),
        "deep3d_224": Recipe(deep3d_224, 224, clip_wise=False),
        "eg3d_512": Recipe(eg3d_512, 512, clip_wise=False),
    }
)


def align_clip(
    name: str,
    frame_size: tuple[int, int],
    *,
    landmarks_px: np.ndarray | None = None,
    boxes_px: np.ndarray | None = None,
    size: int | None = None,
) -> tuple[Alignment | None, ...]:
    """The crops of a clip's frames by a named recipe.

    Args:
      name: one of `RECIPES`.
      frame_size: height and width of the frames.
      landmarks_px: (t 68 2); frames without a face hold NaN.
      boxes_px: (t 4) face boxes likewise; only recipes that say so look at them.
      size: of the crops, pixels; None is the recipe's own.

    Returns:
      One per frame. A recipe for clips gives all frames the same object; one for frames gives None
      where there is no face, or points that allow no crop (all in one place, or on one line).

    Raises:
      ArgumentError: an unknown name, another shape, what the recipe needs is missing, or no frame
        can be cropped.
    """
    check_choice("the alignment recipe", name, tuple(RECIPES))
    recipe = RECIPES[name]
    size = recipe.size if size is None else size
    given = landmarks_px if recipe.by == "landmarks" else boxes_px
    if given is None:
        raise ArgumentError(
            requirement(
                f"Recipe '{name}'", f"be given {recipe.by}", "none", "Track the clip first."
            )
        )
    given = np.asarray(given, np.float64)
    check_shape(recipe.by, given.shape, (None, 68, 2) if recipe.by == "landmarks" else (None, 4))
    if recipe.clip_wise:
        return (recipe.function(given, frame_size, size=size),) * len(given)
    seen = np.isfinite(given).all(axis=(1, 2))
    if not seen.any():
        raise ArgumentError(
            requirement(
                f"A clip cropped by recipe '{name}'",
                "have a frame with 68 finite landmarks",
                "none",
                "Leave the clip out.",
            )
        )
    crops: list[Alignment | None] = [None] * len(given)
    for index in np.flatnonzero(seen):
        try:
            crops[index] = recipe.function(given[index], frame_size, size=size)
        except ArgumentError as error:  # of this frame; the others may be fine
            refused = error
    if all(crop is None for crop in crops):
        raise refused
    return tuple(crops)
