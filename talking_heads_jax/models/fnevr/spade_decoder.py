"""FNeVR's SPADE decoder: features modulated by themselves, up to the image's size."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.spade import Spade
from talking_heads_jax.ops.resize import resize_bilinear
from talking_heads_jax.typing import Array, Float

_FINAL_KERNEL = 7


class SpadeBlock(nn.Module):
    """(SPADE → ReLU → convolution) twice; the second changes the width. No skip.

    Attributes:
      in_features: channels of x.
      features: channels of the result.
      segmentation_features: channels of the semantic map.
      implementation: 'plain' or 'fast' (see `Spade`).
      dtype: compute dtype.

    Source: FNeVR released code.
    Differs from source: the SPADE paper's residual block has a shortcut, spectral norm and leaky
    ReLU; FNeVR's has none of them.
    """

    in_features: int
    features: int
    segmentation_features: int = 128
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `spade_0`, `conv_0`, `spade_1`, `conv_1`."""
        shared = {"implementation": self.implementation, "dtype": self.dtype}
        options = {
            "segmentation_features": self.segmentation_features,
            "hidden_features": self.segmentation_features,
            **shared,
        }
        self.spade_0 = Spade(self.in_features, **options)
        self.conv_0 = Conv(self.in_features, self.in_features, **shared)
        self.spade_1 = Spade(self.in_features, **options)
        self.conv_1 = Conv(self.in_features, self.features, **shared)

    def __call__(
        self, x: Float[Array, "b h w c"], segmentation: Float[Array, "b h2 w2 e"]
    ) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        x = self.conv_0(nn.relu(self.spade_0(x, segmentation)))
        return self.conv_1(nn.relu(self.spade_1(x, segmentation)))


class SpadeDecoder(nn.Module):
    """Features at a quarter of the image's size → image in [0, 1].

    One map, a convolution of the features at their own size, modulates every block. Two bilinear
    doublings, corner-aligned (the only bilinear resize of the system that is), one before each
    block from the second on.

    Attributes:
      in_features: channels of the features.
      image_channels: of the image.
      segmentation_features: channels of the map, and width inside SPADE.
      block_features: widths after the four blocks.
      num_up_blocks: doublings; fewer than blocks.
      skip_features: channels of a full-size map that joins before the last block; 0 for none.
      implementation: 'plain' or 'fast' (see `Spade`).
      dtype: compute dtype.

    Source: FNeVR (NeurIPS 2022) section 3.3; released code.
    """

    in_features: int = 512
    image_channels: int = 3
    segmentation_features: int = 128
    block_features: tuple[int, ...] = (128, 32, 32, 32)
    num_up_blocks: int = 2
    skip_features: int = 0
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `segmentation`, `blocks_N`, `final`."""
        if len(self.block_features) <= self.num_up_blocks:
            raise ArgumentError(
                requirement(
                    "block_features",
                    f"name more than num_up_blocks ({self.num_up_blocks}) widths",
                    self.block_features,
                    "Add a width.",
                )
            )
        self.segmentation = Conv(self.in_features, self.segmentation_features, dtype=self.dtype)
        widths = (self.in_features, *self.block_features)
        last = len(self.block_features) - 1
        self.blocks = [
            SpadeBlock(
                widths[i] + (self.skip_features if i == last else 0),
                widths[i + 1],
                self.segmentation_features,
                implementation=self.implementation,
                dtype=self.dtype,
            )
            for i in range(len(self.block_features))
        ]
        self.final = Conv(
            widths[-1],
            self.image_channels,
            kernel_size=(_FINAL_KERNEL, _FINAL_KERNEL),
            padding=_FINAL_KERNEL // 2,
            dtype=self.dtype,
        )

    def __call__(
        self, features: Float[Array, "b h w c"], skip: Float[Array, "b h2 w2 e"] | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        """Decodes; there are no batch statistics in here.

        Args:
          features: content and modulation.
          skip: the full-size map, where `skip_features` is not 0.
        """
        segmentation = nn.relu(self.segmentation(features))
        x = features
        for i, block in enumerate(self.blocks):
            if 1 <= i <= self.num_up_blocks:
                size = (2 * x.shape[1], 2 * x.shape[2])
                x = resize_bilinear(x, size, align_corners=True)
            if self.skip_features and i == len(self.blocks) - 1:
                x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
            x = block(x, segmentation)
        x = self.final(x)
        return jax.nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
