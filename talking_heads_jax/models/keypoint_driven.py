"""What the keypoint-driven systems (FOMM, FNeVR) share: detector, generator, discriminator.

The source is encoded once; a driving frame becomes `Keypoints`; the generator moves the source from
its own keypoints to the driving ones.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import FaceInputs, FramePair, Keypoints
from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.layers.appearance import SourceFeatures
from talking_heads_jax.layers.keypoint_detector import KeypointDetector
from talking_heads_jax.layers.patch_discriminator import MultiScaleDiscriminator
from talking_heads_jax.models.base import (
    FrameOutput,
    TalkingHead,
    Variables,
    configure,
    run_once,
)
from talking_heads_jax.ops.coordinates import ndc_to_px
from talking_heads_jax.ops.resize import resize_bilinear
from talking_heads_jax.typing import Array, Float

DTYPES = MappingProxyType({"float32": jnp.float32, "bfloat16": jnp.bfloat16})
IMPLEMENTATIONS = ("fast", "plain")
_MARKER_RADIUS = 0.02  # of the image's side


class EncodedSource(NamedTuple):
    """A portrait, ready to be moved.

    Attributes:
      features: what the generator needs of it.
      keypoints: where its parts are.
    """

    features: SourceFeatures
    keypoints: Keypoints


class KeypointDrivenModel(TalkingHead):
    """A talking head whose motion is a set of learned 2-D keypoints.

    Subclasses give `generator_module` and the constructor arguments of their own.
    """

    required_inputs: ClassVar[frozenset[str]] = frozenset({"image"})
    inference_networks: ClassVar[tuple[str, ...]] = ("kp_detector", "generator")
    generator_module: ClassVar[type[nn.Module]]

    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        num_keypoints: int = 10,
        keypoint_detector: Mapping[str, Any] | None = None,
        generator: Mapping[str, Any] | None = None,
        discriminator: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        implementation: str = "fast",
    ) -> None:
        """Describes the system; creates no arrays.

        Args:
          resolution: side of the images in pixels.
          image_channels: of the images.
          num_keypoints: learned keypoints.
          keypoint_detector: fields of `KeypointDetector`.
          generator: fields of the generator.
          discriminator: fields of `MultiScaleDiscriminator`.
          dtype: compute dtype, 'float32' or 'bfloat16'; parameters, geometry and statistics are
            float32 either way.
          implementation: 'fast', or 'plain', the reference: the same numbers up to rounding.

        Raises:
          ArgumentError: for a value out of its range.
          ConfigError: for an unknown key in a section.
        """
        check_choice("dtype", dtype, tuple(DTYPES))
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        if num_keypoints < 1 or resolution < 1:
            raise ArgumentError(
                requirement(
                    "resolution and num_keypoints",
                    "be positive",
                    (resolution, num_keypoints),
                    "The released models use 256 and 10.",
                )
            )
        self.resolution = resolution
        self._arguments: dict[str, Any] = {
            "resolution": resolution,
            "image_channels": image_channels,
            "num_keypoints": num_keypoints,
            "keypoint_detector": _plain(keypoint_detector),
            "generator": _plain(generator),
            "discriminator": _plain(discriminator),
            "dtype": dtype,
            "implementation": implementation,
        }
        shared = {
            "num_keypoints": num_keypoints,
            "image_channels": image_channels,
            "implementation": implementation,
            "dtype": DTYPES[dtype],
        }
        self._networks: dict[str, nn.Module] = {
            "kp_detector": configure(
                KeypointDetector, "model.keypoint_detector", keypoint_detector, **shared
            ),
            "generator": configure(self.generator_module, "model.generator", generator, **shared),
            "discriminator": configure(
                MultiScaleDiscriminator,
                "model.discriminator",
                discriminator,
                image_channels=image_channels,
                dtype=DTYPES[dtype],
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
        """Fresh variables of the named networks (default: all)."""
        initializers = self._initializers()
        variables = {}
        for name in initializers if names is None else names:
            # The key depends on the name, so a network starts the same whatever else is built.
            key = jax.random.fold_in(rng, sum(name.encode()))
            variables[name] = run_once(initializers[name], key)
        return variables

    def _initializers(self) -> dict[str, Callable[[Array], Variables]]:
        """Network name → key → variables."""
        size, channels = self.resolution, self._arguments["image_channels"]
        image = jnp.zeros((1, size, size, channels))
        keypoints = self._example_keypoints()
        networks = self._networks

        def detector(key: Array) -> Variables:
            return networks["kp_detector"].init(key, image, train=False)

        def generator(key: Array) -> Variables:
            return networks["generator"].init(
                key, image, source_keypoints=keypoints, driving_keypoints=keypoints, train=False
            )

        def discriminator(key: Array) -> Variables:
            return networks["discriminator"].init(key, image, keypoints.value, train=False)

        return {"kp_detector": detector, "generator": generator, "discriminator": discriminator}

    def _example_keypoints(self) -> Keypoints:
        count = self._arguments["num_keypoints"]
        return Keypoints(jnp.zeros((1, count, 2)), jnp.tile(jnp.eye(2), (1, count, 1, 1)))

    def encode_source(
        self, variables: Mapping[str, Variables], source: FaceInputs
    ) -> EncodedSource:
        """Detects keypoints and encodes the appearance of a portrait (b h w 3)."""
        features = self._networks["generator"].apply(
            variables["generator"], source.image, train=False, method="encode"
        )
        return EncodedSource(features, self.encode_driving(variables, source))

    def encode_driving(self, variables: Mapping[str, Variables], driving: FaceInputs) -> Keypoints:
        """Detects the keypoints of driving frames (b h w 3)."""
        return self._networks["kp_detector"].apply(
            variables["kp_detector"], driving.image, train=False
        )

    def animate_frame(
        self,
        variables: Mapping[str, Variables],
        source_encoding: EncodedSource,
        motion: Keypoints,
        *,
        with_intermediates: bool = False,
    ) -> FrameOutput:
        """Moves the source to the keypoints `motion` (already transferred, see motion_transfer).

        A source of batch 1 is shared by all frames of the batch.
        """
        batch = motion.value.shape[0]
        source_encoding = jax.tree.map(
            functools.partial(_broadcast_batch, batch=batch), source_encoding
        )
        outputs = self._networks["generator"].apply(
            variables["generator"],
            source_encoding.features,
            source_keypoints=source_encoding.keypoints,
            driving_keypoints=motion,
            train=False,
            with_intermediates=with_intermediates,
            method="decode",
        )
        return FrameOutput(outputs.pop("prediction"), outputs)

    def panels(self, variables: Mapping[str, Variables], pair: FramePair) -> dict[str, Array]:
        """Source and driving with their keypoints, the motion, and the prediction."""
        encoding = self.encode_source(variables, pair.source)
        motion = self.encode_driving(variables, pair.driving)
        output = self.animate_frame(variables, encoding, motion, with_intermediates=True)
        extras, size = output.intermediates, (self.resolution, self.resolution)
        pictures = {
            "source": pair.source.image,
            "driving": pair.driving.image,
            "source_keypoints": draw_keypoints(pair.source.image, encoding.keypoints.value),
            "driving_keypoints": draw_keypoints(pair.driving.image, motion.value),
            "deformation": _picture_deformation(extras["deformation"], size),
            "deformed": extras["deformed"],
        }
        if extras.get("occlusion_map") is not None:
            occlusion = resize_bilinear(extras["occlusion_map"], size, align_corners=False)
            pictures["occlusion_map"] = jnp.repeat(occlusion, 3, axis=-1)
        if "render" in extras:
            pictures["render"] = extras["render"]
        pictures["prediction"] = output.prediction
        return pictures


def draw_keypoints(
    image: Float[Array, "b h w 3"], points: Float[Array, "b k 2"]
) -> Float[Array, "b h w 3"]:
    """Draws a filled, coloured disc at each point.

    Args:
      image: RGB in [0, 1].
      points: x, y in [-1, 1], corner-aligned.

    Returns:
      RGB in [0, 1].
    """
    height, width = image.shape[1:3]
    rows, columns = jnp.arange(height)[:, None] + 0.5, jnp.arange(width)[None] + 0.5
    radius = max(1.5, _MARKER_RADIUS * width)
    count = points.shape[1]
    centres = ndc_to_px(points, (height, width), align_corners=True)
    for k in range(count):
        x, y = centres[:, k, 0, None, None], centres[:, k, 1, None, None]
        inside = jnp.square(columns - x) + jnp.square(rows - y) <= radius**2
        hue = 6.0 * k / count
        color = jnp.clip(jnp.abs(jnp.asarray([hue - 3, hue - 2, hue - 4])), 0, 2)
        color = jnp.clip(jnp.asarray([color[0] - 1, 2 - color[1], 2 - color[2]]), 0, 1)
        image = jnp.where(inside[..., None], color, image)
    return image


def _picture_deformation(deformation: Array, size: tuple[int, int]) -> Array:
    """Sampling positions as colours: x in red, y in green, [-1, 1] → [0, 1]."""
    positions = jnp.clip((resize_bilinear(deformation, size, align_corners=False) + 1) / 2, 0, 1)
    return jnp.concatenate([positions, jnp.full_like(positions[..., :1], 0.5)], axis=-1)


def _broadcast_batch(x: Array, *, batch: int) -> Array:
    return jnp.broadcast_to(x, (batch, *x.shape[1:])) if x.shape[0] == 1 else x


def _plain(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy in JSON types."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, (list, tuple)) else value

    return convert(dict(options or {}))
