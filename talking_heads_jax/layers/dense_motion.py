"""FOMM's dense motion network: sparse keypoint motions → one deformation and an occlusion map.

All coordinates are corner-aligned normalised x, y; the sampler's corner rule is a separate choice,
because the released code mixes both (`align_corners=False` on a corner-aligned grid).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.hourglass import Hourglass
from talking_heads_jax.ops.coordinates import keypoint_gaussians
from talking_heads_jax.ops.grid_sample import grid_sample
from talking_heads_jax.ops.resize import antialias_downsample, resize_bilinear
from talking_heads_jax.ops.warping import combine_motions, occlude, sparse_motions, warp
from talking_heads_jax.typing import Array, Float


class DenseMotion(NamedTuple):
    """What the network predicts, at the downsampled size.

    Attributes:
      deformation: (b h w 2) absolute sampling positions in the source, x, y in [-1, 1].
      occlusion_map: (b h w 1) in [0, 1], 1 = visible; None when not estimated.
      mask: (b h w k+1) weights of the motions; index 0 is the still background.
      sparse_deformed: (b k+1 h w c) the source moved by each motion alone.
    """

    deformation: Array
    occlusion_map: Array | None
    mask: Array
    sparse_deformed: Array


class DenseMotionNetwork(nn.Module):
    """Source image and two sets of keypoints → `DenseMotion`.

    Attributes:
      num_keypoints: k.
      image_channels: c.
      block_expansion: base width of the hourglass.
      max_features: bound of its widths.
      num_blocks: its levels.
      scale_factor: of the anti-aliased source it works on.
      keypoint_variance: of the Gaussian heatmaps, in normalised units squared.
      estimate_occlusion: also predict an occlusion map.
      head_kernel: side of the convolutions that predict masks; the checkpoints use 7.
      align_corners: corner rule of the sampler; the released checkpoints use False (FOMM's first
        ones, trained on torch 1.0, presumably True).
      implementation: 'plain' or 'fast' (see `UpBlock2d`).
      dtype: compute dtype; motions, masks and heatmaps stay float32.

    Source: FOMM (NeurIPS 2019) section 3.2, Eqs. 4-9; FOMM and FNeVR repositories.
    """

    num_keypoints: int = 10
    image_channels: int = 3
    block_expansion: int = 64
    max_features: int = 1024
    num_blocks: int = 5
    scale_factor: float = 0.25
    keypoint_variance: float = 0.01
    estimate_occlusion: bool = True
    head_kernel: int = 7
    align_corners: bool = False
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `hourglass` and the heads `mask`, `occlusion`."""
        motions = self.num_keypoints + 1
        in_features = motions * (self.image_channels + 1)
        self.hourglass = Hourglass(
            self.block_expansion,
            in_features,
            self.num_blocks,
            self.max_features,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        width = self.block_expansion + in_features
        kernel, padding = (self.head_kernel, self.head_kernel), self.head_kernel // 2
        self.mask = Conv(width, motions, kernel_size=kernel, padding=padding, dtype=self.dtype)
        if self.estimate_occlusion:
            self.occlusion = Conv(width, 1, kernel_size=kernel, padding=padding, dtype=self.dtype)

    def downsample(self, source: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """The part that depends on the source alone: do it once per portrait."""
        return antialias_downsample(source, self.scale_factor)

    def __call__(
        self,
        source_small: Float[Array, "b h w c"],
        *,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
        train: bool,
    ) -> DenseMotion:
        """Predicts the motion from source to driving.

        Args:
          source_small: the result of `downsample`.
          source_keypoints: where the parts are.
          driving_keypoints: where they go.
          train: batch statistics or stored ones.
        """
        batch, height, width, channels = source_small.shape
        wide = jnp.promote_types(source_small.dtype, jnp.float32)
        motions = sparse_motions(source_keypoints, driving_keypoints, height, width)
        deformed = grid_sample(
            source_small.astype(wide), motions, align_corners=self.align_corners, padding="zeros"
        )
        size = {"variance": self.keypoint_variance}
        heat = keypoint_gaussians(driving_keypoints.value, height, width, **size)
        heat -= keypoint_gaussians(source_keypoints.value, height, width, **size)
        heat = jnp.pad(heat, [(0, 0), (0, 0), (0, 0), (1, 0)])  # no heat for the background
        # Per motion [heat, colour], motions outermost: the channel order of the checkpoints.
        stacked = jnp.concatenate([heat[..., None], jnp.moveaxis(deformed, 1, 3)], axis=-1)
        stacked = stacked.reshape(batch, height, width, (self.num_keypoints + 1) * (channels + 1))
        features = self.hourglass(stacked.astype(self.dtype), train=train)
        mask = jax.nn.softmax(self.mask(features).astype(wide), axis=-1)
        occlusion = None
        if self.estimate_occlusion:
            occlusion = jax.nn.sigmoid(self.occlusion(features).astype(wide))
        return DenseMotion(combine_motions(mask, motions), occlusion, mask, deformed)


def deform_features(
    features: Float[Array, "b h w c"], motion: DenseMotion, *, align_corners: bool
) -> Float[Array, "b h w c"]:
    """Warps source features and fades out what the source does not show.

    The deformation and the occlusion map are resized to the features when the sizes differ
    (bilinear, not corner-aligned).

    Source: FOMM (NeurIPS 2019) Eq. 10; F_w in FNeVR.
    """
    warped = warp(features, motion.deformation, align_corners=align_corners)
    if motion.occlusion_map is None:
        return warped
    size = features.shape[1:3]
    occlusion_map = resize_bilinear(motion.occlusion_map, size, align_corners=False)
    return occlude(warped, occlusion_map.astype(warped.dtype))
