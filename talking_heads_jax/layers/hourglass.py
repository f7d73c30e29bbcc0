"""The U-shaped network of FOMM's detector and dense motion: pool down, upsample, concatenate."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.layers.convolution import DownBlock2d, UpBlock2d
from talking_heads_jax.typing import Array, Float


class HourglassEncoder(nn.Module):
    """Halves the sides `num_blocks` times and keeps every level, the input included.

    Attributes:
      block_expansion: width of the first level is twice this.
      in_features: input channels.
      num_blocks: levels.
      max_features: bound of the widths.
      dtype: compute dtype.
    """

    block_expansion: int
    in_features: int
    num_blocks: int
    max_features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `down_blocks_N`."""
        widths = [self.in_features] + [
            min(self.max_features, self.block_expansion * 2 ** (i + 1))
            for i in range(self.num_blocks)
        ]
        self.down_blocks = [
            DownBlock2d(widths[i], widths[i + 1], dtype=self.dtype) for i in range(self.num_blocks)
        ]

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> list[Array]:
        """Returns `num_blocks + 1` maps, finest first."""
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1], train=train))
        return levels


class HourglassDecoder(nn.Module):
    """Doubles the sides back; after every step concatenates [upsampled, encoder level].

    Attributes:
      block_expansion: width of the last level.
      in_features: channels of the hourglass input, the last concatenation.
      num_blocks: levels.
      max_features: bound of the widths.
      implementation: 'plain' or 'fast' (see `UpBlock2d`).
      dtype: compute dtype.
    """

    block_expansion: int
    in_features: int
    num_blocks: int
    max_features: int
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `up_blocks_N`; 0 is the coarsest."""
        blocks = []
        for i in reversed(range(self.num_blocks)):
            width = min(self.max_features, self.block_expansion * 2 ** (i + 1))
            blocks.append(
                UpBlock2d(
                    width if i == self.num_blocks - 1 else 2 * width,
                    min(self.max_features, self.block_expansion * 2**i),
                    implementation=self.implementation,
                    dtype=self.dtype,
                )
            )
        self.up_blocks = blocks

    def __call__(self, levels: list[Array], *, train: bool) -> Float[Array, "b h w c"]:
        """Returns a map of the finest level's size with block_expansion + in_features channels."""
        x = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            x = block(x, train=train)
            x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
        return x


class Hourglass(nn.Module):
    """Encoder and decoder with skips.

    Attributes:
      block_expansion: base width.
      in_features: input channels.
      num_blocks: levels; the input's sides must be divisible by 2**num_blocks.
      max_features: bound of the widths.
      implementation: 'plain' or 'fast' (see `UpBlock2d`).
      dtype: compute dtype.

    Source: Siarohin et al., First Order Motion Model (NeurIPS 2019), supplement; FOMM repository.
    """

    block_expansion: int
    in_features: int
    num_blocks: int = 3
    max_features: int = 256
    implementation: str = "plain"
    dtype: Any = jnp.float32

    @property
    def out_features(self) -> int:
        """Channels of the result."""
        return self.block_expansion + self.in_features

    def setup(self) -> None:
        """Creates `encoder` and `decoder`."""
        sizes = (self.block_expansion, self.in_features, self.num_blocks, self.max_features)
        self.encoder = HourglassEncoder(*sizes, dtype=self.dtype)
        self.decoder = HourglassDecoder(
            *sizes, implementation=self.implementation, dtype=self.dtype
        )

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        """Keeps the sides.

        Raises:
          ArgumentError: if a side is not divisible by 2**num_blocks.
        """
        step = 2**self.num_blocks
        if x.shape[1] % step or x.shape[2] % step:
            raise ArgumentError(
                requirement(
                    "the hourglass input's sides",
                    f"be divisible by {step}",
                    x.shape[1:3],
                    "Change the resolution, `scale_factor` or `num_blocks`.",
                )
            )
        return self.decoder(self.encoder(x, train=train), train=train)
