"""GDPW's convolution blocks: spectral norm, batch norm, leaky ReLU.

Letters: b batch, h w image, c d channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.layers.spectral_convolution import SpectralConv
from talking_heads_jax.ops.resize import average_pool
from talking_heads_jax.ops.upsampled_convolution import conv_after_nearest_upsample
from talking_heads_jax.typing import Array, Float

LEAK = 0.1  # of every leaky ReLU of the system


def leaky_relu(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """The system's only activation."""
    return nn.leaky_relu(x, LEAK)


class SameBlock(nn.Module):
    """Convolution → batch norm → leaky ReLU.

    Attributes:
      in_features: input channels.
      features: output channels.
      kernel_size: side of the kernel.
      padding: zeros on every side.
      spectral_norm: divide the kernel by its largest singular value.
      implementation: 'plain' or 'fast'.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    kernel_size: int = 3
    padding: int = 1
    spectral_norm: bool = True
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv` and `norm`."""
        self.conv = SpectralConv(
            self.in_features,
            self.features,
            kernel_size=self.kernel_size,
            padding=self.padding,
            normalize=self.spectral_norm,
            dtype=self.dtype,
        )
        self.norm = BatchNorm(self.features)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Keeps the sides where the padding is half the kernel."""
        return leaky_relu(self.norm(self.conv(x, train=train), train=train))


class DownBlock(SameBlock):
    """`SameBlock`, then 2×2 mean pooling; odd sides are floored."""

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Halves the sides."""
        return average_pool(super().__call__(x, train=train), 2)


class UpBlock(SameBlock):
    """Nearest ×2, then `SameBlock`; 'fast' does not convolve repeated pixels."""

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Doubles the sides."""
        x = conv_after_nearest_upsample(
            x.astype(self.dtype),
            self.conv.normalized_kernel(train=train).astype(self.dtype),
            self.conv.bias.astype(self.dtype),
            factor=2,
            implementation="collapsed" if self.implementation == "fast" else "plain",
        )
        return leaky_relu(self.norm(x, train=train))
