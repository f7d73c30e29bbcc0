"""Rows of systems that a face mesh drives: a checkpoint, and the bare mesh warp beside it.

Their motion is the driving frame's mesh on the source's shape, which `MotionMeshes` reads. Letters:
b batch, h w image, v vertices, f faces.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceCoefficients, FaceInputs
from talking_heads_jax.errors import ArgumentError, DataError, requirement
from talking_heads_jax.evaluation import trivial
from talking_heads_jax.evaluation.answers import (
    Answer,
    CheckpointAnswer,
    DrivingBatch,
    Predict,
    Task,
)
from talking_heads_jax.evaluation.clips import Clip, as_bytes, as_unit_float
from talking_heads_jax.evaluation.pairs import Pair, PairList
from talking_heads_jax.evaluation.truth import ExactTruth
from talking_heads_jax.inference.shape_transfer import transfer_shape
from talking_heads_jax.models.base import TalkingHead, Variables, check_inference_networks
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.registry import MORPHABLE_NAMES, load_morphable
from talking_heads_jax.typing import Array, PyTree

MESH_WARP = "warp_source_by_mesh"
_MESH_INPUTS = frozenset({"image", "vertices"})
# What another person's shape needs besides the vertices.
_COEFFICIENTS = ("morphable", "shape_coeffs", "expression_coeffs", "joint_pose")

_warp_by_mesh = jax.jit(trivial.warp_by_mesh)


def is_mesh_driven(model: TalkingHead) -> bool:
    """Whether a system asks for the vertices of source and driving frames.

    Args:
      model: of the registry; a mesh-driven one has a `mesh`.
    """
    return "vertices" in model.required_inputs


def checkpoint_answer(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    *,
    batch_size: int,
    relative: bool = False,
    round_to_bytes: bool = False,
) -> Answer:
    """The row of a checkpoint, whatever drives its system.

    Args:
      model: needs images, or images and vertices.
      variables: of its networks.
      batch_size: frames per call.
      relative: see `CheckpointAnswer`.
      round_to_bytes: see `CheckpointAnswer`.

    Raises:
      ArgumentError: if the model needs more, or `relative` for a mesh-driven one.
      CheckpointError: if variables of a network are missing.
    """
    if not is_mesh_driven(model):
        return CheckpointAnswer(
            model,
            variables,
            batch_size=batch_size,
            relative=relative,
            round_to_bytes=round_to_bytes,
        )
    if relative:
        raise ArgumentError(
            requirement(
                "relative motion", "work on keypoints", f"'{model.name}'", "Use absolute motion."
            )
        )
    return MeshCheckpointAnswer(model, variables, round_to_bytes=round_to_bytes)


def mesh_trivial_answers(model: TalkingHead) -> dict[str, Answer]:
    """What a mesh-driven system has to beat besides the usual rows; nothing for others.

    Args:
      model: the system that is scored.
    """
    return {MESH_WARP: MeshWarpAnswer(model.mesh.faces)} if is_mesh_driven(model) else {}


class MeshCheckpointAnswer(Answer):
    """A mesh-driven model of the registry: the source's mesh, and the driving frames' in its place.

    The driving image is not looked at.
    """

    uses_vertices = True

    def __init__(
        self,
        model: TalkingHead,
        variables: Mapping[str, Variables],
        *,
        round_to_bytes: bool = False,
    ) -> None:
        """Puts the variables on the device.

        Args:
          model: needs images and vertices.
          variables: of its networks.
          round_to_bytes: round predictions to 256 levels, as a file of them would.

        Raises:
          ArgumentError: if the model needs more than that.
          CheckpointError: if variables of a network are missing.
        """
        if model.required_inputs != _MESH_INPUTS:
            raise ArgumentError(
                requirement(
                    "a mesh-driven model",
                    f"need {sorted(_MESH_INPUTS)}",
                    sorted(model.required_inputs),
                    "Score folders of its predictions instead.",
                )
            )
        check_inference_networks(model, variables)
        self._model, self._round = model, round_to_bytes
        if model.mesh.name in MORPHABLE_NAMES:  # else a file, which has triangles only
            self.morphable = model.mesh.name
        self._variables = jax.device_put(
            {name: dict(variables[name]) for name in model.inference_networks}
        )

    def bind(self, task: Task) -> Predict:
        """Encodes the source."""
        source = _vertices(self._model, task.source_vertices)[None]
        image = as_unit_float(task.source)[None]
        side = self._model.resolution
        if image.shape[1:3] != (side, side):
            raise DataError(
                requirement(
                    "frames", f"have the model's {side} pixels", image.shape[1:3], "Resize them."
                )
            )
        encoding = _encode_source(self._model, self._variables, image, source)

        def predict(batch: DrivingBatch) -> Array | np.ndarray:
            driving = _vertices(self._model, batch.vertices)
            prediction = _animate(self._model, self._variables, encoding, driving)
            return as_unit_float(as_bytes(np.asarray(prediction))) if self._round else prediction

        return predict


class MeshWarpAnswer(Answer):
    """The source, moved as its mesh moved: see `trivial.warp_by_mesh`."""

    uses_vertices = True

    def __init__(self, faces: np.ndarray) -> None:
        """Keeps the mesh.

        Args:
          faces: (f 3) vertices of each triangle.
        """
        self._faces = np.asarray(faces, np.int32)

    def bind(self, task: Task) -> Predict:
        """Keeps the source and its mesh."""
        image = jnp.asarray(as_unit_float(task.source))[None]
        source, faces = np.asarray(task.source_vertices, np.float32)[None], self._faces

        def predict(batch: DrivingBatch) -> Array:
            driving = np.asarray(batch.vertices, np.float32)
            return _warp_by_mesh(image, driving, source, driving, faces)

        return predict


class MotionMeshes:
    """Vertices of source frames, and of driving frames on the source's shape.

    Across identities the exact truth knows these, where there is one. Else the driving record's
    vertices get the shape of the source's record (see `inference.shape_transfer`): expression,
    pose, place and scale stay the driver's, as absolute motion has it.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        clips: Mapping[str, Clip],
        truth: ExactTruth | None,
        *,
        same: bool,
        morphables: Collection[str] = (),
        load: Callable[..., MorphableModel] = load_morphable,
    ) -> None:
        """Checks that the data has them; reads the first record of every clip at most.

        Args:
          pairs: all of an evaluation.
          clips: by name.
          truth: of pairs of different people: its `vertices` put their motion together.
          same: whether source and driving frame are of one clip.
          morphables: names of the face models that the systems were trained with.
          load: (name, num_shape, num_expression) -> the face model of the records.

        Raises:
          AssetNotFoundError: the file of the records' face model is not registered.
          DataError: vertices are missing, or of another face model; across identities without exact
            truth: coefficients are missing.
        """
        self._clips, self._render = clips, None if truth is None else truth.vertices
        self._same, self._model = same, None
        named = {name for pair in pairs for name in (pair.source_clip, pair.driving_clip)}
        for name in sorted(named):
            if clips[name].vertices is None:
                raise DataError(
                    requirement(
                        f"clip '{name}'",
                        "hold `vertices` for a mesh-driven system",
                        "none",
                        "Take a set that `talking-heads synthesize` or `prepare --track --vertices`"
                        " wrote.",
                    )
                )
        found = {}
        for name in sorted(named):
            column = clips[name].morphable
            if column is not None:  # older records do not say
                found[name] = str(column[0])
        for wanted in sorted(morphables):
            _check_morphable(found, wanted)
        if same or self._render is not None:
            return
        for name in sorted(named):
            missing = [field for field in _COEFFICIENTS if getattr(clips[name], field) is None]
            if missing:
                raise DataError(
                    requirement(
                        f"clip '{name}'",
                        "give the driving person's motion on the source's shape to a mesh-driven"
                        " system",
                        f"no {', '.join(missing)}",
                        "Take records of `talking-heads prepare --track --vertices`, or a protocol"
                        " with exact truth, such as synthetic_cross.",
                    )
                )
        first = clips[min(named)]
        _check_morphable(found, found[min(named)])
        self._model = load(
            found[min(named)],
            num_shape=len(first.shape_coeffs[0]),
            num_expression=len(first.expression_coeffs[0]),
        )

    def source(self, pair: Pair) -> np.ndarray:
        """(v 3) of the source frame.

        Args:
          pair: which.
        """
        column = self._clips[pair.source_clip].vertices
        assert column is not None, "checked for all pairs"
        return np.asarray(column[pair.source_frame], np.float32)

    def driving(self, pair: Pair, numbers: Sequence[int], batch_size: int) -> np.ndarray:
        """(b v 3) of driving frames; the last one is repeated to fill the batch.

        Args:
          pair: which.
          numbers: of the frames.
          batch_size: b.

        Raises:
          DataError: a record's vertices are not those of its coefficients.
        """
        padded = [*numbers, *[numbers[-1]] * (batch_size - len(numbers))]
        if self._same:
            return self._stored(pair, padded)
        if self._render is not None:
            rows = [np.asarray(self._render(pair, number), np.float32) for number in numbers]
            return np.stack(rows + [rows[-1]] * (batch_size - len(rows)))
        source, driving = self._clips[pair.source_clip], self._clips[pair.driving_clip]
        rows = [(driving.expression_coeffs[i], driving.joint_pose[i]) for i in padded]
        expressions, poses = (np.float32(column) for column in zip(*rows, strict=True))
        shapes = np.float32([driving.shape_coeffs[i] for i in padded])
        own = FaceCoefficients(shapes, expressions, poses.reshape(batch_size, -1, 3))
        shape = np.asarray(source.shape_coeffs[pair.source_frame], np.float32)
        assert self._model is not None, "loaded for pairs of different people"
        try:
            return transfer_shape(self._stored(pair, padded), own, self._model, shape)
        except ArgumentError as error:
            raise DataError(f"pair '{pair.name}', frames {list(numbers)}: {error}") from error

    def _stored(self, pair: Pair, numbers: Sequence[int]) -> np.ndarray:
        column = self._clips[pair.driving_clip].vertices
        assert column is not None, "checked for all pairs"
        return np.stack([np.asarray(column[number], np.float32) for number in numbers])


def without_faceless(
    pair_list: PairList, clips: Mapping[str, Clip]
) -> tuple[PairList, tuple[str, ...]]:
    """The pairs whose clips both have a face mesh, and the clips of the others that have none.

    Args:
      pair_list: freshly drawn: a list that came from a file means exactly its pairs.
      clips: name -> clip.

    Raises:
      DataError: no pair is left.
    """
    named = sorted({name for pair in pair_list.pairs for name in _clips_of(pair)})
    lost = {name for name in named if not _has_mesh(clips[name])}
    kept = tuple(pair for pair in pair_list.pairs if not lost.intersection(_clips_of(pair)))
    if pair_list.pairs and not kept:
        raise DataError(
            requirement(
                "the pairs",
                "show two clips with a face mesh",
                f"{len(lost)} of {len(named)} clips without, '{min(lost)}' among them",
                "See what `talking-heads prepare` reported of these clips.",
            )
        )
    return dataclasses.replace(pair_list, pairs=kept), tuple(sorted(lost))


def _clips_of(pair: Pair) -> tuple[str, str]:
    return pair.source_clip, pair.driving_clip


def _has_mesh(clip: Clip) -> bool:
    """Whether a face was found in a clip; one without any vertices is another mistake."""
    if clip.vertices is None or not len(clip.vertices):
        return True
    if clip.morphable is not None and not str(clip.morphable[0]):
        return False
    return bool(np.isfinite(np.asarray(clip.vertices[0])).all())


def _check_morphable(found: Mapping[str, str], wanted: str) -> None:
    """Raises unless all clips (name -> face model) are of one face model."""
    for clip, name in found.items():
        if name and name == wanted:
            continue
        raise DataError(
            requirement(
                f"the vertices of clip '{clip}'",
                f"be those of the face model '{wanted}'" if wanted else "belong to a face model",
                f"'{name}'" if name else "none: no face was found in it",
                "Prepare the clips again: talking-heads prepare ... --track --vertices --morphable"
                f" {wanted or 'NAME'}."
                if name
                else "Draw the pairs again, without --pairs: such clips are then left out.",
            )
        )


def _vertices(model: TalkingHead, vertices: np.ndarray | None) -> np.ndarray:
    """Checks that they are finite, and as many as the model's mesh has."""
    found, mesh = np.asarray(vertices, np.float32), model.mesh
    finite = np.isfinite(found).all()
    if found.shape[-2] != mesh.num_vertices or not finite:
        raise DataError(
            requirement(
                "vertices of the data",
                f"be finite, and the {mesh.num_vertices} of the model's mesh '{mesh.name}'",
                found.shape[-2] if finite else "nan: a clip without a face mesh",
                "Use data of the face model that the checkpoint was trained with.",
            )
        )
    return found


@functools.partial(jax.jit, static_argnames="model")
def _encode_source(
    model: TalkingHead, variables: Mapping[str, Variables], image: Array, vertices: Array
) -> PyTree:
    return model.encode_source(variables, FaceInputs(image=image, vertices=vertices))


@functools.partial(jax.jit, static_argnames="model")
def _animate(
    model: TalkingHead, variables: Mapping[str, Variables], encoding: PyTree, vertices: Array
) -> Array:
    motion = model.encode_driving(variables, FaceInputs(vertices=vertices))
    return model.animate_frame(variables, encoding, motion).prediction
