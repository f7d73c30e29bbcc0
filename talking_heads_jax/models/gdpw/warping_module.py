"""The progressive warping module, and the warp between two of them.

Flows are offsets from a pixel of the driving view to its place in the source, x then y, in units of
half the image; the grid they are added to has its corners on the outer pixel centres, and the
sampling has them on the outer edges. Letters: b batch, h w image, c d channels, m channels of the
guidance map.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.spectral_convolution import SpectralConv
from talking_heads_jax.models.gdpw.blocks import UpBlock
from talking_heads_jax.models.gdpw.spade_residual import SpadeResidualBlock
from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.grid_sample import grid_sample
from talking_heads_jax.ops.resize import resize_bilinear
from talking_heads_jax.typing import Array, Float


def warp_by_flow(
    x: Float[Array, "b h w c"], flow: Float[Array, "b h w 2"], *, align_corners: bool
) -> Float[Array, "b h w c"]:
    """Samples `x` where the flow points; outside is zero.

    Args:
      x: image or features of the source.
      flow: at the size of `x`.
      align_corners: False, as in the released code, samples by another corner rule than the grid's:
        without motion, pixel j reads j · w / (w − 1) − 1/2, so that the picture is blurred and its
        border dimmed. The weights were trained with that. True leaves it as it is.
    """
    grid = corner_grid(*x.shape[1:3]) + flow
    return grid_sample(x, grid, align_corners=align_corners)


class FlowHead(nn.Module):
    """Convolution 3×3 to two channels, doubled in size: pixels of the doubled grid, as a flow.

    Attributes:
      in_features: channels.
      spectral_norm: False in the released code, whatever the other layers do.
      dtype: compute dtype; the flow is float32.
    """

    in_features: int
    spectral_norm: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv`."""
        self.conv = SpectralConv(
            self.in_features,
            2,
            kernel_size=3,
            padding=1,
            normalize=self.spectral_norm,
            dtype=self.dtype,
        )

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 2"]:
        """Doubles the sides."""
        pixels = self.conv(x, train=train)
        pixels = pixels.astype(jnp.promote_types(pixels.dtype, jnp.float32))
        height, width = 2 * x.shape[1], 2 * x.shape[2]
        pixels = resize_bilinear(pixels, (height, width), align_corners=False)
        return 2.0 * pixels / jnp.asarray([width - 1, height - 1], pixels.dtype)


class ProgressiveWarpingModule(nn.Module):
    """Realigned features and guidance → the flow and the features of the next level ("PWM").

    Attributes:
      in_features: channels of the realigned features.
      features: width.
      next_features: width of the next level.
      guidance_features: channels of the guidance map.
      predicts_flow: whether there is a flow head.
      spectral_norm: of the convolutions.
      spectral_heads: of the flow head.
      implementation: 'plain' or 'fast' (see `UpBlock`).
      dtype: compute dtype.

    Source: Zhong et al. (BMVC 2022), section 3.3 and Figure 1(b).
    """

    in_features: int
    features: int
    next_features: int
    guidance_features: int
    predicts_flow: bool = True
    spectral_norm: bool = True
    spectral_heads: bool = False
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `spade`, `flow` (if any) and `up`."""
        shared = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        self.spade = SpadeResidualBlock(
            self.in_features, self.features, self.guidance_features, **shared
        )
        if self.predicts_flow:
            self.flow = FlowHead(self.features, self.spectral_heads, self.dtype)
        self.up = UpBlock(
            self.features, self.next_features, implementation=self.implementation, **shared
        )

    def __call__(
        self, x: Float[Array, "b h w c"], guidance: Float[Array, "b h w m"], *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 2"] | None]:
        """Doubles the sides.

        Returns:
          Features and flow at twice the size; no flow without a head.
        """
        x = self.spade(x, guidance, train=train)
        flow = self.flow(x, train=train) if self.predicts_flow else None
        return self.up(x, train=train), flow
