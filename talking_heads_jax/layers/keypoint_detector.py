"""FOMM's unsupervised keypoint detector: soft-argmax of heatmaps, and a local affine frame each.

Coordinates are corner-aligned: -1 and +1 on the outer pixel centres of the *heatmap*, which is
smaller than the feature map because its head convolves without padding (58 of 64).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.hourglass import Hourglass
from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.resize import antialias_downsample
from talking_heads_jax.typing import Array, Float

_INITIAL_JACOBIAN = (1.0, 0.0, 0.0, 1.0)


def _identity_jacobians(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    del key
    return jnp.tile(jnp.asarray(_INITIAL_JACOBIAN, dtype), shape[0] // 4)


class KeypointDetector(nn.Module):
    """Image → `Keypoints`.

    Attributes:
      num_keypoints: k.
      image_channels: channels of the image.
      block_expansion: base width of the hourglass.
      max_features: bound of its widths.
      num_blocks: its levels.
      scale_factor: the image is downsampled by it first, anti-aliased.
      temperature: of the spatial softmax.
      estimate_jacobian: also return Jacobians (they start as the identity).
      head_kernel: side of the heads' convolutions; the checkpoints use 7.
      head_padding: zeros around the feature map before the heads; the checkpoints use 0.
      implementation: 'plain' or 'fast' (see `UpBlock2d`).
      dtype: compute dtype; softmax and coordinates stay float32.

    Source: FOMM (NeurIPS 2019) section 3.1, supplement A.1; FOMM and FNeVR repositories.
    """

    num_keypoints: int = 10
    image_channels: int = 3
    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    scale_factor: float = 0.25
    temperature: float = 0.1
    estimate_jacobian: bool = True
    head_kernel: int = 7
    head_padding: int = 0
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `hourglass` and the heads `heatmap`, `jacobian`."""
        self.hourglass = Hourglass(
            self.block_expansion,
            self.image_channels,
            self.num_blocks,
            self.max_features,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        kernel = (self.head_kernel, self.head_kernel)
        width = self.block_expansion + self.image_channels
        self.heatmap = Conv(
            width,
            self.num_keypoints,
            kernel_size=kernel,
            padding=self.head_padding,
            dtype=self.dtype,
        )
        if self.estimate_jacobian:
            self.jacobian = Conv(
                width,
                4 * self.num_keypoints,
                kernel_size=kernel,
                padding=self.head_padding,
                dtype=self.dtype,
                kernel_init=nn.initializers.zeros,
                bias_init=_identity_jacobians,
            )

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Keypoints:
        """Detects keypoints in an image with values in [0, 1]."""
        features = self.hourglass(antialias_downsample(image, self.scale_factor), train=train)
        logits = self.heatmap(features)
        wide = jnp.promote_types(logits.dtype, jnp.float32)
        batch, height, width, count = logits.shape
        flat = logits.astype(wide).reshape(batch, height * width, count) / self.temperature
        weights = jax.nn.softmax(flat, axis=1)
        grid = corner_grid(height, width).astype(wide).reshape(-1, 2)
        value = jnp.einsum("bnk,nx->bkx", weights, grid, precision="highest")
        if not self.estimate_jacobian:
            return Keypoints(value, None)
        maps = self.jacobian(features).astype(wide).reshape(batch, height * width, count, 4)
        jacobian = jnp.einsum("bnk,bnkj->bkj", weights, maps, precision="highest")
        return Keypoints(value, jacobian.reshape(batch, count, 2, 2))
