"""FOMM's generator: encode the source, warp, occlude, decode with residual blocks."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.layers.appearance import AppearanceEncoder, ResidualDecoder, SourceFeatures
from talking_heads_jax.layers.dense_motion import DenseMotionNetwork, deform_features
from talking_heads_jax.ops.warping import warp
from talking_heads_jax.typing import Array, Float


class OcclusionAwareGenerator(nn.Module):
    """Source image + keypoints of source and driving → image.

    Attributes:
      num_keypoints: k.
      image_channels: c.
      block_expansion: width after the first convolution.
      max_features: bound of the widths.
      num_down_blocks: halvings before the warp.
      num_bottleneck_blocks: residual blocks after it.
      align_corners: corner rule of every sampler (see `DenseMotionNetwork`).
      dense_motion_options: further fields of `DenseMotionNetwork`.
      implementation: 'plain' or 'fast' (see `UpBlock2d`).
      dtype: compute dtype.

    Source: FOMM (NeurIPS 2019) section 3.3; FOMM repository.
    """

    num_keypoints: int = 10
    image_channels: int = 3
    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    num_bottleneck_blocks: int = 6
    align_corners: bool = False
    dense_motion_options: Mapping[str, Any] | None = None
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `encoder`, `dense_motion`, `decoder`."""
        self.encoder = AppearanceEncoder(
            self.image_channels,
            self.block_expansion,
            self.max_features,
            self.num_down_blocks,
            dtype=self.dtype,
        )
        self.dense_motion = DenseMotionNetwork(
            num_keypoints=self.num_keypoints,
            image_channels=self.image_channels,
            align_corners=self.align_corners,
            implementation=self.implementation,
            dtype=self.dtype,
            **(self.dense_motion_options or {}),
        )
        self.decoder = ResidualDecoder(
            self.encoder.out_features,
            self.image_channels,
            self.block_expansion,
            self.max_features,
            self.num_bottleneck_blocks,
            self.num_down_blocks,
            implementation=self.implementation,
            dtype=self.dtype,
        )

    def encode(self, source: Float[Array, "b h w c"], *, train: bool) -> SourceFeatures:
        """What depends on the source alone."""
        small = self.dense_motion.downsample(source)
        return SourceFeatures(source, small, self.encoder(source, train=train))

    def decode(
        self,
        encoded: SourceFeatures,
        *,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
        train: bool,
        with_intermediates: bool = True,
    ) -> dict[str, Array]:
        """Animates an encoded source.

        Returns:
          `prediction` (b h w c) in [0, 1]; with intermediates also `deformation`, `occlusion_map`,
          `mask`, `sparse_deformed` (see `DenseMotion`) and `deformed`, the warped source.
        """
        motion = self.dense_motion(
            encoded.small,
            source_keypoints=source_keypoints,
            driving_keypoints=driving_keypoints,
            train=train,
        )
        warped = deform_features(encoded.features, motion, align_corners=self.align_corners)
        outputs = {"prediction": self.decoder(warped, train=train)}
        if with_intermediates:
            outputs |= motion._asdict()
            outputs["deformed"] = warp(
                encoded.image, motion.deformation, align_corners=self.align_corners
            )
        return outputs

    def __call__(
        self,
        source: Float[Array, "b h w c"],
        *,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
        train: bool,
        with_intermediates: bool = True,
    ) -> dict[str, Array]:
        """Encodes and animates; see `decode`."""
        return self.decode(
            self.encode(source, train=train),
            source_keypoints=source_keypoints,
            driving_keypoints=driving_keypoints,
            train=train,
            with_intermediates=with_intermediates,
        )
