"""GDPW as a `TalkingHead`: source image and two meshes in, frame out."""

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.models.base import (
    FrameOutput,
    TalkingHead,
    Variables,
    configure,
    run_once,
)
from talking_heads_jax.models.gdpw.discriminator import MultiStrideDiscriminator
from talking_heads_jax.models.gdpw.encoder import SourcePyramid
from talking_heads_jax.models.gdpw.generator import ProgressiveGenerator
from talking_heads_jax.models.gdpw.guidance import GUIDANCES, GuidanceMaps, MeshPair
from talking_heads_jax.morphable.face_mesh import FaceMesh
from talking_heads_jax.typing import Array, Float

_DTYPES = MappingProxyType({"float32": jnp.float32, "bfloat16": jnp.bfloat16})
_IMPLEMENTATIONS = ("fast", "plain")
_RELEASED_MESH = "flame2020"


class EncodedSource(NamedTuple):
    """A portrait, ready to be moved.

    Attributes:
      features: what the decoder warps.
      image: (b h w 3) in [0, 1].
      vertices: (b v 3) of its mesh, crop pixels.
    """

    features: SourcePyramid
    image: Array
    vertices: Array


class ProgressiveWarping(TalkingHead):
    """Geometry driven progressive warping; the defaults are the released 'neural codes' model.

    Networks: `generator` (its neural codes are parameters of it) and `discriminator`. A driving
    frame is a mesh: no driving image is read, so that meshes from coefficients animate as well.

    Source: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation (BMVC
      2022).
    """

    name: ClassVar[str] = "gdpw"
    required_inputs: ClassVar[frozenset[str]] = frozenset({"image", "vertices"})
    inference_networks: ClassVar[tuple[str, ...]] = ("generator",)

    def __init__(
        self,
        resolution: int = 256,
        guidance: str = "codes",
        num_codes: int = 16,
        morphable: str = _RELEASED_MESH,
        num_vertices: int | None = None,
        alpha_blend: bool = False,
        single_scale: bool = False,
        spectral_norm: bool = True,
        generator: Mapping[str, Any] | None = None,
        discriminator: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        implementation: str = "fast",
    ) -> None:
        """Describes the system; creates no arrays, and reads no mesh whose size is known.

        Args:
          resolution: side of the images in pixels.
          guidance: 'geometry', 'codes', 'both' or 'nmfc' (see `ProgressiveGenerator`).
          num_codes: channels of a neural code.
          morphable: name of the model the meshes belong to, or path of a mesh file (see
            `FaceMesh`).
          num_vertices: of its meshes; None: as many as the model has.
          alpha_blend: blend the result with the warped source.
          single_scale: the control: one displacement field, predicted beforehand.
          spectral_norm: False for weights whose spectral norm is folded into them: inference.
          generator: further fields of `ProgressiveGenerator`.
          discriminator: fields of `MultiStrideDiscriminator`.
          dtype: compute dtype, 'float32' or 'bfloat16'; parameters, drawing, flows and statistics
            are float32 either way.
          implementation: 'fast', or 'plain', the reference: the same numbers up to rounding.

        Raises:
          ArgumentError: for a value out of its range.
          ConfigError: for an unknown key in a section.
        """
        check_choice("dtype", dtype, tuple(_DTYPES))
        check_choice("implementation", implementation, _IMPLEMENTATIONS)
        check_choice("guidance", guidance, GUIDANCES)
        if min(resolution, num_codes) < 1:
            raise ArgumentError(
                requirement(
                    "resolution and num_codes",
                    "be positive",
                    (resolution, num_codes),
                    "The released models use 256 and 16.",
                )
            )
        self.resolution = resolution
        self.mesh = FaceMesh(morphable)
        learns_codes = guidance in ("codes", "both")
        if num_vertices is None and learns_codes:
            num_vertices = self.mesh.num_vertices
        self._arguments: dict[str, Any] = {
            "resolution": resolution,
            "guidance": guidance,
            "num_codes": num_codes,
            "morphable": morphable,
            "num_vertices": num_vertices,
            "alpha_blend": alpha_blend,
            "single_scale": single_scale,
            "spectral_norm": spectral_norm,
            "generator": dict(generator or {}),
            "discriminator": _as_lists(discriminator),
            "dtype": dtype,
            "implementation": implementation,
        }
        shared = {"spectral_norm": spectral_norm, "dtype": _DTYPES[dtype]}
        self._networks: dict[str, nn.Module] = {
            "generator": configure(
                ProgressiveGenerator,
                "model.generator",
                generator,
                mesh=self.mesh,
                resolution=resolution,
                guidance=guidance,
                num_codes=num_codes,
                num_vertices=num_vertices or 0,
                alpha_blend=alpha_blend,
                single_scale=single_scale,
                implementation=implementation,
                **shared,
            ),
            "discriminator": configure(
                MultiStrideDiscriminator, "model.discriminator", discriminator, **shared
            ),
        }

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Every network by name."""
        return MappingProxyType(self._networks)

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments as JSON types."""
        return dict(self._arguments)

    def init(self, rng: Array, names: Iterable[str] | None = None) -> dict[str, Variables]:
        """Fresh variables of the named networks (default: all); no mesh is drawn."""
        networks, size = self._networks, self.resolution
        image = jnp.zeros((1, size, size, 3))
        generator = networks["generator"]
        codes = flow = None
        if generator.code_features:
            codes = jnp.zeros((1, size, size, generator.code_features))
        if generator.with_flow:
            flow = jnp.zeros((1, size, size, 2))
        examples = {
            "generator": (image, GuidanceMaps(flow, codes, codes)),
            "discriminator": (image,),
        }
        variables = {}
        for name in networks if names is None else names:
            # The key depends on the name, so a network starts the same whatever else is built.
            key = jax.random.fold_in(rng, sum(name.encode()))
            start = functools.partial(_initialize, networks[name], examples[name])
            variables[name] = run_once(start, key)
        return variables

    def guidance(
        self,
        source_vertices: Float[Array, "b v 3"],
        driving_vertices: Float[Array, "b v 3"],
    ) -> MeshPair:
        """What the generator's second argument is in training: it draws with its own codes.

        Args:
          source_vertices: in crop pixels.
          driving_vertices: likewise.
        """
        return MeshPair(source_vertices, driving_vertices)

    def encode_source(
        self, variables: Mapping[str, Variables], source: FaceInputs
    ) -> EncodedSource:
        """Draws the codes on the source's mesh and encodes the portrait.

        Raises:
          ArgumentError: if the vertices are missing or of another mesh.
        """
        generator = self._networks["generator"]
        codes = generator.apply(variables["generator"], source.vertices, method="draw_source")
        features = generator.apply(
            variables["generator"], source.image, codes, train=False, method="encode"
        )
        return EncodedSource(features, source.image, source.vertices)

    def encode_driving(
        self, variables: Mapping[str, Variables], driving: FaceInputs
    ) -> Float[Array, "b v 3"]:
        """The motion of a frame is its mesh, in crop pixels; its image is not looked at.

        Raises:
          ArgumentError: if the vertices are missing.
        """
        if driving.vertices is None:
            raise ArgumentError(
                requirement(
                    "a driving face of model 'gdpw'",
                    "have vertices",
                    "none",
                    "Fit the face model to the frame, or pose it by coefficients.",
                )
            )
        return driving.vertices

    def animate_frame(
        self,
        variables: Mapping[str, Variables],
        source_encoding: EncodedSource,
        motion: Float[Array, "b v 3"],
        *,
        with_intermediates: bool = False,
    ) -> FrameOutput:
        """The source in the pose of the mesh `motion`; a source of batch 1 serves all frames.

        To keep the source's identity, `motion` has to be a mesh of the source's shape.
        """
        generator, own = self._networks["generator"], variables["generator"]
        batch = motion.shape[0]
        features, image, vertices = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])) if x.shape[0] == 1 else x,
            source_encoding,
        )
        maps = generator.apply(own, vertices, motion, method="draw_driving")
        outputs = generator.apply(
            own,
            features,
            image,
            maps,
            train=False,
            with_intermediates=with_intermediates,
            method="decode",
        )
        prediction = outputs.pop("prediction")
        if not with_intermediates:
            return FrameOutput(prediction, {})
        outputs |= {
            name: value
            for name, value in (("mesh_flow", maps.flow), ("driving_codes", maps.driving_codes))
            if value is not None
        }
        return FrameOutput(prediction, outputs)

    def panels(self, variables: Mapping[str, Variables], pair: FramePair) -> dict[str, Array]:
        """Source, driving, the guidance, the warped source and the prediction."""
        encoding = self.encode_source(variables, pair.source)
        motion = self.encode_driving(variables, pair.driving)
        output = self.animate_frame(variables, encoding, motion, with_intermediates=True)
        extras = output.intermediates
        pictures = {"source": pair.source.image, "driving": pair.driving.image}
        if "driving_codes" in extras:
            pictures["driving_codes"] = _first_three(extras["driving_codes"])
        if "mesh_flow" in extras:
            pictures["mesh_flow"] = _picture_flow(extras["mesh_flow"])
        return pictures | {
            "flow": _picture_flow(extras["flows"][-1]),
            "deformed": extras["deformed"],
            "prediction": output.prediction,
        }


def _initialize(network: nn.Module, examples: tuple[Any, ...], key: Array) -> Variables:
    return network.init(key, *examples, train=False)


def _first_three(codes: Array) -> Array:
    """Three channels as red, green and blue; missing ones are black."""
    shown = jnp.clip(codes[..., :3], 0.0, 1.0)
    return jnp.pad(shown, ((0, 0), (0, 0), (0, 0), (0, 3 - shown.shape[-1])))


def _picture_flow(flow: Array) -> Array:
    """Red is x, green is y: grey is no motion, a quarter of the image is full colour."""
    shown = jnp.clip(0.5 + flow, 0.0, 1.0)
    return jnp.concatenate([shown, jnp.full_like(shown[..., :1], 0.5)], axis=-1)


def _as_lists(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy in JSON types."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in (options or {}).items()
    }
