"""Spatially adaptive normalisation: instance norm whose scale and bias are images."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.normalization import InstanceNorm
from talking_heads_jax.ops.resize import resize_nearest
from talking_heads_jax.ops.upsampled_convolution import conv_after_nearest_upsample
from talking_heads_jax.typing import Array, Float


class Spade(nn.Module):
    """InstanceNorm(x) · (1 + γ(s)) + β(s), s a semantic map brought to x's size by repetition.

    Attributes:
      features: channels of x.
      segmentation_features: channels of s.
      hidden_features: width of the shared convolution before γ and β.
      implementation: 'plain', or 'fast': the shared convolution does not convolve repeated pixels,
        γ and β are one convolution. Same parameters, same numbers up to rounding.
      dtype: compute dtype; statistics are float32.

    Source: Park et al., SPADE (CVPR 2019) Eq. 1; FNeVR (NeurIPS 2022) section 3.3.
    """

    features: int
    segmentation_features: int = 128
    hidden_features: int = 128
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `shared`, `gamma`, `beta`; the norm has no parameters."""
        self.norm = InstanceNorm(self.features, affine=False)
        self.shared = Conv(
            self.segmentation_features,
            self.hidden_features,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        self.gamma = Conv(self.hidden_features, self.features, dtype=self.dtype)
        self.beta = Conv(self.hidden_features, self.features, dtype=self.dtype)

    def __call__(
        self, x: Float[Array, "b h w c"], segmentation: Float[Array, "b h2 w2 d"]
    ) -> Float[Array, "b h w c"]:
        """Normalises x and modulates it by the map."""
        if self.implementation == "fast":
            gamma, beta = self._modulation_fast(segmentation, x.shape[1:3])
        else:
            gamma, beta = self._modulation_plain(segmentation, x.shape[1:3])
        return self.norm(x) * (1.0 + gamma) + beta

    def _modulation_plain(self, segmentation: Array, size: tuple[int, ...]) -> tuple[Array, Array]:
        hidden = nn.relu(self.shared(resize_nearest(segmentation, size)))
        return self.gamma(hidden), self.beta(hidden)

    def _modulation_fast(self, segmentation: Array, size: tuple[int, ...]) -> tuple[Array, Array]:
        height, width = segmentation.shape[1:3]
        factor = size[0] // height
        if factor == 1 or (height * factor, width * factor) != tuple(size):
            hidden = self.shared(resize_nearest(segmentation, size))
        else:
            hidden = conv_after_nearest_upsample(
                segmentation.astype(self.dtype),
                self.shared.kernel.astype(self.dtype),
                self.shared.bias.astype(self.dtype),
                factor=factor,
                implementation="collapsed",
            )
        joined = Conv.apply_weights(
            nn.relu(hidden),
            jnp.concatenate([self.gamma.kernel, self.beta.kernel], axis=-1),
            jnp.concatenate([self.gamma.bias, self.beta.bias]),
            padding=1,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        gamma, beta = jnp.split(joined, 2, axis=-1)
        return gamma, beta
