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
from talking_heads_jax.metrics.regions import FOREGROUND
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.metrics.structural_similarity import (
    WINDOW_MARGIN_PX,
    StructuralSimilarity,
    ssim_index,
)
from talking_heads_jax.typing import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A metric with all its choices fixed.

    Attributes:
      name: `<report key>/<choices>`.
      function: (prediction, target, mask or None) -> (b,) values.
      accumulator: the streaming mean.
      higher_is_better: direction.
      region: the part of the mask that is compared, see `regions`; None compares everything and
        needs no mask.
      margin_px: pixels at the border of an image where the metric has no value; a mask that shows
        its region only there shows nothing.
    """

    name: str
    function: Callable[..., Float[Array, " b"]]
    accumulator: type[WeightedMean]
    higher_is_better: bool
    region: str | None = None
    margin_px: int = 0

    @property
    def needs_mask(self) -> bool:
        """Whether a mask is part of the recipe, and must be given."""
        return self.region is not None

    def has_support(self, mask: Float[Array, "b h w 1"]) -> Bool[Array, " b"]:
        """Whether each mask shows the region at all; where it does not there is no value.

        Args:
          mask: weight of each pixel.
        """
        margin = self.margin_px
        inner = mask[:, margin : mask.shape[1] - margin, margin : mask.shape[2] - margin]
        return (inner > 0).any(axis=(1, 2, 3))

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
        Recipe("l1/masked-gt", l1_error, MeanAbsoluteError, False, region=FOREGROUND),
        Recipe("psnr/peak1", psnr_decibels, PeakSignalToNoiseRatio, True),
        Recipe("psnr/masked-gt", psnr_decibels, PeakSignalToNoiseRatio, True, region=FOREGROUND),
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
            region=FOREGROUND,
            margin_px=WINDOW_MARGIN_PX["gauss11"],
        ),
    )
}

MASKED = ("l1/masked-gt", "psnr/masked-gt", "ssim/masked-gt")
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
