"""Streams pairs through all answers, and keeps the means of every pair.

Memory holds one batch of frames, whatever the clips' lengths. All batches have one shape (the last
is padded with weight 0), so that everything is compiled once per frame size. Letters: b batch, h w
image.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, DataError, requirement
from talking_heads_jax.evaluation.answers import (
    COPY_DRIVING,
    Answer,
    DrivingBatch,
    Task,
    batches,
    trivial_answers,
)
from talking_heads_jax.evaluation.clips import Clip, as_bytes, as_unit_float
from talking_heads_jax.evaluation.pairs import Pair, PairList, check_pairs
from talking_heads_jax.evaluation.predictions import PredictionWriter
from talking_heads_jax.evaluation.results import EvaluationResult, GalleryRow
from talking_heads_jax.metrics.recipes import MASKED, RECONSTRUCTION, Recipe, select_recipes
from talking_heads_jax.metrics.regions import FOREGROUND, region_weights
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.typing import Array

DRIVING_TRUTH = "the driving frame"


@dataclasses.dataclass(frozen=True)
class ExactTruth:
    """Truth for pairs of different people, which only a data set that can render them has.

    Attributes:
      image: (pair, number of the driving frame) -> (h w 3), what a perfect system would return.
      mask: the same -> (h w) uint8 classes; None where there are none.
      description: for reports.
    """

    image: Callable[[Pair, int], np.ndarray]
    mask: Callable[[Pair, int], np.ndarray] | None = None
    description: str = "exact renderings"


def evaluate_pairs(
    systems: Mapping[str, Answer],
    pair_list: PairList,
    clips: Mapping[str, Clip],
    *,
    recipes: Sequence[str] = (),
    batch_size: int = 4,
    truth: ExactTruth | None = None,
    shard: tuple[int, int] = (0, 1),
    gallery_pairs: int = 4,
    writer: PredictionWriter | None = None,
    on_pair: Callable[[], object] | None = None,
) -> EvaluationResult:
    """Scores systems and the trivial answers on the same frames.

    Args:
      systems: row name -> a checkpoint or folder of predictions.
      pair_list: what drives what.
      clips: by name.
      recipes: names of metrics; empty for the reconstruction set, with the masked ones where all
        clips (or the exact truth) have masks. Where there is no truth: none.
      batch_size: frames per call, that of the checkpoint answers.
      truth: of pairs of different people; the driving frame is the truth of all others.
      shard: (i, n): only the pairs i, i + n, i + 2n, ...
      gallery_pairs: keep pictures of so many pairs, spread over the list, one frame each.
      writer: takes the predictions of the first system.
      on_pair: called after each pair.

    Raises:
      ArgumentError: metrics without a truth or mask to compare with, or names of rows that clash.
      DataError: clips that do not hold the pairs, frames of another size, or predictions that are
        not finite.
    """
    check_pairs(pair_list.pairs, clips)
    same = pair_list.protocol.same_identity
    if same and truth is not None:
        raise ArgumentError(
            requirement(
                "exact truth",
                "be given across identities only",
                pair_list.protocol.name,
                "Omit it.",
            )
        )
    named = {name for pair in pair_list.pairs for name in (pair.source_clip, pair.driving_clip)}
    clip_masks = all(clips[name].masks is not None for name in named)
    has_masks = clip_masks if same else truth is not None and truth.mask is not None
    chosen = _choose_recipes(recipes, known=same or truth is not None, masks=has_masks)
    answers = dict(systems)
    for name, answer in (trivial_answers(masks=clip_masks) if chosen else {}).items():
        if name in answers:
            raise ArgumentError(
                requirement("a system's name", "differ from the trivial rows", name, "Rename it.")
            )
        answers[name] = answer
    positions = list(range(shard[0], len(pair_list.pairs), shard[1]))
    pictured = {i * len(pair_list.pairs) // gallery_pairs for i in range(gallery_pairs)}
    description = DRIVING_TRUTH if same else truth.description if truth is not None else ""
    result = EvaluationResult(
        pair_list,
        positions,
        chosen,
        tuple(systems),
        description,
        COPY_DRIVING if same and chosen else "",
        {row: {recipe.name: [] for recipe in chosen} for row in answers} if chosen else {},
        {},
        [],
    )
    run = _Run(answers, chosen, batch_size, truth if not same else None, clips, has_masks)
    for position in positions:
        pair = pair_list.pairs[position]
        with writer.open(pair) if writer else contextlib.nullcontext() as sink:
            means, pictures = run.score(
                pair, tuple(systems), position in pictured, sink.write if sink else None
            )
        for row, columns in result.values.items():
            for recipe, value in zip(chosen, means[row], strict=True):
                columns[recipe.name].append(value)
        for name in systems:
            initial = answers[name].initial_frame()
            if initial is not None:
                result.initial_frames.setdefault(name, []).append(initial)
        if pictures is not None:
            number, images = pictures
            result.gallery.append(GalleryRow(position, pair.name, number, images))
        if on_pair is not None:
            on_pair()
    return result


def fitting_batch_size(pair_list: PairList, batch_size: int) -> int:
    """A batch size that no pair leaves mostly empty: at most the frames of the longest pair.

    Args:
      pair_list: the whole list, so that all shards compute alike.
      batch_size: what is wanted.
    """
    return min(batch_size, max(len(pair.driving_frames) for pair in pair_list.pairs))


class _Run:
    """What all pairs of an evaluation share."""

    def __init__(
        self,
        answers: Mapping[str, Answer],
        recipes: tuple[Recipe, ...],
        batch_size: int,
        truth: ExactTruth | None,
        clips: Mapping[str, Clip],
        has_masks: bool,
    ) -> None:
        self._answers, self._recipes, self._batch_size = answers, recipes, batch_size
        self._truth, self._clips = truth, clips
        self._regions = (
            {recipe.region for recipe in recipes if recipe.region} if has_masks else set()
        )
        self._update = _make_update(recipes)

    def score(
        self,
        pair: Pair,
        systems: Sequence[str],
        pictured: bool,
        save: Callable[[np.ndarray], None] | None,
    ) -> tuple[dict[str, list[float]], tuple[int, dict[str, np.ndarray]] | None]:
        """The means of a pair per row, and pictures of its middle frame."""
        source_clip, driving = self._clips[pair.source_clip], self._clips[pair.driving_clip]
        mask = None
        if source_clip.masks is not None:
            mask = region_weights(source_clip.masks[pair.source_frame], FOREGROUND)[None]
        task = Task(pair, np.asarray(source_clip.frames[pair.source_frame]), mask, driving)
        predict = {name: answer.bind(task) for name, answer in self._answers.items()}
        means = {row: [recipe.accumulator.empty() for recipe in self._recipes] for row in predict}
        middle, pictures, start = len(pair.driving_frames) // 2, None, 0
        for frames, count in batches(driving.frames, pair.driving_frames, self._batch_size):
            _check_size(pair, frames, task.source.shape)
            numbers = pair.driving_frames[start : start + count]
            batch = DrivingBatch(frames, self._driving_masks(driving, numbers), start, count)
            target, masks = self._target(pair, batch, numbers)
            weight = np.zeros(self._batch_size, np.float32)
            weight[:count] = 1.0
            shown = {}
            for row, function in predict.items():
                prediction = function(batch)
                if row in systems:
                    _check_finite(pair, row, prediction)
                    shown[row] = prediction
                if target is not None:
                    means[row] = self._update(means[row], prediction, target, masks, weight)
            if save is not None:
                save(np.asarray(shown[systems[0]])[:count])
            if pictured and start <= middle < start + count:
                index = middle - start
                pictures = (numbers[index], _pictures(task, frames, shown, target, index))
            start += count
        computed = {}
        for row, columns in means.items():
            computed[row] = [_finished(mean) for mean in jax.device_get(columns)]
        return computed, pictures

    def _driving_masks(self, driving: Clip, numbers: Sequence[int]) -> np.ndarray | None:
        """The silhouettes of the driving frames."""
        if driving.masks is None:
            return None
        masks, _ = next(batches(driving.masks, numbers, self._batch_size))
        return region_weights(masks, FOREGROUND)

    def _target(
        self, pair: Pair, batch: DrivingBatch, numbers: Sequence[int]
    ) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        """What predictions are compared with, and the masks of its regions."""
        if not self._recipes:
            return None, {}
        masks: Sequence[np.ndarray] | None
        if self._truth is None:
            target = as_unit_float(batch.frames)
            masks = self._clips[pair.driving_clip].masks
            classes = [masks[i] for i in numbers] if self._regions and masks is not None else []
        else:
            images = [as_unit_float(self._truth.image(pair, i)) for i in numbers]
            images += [images[-1]] * (self._batch_size - len(images))
            target = np.stack(images)
            _check_size(pair, target, batch.frames.shape[1:])
            mask = self._truth.mask
            classes = [mask(pair, i) for i in numbers] if self._regions and mask else []
        if not self._regions:
            return target, {}
        classes += [classes[-1]] * (self._batch_size - len(classes))
        stacked = np.stack(classes)
        return target, {region: region_weights(stacked, region) for region in self._regions}


def _choose_recipes(names: Sequence[str], *, known: bool, masks: bool) -> tuple[Recipe, ...]:
    if not known:
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
    chosen = select_recipes(names or (*RECONSTRUCTION, *(MASKED if masks else ())))
    for recipe in chosen:
        if recipe.needs_mask and not masks:
            raise ArgumentError(
                requirement(
                    f"the data, for metric {recipe.name},",
                    "hold a mask of every frame",
                    "none",
                    "Leave the metric out, or use a data set with the record field `mask`.",
                )
            )
    return chosen


@functools.cache
def _make_update(recipes: tuple[Recipe, ...]) -> Callable[..., list[WeightedMean]]:
    """One compiled update of all means; the same for every evaluation of these recipes."""

    @jax.jit
    def update(
        means: list[WeightedMean],
        prediction: Array,
        target: Array,
        masks: dict[str, Array],
        weight: Array,
    ) -> list[WeightedMean]:
        prediction = prediction.astype(jnp.float32)
        updated = []
        for mean, recipe in zip(means, recipes, strict=True):
            mask = masks[recipe.region] if recipe.needs_mask else None
            counted = weight if mask is None else weight * recipe.has_support(mask)
            updated.append(mean.update(recipe(prediction, target, mask), counted))
        return updated

    return update


def _finished(mean: WeightedMean) -> float:
    """The mean in float64; NaN where no frame counted."""
    if mean.weight == 0:
        return float("nan")
    return (float(mean.total) + float(mean.compensation)) / float(mean.weight)


def _check_finite(pair: Pair, row: str, prediction: Array | np.ndarray) -> None:
    if not bool(_all_finite(prediction)):
        raise DataError(
            requirement(
                f"predictions of '{row}' for pair '{pair.name}'",
                "be finite",
                "nan or inf",
                "Score another checkpoint.",
            )
        )


@jax.jit
def _all_finite(prediction: Array) -> Array:
    return jnp.isfinite(prediction).all()


def _check_size(pair: Pair, frames: np.ndarray, shape: tuple[int, ...]) -> None:
    if frames.shape[1:] != shape or len(shape) != 3:
        raise DataError(
            requirement(
                f"frames of pair '{pair.name}'",
                f"have the source's shape {shape}",
                frames.shape[1:],
                "Prepare the clips again, at one size.",
            )
        )


def _pictures(
    task: Task,
    frames: np.ndarray,
    shown: Mapping[str, Any],
    target: np.ndarray | None,
    index: int,
) -> dict[str, np.ndarray]:
    """Source, driving frame, truth where it is another picture, predictions, and the error."""
    images = {"source": as_bytes(task.source), "driving": as_bytes(frames[index])}
    if target is not None and not np.array_equal(target[index], as_unit_float(frames[index])):
        images["truth"] = as_bytes(target[index])
    for name, prediction in shown.items():
        images[name] = as_bytes(np.asarray(prediction[index], np.float32))
    if target is not None and len(shown) == 1:
        (prediction,) = shown.values()
        error = np.abs(np.asarray(prediction[index], np.float32) - target[index])
        # Errors are small: four times brighter shows where they are.
        images["error x4"] = as_bytes(4.0 * error)
    return images
