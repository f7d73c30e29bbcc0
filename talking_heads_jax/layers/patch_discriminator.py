"""FOMM's multi-scale patch discriminator with intermediate features for matching."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.normalization import InstanceNorm
from talking_heads_jax.layers.spectral_convolution import SpectralConv
from talking_heads_jax.ops.coordinates import keypoint_gaussians
from talking_heads_jax.ops.resize import antialias_downsample, average_pool
from talking_heads_jax.typing import Array, Float

_KERNEL = 4
_LEAK = 0.2


class PatchScores(NamedTuple):
    """What a discriminator says about a batch at one scale.

    Attributes:
      logits: (b h w 1) one score per patch, unbounded.
      features: the block outputs, shallow first.
    """

    logits: Array
    features: tuple[Array, ...]


def scale_key(scale: float) -> str:
    """Name of the sub-network of a scale: 1 → 'scale_1', 0.5 → 'scale_0_5'."""
    return "scale_" + f"{scale:g}".replace(".", "_")


class DiscriminatorBlock(nn.Module):
    """4×4 convolution without padding → instance norm → leaky ReLU → 2×2 mean pooling.

    Attributes:
      in_features: input channels.
      features: output channels.
      normalize: use the affine instance norm.
      pool: halve the sides.
      spectral_norm: of the convolution.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    normalize: bool
    pool: bool
    spectral_norm: bool
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv` and `norm`."""
        self.conv = SpectralConv(
            self.in_features,
            self.features,
            kernel_size=_KERNEL,
            normalize=self.spectral_norm,
            dtype=self.dtype,
        )
        if self.normalize:
            self.norm = InstanceNorm(self.features, affine=True)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Applies the block."""
        x = self.conv(x, train=train)
        if self.normalize:
            x = self.norm(x)
        x = nn.leaky_relu(x, _LEAK)
        return average_pool(x, 2) if self.pool else x


class PatchDiscriminator(nn.Module):
    """One scale: blocks, then a 1×1 convolution to one score per patch.

    Attributes:
      in_features: channels of the input (image, and keypoint heatmaps when conditioned).
      block_expansion: width of the first block is twice this.
      max_features: bound of the widths.
      num_blocks: blocks; the last one does not pool.
      spectral_norm: of every convolution.
      dtype: compute dtype.
    """

    in_features: int
    block_expansion: int = 32
    max_features: int = 512
    num_blocks: int = 4
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `blocks_N` and `logits`."""
        widths = [self.in_features] + [
            min(self.max_features, self.block_expansion * 2 ** (i + 1))
            for i in range(self.num_blocks)
        ]
        self.blocks = [
            DiscriminatorBlock(
                widths[i],
                widths[i + 1],
                normalize=i > 0,
                pool=i < self.num_blocks - 1,
                spectral_norm=self.spectral_norm,
                dtype=self.dtype,
            )
            for i in range(self.num_blocks)
        ]
        self.logits = SpectralConv(
            widths[-1], 1, kernel_size=1, normalize=self.spectral_norm, dtype=self.dtype
        )

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> PatchScores:
        """Scores a batch."""
        features = []
        for block in self.blocks:
            x = block(x, train=train)
            features.append(x)
        return PatchScores(self.logits(x, train=train), tuple(features))


class MultiScaleDiscriminator(nn.Module):
    """The same discriminator, with its own weights, at several scales of the image.

    Attributes:
      image_channels: c.
      scales: anti-aliased sizes at which the image is judged.
      block_expansion: as `PatchDiscriminator`.
      max_features: as `PatchDiscriminator`.
      num_blocks: as `PatchDiscriminator`.
      spectral_norm: as `PatchDiscriminator`.
      num_keypoints: 0, or the number of keypoint heatmaps concatenated to the image (vox-adv).
      keypoint_variance: of those Gaussians, in normalised units squared.
      dtype: compute dtype.

    Source: FOMM repository; FNeVR (NeurIPS 2022) supplement B.2, which writes M scales where its
    config has one.
    """

    image_channels: int = 3
    scales: tuple[float, ...] = (1.0,)
    block_expansion: int = 32
    max_features: int = 512
    num_blocks: int = 4
    spectral_norm: bool = True
    num_keypoints: int = 0
    keypoint_variance: float = 0.01
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates one discriminator per scale, named by `scale_key`."""
        for scale in self.scales:
            setattr(
                self,
                scale_key(scale),
                PatchDiscriminator(
                    self.image_channels + self.num_keypoints,
                    self.block_expansion,
                    self.max_features,
                    self.num_blocks,
                    self.spectral_norm,
                    dtype=self.dtype,
                ),
            )

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        keypoints: Float[Array, "b k 2"] | None = None,
        *,
        train: bool,
    ) -> dict[float, PatchScores]:
        """Scores an image with values in [0, 1] at every scale.

        Args:
          image: the image.
          keypoints: positions, normalised; needed when `num_keypoints` > 0.
          train: advance the spectral vectors by one iteration.
        """
        scores = {}
        for scale in self.scales:
            x = antialias_downsample(image, scale)
            if self.num_keypoints:
                heat = keypoint_gaussians(
                    keypoints, x.shape[1], x.shape[2], variance=self.keypoint_variance
                )
                x = jnp.concatenate([x, heat.astype(x.dtype)], axis=-1)
            scores[scale] = getattr(self, scale_key(scale))(x, train=train)
        return scores
