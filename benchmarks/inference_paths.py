"""What an animated frame computes, as the official modules do it and as this package serves it.

*Official*: everything again for every frame, with what only training needs. *Served*: the source is
encoded once, and only the prediction is computed. Two kinds of system: keypoint-driven ones find
the motion in the driving frame, mesh-driven ones draw it from two meshes. Letters: b batch, v
vertices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceInputs
from talking_heads_jax.models.base import FrameOutput, TalkingHead
from talking_heads_jax.models.gdpw.guidance import guidance_pyramid

# Component -> where its operations are traced; the first that matches counts.
KEYPOINT_COMPONENTS = {
    "source encoder": r"\.encode(/|$)",
    "image head (training only)": r"/image_head",
    "dense motion": r"/dense_motion",
    "volume: shape and colour extractors": r"/(color|shape)_extractor",
    "volume: per-voxel network": r"/volume_renderer",
    "decoder: SPADE modulation": r"/spade_\d",
    "decoder: other convolutions": r"/decoder|/fusion",
}
PYRAMID = "guidance pyramid"
MESH_COMPONENTS = {
    "spectral norm of the kernels": r"normalized_kernel",
    "source encoder": r"/encoder/",
    "decoder: SPADE modulation": r"/norm_\d/",
    "decoder: upsampling convolutions": r"/up(/|$)",
    "decoder: other convolutions": r"/decoder/",
    PYRAMID: r"\.decode(/[^/]*->[^/]*)?$",  # what lies outside the decoder
}
# A head as large in the frame as a portrait's; half axes in parts of the image's half side.
HALF_AXES = (0.55, -0.75, -0.65)  # y is up and z towards the viewer in the face's coordinates
YAW_OF_DRIVING, YAW_A_FRAME = 0.3, 0.02


class Paths(NamedTuple):
    """The calls of one system; `source` and `driving` are `FaceInputs`.

    Attributes:
      components: regular expressions of scopes, for `OperationCount.grouped`.
      motion_label: what finding the motion is called.
      own: (variables, source) -> what the source's motion is to the official generator.
      encode: (variables, source) -> what is kept of a source.
      official_motion: (variables, source, driving) -> the official generator's motion.
      served_motion: (variables, encoding, driving) -> the served generator's.
      official_generator: (variables, source, own, motion) -> `FrameOutput`.
      served_generator: (variables, encoding, motion) -> prediction.
    """

    components: dict[str, str]
    motion_label: str
    own: Callable[..., Any]
    encode: Callable[..., Any]
    official_motion: Callable[..., Any]
    served_motion: Callable[..., Any]
    official_generator: Callable[..., FrameOutput]
    served_generator: Callable[..., Any]

    def official_network(
        self, variables: Any, source: FaceInputs, own: Any, driving: FaceInputs
    ) -> FrameOutput:
        """A frame, with finding its motion."""
        motion = self.official_motion(variables, source, driving)
        return self.official_generator(variables, source, own, motion)

    def served_network(self, variables: Any, encoding: Any, driving: FaceInputs) -> Any:
        """Likewise."""
        motion = self.served_motion(variables, encoding, driving)
        return self.served_generator(variables, encoding, motion)


def is_mesh_driven(model: TalkingHead) -> bool:
    """Whether its motion is drawn from meshes."""
    return "vertices" in model.required_inputs


def paths_of(model: TalkingHead) -> Paths:
    """The calls of a system."""
    return _mesh_paths(model) if is_mesh_driven(model) else _keypoint_paths(model)


def _keypoint_paths(model: TalkingHead) -> Paths:
    def official_generator(variables: Any, source: Any, own: Any, motion: Any) -> FrameOutput:
        encoding = model.encode_source(variables, source)
        encoding = encoding._replace(keypoints=own)  # the detector is not part of it
        return model.animate_frame(variables, encoding, motion, with_intermediates=True)

    return Paths(
        KEYPOINT_COMPONENTS,
        "keypoint detector",
        own=model.encode_driving,
        encode=model.encode_source,
        official_motion=lambda variables, source, driving: model.encode_driving(variables, driving),
        served_motion=lambda variables, encoding, driving: model.encode_driving(variables, driving),
        official_generator=official_generator,
        served_generator=lambda *arguments: model.animate_frame(*arguments).prediction,
    )


def _mesh_paths(model: TalkingHead) -> Paths:
    generator = model.networks["generator"]

    def draw(variables: Any, *meshes: Any, method: str) -> Any:
        source, driving = meshes
        source = jnp.broadcast_to(source, (len(driving), *source.shape[1:]))
        return generator.apply(variables["generator"], source, driving, method=method)

    def official_generator(variables: Any, source: Any, own: Any, motion: Any) -> FrameOutput:
        outputs = generator.apply(variables["generator"], source.image, motion, train=False)
        return FrameOutput(outputs.pop("prediction"), outputs)

    def served_generator(variables: Any, encoding: Any, motion: Any) -> Any:
        batch = len(motion.modulation())
        features, image = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])),
            (encoding.features, encoding.image),
        )
        options = {"train": False, "with_intermediates": False, "method": "decode"}
        return generator.apply(variables["generator"], features, image, motion, **options)[
            "prediction"
        ]

    return Paths(
        MESH_COMPONENTS,
        "drawing (no products)",
        own=lambda variables, source: None,
        encode=model.encode_source,
        official_motion=lambda variables, source, driving: draw(
            variables, source.vertices, driving.vertices, method="draw"
        ),
        served_motion=lambda variables, encoding, driving: draw(
            variables, encoding.vertices, driving.vertices, method="draw_driving"
        ),
        official_generator=official_generator,
        served_generator=served_generator,
    )


def pyramid_of(model: TalkingHead, implementation: str) -> Callable[[Any], Any]:
    """The guidance pyramid of a mesh-driven system as a function of its drawn maps.

    Args:
      model: the system; its strides are taken.
      implementation: 'plain' is the literal one, 'fast' the one at stride.
    """
    strides = [2**level for level in range(1, model.networks["generator"].num_levels)]
    name = {"plain": "literal", "fast": "strided"}[implementation]
    return lambda maps: guidance_pyramid(maps.modulation(), strides, implementation=name)


def make_variables(model: TalkingHead) -> dict[str, Any]:
    """Seeded variables, the same on every machine; nothing is compiled for them.

    Kernels have He's scale, so that activations keep their size and the prediction is not a flat
    grey; the divisor of a spectral norm is 1; statistics lie around those of a fresh network;
    Jacobians are the identity.
    """
    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        noise = rng.standard_normal(leaf.shape, np.float32)
        if "['jacobian']" in name:
            identity = np.tile(np.float32([1, 0, 0, 1]), max(leaf.shape[-1] // 4, 1))
            return identity if name.endswith("['bias']") else 0 * noise
        if name.endswith("['kernel']"):
            return noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        if name.endswith(("['scale']", "['var']")):
            return 1 + np.float32(0.1) * np.abs(noise)
        return np.float32(0.1) * noise

    variables = jax.tree_util.tree_map_with_path(fill, shapes_of(model))
    for network in variables.values():
        _normalize(network.get("spectral", {}), network["params"])
    return variables


def _normalize(vectors: dict[str, Any], params: dict[str, Any]) -> None:
    """Replaces each `v` by W^T u / |W^T u|², so that the divisor u^T W v is 1."""
    for name, branch in vectors.items():
        if set(branch) == {"u", "v"}:
            matrix = params[name]["kernel"]
            image = np.tensordot(matrix, branch["u"], axes=1)
            branch["v"] = image / np.sum(image**2)
        else:
            _normalize(branch, params[name])


def shapes_of(model: TalkingHead) -> dict[str, Any]:
    """Shapes of the variables inference needs."""
    return jax.eval_shape(lambda key: model.init(key, model.inference_networks), jax.random.key(0))


def make_frames(count: int, side: int, seed: int) -> np.ndarray:
    """(count side side 3) uint8 smooth random pictures that drift."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = rng.uniform(1, 4, (6, 2)), rng.uniform(0, 6.28, 6), rng.uniform(-1, 1, (6, 3))
    frames = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        picture = np.zeros((side, side, 3))
        for frequency, phase, color in zip(*waves, strict=True):
            angle = 6.28 * (frequency[0] * columns + frequency[1] * rows) + phase + 0.1 * index
            picture += np.sin(angle)[..., None] * color
        frames[index] = np.clip(127 + 40 * picture, 0, 255)
    return frames


def make_meshes(model: TalkingHead, count: int, yaw: float) -> np.ndarray:
    """(count v 3) float32 vertices in pixels: the mean face of the system's mesh, turning.

    Args:
      model: a mesh-driven system.
      count: of frames.
      yaw: of the first one, radians.
    """
    head = (2 * model.mesh.coordinates.astype(np.float64) - 1) * HALF_AXES
    centre, meshes = np.array([1, 1, 0]), []
    for frame in range(count):
        angle = yaw + YAW_A_FRAME * frame
        cosine, sine = np.cos(angle), np.sin(angle)
        turned = head @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        meshes.append((turned + centre) * (model.resolution / 2))
    return np.stack(meshes).astype(np.float32)


def make_inputs(model: TalkingHead, batch: int) -> tuple[FaceInputs, FaceInputs]:
    """One source and `batch` driving frames, of what the system needs."""
    side = model.resolution
    source, driving = (
        FaceInputs(image=make_frames(count, side, seed).astype(np.float32) / 255)
        for count, seed in ((1, 1), (batch, 2))
    )
    if is_mesh_driven(model):
        source = source._replace(vertices=make_meshes(model, 1, 0.0))
        driving = FaceInputs(vertices=make_meshes(model, batch, YAW_OF_DRIVING))
    return source, driving
