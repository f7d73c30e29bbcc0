"""The recipes by name: one per-example function, its accumulator and its direction each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from talking_heads_jax.errors import check_choice
from talking_heads_jax.metrics.pixel import (
    MeanAbsoluteError,
    PeakSignalToNoiseRatio,
    l1_error,
    psnr_decibels,
)
from talking_heads_jax.metrics.probe_errors import (
    ProbeError,
    ProbeSimilarity,
    angle_distance,
    expression_distance,
    identity_similarity,
    landmark_distance,
)
from talking_heads_jax.metrics.regions import EYES, FACE, FOREGROUND, HEAD, MOUTH
from talking_heads_jax.metrics.retrieval import Retrieval, retrieval_score
from talking_heads_jax.metrics.shape_preference import ShapePreference, shape_preference
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.metrics.structural_similarity import (
    WINDOW_MARGIN_PX,
    StructuralSimilarity,
    ssim_index,
)
from talking_heads_jax.networks.probe import ProbeOutputs
from talking_heads_jax.typing import Array, Bool, Float

# What a recipe compares a prediction with.
TARGET, CANDIDATES, PROBE, RIVAL = "target", "candidates", "probe", "rival"
# What a recipe grades. A copy of the driving frame moves perfectly, and a copy of the source is the
# right person: neither competes where it knows the answer.
PICTURE, MOTION, IDENTITY = "picture", "motion", "identity"


class Candidates(NamedTuple):
    """What retrieval chooses from: the true pictures of all driving frames of a pair.

    Attributes:
      images: (k h w 3) in [0, 1].
      regions: region -> (h w 1) 1 where the candidates are compared.
      own: (b,) int32, which of them is the truth of each prediction.
      count: () int32, how many are no padding.
    """

    images: Any
    regions: Mapping[str, Any]
    own: Any
    count: Any


class FaceTruth(NamedTuple):
    """What the probe's estimates are compared with; fields without a truth are None.

    Attributes:
      landmarks: (b 68 2) over width and height; NaN where a frame has none.
      angles: (b 3) radians.
      expression: (b d) see `networks.probe.expression_vector`.
      deviation: (d,) of the expression, the unit of its error.
      source_embedding: (e,) the probe's, of the source.
    """

    landmarks: Any
    angles: Any
    expression: Any
    deviation: Any
    source_embedding: Any


class Comparison(NamedTuple):
    """What a batch of predictions is compared with.

    Attributes:
      target: (b h w 3) in [0, 1].
      masks: region -> (b h w 1) 1 where the target shows it.
      candidates: of retrieval; None where no recipe needs them.
      face: of the probe; None likewise.
      rival: (b h w 3) the target with the driver's face shape; None likewise.
    """

    target: Any
    masks: Mapping[str, Any]
    candidates: Candidates | None = None
    face: FaceTruth | None = None
    rival: Any = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A metric with all its choices fixed.

    Attributes:
      name: `<report key>/<choices>`; the key alone where there is one set of choices only.
      function: of 'target' recipes (prediction, target, mask or None) -> (b,) values; of
        'candidates' recipes `retrieval_score`; of 'probe' recipes (outputs, truth) -> (b,) values;
        of 'rival' recipes (prediction, target, rival) -> (b,) values.
      accumulator: the streaming mean.
      higher_is_better: direction.
      region: the part of the mask that is compared, see `regions`; None compares everything and
        needs no mask.
      margin_px: pixels at the border of an image where the metric has no value; a mask that shows
        its region only there shows nothing.
      compares: 'target', 'candidates', 'probe' or 'rival': what a prediction is compared with.
      aspect: 'picture', 'motion' or 'identity': what is graded.
      truth: of 'probe' recipes: the field of `FaceTruth`.
    """

    name: str
    function: Callable[..., Float[Array, " b"]]
    accumulator: type[WeightedMean]
    higher_is_better: bool
    region: str | None = None
    margin_px: int = 0
    compares: str = TARGET
    aspect: str = PICTURE
    truth: str = ""

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
        """Values per example of a 'target' recipe; those without a mask ignore the one given."""
        return self.function(prediction, target, mask if self.needs_mask else None)

    def compare(
        self, prediction: Array, comparison: Comparison, seen: ProbeOutputs | None
    ) -> tuple[Float[Array, " b"], Bool[Array, " b"]]:
        """Values per example of any recipe, and whether each has one.

        Args:
          prediction: (b h w 3) in [0, 1].
          comparison: with what the recipe needs.
          seen: what the probe sees in the predictions; None where no recipe needs it.
        """
        if self.compares == TARGET:
            if self.region is None:
                return self(prediction, comparison.target), jnp.ones(prediction.shape[0], bool)
            mask = comparison.masks[self.region]
            return self(prediction, comparison.target, mask), self.has_support(mask)
        if self.compares == CANDIDATES:
            images, regions, own, count = comparison.candidates
            values = self.function(prediction, images, regions[self.region], own, count)
        elif self.compares == RIVAL:
            values = self.function(prediction, comparison.target, comparison.rival)
        else:
            values = self.function(seen, comparison.face)
        return values, jnp.isfinite(values)


def _masked(region: str, name: str) -> tuple[Recipe, ...]:
    """L1, PSNR and SSIM over the pixels, or window centres, of the target's region."""
    window = "gauss11"
    margin = WINDOW_MARGIN_PX[window]
    ssim = functools.partial(ssim_index, window=window)
    return (
        Recipe(f"l1/{name}", l1_error, MeanAbsoluteError, False, region),
        Recipe(f"psnr/{name}", psnr_decibels, PeakSignalToNoiseRatio, True, region),
        Recipe(f"ssim/{name}", ssim, StructuralSimilarity, True, region, margin),
    )


def _retrieval(region: str) -> Recipe:
    name = f"retrieval_{region}"
    return Recipe(
        name, retrieval_score, Retrieval, True, region, compares=CANDIDATES, aspect=MOTION
    )


def _landmarks(seen: ProbeOutputs, truth: FaceTruth) -> Array:
    return landmark_distance(seen.landmarks, truth.landmarks)


def _angles(seen: ProbeOutputs, truth: FaceTruth) -> Array:
    return angle_distance(seen.angles, truth.angles)


def _expression(seen: ProbeOutputs, truth: FaceTruth) -> Array:
    return expression_distance(seen.expression, truth.expression, truth.deviation)


def _identity(seen: ProbeOutputs, truth: FaceTruth) -> Array:
    return identity_similarity(seen.embedding, truth.source_embedding)


def _probe(what: str, function: Callable[..., Array], truth: str) -> Recipe:
    aspect = IDENTITY if truth == "source_embedding" else MOTION
    accumulator = ProbeSimilarity if aspect == IDENTITY else ProbeError
    return Recipe(
        f"probe_{what}",
        function,
        accumulator,
        aspect == IDENTITY,
        compares=PROBE,
        aspect=aspect,
        truth=truth,
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("l1/unit", l1_error, MeanAbsoluteError, False),
        Recipe("l1/255", functools.partial(l1_error, peak=255.0), MeanAbsoluteError, False),
        Recipe("psnr/peak1", psnr_decibels, PeakSignalToNoiseRatio, True),
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
        *_masked(FOREGROUND, "masked-gt"),
        *_masked(HEAD, "masked-head"),
        *_masked(FACE, "masked-face"),
        *_masked(MOUTH, "masked-mouth"),
        *_masked(EYES, "masked-eyes"),
        _retrieval(MOUTH),
        _retrieval(EYES),
        _probe("landmarks_px", _landmarks, "landmarks"),
        _probe("angles_deg", _angles, "angles"),
        _probe("expression", _expression, "expression"),
        _probe("identity", _identity, "source_embedding"),
        Recipe(
            "shape_kept",
            shape_preference,
            ShapePreference,
            True,
            compares=RIVAL,
            aspect=IDENTITY,
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
