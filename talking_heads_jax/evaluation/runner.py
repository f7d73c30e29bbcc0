"""Streams pairs through all answers, and keeps the means of every pair.

Memory holds one batch of frames, whatever the clips' lengths. All batches have one shape (the last
is padded with weight 0), so that everything is compiled once per frame size. Letters: b batch, h w
image.
"""

import contextlib
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
from talking_heads_jax.evaluation.mesh_answers import MotionMeshes
from talking_heads_jax.evaluation.pairs import Pair, PairList, check_pairs
from talking_heads_jax.evaluation.predictions import PredictionWriter
from talking_heads_jax.evaluation.results import EvaluationResult, GalleryRow
from talking_heads_jax.evaluation.truth import (
    ExactTruth,
    TruthReader,
    choose_recipes,
    what_is_known,
)
from talking_heads_jax.metrics.recipes import CANDIDATES, PROBE, Comparison, Recipe
from talking_heads_jax.metrics.regions import silhouette_weights
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.networks.probe import Probe, load_probe, run_probe
from talking_heads_jax.typing import Array, PyTree

DRIVING_TRUTH = "the driving frame"
CHANCE, PROBE_ITSELF = "chance", "the probe's own error"


def evaluate_pairs(
    systems: Mapping[str, Answer],
    pair_list: PairList,
    clips: Mapping[str, Clip],
    *,
    recipes: Sequence[str] = (),
    batch_size: int = 4,
    truth: ExactTruth | None = None,
    probe: Probe | None = None,
    more_trivial: Mapping[str, Answer] | None = None,
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
      probe: of the recipes `probe_*`; None for the one that comes with the package.
      more_trivial: row name -> an answer that has learnt nothing and belongs to the systems that
        are scored, such as the bare mesh warp of mesh-driven ones.
      shard: (i, n): only the pairs i, i + n, i + 2n, ...
      gallery_pairs: keep pictures of so many pairs, spread over the list, one frame each.
      writer: takes the predictions of the first system.
      on_pair: called after each pair.

    Raises:
      ArgumentError: metrics without a truth or mask to compare with, or names of rows that clash.
      AssetNotFoundError: a recipe needs the probe, and none is stored.
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
    chosen = choose_recipes(recipes, what_is_known(pair_list.pairs, clips, truth, same=same))
    if probe is None and any(recipe.compares == PROBE for recipe in chosen):
        probe = load_probe()
    answers = dict(systems)
    trivial = {**trivial_answers(masks=clip_masks), **(more_trivial or {})} if chosen else {}
    for name, answer in trivial.items():
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
        _references(pair_list.pairs, chosen, probe),
        {},
        [],
    )
    reader = TruthReader(
        pair_list.pairs, clips, chosen, batch_size=batch_size, truth=truth, probe=probe
    )
    meshes = None
    if any(answer.uses_vertices for answer in answers.values()):
        models = {answer.morphable for answer in answers.values() if answer.morphable}
        meshes = MotionMeshes(pair_list.pairs, clips, truth, same=same, morphables=models)
    run = _Run(answers, chosen, batch_size, clips, reader, probe, meshes)
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
        clips: Mapping[str, Clip],
        reader: TruthReader,
        probe: Probe | None,
        meshes: MotionMeshes | None,
    ) -> None:
        self._answers, self._recipes, self._batch_size = answers, recipes, batch_size
        self._clips, self._reader, self._meshes = clips, reader, meshes
        self._probe = None if probe is None else (probe.params, dict(probe.statistics))
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
            mask = silhouette_weights(source_clip.masks[pair.source_frame])[None]
        mesh = None if self._meshes is None else self._meshes.source(pair)
        task = Task(pair, np.asarray(source_clip.frames[pair.source_frame]), mask, driving, mesh)
        predict = {name: answer.bind(task) for name, answer in self._answers.items()}
        truth = self._reader.bind(pair, task.source)
        means = {row: [recipe.accumulator.empty() for recipe in self._recipes] for row in predict}
        middle, pictures, start = len(pair.driving_frames) // 2, None, 0
        for frames, count in batches(driving.frames, pair.driving_frames, self._batch_size):
            _check_size(pair, frames, task.source.shape)
            numbers = pair.driving_frames[start : start + count]
            silhouettes, vertices = self._silhouettes(driving, numbers), None
            if self._meshes is not None:
                vertices = self._meshes.driving(pair, numbers, self._batch_size)
            batch = DrivingBatch(frames, silhouettes, start, count, vertices)
            compared = truth.comparison(frames, start, count)
            target = None if compared is None else compared.target
            if target is not None:
                _check_size(pair, target, task.source.shape)
            weight = np.zeros(self._batch_size, np.float32)
            weight[:count] = 1.0
            shown = {}
            for row, function in predict.items():
                prediction = function(batch)
                if row in systems:
                    _check_finite(pair, row, prediction)
                    shown[row] = prediction
                if compared is not None:
                    means[row] = self._update(means[row], prediction, compared, weight, self._probe)
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

    def _silhouettes(self, driving: Clip, numbers: Sequence[int]) -> np.ndarray | None:
        """Of the driving frames."""
        if driving.masks is None:
            return None
        masks, _ = next(batches(driving.masks, numbers, self._batch_size))
        return silhouette_weights(masks)


def _references(
    pairs: Sequence[Pair], recipes: Sequence[Recipe], probe: Probe | None
) -> dict[str, dict[str, float]]:
    """Numbers to hold beside a column: what guessing scores, and what the probe itself gets wrong.

    They are of the whole list of pairs, the same for all shards.
    """
    references: dict[str, dict[str, float]] = {}
    guessed = [recipe.name for recipe in recipes if recipe.compares == CANDIDATES]
    choices = [len(pair.driving_frames) for pair in pairs if len(pair.driving_frames) > 1]
    if guessed and choices:
        chance = float(np.mean([1.0 / count for count in choices]))
        references[CHANCE] = dict.fromkeys(guessed, chance)
    seen = [recipe.name for recipe in recipes if recipe.compares == PROBE]
    if probe is not None and seen:
        own = probe.own_errors
        references[PROBE_ITSELF] = {name: own[name] for name in seen if name in own}
    return references


@functools.cache
def _make_update(recipes: tuple[Recipe, ...]) -> Callable[..., list[WeightedMean]]:
    """One compiled update of all means; the same for every evaluation of these recipes."""
    asks_probe = any(recipe.compares == PROBE for recipe in recipes)

    @jax.jit
    def update(
        means: list[WeightedMean],
        prediction: Array,
        compared: Comparison,
        weight: Array,
        probe: tuple[PyTree, PyTree] | None,
    ) -> list[WeightedMean]:
        prediction = prediction.astype(jnp.float32)
        seen = run_probe(*probe, prediction) if asks_probe and probe is not None else None
        updated = []
        for mean, recipe in zip(means, recipes, strict=True):
            values, counted = recipe.compare(prediction, compared, seen)
            updated.append(mean.update(values, weight * counted))
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
