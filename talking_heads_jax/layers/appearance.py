"""FOMM's image side: the encoder of the source, and the residual decoder of the warped features."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.convolution import (
    Conv,
    DownBlock2d,
    ResBlock2d,
    SameBlock2d,
    UpBlock2d,
)
from talking_heads_jax.typing import Array, Float

_OUTER_KERNEL = 7


class SourceFeatures(NamedTuple):
    """What a generator needs of the source, computed once per portrait.

    Attributes:
      image: (b h w 3) the source.
      small: (b h2 w2 3) its anti-aliased small form, for the dense motion network.
      features: (b h3 w3 c) encoded appearance.
    """

    image: Array
    small: Array
    features: Array


class AppearanceEncoder(nn.Module):
    """Image → features at 1 / 2**num_down_blocks of its size.

    Attributes:
      image_channels: c.
      block_expansion: width of the first convolution; doubled per level.
      max_features: bound of the widths.
      num_down_blocks: levels.
      dtype: compute dtype.

    Source: FOMM (NeurIPS 2019) supplement A.1.
    """

    image_channels: int = 3
    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    dtype: Any = jnp.float32

    @property
    def out_features(self) -> int:
        """Channels of the result."""
        return min(self.max_features, self.block_expansion * 2**self.num_down_blocks)

    def setup(self) -> None:
        """Creates `first` and `down_blocks_N`."""
        self.first = SameBlock2d(
            self.image_channels, self.block_expansion, kernel_size=_OUTER_KERNEL, dtype=self.dtype
        )
        widths = [
            min(self.max_features, self.block_expansion * 2**i)
            for i in range(self.num_down_blocks + 1)
        ]
        self.down_blocks = [
            DownBlock2d(widths[i], widths[i + 1], dtype=self.dtype)
            for i in range(self.num_down_blocks)
        ]

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Encodes an image with values in [0, 1]."""
        x = self.first(image, train=train)
        for block in self.down_blocks:
            x = block(x, train=train)
        return x


class ResidualDecoder(nn.Module):
    """Bottleneck of residual blocks, upsampling, one last convolution, sigmoid.

    Attributes:
      in_features: channels of the features.
      image_channels: c.
      block_expansion: width before the last convolution.
      max_features: bound of the widths.
      num_bottleneck_blocks: residual blocks at the features' size.
      num_up_blocks: doublings.
      skip_features: channels of a full-size map that joins, with a block of its own, before the
        last convolution; 0 for none.
      implementation: 'plain' or 'fast' (see `UpBlock2d`, `Conv`).
      dtype: compute dtype.

    Source: FOMM (NeurIPS 2019) supplement A.1; FOMM repository.
    """

    in_features: int
    image_channels: int = 3
    block_expansion: int = 64
    max_features: int = 512
    num_bottleneck_blocks: int = 6
    num_up_blocks: int = 2
    skip_features: int = 0
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `bottleneck_N`, `up_blocks_N`, `skip_block` where it is used, and `final`."""
        self.bottleneck = [
            ResBlock2d(self.in_features, implementation=self.implementation, dtype=self.dtype)
            for _ in range(self.num_bottleneck_blocks)
        ]
        widths = [self.in_features] + [
            min(self.max_features, self.block_expansion * 2 ** (self.num_up_blocks - i - 1))
            for i in range(self.num_up_blocks)
        ]
        self.up_blocks = [
            UpBlock2d(
                widths[i], widths[i + 1], implementation=self.implementation, dtype=self.dtype
            )
            for i in range(self.num_up_blocks)
        ]
        if self.skip_features:
            joined = widths[-1] + self.skip_features
            self.skip_block = SameBlock2d(joined, widths[-1], dtype=self.dtype)
        self.final = Conv(
            widths[-1],
            self.image_channels,
            kernel_size=(_OUTER_KERNEL, _OUTER_KERNEL),
            padding=_OUTER_KERNEL // 2,
            dtype=self.dtype,
        )

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        skip: Float[Array, "b h2 w2 e"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "b h2 w2 d"]:
        """Decodes features into an image in [0, 1], float32.

        Args:
          x: features.
          skip: the full-size map, where `skip_features` is not 0.
          train: batch statistics or stored ones.
        """
        for block in self.bottleneck:
            x = block(x, train=train)
        for block in self.up_blocks:
            x = block(x, train=train)
        if self.skip_features:
            x = self.skip_block(jnp.concatenate([x, skip.astype(x.dtype)], axis=-1), train=train)
        x = self.final(x)
        return jax.nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
