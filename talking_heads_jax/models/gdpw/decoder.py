"""GDPW's decoder: displacement and warping in turns, coarse to fine; and the control without turns.

Levels are named by their stride: 32 is an eighth of 256 pixels. Letters: b batch, h w image, c
channels, m channels of the guidance map.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.spectral_convolution import SpectralConv
from talking_heads_jax.models.gdpw.encoder import SourcePyramid
from talking_heads_jax.models.gdpw.spade_residual import SpadeResidualBlock
from talking_heads_jax.models.gdpw.warping_module import (
    FlowHead,
    ProgressiveWarpingModule,
    warp_by_flow,
)
from talking_heads_jax.ops.coordinates import corner_grid, ndc_to_px, px_to_ndc
from talking_heads_jax.ops.resize import average_pool, resize_bilinear
from talking_heads_jax.typing import Array, Float

Pyramid = Mapping[int, Array]  # stride -> map


class DecodedFrame(NamedTuple):
    """What the decoder makes of one driving mesh.

    Attributes:
      rgb: (b h w 3) in [0, 1].
      alpha: (b h w 1) in [0, 1], how much of `rgb` to take where it is blended.
      flows: the predicted flows, coarse to fine, each at the size at which it warps; the last one
        has the image's.
    """

    rgb: Array
    alpha: Array
    flows: list[Array]


class DisplacementNetwork(nn.Module):
    """One flow from guidance and *unwarped* source features: the control of progressive warping.

    The decoder's guided blocks from the coarsest level to `flow_stride`, but every level is given
    the source's features where they are in the source. The bottleneck comes beside its copy warped
    by the drawn displacement, if there is one, as in progressive warping.

    Attributes:
      features: channels per level, finest first.
      guidance_features: channels of the guidance map.
      flow_stride: of the level whose block predicts the flow.
      spectral_norm: of the convolutions.
      spectral_heads: of the flow head.
      implementation: 'plain' or 'fast'.
      dtype: compute dtype.

    Source: Zhong et al. (BMVC 2022), section 4.5, on HeadGAN: displacements predicted at a single
      pyramid scale.
    Differs from source: HeadGAN is another network altogether; this one differs from progressive
      warping in nothing else, and has more parameters, not fewer.
    """

    features: tuple[int, ...]
    guidance_features: int
    flow_stride: int = 4
    spectral_norm: bool = True
    spectral_heads: bool = False
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `level_<stride>` above `flow_stride`, then `spade` and `flow`."""
        shared = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        for level in range(1, len(self.features)):
            width = self.features[level]
            if 2**level > self.flow_stride:
                module = ProgressiveWarpingModule(
                    2 * width,
                    width,
                    self.features[level - 1],
                    self.guidance_features,
                    predicts_flow=False,
                    implementation=self.implementation,
                    **shared,
                )
                setattr(self, f"level_{2**level}", module)
            elif 2**level == self.flow_stride:
                self.spade = SpadeResidualBlock(2 * width, width, self.guidance_features, **shared)
                self.flow = FlowHead(width, self.spectral_heads, self.dtype)

    def __call__(
        self, x: Float[Array, "b h w c"], shortcuts: Pyramid, guidance: Pyramid, *, train: bool
    ) -> Float[Array, "b h2 w2 2"]:
        """The flow, at half of `flow_stride`.

        Args:
          x: (b h w c) bottleneck of twice the coarsest width.
          shortcuts: of the source, by stride.
          guidance: by stride.
          train: see `ProgressiveGenerator`.
        """
        stride = 2 ** (len(self.features) - 1)
        while stride > self.flow_stride:
            x, _ = getattr(self, f"level_{stride}")(x, guidance[stride], train=train)
            stride //= 2
            x = jnp.concatenate([x, shortcuts[stride].astype(x.dtype)], axis=-1)
        return self.flow(self.spade(x, guidance[stride], train=train), train=train)


class ProgressiveDecoder(nn.Module):
    """Warping modules from the coarsest level to half the image's size, then the output layer.

    Attributes:
      features: channels per level, finest first.
      guidance_features: channels of the guidance map.
      bottleneck_warp: concatenate the coarsest features as the mesh flow (or a zero flow, which
        resamples them) warps them; False, the paper's text for codes: as they are.
      single_scale: predict one flow beforehand (see `DisplacementNetwork`) and warp by it at every
        level, instead of one flow per level.
      flow_stride: of the level that predicts the single flow.
      align_corners: see `warp_by_flow`.
      flow_correction: predicted flows are added to the displacement field where one is drawn.
      finest_block: a guided block without a flow at the image's own size, before the output layer.
      spectral_norm: of the convolutions but the heads.
      spectral_heads: of flow heads and output layer.
      implementation: 'plain' or 'fast'.
      dtype: compute dtype; flows and images are float32.

    Source: Zhong et al. (BMVC 2022), section 3.3.
    Differs from source: `flow_correction` and `finest_block`, off by default, are ours.
    """

    features: tuple[int, ...]
    guidance_features: int
    bottleneck_warp: bool = True
    single_scale: bool = False
    flow_stride: int = 4
    align_corners: bool = False
    flow_correction: bool = False
    finest_block: bool = False
    spectral_norm: bool = True
    spectral_heads: bool = False
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `level_<stride>`, `finest`, `output`, and `displacement` for the single scale."""
        shared = {
            "spectral_norm": self.spectral_norm,
            "spectral_heads": self.spectral_heads,
            "implementation": self.implementation,
            "dtype": self.dtype,
        }
        for level in range(1, len(self.features)):
            width = self.features[level]
            module = ProgressiveWarpingModule(
                2 * width,
                width,
                self.features[level - 1],
                self.guidance_features,
                predicts_flow=not self.single_scale,
                **shared,
            )
            setattr(self, f"level_{2**level}", module)
        if self.single_scale:
            self.displacement = DisplacementNetwork(
                self.features, self.guidance_features, self.flow_stride, **shared
            )
        if self.finest_block:
            width = 2 * self.features[0]
            self.finest = SpadeResidualBlock(
                width,
                width,
                self.guidance_features,
                spectral_norm=self.spectral_norm,
                dtype=self.dtype,
            )
        self.output = SpectralConv(
            2 * self.features[0],
            4,
            kernel_size=3,
            padding=1,
            normalize=self.spectral_heads,
            dtype=self.dtype,
        )

    def __call__(
        self,
        source: SourcePyramid,
        guidance: Pyramid,
        mesh_flows: Pyramid,
        *,
        train: bool,
    ) -> DecodedFrame:
        """Decodes.

        Args:
          source: features of the portrait.
          guidance: stride -> guidance map, of all levels.
          mesh_flows: stride -> (b h w 2) displacement field, zero where there is none.
          train: batch statistics and a power iteration, or the stored ones.
        """
        stride = 2 ** (len(self.features) - 1)
        x, flows, flow = source.bottleneck, [], None
        mesh_flow = mesh_flows[stride]
        if self.single_scale:
            start = self._beside_itself(x, mesh_flow)
            flow = self.displacement(start, source.shortcuts, guidance, train=train)
            finest = flow.shape[1] * self.flow_stride // 2
            flows.append(self._resized(flow, finest))
            x = jnp.concatenate([x, self._warped(x, self._resized(flow, x.shape[1]))], axis=-1)
        else:
            x = self._beside_itself(x, mesh_flow)
        while stride > 1:
            x, next_flow = getattr(self, f"level_{stride}")(x, guidance[stride], train=train)
            stride //= 2
            if next_flow is None:
                next_flow = self._resized(flow, x.shape[1])
            else:
                if self.flow_correction:
                    next_flow = next_flow + self._as_flow(mesh_flows[stride])
                flows.append(next_flow)
            warped = self._warped(source.shortcuts[stride], next_flow)
            x = jnp.concatenate([x, warped.astype(x.dtype)], axis=-1)
        if self.finest_block:
            x = self.finest(x, guidance[1], train=train)
        y = self.output(x, train=train)
        y = jax.nn.sigmoid(y.astype(jnp.promote_types(y.dtype, jnp.float32)))
        return DecodedFrame(y[..., :3], y[..., 3:], flows)

    def _beside_itself(self, x: Array, mesh_flow: Array) -> Array:
        """The bottleneck and its warped (or plain) copy."""
        copy = self._warped(x, self._as_flow(mesh_flow)) if self.bottleneck_warp else x
        return jnp.concatenate([x, copy], axis=-1)

    def _as_flow(self, mesh_flow: Array) -> Array:
        """The displacement, in half images, in the unit of `warp_by_flow`'s corner rule."""
        width = mesh_flow.shape[2]
        return mesh_flow * (width / (width - 1)) if self.align_corners else mesh_flow

    def _resized(self, flow: Array, side: int) -> Array:
        return resize_flow(flow, side, align_corners=self.align_corners)

    def _warped(self, x: Array, flow: Array) -> Array:
        return warp_by_flow(x, flow, align_corners=self.align_corners)


def resize_flow(
    flow: Float[Array, "b h w 2"], side: int, *, align_corners: bool
) -> Float[Array, "b h2 w2 2"]:
    """A flow at another size that points to the same places of the source.

    What is resized is the displacement of pixel centres, in images: means over blocks to shrink,
    bilinear to grow. The flow's own unit, and what a flow of zero does, differ with the size (see
    `warp_by_flow`).

    Args:
      flow: square, a power of two times or part of `side`.
      side: in pixels.
      align_corners: see `warp_by_flow`.
    """
    old = flow.shape[1]
    places = ndc_to_px(corner_grid(old, old) + flow, (old, old), align_corners=align_corners)
    displacement = (places - _centers(old)) / old
    if side < old:
        displacement = average_pool(displacement, old // side)
    else:
        displacement = resize_bilinear(displacement, (side, side), align_corners=False)
    places = displacement * side + _centers(side)
    return px_to_ndc(places, (side, side), align_corners=align_corners) - corner_grid(side, side)


def _centers(side: int) -> Float[Array, "h w 2"]:
    return ndc_to_px(corner_grid(side, side), (side, side), align_corners=True)
