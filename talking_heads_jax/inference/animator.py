"""A talking head held ready: one source encoded once, driving frames in, animated frames out.

`FrameAnimator` knows no files. It serves a command line, a server or an evaluation alike: compiled
code is shared by all animators of one model object, sources can be changed without compiling again,
and memory does not depend on how many frames were seen. Letters: b batch, h w image, k keypoints.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import BYTE_LEVEL, FaceInputs, Keypoints
from talking_heads_jax.errors import ArgumentError, CheckpointError, requirement
from talking_heads_jax.inference.motion_transfer import movement_scale, transfer_keypoints
from talking_heads_jax.models.base import TalkingHead, Variables, check_inference_networks
from talking_heads_jax.typing import Array, PyTree

POSE_EDITOR = "pose_editor"


class AnimatedFrames(NamedTuple):
    """A batch of animated frames.

    Attributes:
      prediction: (b h w 3) float32 RGB in [0, 1], or uint8 when asked for.
      driving_motion: what was seen in the driving frames, as `TalkingHead.encode_driving` returns.
      motion: what the source was moved by, after the transfer.
      source_motion: the motion of the source image itself (b or 1).
    """

    prediction: Array
    driving_motion: PyTree
    motion: PyTree
    source_motion: PyTree


class StreamFrame(NamedTuple):
    """One frame of a stream, on the host.

    Attributes:
      source: (h w 3) the source frame it was made from.
      driving: (h w 3) the driving frame.
      prediction: (h w 3) uint8 RGB.
      driving_motion: one entry (no batch axis) of `AnimatedFrames.driving_motion`.
      motion: one entry of `AnimatedFrames.motion`.
      source_motion: one entry of `AnimatedFrames.source_motion`.
    """

    source: np.ndarray
    driving: np.ndarray
    prediction: np.ndarray
    driving_motion: PyTree
    motion: PyTree
    source_motion: PyTree


def unit_range(images: Array) -> Array:
    """uint8 images as float32 in [0, 1]; float images as float32.

    Args:
      images: of any shape.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) * np.float32(BYTE_LEVEL)
    return images.astype(jnp.float32)


def to_uint8(images: Array) -> Array:
    """Images in [0, 1] rounded to the nearest of 256 levels.

    Args:
      images: of any shape.
    """
    return jnp.round(jnp.clip(images.astype(jnp.float32), 0.0, 1.0) * 255.0).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames="model")
def _encode_source(
    model: TalkingHead, variables: Mapping[str, Variables], image: Array
) -> tuple[PyTree, PyTree]:
    inputs = FaceInputs(image=unit_range(image))
    return model.encode_source(variables, inputs), model.encode_driving(variables, inputs)


@functools.partial(jax.jit, static_argnames="model")
def _encode_driving(
    model: TalkingHead, variables: Mapping[str, Variables], images: Array
) -> PyTree:
    return model.encode_driving(variables, FaceInputs(image=unit_range(images)))


@functools.partial(jax.jit, static_argnames=("model", "relative", "as_uint8"))
def _animate(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    encoding: PyTree,
    source_motion: PyTree,
    initial: PyTree,
    scale: Array,
    driving: Array,
    *,
    relative: bool,
    as_uint8: bool,
) -> tuple[Array, PyTree, PyTree]:
    """One batch: detect, transfer, render. A source of batch 1 serves all frames."""
    driving_motion = model.encode_driving(variables, FaceInputs(image=unit_range(driving)))
    motion = driving_motion
    if relative:
        motion = transfer_keypoints(
            source_motion, driving_motion, initial, relative=True, scale=scale
        )
    prediction = model.animate_frame(variables, encoding, motion).prediction
    return to_uint8(prediction) if as_uint8 else prediction, driving_motion, motion


@functools.partial(jax.jit, static_argnames="model")
def _turn(
    model: TalkingHead, variables: Mapping[str, Variables], encoding: PyTree, offsets: Array
) -> Array:
    """One batch of the source turned by the pose editor, rounded to uint8 on the device."""
    # The editor wants one encoding per offset; what it does not read is never copied.
    count = offsets.shape[0]
    several = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape[1:])), encoding)
    motion = model.edit_pose(variables, several, offsets)
    return to_uint8(model.animate_frame(variables, encoding, motion).prediction)


class FrameAnimator:
    """Animates one source by driving frames, batch by batch, without files.

    Order of use: `set_source`, then for relative motion `set_initial`, then `frames` or `stream`
    as often as wanted. A batch that is not full is padded, so that one batch size compiles once.
    The same inputs give the same numbers, on one device and one version of the software.

    Attributes:
      model: the system.
      batch_size: frames computed together.
      relative: movement since the initial frame (True) or driving keypoints as they are.
      scale: factor of relative movement, set by `set_initial`.
    """

    def __init__(
        self,
        model: TalkingHead,
        variables: Mapping[str, Variables],
        source: np.ndarray | Array | None = None,
        *,
        batch_size: int = 1,
        relative: bool = True,
    ) -> None:
        """Puts the variables on the device once.

        Args:
          model: a system that needs only images.
          variables: network name -> linen variables, of `model.inference_networks` at least.
          source: the source image, see `set_source`; may follow later.
          batch_size: frames computed together.
          relative: movement since an initial frame, or driving keypoints as they are.

        Raises:
          ArgumentError: if the model needs more than images, or the batch size is not positive.
          CheckpointError: if variables of a network are missing.
        """
        extra = sorted(model.required_inputs - {"image"})
        if extra:
            remedy = "Call its encode_source, encode_driving and animate_frame with these inputs."
            if extra == ["vertices"]:
                remedy = "Drive it by meshes: inference.mesh_animator.MeshAnimator."
            raise ArgumentError(
                requirement(
                    "model",
                    "need only images to animate",
                    f"{model.name}, which needs {extra}",
                    remedy,
                )
            )
        if batch_size < 1:
            raise ArgumentError(
                requirement("batch size", "be at least 1", batch_size, "The default is 1.")
            )
        check_inference_networks(model, variables)
        self.model = model
        self.batch_size = batch_size
        self.relative = relative
        self.scale = 1.0
        kept = {*model.inference_networks, POSE_EDITOR} & set(variables)
        self._variables = jax.device_put({name: dict(variables[name]) for name in sorted(kept)})
        self._source: np.ndarray | None = None
        self._encoding: PyTree = None
        self._source_motion: PyTree = None
        self._initial: PyTree = None
        if source is not None:
            self.set_source(source)

    def set_source(
        self,
        source: np.ndarray | Array,
        *,
        pose_deg: Sequence[float] | None = None,
    ) -> None:
        """Encodes a source image; the initial driving frame, if any, stays.

        Args:
          source: (h w 3) RGB, uint8 or float in [0, 1], `model.resolution` a side.
          pose_deg: yaw, pitch, roll in degrees by which the trained pose editor turns the source
            before it moves: yaw > 0 turns the nose to the right edge, pitch > 0 raises it, roll >
            0 turns the head clockwise.

        Raises:
          ArgumentError: if the image does not fit, or the model has no pose editor.
          CheckpointError: if the checkpoint has no trained pose editor.
        """
        image = self._check_images(np.asarray(source)[None], "source image")
        self._encoding, self._source_motion = _encode_source(self.model, self._variables, image)
        if self.relative and not isinstance(self._source_motion, Keypoints):
            raise ArgumentError(
                requirement(
                    "relative motion",
                    "work on keypoints",
                    f"the motion of {self.model.name}",
                    "Use absolute motion (relative=False).",
                )
            )
        if pose_deg is not None:
            self._source_motion = self._edit_pose(pose_deg)
        self._source = image[0]

    def set_initial(self, frame: np.ndarray | Array, *, adapt_scale: bool = True) -> float:
        """Declares the driving frame that counts as rest for relative motion.

        Args:
          frame: (h w 3) RGB, uint8 or float in [0, 1].
          adapt_scale: multiply movement by how much larger the source's keypoint hull is than this
            frame's (`motion_transfer.movement_scale`).

        Returns:
          The factor of movement from now on.

        Raises:
          ArgumentError: if the frame does not fit, or no source is set and the scale needs it.
        """
        motion = self.motion(np.asarray(frame)[None])
        scale = 1.0
        if adapt_scale and self.relative:
            self._require_source()
            scale = movement_scale(
                np.asarray(self._source_motion.value[0]), np.asarray(motion.value[0])
            )
        self._initial, self.scale = motion, scale
        return scale

    @property
    def source_motion(self) -> PyTree:
        """Motion of the source (batch of one), after the pose editor; None before it is set."""
        return self._source_motion

    @property
    def initial_motion(self) -> PyTree:
        """Motion of the initial driving frame (batch of one); None before `set_initial`."""
        return self._initial

    def motion(self, frames: np.ndarray | Array) -> PyTree:
        """The motion seen in frames, as the model's `encode_driving` returns it.

        Args:
          frames: (b h w 3) RGB, uint8 or float in [0, 1].

        Returns:
          For keypoint systems `Keypoints` with b entries.

        Raises:
          ArgumentError: if the frames do not fit the model.
        """
        return _encode_driving(
            self.model, self._variables, self._check_images(frames, "driving frames")
        )

    def frames(
        self,
        driving: np.ndarray | Array,
        *,
        sources: np.ndarray | Array | None = None,
        as_uint8: bool = False,
    ) -> AnimatedFrames:
        """The source moved as in each driving frame.

        Args:
          driving: (b h w 3) RGB, uint8 or float in [0, 1], at most `batch_size` frames.
          sources: (b h w 3) a source for each frame (a source video) in place of `set_source`'s.
          as_uint8: the prediction as uint8, rounded on the device.

        Returns:
          b frames; the arrays may still be being computed (JAX returns before it is done).

        Raises:
          ArgumentError: if there are more frames than the batch size, they do not fit the model,
            no source is set, or relative motion has no initial frame.
        """
        driving = self._check_images(driving, "driving frames")
        count = driving.shape[0]
        if not 1 <= count <= self.batch_size:
            raise ArgumentError(
                requirement(
                    "number of driving frames",
                    f"be 1 to the batch size {self.batch_size}",
                    count,
                    "Split them, or build the animator with a larger batch_size.",
                )
            )
        if self.relative and self._initial is None:
            raise ArgumentError(
                requirement(
                    "initial driving frame",
                    "be set for relative motion",
                    None,
                    "Call set_initial first, or use relative=False.",
                )
            )
        if sources is None:
            self._require_source()
            encoding, source_motion = self._encoding, self._source_motion
        else:
            sources = self._check_images(sources, "source frames")
            if sources.shape[0] != count:
                raise ArgumentError(
                    requirement(
                        "number of source frames",
                        f"be that of the driving frames, {count}",
                        sources.shape[0],
                        "Give one source per driving frame.",
                    )
                )
            encoding, source_motion = _encode_source(
                self.model, self._variables, self._pad(sources)
            )
        prediction, driving_motion, motion = _animate(
            self.model,
            self._variables,
            encoding,
            source_motion,
            self._initial if self.relative else None,
            jnp.float32(self.scale),
            self._pad(driving),
            relative=self.relative,
            as_uint8=as_uint8,
        )
        result = AnimatedFrames(prediction, driving_motion, motion, source_motion)
        if count == self.batch_size:
            return result
        return jax.tree.map(lambda leaf: leaf[:count], result)

    def stream(
        self,
        driving: Iterable[np.ndarray],
        sources: Iterable[np.ndarray] | None = None,
    ) -> Iterator[StreamFrame]:
        """Animates frame after frame; the next batch is read while the last one is computed.

        At most two batches are in memory, whatever the length.

        Args:
          driving: (h w 3) RGB frames, uint8 or float in [0, 1].
          sources: as many source frames (a source video); one that ends early ends the stream.
            None for the image of `set_source`.

        Yields:
          One `StreamFrame` per driving frame, in order.

        Raises:
          ArgumentError: as `frames` does.
        """
        waiting: tuple[list[np.ndarray], list[np.ndarray] | None, AnimatedFrames] | None = None
        for chunk, chunk_sources in self._chunks(driving, sources):
            submitted = self.frames(
                np.stack(chunk),
                sources=None if chunk_sources is None else np.stack(chunk_sources),
                as_uint8=True,
            )
            if waiting is not None:
                yield from self._unpack(*waiting)
            waiting = (chunk, chunk_sources, submitted)
        if waiting is not None:
            yield from self._unpack(*waiting)

    def turned(self, offsets_rad: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The source turned by its pose editor, frame after frame, without a driving picture.

        At most two batches are in memory, whatever the length.

        Args:
          offsets_rad: (3,) changes of yaw, pitch, roll from the source's pose; signs as in
            `geometry.rotations`.

        Yields:
          (h w 3) uint8 RGB, one per offset, in order.

        Raises:
          ArgumentError: no source is set, or the model has no pose editor.
          CheckpointError: the checkpoint has no trained pose editor.
        """
        self._require_source()
        check_pose_editor(self.model, self._variables)
        waiting: tuple[int, Array] | None = None
        remaining = iter(offsets_rad)
        while chunk := list(itertools.islice(remaining, self.batch_size)):
            offsets = self._pad(np.stack(chunk).astype(np.float32))
            pictures = _turn(self.model, self._variables, self._encoding, offsets)
            if waiting is not None:
                yield from np.asarray(waiting[1])[: waiting[0]]
            waiting = (len(chunk), pictures)
        if waiting is not None:
            yield from np.asarray(waiting[1])[: waiting[0]]

    def _chunks(
        self, driving: Iterable[np.ndarray], sources: Iterable[np.ndarray] | None
    ) -> Iterator[tuple[list[np.ndarray], list[np.ndarray] | None]]:
        """Lists of up to `batch_size` frames, with their sources when there are any."""
        chunk: list[np.ndarray] = []
        chunk_sources: list[np.ndarray] = []
        pairs = ((frame, None) for frame in driving) if sources is None else zip(driving, sources)  # noqa: B905
        for frame, source in pairs:
            chunk.append(np.asarray(frame))
            if source is not None:
                chunk_sources.append(np.asarray(source))
            if len(chunk) == self.batch_size:
                yield chunk, chunk_sources if sources is not None else None
                chunk, chunk_sources = [], []
        if chunk:
            yield chunk, chunk_sources if sources is not None else None

    def _unpack(
        self,
        driving: list[np.ndarray],
        sources: list[np.ndarray] | None,
        batch: AnimatedFrames,
    ) -> Iterator[StreamFrame]:
        """The frames of a finished batch, on the host."""
        host = jax.device_get(batch)
        one_source = sources is None
        for index, frame in enumerate(driving):
            entry = functools.partial(jax.tree.map, lambda leaf, index=index: leaf[index])
            yield StreamFrame(
                source=self._source if one_source else sources[index],
                driving=frame,
                prediction=host.prediction[index],
                driving_motion=entry(host.driving_motion),
                motion=entry(host.motion),
                source_motion=jax.tree.map(
                    lambda leaf, at=0 if one_source else index: leaf[at], host.source_motion
                ),
            )

    def _pad(self, images: np.ndarray) -> np.ndarray:
        """Repeats the last image up to the batch size."""
        missing = self.batch_size - images.shape[0]
        return (
            np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        )

    def _require_source(self) -> None:
        if self._source_motion is None:
            raise ArgumentError(
                requirement("source image", "be set", None, "Call set_source first.")
            )

    def _check_images(self, images: np.ndarray | Array, what: str) -> np.ndarray:
        """The images as a (b r r 3) array of uint8 or float, r the model's resolution."""
        images = np.asarray(images)
        side = self.model.resolution
        if images.ndim != 4 or images.shape[1:] != (side, side, 3) or images.shape[0] == 0:
            raise ArgumentError(
                requirement(
                    what,
                    f"be RGB of {side} x {side} pixels, the model's resolution",
                    f"shape {images.shape}",
                    "Crop and resize them first (animate_files does).",
                )
            )
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise ArgumentError(
                requirement(what, "be uint8, or float in [0, 1]", images.dtype, "Convert them.")
            )
        return images

    def _edit_pose(self, pose_deg: Sequence[float]) -> Keypoints:
        """The source's keypoints turned by the pose editor."""
        check_pose_editor(self.model, self._variables)
        if len(pose_deg) != 3 or not all(math.isfinite(angle) for angle in pose_deg):
            raise ArgumentError(
                requirement("pose", "be yaw, pitch, roll in degrees", pose_deg, "E.g. 15 0 0.")
            )
        angles = jnp.deg2rad(jnp.asarray([pose_deg], dtype=jnp.float32))
        return self.model.edit_pose(self._variables, self._encoding, angles)


def check_pose_editor(model: TalkingHead, variables: Mapping[str, Any]) -> None:
    """Raises unless the model has a pose editor and the checkpoint trained weights for it.

    Args:
      model: the system.
      variables: network name -> variables, of trained networks only.

    Raises:
      ArgumentError: if the system has no pose editor.
      CheckpointError: if it has one, but no trained weights were loaded.
    """
    if POSE_EDITOR not in model.networks:
        raise ArgumentError(
            requirement(
                "pose",
                "be used with a system that has a pose editor",
                model.name,
                "Leave --pose out, or use fnevr.",
            )
        )
    if POSE_EDITOR not in variables:
        raise CheckpointError(
            requirement(
                "checkpoint",
                "hold a trained pose editor for --pose",
                "none",
                "Official FNeVR checkpoints have none: train the pose_edit phase, which needs head "
                "angles, or leave --pose out.",
            )
        )
