"""Metrics of single pixels: L1 and PSNR, of whole images or of a masked part.

Source: FNeVR (NeurIPS 2022) Table 1 and supplement C; masked PSNR as in HiDe-NeRF
Table 1. Order of the means: over the pixels of a frame first, then over frames.
"""

import flax.struct
import jax.numpy as jnp

from talking_heads_jax.errors import check_shape
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.typing import Array, Float

# A frame that equals its target has no finite PSNR, and one such frame would make every mean
# infinite: errors below 1e-5 of the range (100 dB) count as 1e-5.
_SMALLEST_SQUARE = 1e-10


def masked_mean(
    values: Float[Array, "b h w c"], mask: Float[Array, "b h w 1"] | None
) -> Float[Array, " b"]:
    """Mean over the pixels and channels of each example.

    Args:
      values: per pixel and channel.
      mask: weight of each pixel; None counts all of them. An empty mask gives NaN.
    """
    # Row by row first: one long float32 sum of a small image loses digits, and how many depends on
    # the batch size.
    if mask is None:
        return values.mean(axis=(2, 3)).mean(axis=1)
    mask = jnp.broadcast_to(mask, values.shape).astype(values.dtype)
    # A pixel outside the mask must not matter, not even by a NaN times zero.
    kept = jnp.where(mask > 0, values * mask, 0.0)
    return kept.sum(axis=(2, 3)).sum(axis=1) / mask.sum(axis=(2, 3)).sum(axis=1)


def l1_error(
    prediction: Float[Array, "b h w c"],
    target: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"] | None = None,
    *,
    peak: float = 1.0,
) -> Float[Array, " b"]:
    """Mean absolute difference per example.

    Args:
      prediction: in [0, 1].
      target: in [0, 1].
      mask: weight of each pixel; None counts all of them.
      peak: scale of the result: 1, or 255 for papers that count in bytes.

    Raises:
      ArgumentError: if the images differ in shape.
    """
    check_shape("prediction", prediction.shape, target.shape)
    return peak * masked_mean(jnp.abs(prediction - target), mask)


def psnr_decibels(
    prediction: Float[Array, "b h w c"],
    target: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"] | None = None,
) -> Float[Array, " b"]:
    """Peak signal-to-noise ratio per example in dB, peak 1; at most 100.

    Args:
      prediction: in [0, 1].
      target: in [0, 1].
      mask: weight of each pixel; None counts all of them.

    Raises:
      ArgumentError: if the images differ in shape.
    """
    check_shape("prediction", prediction.shape, target.shape)
    square = masked_mean(jnp.square(prediction - target), mask)
    return -10.0 * jnp.log10(jnp.maximum(square, _SMALLEST_SQUARE))


@flax.struct.dataclass
class MeanAbsoluteError(WeightedMean):
    """L1 over frames: the mean of the frames' means (recipe `l1/unit`)."""


@flax.struct.dataclass
class PeakSignalToNoiseRatio(WeightedMean):
    """PSNR over frames: the mean of the frames' dB, not the dB of the mean (`psnr/peak1`)."""
