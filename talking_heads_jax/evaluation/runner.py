"""Streams clips through a model and through the trivial answers, and keeps per-clip means.

Memory holds one batch of frames, whatever the clips' lengths. All batches have one shape (the last
is padded with weight 0), so that a model is compiled once per frame size.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceInputs
from talking_heads_jax.errors import DataError, requirement
from talking_heads_jax.evaluation import trivial
from talking_heads_jax.evaluation.protocols import Clip, ClipTask, Protocol
from talking_heads_jax.metrics.recipes import RECONSTRUCTION, Recipe, select_recipes
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.typing import Array, PyTree

MODEL_ROW = "model"
Answer = Callable[[Array, Array], Array]  # (source (1 h w 3), driving (b h w 3)) -> (b h w 3)


@dataclasses.dataclass(frozen=True)
class GalleryRow:
    """Pictures of one frame for the report.

    Attributes:
      clip_id: where it comes from.
      frame: number among the driving frames.
      images: name -> (h w 3) float32 in [0, 1].
    """

    clip_id: str
    frame: int
    images: dict[str, np.ndarray]


@dataclasses.dataclass
class EvaluationResult:
    """What an evaluation measured.

    Attributes:
      protocol: its name.
      recipes: in the order of the tables.
      clip_ids: in the order of the values.
      identity_ids: who is shown in each clip.
      num_frames: driving frames of each clip.
      values: row name -> recipe name -> mean over the frames of each clip.
      gallery: pictures of the first clips.
    """

    protocol: str
    recipes: tuple[Recipe, ...]
    clip_ids: list[str]
    identity_ids: list[str]
    num_frames: list[int]
    values: dict[str, dict[str, list[float]]]
    gallery: list[GalleryRow]


def trivial_answers(
    sigmas_px: Sequence[float] = trivial.DEFAULT_SIGMAS_PX,
) -> dict[str, Answer]:
    """Row name -> trivial answer.

    Args:
      sigmas_px: blurs of the source.
    """
    blurs = {
        f"blur_source_{sigma:g}px": functools.partial(trivial.blur_source, sigma_px=sigma)
        for sigma in sigmas_px
    }
    return {
        "copy_source": trivial.copy_source,
        **blurs,
        "copy_driving": trivial.copy_driving,
    }


def model_answer(
    model: TalkingHead, variables: Mapping[str, Variables]
) -> Callable[[Array], Callable[[Array], Array]]:
    """A function source → (driving → prediction) that encodes the source once.

    Absolute motion: the driving frames' own keypoints, as the papers' same-identity tables.

    Args:
      model: of the registry.
      variables: of its networks.
    """

    @jax.jit
    def encode(variables: Mapping[str, Variables], source: Array) -> PyTree:
        return model.encode_source(variables, FaceInputs(image=source))

    @jax.jit
    def animate(variables: Mapping[str, Variables], encoding: PyTree, driving: Array) -> Array:
        count = driving.shape[0]
        encoding = jax.tree.map(lambda x: _repeat(x, count), encoding)
        motion = model.encode_driving(variables, FaceInputs(image=driving))
        return model.animate_frame(variables, encoding, motion).prediction

    def bind(source: Array) -> Callable[[Array], Array]:
        encoding = encode(variables, source)
        return lambda driving: animate(variables, encoding, driving)

    return bind


def evaluate_clips(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    clips: Iterable[Clip],
    *,
    protocol: Protocol,
    recipes: Sequence[str] = RECONSTRUCTION,
    batch_size: int = 4,
    max_clips: int | None = None,
    gallery_clips: int = 4,
    on_clip: Callable[[str, int], None] | None = None,
) -> EvaluationResult:
    """Scores a model and the trivial answers on the same frames.

    Args:
      model: of the registry; its `resolution` must be the frames' size.
      variables: of its networks.
      clips: what to evaluate on.
      protocol: what drives what.
      recipes: names of metrics.
      batch_size: frames per call.
      max_clips: stop after so many; None takes all.
      gallery_clips: keep pictures of so many clips, one frame each (the one in the middle of its
        second batch, or of its first when there is no second).
      on_clip: called after each clip with its name and the number of frames.

    Raises:
      DataError: if no clip has a driving frame, or frames are not of the model's size.
    """
    chosen = select_recipes(recipes)
    answers = trivial_answers()
    bind_model = model_answer(model, variables)
    score = _make_score(chosen)
    result = EvaluationResult(
        protocol.name,
        chosen,
        [],
        [],
        [],
        {row: {recipe.name: [] for recipe in chosen} for row in (MODEL_ROW, *answers)},
        [],
    )
    # The trivial answers blur in one jitted call each; the source is an argument.
    trivial_fns = {name: jax.jit(answer) for name, answer in answers.items()}
    for task in itertools.islice(protocol.tasks(clips), max_clips):
        _check_size(task, model.resolution)
        source = jnp.asarray(task.source)[None]
        predict = bind_model(source)
        means = {row: [recipe.accumulator.empty() for recipe in chosen] for row in result.values}
        count, picture = 0, None
        for number, (frames, weight) in enumerate(_batches(task, batch_size)):
            driving = jnp.asarray(frames)
            for row in result.values:
                if row == MODEL_ROW:
                    prediction = predict(driving)
                    if number < 2 and len(result.gallery) < gallery_clips:
                        index = int(weight.sum()) // 2
                        picture = _picture(task, count + index, driving, prediction, index)
                else:
                    prediction = trivial_fns[row](source, driving)
                values = score(prediction, driving)
                means[row] = [
                    mean.update(value, weight)
                    for mean, value in zip(means[row], values, strict=True)
                ]
            count += int(weight.sum())
        for row, row_means in means.items():
            for recipe, mean in zip(chosen, row_means, strict=True):
                result.values[row][recipe.name].append(float(mean.compute()))
        result.clip_ids.append(task.clip_id)
        result.identity_ids.append(task.identity_id)
        result.num_frames.append(count)
        if picture is not None:
            result.gallery.append(picture)
        if on_clip is not None:
            on_clip(task.clip_id, count)
    if not result.clip_ids:
        raise DataError(
            requirement(
                "the evaluation clips", "hold one of at least 2 frames", "none", "Give more data."
            )
        )
    return result


def _make_score(recipes: Sequence[Recipe]) -> Callable[[Array, Array], list[Array]]:
    @jax.jit
    def score(prediction: Array, target: Array) -> list[Array]:
        prediction = prediction.astype(jnp.float32)
        return [recipe(prediction, target) for recipe in recipes]

    return score


def _repeat(x: Any, count: int) -> Array:
    """One source for a batch of driving frames."""
    x = jnp.asarray(x)
    return jnp.broadcast_to(x, (count, *x.shape[1:])) if x.ndim and x.shape[0] == 1 else x


def _batches(task: ClipTask, batch_size: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Driving frames in batches of one shape; padding repeats the last frame with weight 0."""
    while batch := list(itertools.islice(task.driving, batch_size)):
        for frame in batch:
            if frame.shape != task.source.shape:
                raise DataError(
                    requirement(
                        f"frames of clip '{task.clip_id}'",
                        f"have shape {task.source.shape}",
                        frame.shape,
                        "Prepare the clip again.",
                    )
                )
        weight = np.zeros(batch_size, np.float32)
        weight[: len(batch)] = 1.0
        batch += [batch[-1]] * (batch_size - len(batch))
        yield np.stack(batch), weight


def _check_size(task: ClipTask, resolution: int) -> None:
    if task.source.shape != (resolution, resolution, 3):
        raise DataError(
            requirement(
                f"frames of clip '{task.clip_id}'",
                f"be {resolution} × {resolution} RGB, as the model",
                task.source.shape,
                f"Prepare the data with --size {resolution}.",
            )
        )


def _picture(
    task: ClipTask, frame: int, driving: Array, prediction: Array, index: int
) -> GalleryRow:
    target = np.asarray(driving[index])
    predicted = np.asarray(prediction[index], np.float32)
    return GalleryRow(
        task.clip_id,
        frame,
        {
            "source": task.source,
            "driving": target,
            "prediction": predicted,
            # Errors are small: four times brighter shows where they are.
            "error ×4": np.clip(4.0 * np.abs(predicted - target), 0.0, 1.0),
        },
    )
