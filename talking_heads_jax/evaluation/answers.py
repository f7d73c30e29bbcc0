"""Whatever fills a row of a table: a checkpoint, or a trivial answer.

An answer is bound to a pair once, and then asked for batch after batch of its frames; see
`predictions` for the third kind, a folder of somebody's frames.
"""

import abc
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.evaluation import trivial
from talking_heads_jax.evaluation.clips import Clip, as_unit_float
from talking_heads_jax.evaluation.pairs import Pair
from talking_heads_jax.inference.animator import FrameAnimator
from talking_heads_jax.inference.motion_transfer import best_frame
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.typing import Array

MODEL_ROW = "model"
COPY_DRIVING = "copy_driving"
BLUR_SOURCE = "blur_source"
MOVE_SOURCE = "move_source_by_silhouette"


# Compiled once for all evaluations of a process.
_copy_source = jax.jit(trivial.copy_source)
_blur_source = jax.jit(trivial.blur_source, static_argnames="sigma_px")
_move_source = jax.jit(trivial.move_by_silhouette)


class Task(NamedTuple):
    """A pair with what it names.

    Attributes:
      pair: the names.
      source: (h w 3) as the data set stores it.
      source_mask: (1 h w 1) float32, 1 on the head; None where the data has none.
      driving: the clip the motion is from.
      source_vertices: (v 3) of the source's mesh; None unless an answer uses vertices.
    """

    pair: Pair
    source: np.ndarray
    source_mask: np.ndarray | None
    driving: Clip
    source_vertices: np.ndarray | None = None


class DrivingBatch(NamedTuple):
    """Driving frames of one pair; the last batch repeats its last frame to be full.

    Attributes:
      frames: (b h w 3) as the data set stores them.
      masks: (b h w 1) float32, 1 on the head; None where the data has none.
      start: position of the first among the pair's driving frames.
      count: how many are no padding.
      vertices: (b v 3) of the driving frames' meshes, on the source's shape; None unless an answer
        uses vertices.
    """

    frames: np.ndarray
    masks: np.ndarray | None
    start: int
    count: int
    vertices: np.ndarray | None = None


Predict = Callable[[DrivingBatch], Array | np.ndarray]


class Answer(abc.ABC):
    """A row of a table.

    Attributes:
      uses_vertices: whether the meshes of a pair have to be read for it.
      morphable: name of the face model whose meshes it was trained with; '' for none, or where only
        the number of vertices is known.
    """

    uses_vertices: ClassVar[bool] = False
    morphable: str = ""

    @abc.abstractmethod
    def bind(self, task: Task) -> Predict:
        """A function from a batch of driving frames to (b h w 3) float predictions in [0, 1]."""

    def initial_frame(self) -> int | None:
        """The rest frame that was used for the pair bound last; None for absolute motion."""
        return None


class CheckpointAnswer(Answer):
    """A model of the registry, run by the same compiled code as `talking-heads animate`."""

    def __init__(
        self,
        model: TalkingHead,
        variables: Mapping[str, Variables],
        *,
        batch_size: int,
        relative: bool = False,
        round_to_bytes: bool = False,
    ) -> None:
        """Puts the variables on the device.

        Args:
          model: needs only images.
          variables: of its networks.
          batch_size: frames per call.
          relative: movement since the best frame is added to the source's keypoints; else the
            driving frames' own motion is taken.
          round_to_bytes: round predictions to 256 levels, as a file of them would.

        Raises:
          ArgumentError: if the model needs more than images.
          CheckpointError: if variables of a network are missing.
        """
        self._animator = FrameAnimator(model, variables, batch_size=batch_size, relative=relative)
        self._round = round_to_bytes
        self._initial: int | None = None

    def bind(self, task: Task) -> Predict:
        """Encodes the source, and for relative motion finds the rest frame."""
        self._animator.set_source(task.source)
        if self._animator.relative:
            self._initial = task.pair.initial_frame
            if self._initial is None:
                self._initial = self._most_like_source(task.driving)
            self._animator.set_initial(task.driving.frames[self._initial], adapt_scale=False)

        def predict(batch: DrivingBatch) -> Array | np.ndarray:
            animated = self._animator.frames(batch.frames, as_uint8=self._round)
            return as_unit_float(animated.prediction) if self._round else animated.prediction

        return predict

    def initial_frame(self) -> int | None:
        """See `Answer.initial_frame`."""
        return self._initial

    def _most_like_source(self, driving: Clip) -> int:
        """The frame whose own keypoints are most like the source's, about their mean and size."""
        motion = self._animator.source_motion
        if not isinstance(motion, Keypoints):
            raise ArgumentError(
                requirement("relative motion", "work on keypoints", "none", "Use absolute motion.")
            )
        values = []
        for frames, count in batches(driving.frames, range(len(driving.frames)), self.batch_size):
            values.append(np.asarray(self._animator.motion(frames).value[:count]))
        try:
            return best_frame(np.asarray(motion.value[0]), np.concatenate(values))
        except ArgumentError:  # keypoints in one place or on one line, as untrained detectors give
            return 0

    @property
    def batch_size(self) -> int:
        """Frames per call."""
        return self._animator.batch_size


class TrivialAnswer(Answer):
    """A function of source and driving frame that has learnt nothing."""

    def __init__(self, function: Callable[[Array, Array], Array]) -> None:
        """Keeps the function.

        Args:
          function: compiled, (source (1 h w 3), driving (b h w 3)) -> (b h w 3).
        """
        self._function = function

    def bind(self, task: Task) -> Predict:
        """Keeps the source."""
        source = jnp.asarray(as_unit_float(task.source))[None]
        return lambda batch: self._function(source, as_unit_float(batch.frames))


class MovedSource(Answer):
    """The source, moved as its head's silhouette moved: see `trivial.move_by_silhouette`."""

    def bind(self, task: Task) -> Predict:
        """Keeps the source and its silhouette."""
        source = jnp.asarray(as_unit_float(task.source))[None]
        return lambda batch: _move_source(
            source, as_unit_float(batch.frames), task.source_mask, batch.masks
        )


def trivial_answers(
    *, masks: bool, sigmas_px: Sequence[float] = trivial.DEFAULT_SIGMAS_PX
) -> dict[str, Answer]:
    """Row name -> trivial answer.

    Args:
      masks: whether the data has silhouettes to move the source by.
      sigmas_px: blurs of the source.
    """
    answers: dict[str, Answer] = {"copy_source": TrivialAnswer(_copy_source)}
    for sigma in sigmas_px:
        blur = functools.partial(_blur_source, sigma_px=sigma)
        answers[f"{BLUR_SOURCE}_{sigma:g}px"] = TrivialAnswer(blur)
    if masks:
        answers[MOVE_SOURCE] = MovedSource()
    return {**answers, COPY_DRIVING: TrivialAnswer(trivial.copy_driving)}


def batches(
    frames: Sequence[np.ndarray], numbers: Sequence[int], batch_size: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Frames in batches of one shape; the last one repeats its last frame to be full.

    Args:
      frames: number -> array.
      numbers: which, in order.
      batch_size: frames of a batch.

    Yields:
      (b ...) array, and how many of it are no padding.
    """
    for start in range(0, len(numbers), batch_size):
        batch = [np.asarray(frames[i]) for i in numbers[start : start + batch_size]]
        count = len(batch)
        yield np.stack(batch + [batch[-1]] * (batch_size - count)), count
