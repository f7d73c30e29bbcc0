"""GDPW's patch discriminator: batch norm and spectral norm in every block.

Letters: b batch, h w image, c channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.layers.patch_discriminator import PatchScores
from talking_heads_jax.layers.spectral_convolution import SpectralConv
from talking_heads_jax.models.gdpw.blocks import DownBlock
from talking_heads_jax.ops.resize import antialias_downsample
from talking_heads_jax.typing import Array, Float

_KERNEL, _PADDING = 4, 2


class StrideDiscriminator(nn.Module):
    """One size: blocks of 4×4 convolutions, then one score per patch.

    Attributes:
      image_channels: c.
      block_expansion: width of the first block, doubled from block to block.
      max_features: bound of the widths.
      num_blocks: blocks, each of which halves the sides.
      spectral_norm: of the blocks' convolutions.
      spectral_heads: of the last convolution.
      dtype: compute dtype.
    """

    image_channels: int = 3
    block_expansion: int = 32
    max_features: int = 512
    num_blocks: int = 4
    spectral_norm: bool = True
    spectral_heads: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `blocks_N` and `logits`."""
        widths = [self.image_channels] + [
            min(self.max_features, self.block_expansion * 2**i) for i in range(self.num_blocks)
        ]
        options = {"kernel_size": _KERNEL, "padding": _PADDING, "dtype": self.dtype}
        self.blocks = [
            DownBlock(widths[i], widths[i + 1], spectral_norm=self.spectral_norm, **options)
            for i in range(self.num_blocks)
        ]
        self.logits = SpectralConv(widths[-1], 1, normalize=self.spectral_heads, **options)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> PatchScores:
        """Scores a batch."""
        features = []
        for block in self.blocks:
            x = block(x, train=train)
            features.append(x)
        return PatchScores(self.logits(x, train=train), tuple(features))


class MultiStrideDiscriminator(nn.Module):
    """The same discriminator, with its own weights, at several sizes of the image.

    Attributes:
      image_channels: c.
      strides: the image is judged anti-aliased to 1 / stride of its size.
      block_expansion: as `StrideDiscriminator`.
      max_features: as `StrideDiscriminator`.
      num_blocks: as `StrideDiscriminator`.
      spectral_norm: as `StrideDiscriminator`.
      spectral_heads: as `StrideDiscriminator`.
      dtype: compute dtype.

    Source: the released code, which uses stride 1 only.
    Differs from source: none; FOMM's discriminator has instance norm, no padding and a 1×1 head.
    """

    image_channels: int = 3
    strides: tuple[int, ...] = (1,)
    block_expansion: int = 32
    max_features: int = 512
    num_blocks: int = 4
    spectral_norm: bool = True
    spectral_heads: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `stride_<s>`."""
        if not self.strides or min(self.strides) < 1:
            raise ArgumentError(
                requirement(
                    "discriminator.strides",
                    "be whole numbers from 1 on",
                    self.strides,
                    "The released model uses 1 alone.",
                )
            )
        for stride in self.strides:
            module = StrideDiscriminator(
                self.image_channels,
                self.block_expansion,
                self.max_features,
                self.num_blocks,
                self.spectral_norm,
                self.spectral_heads,
                self.dtype,
            )
            setattr(self, f"stride_{stride}", module)

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> dict[float, PatchScores]:
        """Scores an image with values in [0, 1]; scale (1 / stride) -> scores."""
        scores = {}
        for stride in self.strides:
            x = antialias_downsample(image, 1 / stride)
            scores[1 / stride] = getattr(self, f"stride_{stride}")(x, train=train)
        return scores
