"""GDPW's SPADE residual block: batch norm modulated by the guidance map.

Letters: b batch, h w image, c d channels, m channels of the map.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.layers.spectral_convolution import SpectralConv
from talking_heads_jax.models.gdpw.blocks import leaky_relu
from talking_heads_jax.typing import Array, Float


class GuidedNorm(nn.Module):
    """BatchNorm(x) · (1 + γ(g)) + β(g), g the guidance map at x's size.

    Attributes:
      features: channels of x.
      guidance_features: channels of g.
      hidden_features: width of the shared convolution before γ and β.
      spectral_norm: of its convolutions.
      dtype: compute dtype; statistics are float32.

    Source: Park et al., SPADE (CVPR 2019) Eq. 1; GDPW's released code.
    Differs from source: SPADE's shared convolution ends in a ReLU, GDPW's in a leaky one.
    """

    features: int
    guidance_features: int
    hidden_features: int
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `norm` (no parameters), `shared`, `gamma`, `beta`."""
        options = {
            "kernel_size": 3,
            "padding": 1,
            "normalize": self.spectral_norm,
            "dtype": self.dtype,
        }
        self.norm = BatchNorm(self.features, affine=False)
        self.shared = SpectralConv(self.guidance_features, self.hidden_features, **options)
        self.gamma = SpectralConv(self.hidden_features, self.features, **options)
        self.beta = SpectralConv(self.hidden_features, self.features, **options)

    def __call__(
        self, x: Float[Array, "b h w c"], guidance: Float[Array, "b h w m"], *, train: bool
    ) -> Float[Array, "b h w c"]:
        """Normalises x and modulates it by the map."""
        hidden = leaky_relu(self.shared(guidance, train=train))
        gamma, beta = self.gamma(hidden, train=train), self.beta(hidden, train=train)
        return self.norm(x, train=train) * (1.0 + gamma) + beta


class SpadeResidualBlock(nn.Module):
    """(guided norm → leaky ReLU → convolution 3×3) twice, plus a 1×1 convolution of the input.

    Attributes:
      in_features: channels of x.
      features: channels of the result, and width inside the guided norms.
      guidance_features: channels of the map.
      spectral_norm: of its convolutions.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    guidance_features: int
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `norm_0`, `conv_0`, `norm_1`, `conv_1`, `shortcut`."""
        shared = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        options = {"normalize": self.spectral_norm, "dtype": self.dtype}
        square = {"kernel_size": 3, "padding": 1, **options}
        self.norm_0 = GuidedNorm(self.in_features, self.guidance_features, self.features, **shared)
        self.conv_0 = SpectralConv(self.in_features, self.features, **square)
        self.norm_1 = GuidedNorm(self.features, self.guidance_features, self.features, **shared)
        self.conv_1 = SpectralConv(self.features, self.features, **square)
        self.shortcut = SpectralConv(self.in_features, self.features, kernel_size=1, **options)

    def __call__(
        self, x: Float[Array, "b h w c"], guidance: Float[Array, "b h w m"], *, train: bool
    ) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        y = self.conv_0(leaky_relu(self.norm_0(x, guidance, train=train)), train=train)
        y = self.conv_1(leaky_relu(self.norm_1(y, guidance, train=train)), train=train)
        return self.shortcut(x, train=train) + y
