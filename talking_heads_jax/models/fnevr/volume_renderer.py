"""Face volume rendering (FVR): warped 2-D features → an 8-deep volume → rendered 2-D features.

A pixel's ray is orthogonal to the image: its samples are the depth slices, so no camera is needed.
Volumes are NDHWC. Letters: b batch, d depth (s samples of the ray), h w features' size, c channels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.errors import check_choice
from talking_heads_jax.layers.convolution import Conv, Dense, ResBlock3d, UpBlock2d
from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.ops.volume_rendering import render
from talking_heads_jax.typing import Array, Float


class RenderedFace(NamedTuple):
    """What the renderer returns.

    Attributes:
      features: (b h w c) F_r in the paper.
      shape_volume: (b d h w c) F_sigma in the paper, which L_sigma compares with the mesh feature.
    """

    features: Array
    shape_volume: Array


def _to_volume(x: Array, channels: int) -> Array:
    """(b h w channels·depth), depth the fast axis, → (b depth h w channels)."""
    batch, height, width, features = x.shape
    x = x.reshape(batch, height, width, channels, features // channels)
    return x.transpose(0, 4, 1, 2, 3)


class ShapeExtractor(nn.Module):
    """One convolution to the volume, then three times (3-D residual block → batch norm).

    Attributes:
      in_features: channels of the 2-D features.
      channels: of the volume.
      depth: slices of the volume.
      num_blocks: residual blocks.
      implementation: 'plain' or 'fast' (see `ResBlock3d`).
      dtype: compute dtype.

    Source: FNeVR (NeurIPS 2022) section 3.2, F_sigma; released code (the paper does not mention the
    norm after each block).
    """

    in_features: int
    channels: int = 16
    depth: int = 8
    num_blocks: int = 3
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv`, `blocks_N`, `norms_N`."""
        self.conv = Conv(self.in_features, self.channels * self.depth, dtype=self.dtype)
        self.blocks = [
            ResBlock3d(self.channels, implementation=self.implementation, dtype=self.dtype)
            for _ in range(self.num_blocks)
        ]
        self.norms = [BatchNorm(self.channels) for _ in range(self.num_blocks)]

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b d h w e"]:
        """Lifts the features to a volume."""
        volume = _to_volume(self.conv(x), self.channels)
        for block, norm in zip(self.blocks, self.norms, strict=True):
            volume = norm(block(volume, train=train), train=train)
        return volume


class VoxelField(nn.Module):
    """Per-voxel MLP: shape and colour features → density (linear) and rendered features.

    The density sees the shape features only. No position encoding, no ray direction.

    Attributes:
      channels: of the two input volumes.
      hidden_features: width.
      shape_width: width of what the shape branch hands to the fusion.
      out_features: width of the rendered features.
      dtype: compute dtype.

    Source: FNeVR (NeurIPS 2022) section 3.2, Eqs. 7-8; layer sizes from the released code.
    """

    channels: int = 16
    hidden_features: int = 128
    shape_width: int = 32
    out_features: int = 256
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates the dense layers."""
        hidden = self.hidden_features
        self.shape_0 = Dense(self.channels, hidden, dtype=self.dtype)
        self.shape_1 = Dense(hidden, hidden, dtype=self.dtype)
        self.density = Dense(hidden, 1, dtype=self.dtype)
        self.shape_features = Dense(hidden, self.shape_width, dtype=self.dtype)
        self.color_0 = Dense(self.channels, hidden, dtype=self.dtype)
        self.fuse_0 = Dense(self.shape_width + hidden, hidden, dtype=self.dtype)
        self.fuse_1 = Dense(hidden, hidden, dtype=self.dtype)
        self.features = Dense(hidden, self.out_features, dtype=self.dtype)

    def __call__(
        self, shape_volume: Float[Array, "b d h w c"], color_volume: Float[Array, "b d h w c"]
    ) -> tuple[Float[Array, "b d h w"], Float[Array, "b d h w e"]]:
        """Returns unactivated densities and features per voxel."""
        shape = nn.relu(self.shape_1(nn.relu(self.shape_0(shape_volume))))
        density = self.density(shape)[..., 0]
        shape = nn.relu(self.shape_features(shape))
        color = nn.relu(self.color_0(color_volume))
        fused = nn.relu(self.fuse_0(jnp.concatenate([shape, color], axis=-1)))
        return density, self.features(nn.relu(self.fuse_1(fused)))


class FaceVolumeRenderer(nn.Module):
    """Shape and colour extractors, orthogonal adaptive ray sampling, compositing.

    Attributes:
      in_features: channels of the warped features F_w.
      channels: of the volumes.
      depth: samples per ray.
      hidden_features: width of the per-voxel MLP.
      transmittance: 'inclusive' counts a sample's own density, as the released code does;
        'exclusive' is the paper's Eq. 9.
      feature_activation: 'sigmoid' after compositing (released code) or 'none' (paper).
      implementation: 'plain' or 'fast' (see `ResBlock3d`).
      dtype: compute dtype; compositing is float32.

    Source: FNeVR (NeurIPS 2022) section 3.2, Eqs. 7-9; supplement A.
    """

    in_features: int = 256
    channels: int = 16
    depth: int = 8
    hidden_features: int = 128
    transmittance: str = "inclusive"
    feature_activation: str = "sigmoid"
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `color_extractor`, `shape_extractor`, `field`."""
        check_choice("transmittance", self.transmittance, ("inclusive", "exclusive"))
        check_choice("feature_activation", self.feature_activation, ("sigmoid", "none"))
        self.color_extractor = Conv(self.in_features, self.channels * self.depth, dtype=self.dtype)
        self.shape_extractor = ShapeExtractor(
            self.in_features,
            self.channels,
            self.depth,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        self.field = VoxelField(
            self.channels,
            self.hidden_features,
            out_features=self.in_features,
            dtype=self.dtype,
        )

    def __call__(self, warped: Float[Array, "b h w c"], *, train: bool) -> RenderedFace:
        """Renders warped features."""
        color_volume = _to_volume(self.color_extractor(warped), self.channels)
        shape_volume = self.shape_extractor(warped, train=train)
        density, features = self.field(shape_volume, color_volume)
        wide = jnp.promote_types(density.dtype, jnp.float32)
        rendered = render(
            jnp.moveaxis(nn.relu(density.astype(wide)), 1, -1),
            jnp.moveaxis(features, 1, -2),
            transmittance=self.transmittance,
        )
        if self.feature_activation == "sigmoid":
            rendered = jax.nn.sigmoid(rendered)
        return RenderedFace(rendered.astype(self.dtype), shape_volume)


class ImageHead(nn.Module):
    """Rendered features → an image, for the rendering loss L_R alone (P_t and I_m in the paper).

    Its last block ends in a ReLU before the sigmoid, as released: its image lies in [0.5, 1).

    Attributes:
      in_features: channels of the rendered features.
      hidden_features: width of all blocks but the last.
      image_channels: of the image.
      num_up_blocks: doublings.
      implementation: 'plain' or 'fast' (see `UpBlock2d`).
      dtype: compute dtype.

    Source: FNeVR (NeurIPS 2022) section 3.2, Eq. 10 (a "two-layer CNN"); released code.
    """

    in_features: int = 256
    hidden_features: int = 64
    image_channels: int = 3
    num_up_blocks: int = 2
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `up_blocks_N`."""
        hidden = (self.hidden_features,) * (self.num_up_blocks - 1)
        widths = (self.in_features, *hidden, self.image_channels)
        self.up_blocks = [
            UpBlock2d(
                widths[i], widths[i + 1], implementation=self.implementation, dtype=self.dtype
            )
            for i in range(self.num_up_blocks)
        ]

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Doubles the sides `num_up_blocks` times."""
        for block in self.up_blocks:
            x = block(x, train=train)
        return jax.nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
