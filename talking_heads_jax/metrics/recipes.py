"""The recipes by name: one per-example function, its accumulator and its direction each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from talking_heads_jax.errors import check_choice
from talking_heads_jax.metrics.pixel import (
    MeanAbsoluteError,
    PeakSignalToNoiseRatio,
    l1_error,
    psnr_decibels,
)
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.metrics.structural_similarity import StructuralSimilarity, ssim_index
from talking_heads_jax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A metric with all its choices fixed.

    Attributes:
      name: `<report key>/<choices>`.
      function: (prediction, target, mask or None) -> (b,) values.
      accumulator: the streaming mean.
      higher_is_better: direction.
      needs_mask: the mask is part of the recipe: it must be given.
    """

    name: str
    function: Callable[..., Float[Array, " b"]]
    accumulator: type[WeightedMean]
    higher_is_better: bool
    needs_mask: bool = False

    @property
    def key(self) -> str:
        """The short name: what stands before the slash."""
        return self.name.split("/", 1)[0]

    def __call__(
        self, prediction: Array, target: Array, mask: Array | None = None
    ) -> Float[Array, " b"]:
        """Values per example; recipes without a mask ignore the one given."""
        return self.function(prediction, target, mask if self.needs_mask else None)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("l1/unit", l1_error, MeanAbsoluteError, False),
        Recipe("l1/255", functools.partial(l1_error, peak=255.0), MeanAbsoluteError, False),
        Recipe("l1/masked-gt", l1_error, MeanAbsoluteError, False, needs_mask=True),
        Recipe("psnr/peak1", psnr_decibels, PeakSignalToNoiseRatio, True),
        Recipe("psnr/masked-gt", psnr_decibels, PeakSignalToNoiseRatio, True, needs_mask=True),
        Recipe(
            "ssim/gauss11-s1.5-rgb",
            functools.partial(ssim_index, window="gauss11"),
            StructuralSimilarity,
            True,
        ),
        Recipe(
            "ssim/skimage-default",
            functools.partial(ssim_index, window="uniform7"),
            StructuralSimilarity,
            True,
        ),
        Recipe(
            "ssim/masked-gt",
            functools.partial(ssim_index, window="gauss11"),
            StructuralSimilarity,
            True,
            needs_mask=True,
        ),
    )
}

RECONSTRUCTION = ("l1/unit", "psnr/peak1", "ssim/gauss11-s1.5-rgb", "ssim/skimage-default")


def select_recipes(names: Sequence[str]) -> tuple[Recipe, ...]:
    """Recipes by name, in the given order.

    Args:
      names: keys of `RECIPES`.

    Raises:
      ArgumentError: for an unknown name; lists the known ones.
    """
    for name in names:
        check_choice("metric", name, tuple(RECIPES))
    return tuple(RECIPES[name] for name in names)
