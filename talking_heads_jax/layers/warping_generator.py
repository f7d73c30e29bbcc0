"""What FOMM's generator and its descendants share: encode the source, warp it by dense motion."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.layers.appearance import AppearanceEncoder, SourceFeatures
from talking_heads_jax.layers.dense_motion import DenseMotionNetwork, deform_features
from talking_heads_jax.ops.warping import warp
from talking_heads_jax.typing import Array, Float


class WarpingGenerator(nn.Module):
    """Source image + keypoints of source and driving → image; a subclass decodes the features.

    Attributes:
      num_keypoints: k.
      image_channels: c.
      block_expansion: width after the first convolution.
      max_features: bound of the widths.
      num_down_blocks: halvings before the warp.
      num_bottleneck_blocks: residual blocks of FOMM's decoder.
      align_corners: corner rule of every sampler (see `DenseMotionNetwork`).
      dense_motion_options: further fields of `DenseMotionNetwork`.
      image_skip: the decoder also sees the warped, occluded source image at full size, and predicts
        the difference from it.
      implementation: 'plain', or 'fast': the same numbers with less arithmetic.
      dtype: compute dtype.

    Source: FOMM (NeurIPS 2019) section 3.3.
    Differs from source: `image_skip` is ours, off by default. Small trainings need it: a decoder
    that must pass every detail through features at a quarter of the size takes long to sharpen.
    """

    num_keypoints: int = 10
    image_channels: int = 3
    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    num_bottleneck_blocks: int = 6
    align_corners: bool = False
    dense_motion_options: Mapping[str, Any] | None = None
    image_skip: bool = False
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `encoder` and `dense_motion`; subclasses add their decoder."""
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

    @property
    def skip_features(self) -> int:
        """Channels of the map that joins late in the decoder; 0 without `image_skip`."""
        return self.image_channels if self.image_skip else 0

    def decode_features(
        self,
        warped: Float[Array, "b h w c"],
        skip: Float[Array, "b h2 w2 e"] | None,
        *,
        train: bool,
        with_intermediates: bool,
    ) -> dict[str, Array]:
        """Warped features → `prediction`, and what else the subclass computes on the way.

        Args:
          warped: occluded, warped source features.
          skip: occluded, warped source image; None without `image_skip`.
          train: batch statistics or stored ones.
          with_intermediates: also return what only losses and pictures need.
        """
        raise TypeError(
            f"{type(self).__name__} must define decode_features; WarpingGenerator has none"
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
          `mask`, `sparse_deformed` (see `DenseMotion`), `deformed`, the warped source, and the
          subclass's own.
        """
        motion = self.dense_motion(
            encoded.small,
            source_keypoints=source_keypoints,
            driving_keypoints=driving_keypoints,
            train=train,
        )
        warped = deform_features(encoded.features, motion, align_corners=self.align_corners)
        skip = None
        if self.image_skip:
            skip = deform_features(encoded.image, motion, align_corners=self.align_corners)
        outputs = self.decode_features(
            warped, skip, train=train, with_intermediates=with_intermediates
        )
        if skip is not None:
            image = skip + 2.0 * outputs["prediction"] - 1.0  # a difference in (-1, 1)
            # Outside [0, 1] a clipped value would have no gradient to come back by.
            outputs["prediction"] = image if train else jnp.clip(image, 0.0, 1.0)
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
