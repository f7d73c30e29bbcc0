"""What predictions are compared with: the driving frame, or an exact picture of the source.

Frames are read once, when a batch needs them; only retrieval, which chooses among all driving
frames of a pair, holds them together. Letters: b batch, h w image, k candidates.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, DataError, requirement
from talking_heads_jax.evaluation.clips import Clip, as_unit_float
from talking_heads_jax.evaluation.pairs import Pair
from talking_heads_jax.metrics.recipes import (
    CANDIDATES,
    MASKED,
    PROBE,
    RECONSTRUCTION,
    RIVAL,
    Candidates,
    Comparison,
    FaceTruth,
    Recipe,
    select_recipes,
)
from talking_heads_jax.metrics.regions import joint_region, region_weights
from talking_heads_jax.metrics.retrieval import dilation_px
from talking_heads_jax.networks.probe import Probe, expression_vector, run_probe

#: Retrieval holds the driving frames of a pair in memory, so that there may be so many.
MOST_CANDIDATES = 64

_run_probe = jax.jit(run_probe)


@dataclasses.dataclass(frozen=True)
class ExactTruth:
    """Truth for pairs of different people, which only a data set that can render them has.

    Attributes:
      image: (pair, number of the driving frame) -> (h w 3), what a perfect system would return.
      mask: the same -> (h w) uint8 classes; None where there are none.
      description: for reports.
      landmarks: the same -> (68 2) in pixels; None where there are none.
      vertices: the same -> (v 3) as `Clip.vertices`: the driving person's expression and pose on
        the source's shape, which moves mesh-driven systems; None where nobody knows it.
      rival: as `image`, but with the driving person's face shape; None where nobody can draw it.
    """

    image: Callable[[Pair, int], np.ndarray]
    mask: Callable[[Pair, int], np.ndarray] | None = None
    description: str = "exact renderings"
    landmarks: Callable[[Pair, int], np.ndarray] | None = None
    vertices: Callable[[Pair, int], np.ndarray] | None = None
    rival: Callable[[Pair, int], np.ndarray] | None = None


class Known(NamedTuple):
    """What is known of the truth of all pairs.

    Attributes:
      images: what the pictures should be.
      masks: their masks.
      columns: what else: of 'landmarks', 'angles', 'expression' and 'rival'.
    """

    images: bool
    masks: bool
    columns: frozenset[str]


def what_is_known(
    pairs: Sequence[Pair], clips: Mapping[str, Clip], truth: ExactTruth | None, *, same: bool
) -> Known:
    """Looks at the columns of all clips that pairs name.

    Args:
      pairs: of an evaluation.
      clips: by name.
      truth: of pairs of different people.
      same: whether source and driving frame are of one clip.
    """
    named = {name for pair in pairs for name in (pair.source_clip, pair.driving_clip)}
    masks, landmarks = (
        all(getattr(clips[name], field) is not None for name in named)
        for field in ("masks", "landmarks")
    )
    columns = {"source_embedding"}
    if not same:
        masks = truth is not None and truth.mask is not None
        landmarks = truth is not None and truth.landmarks is not None
        if truth is not None and truth.rival is not None:
            columns.add(RIVAL)
    driving = [clips[pair.driving_clip] for pair in pairs]
    if landmarks:
        columns.add("landmarks")
    # Angles and expression are the driving frame's, whoever makes them.
    if all(clip.angles is not None for clip in driving):
        columns.add("angles")
    if all(clip.expression_coeffs is not None for clip in driving):
        columns.add("expression")
    return Known(same or truth is not None, masks, frozenset(columns))


def choose_recipes(names: Sequence[str], known: Known) -> tuple[Recipe, ...]:
    """The recipes of an evaluation.

    Args:
      names: what is asked for; empty for the reconstruction set, with the foreground's where there
        are masks; where there is no truth: none.
      known: of the truth.

    Raises:
      ArgumentError: a recipe needs what is not known.
    """

    def missing(recipe: str, what: str, remedy: str) -> ArgumentError:
        return ArgumentError(
            requirement(f"the data, for metric {recipe},", f"hold {what}", "none", remedy)
        )

    if not known.images:
        if names:
            raise ArgumentError(
                requirement(
                    "metrics",
                    "have a truth to compare with",
                    f"{', '.join(names)} across identities",
                    "Leave them out: no truth exists for this data.",
                )
            )
        return ()
    chosen = select_recipes(names or (*RECONSTRUCTION, *(MASKED if known.masks else ())))
    for recipe in chosen:
        if recipe.needs_mask and not known.masks:
            raise missing(
                recipe.name,
                "a mask of every frame",
                "Leave the metric out, or use a data set with the record field `mask`.",
            )
        if recipe.compares == PROBE and recipe.truth not in known.columns:
            raise missing(
                recipe.name,
                f"the exact {recipe.truth} of every frame",
                "Leave the metric out, or use a synthetic data set.",
            )
        if recipe.compares == RIVAL and RIVAL not in known.columns:
            raise missing(
                recipe.name,
                "renders of the source's person with the driver's shape",
                "Leave the metric out, or use the protocol synthetic_cross on a synthetic set.",
            )
    return chosen


class TruthReader:
    """Reads what the predictions of any pair are compared with."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        clips: Mapping[str, Clip],
        recipes: Sequence[Recipe],
        *,
        batch_size: int,
        truth: ExactTruth | None,
        probe: Probe | None,
    ) -> None:
        """Checks that the pairs fit the recipes.

        Args:
          pairs: all of the evaluation.
          clips: by name.
          recipes: decide what is read.
          batch_size: every batch is padded to it.
          truth: of pairs of different people; None: the driving frame is the truth.
          probe: given where a recipe needs it.

        Raises:
          ArgumentError: retrieval among too many frames.
        """
        self._clips, self._truth, self._probe = clips, truth, probe
        self._batch_size = batch_size
        self.exact = truth is not None
        self.compared = bool(recipes)
        self.has_rival = any(recipe.compares == RIVAL for recipe in recipes)
        of_target = [recipe for recipe in recipes if recipe.compares != CANDIDATES]
        self.regions = {recipe.region for recipe in of_target if recipe.region}
        chosen_from = [recipe for recipe in recipes if recipe.compares == CANDIDATES]
        self._choices = {recipe.region for recipe in chosen_from if recipe.region}
        self._columns = {recipe.truth for recipe in recipes if recipe.compares == PROBE}
        # Every pair is padded to the longest, so that everything is compiled once.
        self._slots = max((len(pair.driving_frames) for pair in pairs), default=0)
        if self._choices and self._slots > MOST_CANDIDATES:
            raise ArgumentError(
                requirement(
                    "retrieval",
                    f"choose among at most {MOST_CANDIDATES} driving frames of a pair",
                    self._slots,
                    "Set protocol.driving_per_clip, e.g. to 3.",
                )
            )

    def bind(self, pair: Pair, source: np.ndarray) -> "PairTruth":
        """What predictions of one pair are compared with.

        Args:
          pair: which.
          source: (h w 3) as the data set stores it.
        """
        return PairTruth(self, pair, source)

    # The rest is for `PairTruth`.

    def image(self, pair: Pair, number: int) -> np.ndarray:
        """(h w 3) float32 in [0, 1]: what a perfect system returns for a driving frame."""
        if self._truth is not None:
            return as_unit_float(self._truth.image(pair, number))
        return as_unit_float(self._clips[pair.driving_clip].frames[number])

    def mask(self, pair: Pair, number: int) -> np.ndarray:
        """(h w) classes of that picture."""
        if self._truth is not None and self._truth.mask is not None:
            return np.asarray(self._truth.mask(pair, number))
        masks = self._clips[pair.driving_clip].masks
        assert masks is not None, "recipes that need masks are refused without them"
        return np.asarray(masks[number])

    def rival(self, pair: Pair, numbers: Sequence[int]) -> np.ndarray | None:
        """(b h w 3) float32 in [0, 1]: the truth of some frames with the driver's shape."""
        if not self.has_rival:
            return None
        assert self._truth is not None and self._truth.rival is not None
        return self.padded([as_unit_float(self._truth.rival(pair, number)) for number in numbers])

    def padded(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Rows of one batch; the last is repeated."""
        rows = list(rows)
        return np.stack(rows + [rows[-1]] * (self._batch_size - len(rows)))

    def candidates(self, pair: Pair) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        """(k h w 3) pictures of all driving frames, and where they are compared."""
        if not self._choices:
            return None
        images = [self.image(pair, number) for number in pair.driving_frames]
        masks = [self.mask(pair, number) for number in pair.driving_frames]
        margin = dilation_px(images[0].shape[1])
        regions = {name: joint_region(masks, name, dilation_px=margin) for name in self._choices}
        images += [images[-1]] * (self._slots - len(images))
        return np.stack(images), regions

    def embedding(self, source: np.ndarray) -> np.ndarray | None:
        """(e,) of the source, by the probe."""
        if "source_embedding" not in self._columns or self._probe is None:
            return None
        image = as_unit_float(source)[None]
        return _run_probe(self._probe.params, self._probe.statistics, image).embedding[0]

    def face(
        self, pair: Pair, numbers: Sequence[int], embedding: np.ndarray | None
    ) -> FaceTruth | None:
        """What the probe's estimates of some frames are compared with."""
        if self._probe is None or not self._columns:
            return None
        driving = self._clips[pair.driving_clip]
        landmarks = angles = expression = deviation = None
        if "landmarks" in self._columns:
            rows = [self._landmarks(pair, number) for number in numbers]
            landmarks = self.padded(rows)
        if "angles" in self._columns and driving.angles is not None:
            angles = self.padded([np.asarray(driving.angles[i], np.float32) for i in numbers])
        if "expression" in self._columns:
            expression = self.padded([self._expression(driving, i) for i in numbers])
            deviation = self._probe.statistics["expression_deviation"]
        return FaceTruth(landmarks, angles, expression, deviation, embedding)

    def _landmarks(self, pair: Pair, number: int) -> np.ndarray:
        if self._truth is not None and self._truth.landmarks is not None:
            points = self._truth.landmarks(pair, number)
        else:
            column = self._clips[pair.driving_clip].landmarks
            assert column is not None, "recipes that need landmarks are refused without them"
            points = column[number]
        height, width = np.shape(self._clips[pair.driving_clip].frames[number])[:2]
        return np.asarray(points, np.float32) / np.float32([width, height])

    def _expression(self, driving: Clip, number: int) -> np.ndarray:
        assert driving.expression_coeffs is not None and self._probe is not None
        pose = None if driving.joint_pose is None else driving.joint_pose[number]
        vector = expression_vector(driving.expression_coeffs[number], pose)
        if len(vector) != self._probe.num_expression:
            raise DataError(
                requirement(
                    f"expressions of clip '{driving.clip_id}'",
                    f"have the probe's {self._probe.num_expression} components",
                    len(vector),
                    "Leave probe_expression out, or use the procedural head's data.",
                )
            )
        return vector


class PairTruth:
    """What the predictions of one pair are compared with."""

    def __init__(self, reader: TruthReader, pair: Pair, source: np.ndarray) -> None:
        """Reads the candidates of retrieval, if there are any.

        Args:
          reader: of all pairs.
          pair: which.
          source: its source.
        """
        self._reader, self._pair = reader, pair
        self._embedding = reader.embedding(source)
        found = reader.candidates(pair)
        self._candidates = None if found is None else jax.tree.map(jnp.asarray, found)

    def comparison(self, frames: np.ndarray, start: int, count: int) -> Comparison | None:
        """What a batch is compared with; None where nothing is measured.

        Args:
          frames: (b h w 3) driving frames as the data set stores them.
          start: position of the first among the pair's driving frames.
          count: how many are no padding.
        """
        reader, pair = self._reader, self._pair
        if not reader.compared:
            return None
        numbers = pair.driving_frames[start : start + count]
        if reader.exact:
            target = reader.padded([reader.image(pair, number) for number in numbers])
        else:
            target = as_unit_float(frames)
        masks = {}
        if reader.regions:
            classes = reader.padded([reader.mask(pair, number) for number in numbers])
            masks = {region: region_weights(classes, region) for region in reader.regions}
        candidates = None
        if self._candidates is not None:
            own = np.minimum(start + np.arange(len(frames)), len(pair.driving_frames) - 1)
            total = np.int32(len(pair.driving_frames))
            candidates = Candidates(*self._candidates, own.astype(np.int32), total)
        face = reader.face(pair, numbers, self._embedding)
        return Comparison(target, masks, candidates, face, reader.rival(pair, numbers))
