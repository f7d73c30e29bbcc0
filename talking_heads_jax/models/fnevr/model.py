"""FNeVR as a `TalkingHead`, with its pose editor and the weights of its mesh feature."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.models.base import Variables, configure
from talking_heads_jax.models.fnevr.generator import VolumeRenderingGenerator
from talking_heads_jax.models.fnevr.mesh_feature import VertexWeights
from talking_heads_jax.models.fnevr.pose_editor import LightweightPoseEditor
from talking_heads_jax.models.keypoint_driven import DTYPES, EncodedSource, KeypointDrivenModel
from talking_heads_jax.typing import Array, Float


class FaceNeuralVolumeRendering(KeypointDrivenModel):
    """Face neural volume rendering; the defaults are vox-256.

    Networks: `kp_detector`, `generator`, `discriminator`, `pose_editor` (LPE in the paper) and
    `vertex_weights` (the CNN behind w_i). The last two take part only when their losses do.

    Source: Zeng et al., FNeVR: Neural Volume Rendering for Face Animation (NeurIPS 2022).
    """

    name: ClassVar[str] = "fnevr"
    optional_inference_networks: ClassVar[tuple[str, ...]] = ("pose_editor",)
    generator_module: ClassVar[type[nn.Module]] = VolumeRenderingGenerator

    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        num_keypoints: int = 10,
        keypoint_detector: Mapping[str, Any] | None = None,
        generator: Mapping[str, Any] | None = None,
        discriminator: Mapping[str, Any] | None = None,
        pose_editor: Mapping[str, Any] | None = None,
        vertex_weights: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        implementation: str = "fast",
    ) -> None:
        """As `KeypointDrivenModel`, and two more networks.

        Args:
          resolution: side of the images in pixels.
          image_channels: of the images.
          num_keypoints: learned keypoints.
          keypoint_detector: fields of `KeypointDetector`.
          generator: fields of `VolumeRenderingGenerator`.
          discriminator: fields of `MultiScaleDiscriminator`.
          pose_editor: fields of `LightweightPoseEditor`.
          vertex_weights: fields of `VertexWeights`.
          dtype: compute dtype, 'float32' or 'bfloat16'.
          implementation: 'fast', or 'plain', the reference.

        Raises:
          ArgumentError: for a value out of its range.
          ConfigError: for an unknown key in a section.
        """
        super().__init__(
            resolution,
            image_channels,
            num_keypoints,
            keypoint_detector,
            generator,
            discriminator,
            dtype,
            implementation,
        )
        self._arguments["pose_editor"] = dict(pose_editor or {})
        self._arguments["vertex_weights"] = dict(vertex_weights or {})
        self._networks["pose_editor"] = configure(
            LightweightPoseEditor,
            "model.pose_editor",
            pose_editor,
            num_keypoints=num_keypoints,
            dtype=DTYPES[dtype],
        )
        self._networks["vertex_weights"] = configure(
            VertexWeights,
            "model.vertex_weights",
            vertex_weights,
            image_channels=image_channels,
            dtype=DTYPES[dtype],
        )

    def _initializers(self) -> dict[str, Callable[[Array], Variables]]:
        initializers = super()._initializers()
        networks, keypoints = self._networks, self._example_keypoints()
        size, channels = self.resolution, self._arguments["image_channels"]

        def pose_editor(key: Array) -> Variables:
            return networks["pose_editor"].init(key, jnp.zeros((1, 3)), keypoints)

        def vertex_weights(key: Array) -> Variables:
            image = jnp.zeros((1, size, size, channels))
            return networks["vertex_weights"].init(key, image, train=False)

        return initializers | {"pose_editor": pose_editor, "vertex_weights": vertex_weights}

    def edit_pose(
        self,
        variables: Mapping[str, Variables],
        source_encoding: EncodedSource,
        angles: Float[Array, "b 3"],
    ) -> Keypoints:
        """The motion that turns the source's head, from the trained pose editor.

        Args:
          variables: must hold `pose_editor`.
          source_encoding: of the portrait.
          angles: yaw, pitch, roll in radians, relative to the source's pose (see
            `geometry.rotations`).
        """
        return self._networks["pose_editor"].apply(
            variables["pose_editor"], angles, source_encoding.keypoints
        )
