"""A mesh-driven talking head held ready: one source and its mesh in, meshes in, frames out.

`MeshAnimator` knows no files and no face model: whatever makes vertices of the right mesh drives
it, tracked coefficients (`inference.mesh_motion`) or arrays of one's own. Compiled code is shared
by all animators of one model object. Letters: b batch, h w image, t frames, v vertices.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np

from talking_heads_jax.batch import FaceInputs
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.animator import to_uint8, unit_range
from talking_heads_jax.models.base import TalkingHead, Variables, check_inference_networks
from talking_heads_jax.typing import Array, PyTree

#: What a system must need, no more and no less, to be animated here.
MESH_INPUTS = frozenset({"image", "vertices"})


def is_mesh_driven(model: TalkingHead) -> bool:
    """Whether a system is driven by meshes alone, so that `MeshAnimator` animates it.

    Args:
      model: any system.
    """
    return model.required_inputs == MESH_INPUTS


class MeshAnimator:
    """Animates one source by meshes, batch by batch, without files.

    Vertices are (v 3): x, y in pixels of the model's square, pixel (row i, column j) covering
    [j, j+1) x [i, i+1); z in the same scale, smaller nearer. To keep the source's identity, driving
    meshes have to be of the source's shape. A batch that is not full is padded, so that one batch
    size compiles once.

    Attributes:
      model: the system.
      batch_size: meshes computed together.
    """

    def __init__(
        self, model: TalkingHead, variables: Mapping[str, Variables], *, batch_size: int = 1
    ) -> None:
        """Puts the weights on the device.

        Args:
          model: a system that needs an image and vertices, and nothing else.
          variables: network name -> linen variables; networks of training are left out.
          batch_size: meshes computed together; the result is that of 1 up to rounding.

        Raises:
          ArgumentError: the system needs other inputs, or the batch size is not positive.
          CheckpointError: variables of a network are missing.
        """
        if not is_mesh_driven(model):
            raise ArgumentError(
                requirement(
                    "model",
                    "need an image and vertices, and nothing else,",
                    f"{model.name}, which needs {sorted(model.required_inputs)}",
                    "Use inference.animator.FrameAnimator for systems that need only images.",
                )
            )
        if batch_size < 1:
            raise ArgumentError(
                requirement("batch size", "be at least 1", batch_size, "The default is 1.")
            )
        check_inference_networks(model, variables)
        self.model = model
        self.batch_size = batch_size
        kept = set(model.inference_networks) & set(variables)
        self._variables = jax.device_put({name: dict(variables[name]) for name in sorted(kept)})
        self._num_vertices: int | None = None
        self._encoding: PyTree = None

    @property
    def resolution(self) -> int:
        """Side of source and frames in pixels."""
        return self.model.resolution

    def set_source(self, image: np.ndarray | Array, vertices: np.ndarray | Array) -> None:
        """Encodes a source.

        Args:
          image: (h w 3) RGB, uint8 or float in [0, 1], `resolution` a side.
          vertices: (v 3) the mesh of the face in it.

        Raises:
          ArgumentError: an array that does not fit the model, or is not finite.
        """
        image, side = np.asarray(image), self.resolution
        if image.shape != (side, side, 3):
            raise ArgumentError(
                requirement(
                    "source image",
                    f"be RGB of {side} x {side} pixels, the model's resolution",
                    f"shape {image.shape}",
                    "Crop and resize it first, and its mesh by the same map.",
                )
            )
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise ArgumentError(
                requirement(
                    "source image", "be uint8, or float in [0, 1]", image.dtype, "Convert it."
                )
            )
        mesh = _checked("source vertices", vertices, None)
        self._encoding = _encode_source(self.model, self._variables, image[None], mesh[None])
        self._num_vertices = len(mesh)

    def frames(self, vertices: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The source moved to each mesh, in order.

        Two batches are in memory at most: an iterator of meshes is read as it is needed, the next
        batch while the last one is computed.

        Args:
          vertices: (t v 3), or an iterable of (v 3).

        Yields:
          (h w 3) uint8 RGB, one per mesh.

        Raises:
          ArgumentError: no source is set, or a mesh is not finite or of another size than the
            source's.
        """
        if self._encoding is None:
            raise ArgumentError(requirement("source", "be set", None, "Call set_source first."))
        waiting: tuple[int, Array] | None = None
        remaining = iter(vertices)
        while chunk := list(itertools.islice(remaining, self.batch_size)):
            meshes = [_checked("driving vertices", mesh, self._num_vertices) for mesh in chunk]
            meshes += [meshes[-1]] * (self.batch_size - len(meshes))
            pictures = _animate(self.model, self._variables, self._encoding, np.stack(meshes))
            if waiting is not None:
                yield from np.asarray(waiting[1])[: waiting[0]]
            waiting = (len(chunk), pictures)
        if waiting is not None:
            yield from np.asarray(waiting[1])[: waiting[0]]


@functools.partial(jax.jit, static_argnames="model")
def _encode_source(
    model: TalkingHead, variables: Mapping[str, Variables], image: Array, vertices: Array
) -> PyTree:
    return model.encode_source(variables, FaceInputs(image=unit_range(image), vertices=vertices))


@functools.partial(jax.jit, static_argnames="model")
def _animate(
    model: TalkingHead, variables: Mapping[str, Variables], encoding: PyTree, vertices: Array
) -> Array:
    """One batch, rounded to uint8 on the device; a source of batch 1 serves all meshes."""
    motion = model.encode_driving(variables, FaceInputs(vertices=vertices))
    return to_uint8(model.animate_frame(variables, encoding, motion).prediction)


def _checked(what: str, vertices: np.ndarray | Array, count: int | None) -> np.ndarray:
    """A mesh as (v 3) float32."""
    mesh = np.asarray(vertices, np.float32)
    wanted = "v" if count is None else str(count)
    if mesh.ndim != 2 or mesh.shape[1] != 3 or (count is not None and len(mesh) != count):
        raise ArgumentError(
            requirement(
                what, f"be ({wanted} 3)", f"shape {mesh.shape}", "Use the mesh of the checkpoint."
            )
        )
    if not np.isfinite(mesh).all():
        raise ArgumentError(
            requirement(
                what,
                "be finite",
                "NaN or infinity",
                "Fill frames without a face first (inference.mesh_motion.hold_pose).",
            )
        )
    return mesh
