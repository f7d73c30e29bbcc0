"""The face alignment network: a face of 256 pixels to a heatmap for each of 68 landmarks.

Four stacked hourglasses; the last one's heatmaps are the answer. Cropping and decoding are in
`fan_points.py`. Always in evaluation mode. Letters: b batch, h w image or map, c channels,
k landmarks in Multi-PIE order.

Source: Bulat & Tzimiropoulos, How far are we from solving the 2D & 3D face alignment problem?
  (ICCV 2017); the layers of the library face-alignment, 2-D model with four modules.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.networks.fan_points import (
    FAN_MIRROR,
    FAN_SIDE,
    REFERENCE_SIDE,
    crop_for_fan,
    decode_heatmaps,
)
from talking_heads_jax.networks.weights import load_variables
from talking_heads_jax.ops.resize import average_pool, resize_nearest
from talking_heads_jax.typing import Array, Float, PyTree

_LEVELS = 4  # halvings inside an hourglass


class _Block(nn.Module):
    """Three 3 × 3 convolutions whose outputs lie side by side, plus the input.

    Attributes:
      in_features: channels in.
      features: channels out; the three convolutions give a half, a quarter and a quarter.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    dtype: Any

    def setup(self) -> None:
        """Creates `norm_i`, `conv_i` and, where widths differ, `shortcut_norm`, `shortcut_conv`."""
        width = self.in_features
        for index, part in enumerate((2, 4, 4), start=1):
            setattr(self, f"norm_{index}", BatchNorm(width))
            conv = Conv(width, self.features // part, use_bias=False, dtype=self.dtype)
            setattr(self, f"conv_{index}", conv)
            width = self.features // part
        if self.in_features != self.features:
            self.shortcut_norm = BatchNorm(self.in_features)
            self.shortcut_conv = Conv(
                self.in_features,
                self.features,
                kernel_size=(1, 1),
                padding=0,
                use_bias=False,
                dtype=self.dtype,
            )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        y, parts = x, []
        for index in (1, 2, 3):
            y = nn.relu(getattr(self, f"norm_{index}")(y, train=False))
            y = getattr(self, f"conv_{index}")(y)
            parts.append(y)
        if self.in_features != self.features:
            x = self.shortcut_conv(nn.relu(self.shortcut_norm(x, train=False)))
        return jnp.concatenate(parts, axis=-1) + x


class _Hourglass(nn.Module):
    """Blocks on the way down and up, with a block across at every level.

    Attributes:
      features: channels.
      dtype: compute dtype.
    """

    features: int
    dtype: Any

    def setup(self) -> None:
        """Creates `across_n`, `down_n`, `up_n` for level n (4 is the widest map) and `bottom`."""
        for level in range(1, _LEVELS + 1):
            for kind in ("across", "down", "up"):
                block = _Block(self.features, self.features, self.dtype)
                setattr(self, f"{kind}_{level}", block)
        self.bottom = _Block(self.features, self.features, self.dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Keeps the shape."""
        return self._descend(x, _LEVELS)

    def _descend(self, x: Array, level: int) -> Array:
        across = getattr(self, f"across_{level}")(x)
        low = getattr(self, f"down_{level}")(average_pool(x, 2))
        low = self._descend(low, level - 1) if level > 1 else self.bottom(low)
        low = getattr(self, f"up_{level}")(low)
        return across + resize_nearest(low, across.shape[1:3])


class FaceAlignmentNetwork(nn.Module):
    """A stem to a quarter of the size, then hourglasses that pass on what they found.

    Attributes:
      num_stacks: hourglasses.
      features: channels of the hourglasses.
      num_landmarks: heatmaps.
      dtype: compute dtype.
    """

    num_stacks: int = 4
    features: int = 256
    num_landmarks: int = 68
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates the stem and, for each hourglass i, its head and its way back."""
        quarter, half, full = self.features // 4, self.features // 2, self.features
        stem = {"kernel_size": (7, 7), "padding": 3, "stride": 2, "dtype": self.dtype}
        self.conv_1 = Conv(3, quarter, **stem)
        self.norm_1 = BatchNorm(quarter)
        self.block_2 = _Block(quarter, half, self.dtype)
        self.block_3 = _Block(half, half, self.dtype)
        self.block_4 = _Block(half, full, self.dtype)

        def pointwise(inputs: int, outputs: int) -> Conv:
            return Conv(inputs, outputs, kernel_size=(1, 1), padding=0, dtype=self.dtype)

        for index in range(self.num_stacks):
            parts = {
                "hourglass": _Hourglass(full, self.dtype),
                "top": _Block(full, full, self.dtype),
                "head_conv": pointwise(full, full),
                "head_norm": BatchNorm(full),
                "heatmap": pointwise(full, self.num_landmarks),
            }
            if index < self.num_stacks - 1:
                parts["features_back"] = pointwise(full, full)
                parts["heatmap_back"] = pointwise(self.num_landmarks, full)
            for name, part in parts.items():
                setattr(self, f"{name}_{index}", part)

    def __call__(self, images: Float[Array, "b h w 3"]) -> list[Array]:
        """Heatmaps of every hourglass, the last one's last.

        Args:
          images: RGB in [0, 1], 256 pixels a side (any multiple of 64 works).

        Returns:
          `num_stacks` maps (b h/4 w/4 k).
        """
        x = nn.relu(self.norm_1(self.conv_1(images), train=False))
        x = average_pool(self.block_2(x), 2)
        x = self.block_4(self.block_3(x))
        heatmaps = []
        for index in range(self.num_stacks):
            part = functools.partial(self._part, index)
            found = part("top")(part("hourglass")(x))
            found = nn.relu(part("head_norm")(part("head_conv")(found), train=False))
            heatmaps.append(part("heatmap")(found))
            if index < self.num_stacks - 1:
                x = x + part("features_back")(found) + part("heatmap_back")(heatmaps[-1])
        return heatmaps

    def _part(self, index: int, name: str) -> nn.Module:
        return getattr(self, f"{name}_{index}")


def load_fan(path: Path | None = None) -> PyTree:
    """Reads the converted weights.

    Args:
      path: a converted file; None takes the one that is registered.

    Raises:
      AssetNotFoundError: there is none; says how to get it.
      ConversionError: the file holds another network.
    """
    return load_variables("fan", FaceAlignmentNetwork(), FAN_SIDE, path)


@functools.partial(jax.jit, static_argnames="flip_test")
def fan_heatmaps(
    variables: PyTree, images: Float[Array, "b 256 256 3"], *, flip_test: bool = True
) -> Float[Array, "b 64 64 68"]:
    """Heatmaps of faces.

    Args:
      variables: of `load_fan`.
      images: RGB in [0, 1], as `crop_for_fan` cuts them.
      flip_test: also look at the mirrored image and add what is seen there, as the library does
        (it adds, so that scores are about twice as high).
    """
    batch = jnp.concatenate([images, images[:, :, ::-1]]) if flip_test else images
    with jax.default_matmul_precision("highest"):
        heatmaps = FaceAlignmentNetwork().apply(variables, batch)[-1]
    if not flip_test:
        return heatmaps
    seen, mirrored = jnp.split(heatmaps, 2)
    return seen + mirrored[:, :, ::-1][..., np.asarray(FAN_MIRROR)]


def find_landmarks(
    variables: PyTree,
    frame: np.ndarray,
    boxes_px: Sequence[Sequence[float]] | np.ndarray,
    *,
    reference: float = REFERENCE_SIDE,
    flip_test: bool = True,
    round: str = "none",
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of the faces of a frame.

    Args:
      variables: of `load_fan`.
      frame: (h w 3) uint8 RGB.
      boxes_px: x0, y0, x1, y1 of each face, pixels of the frame.
      reference: see `crop_for_fan`.
      flip_test: see `fan_heatmaps`.
      round: see `decode_heatmaps`.

    Returns:
      (n 68 2) float32 x, y in pixels of the frame, where the centre of the first pixel is
      (0.5, 0.5); (n 68) float32 heatmap values at the peaks.

    Raises:
      ArgumentError: a box is empty or does not touch the frame.
    """
    points = np.zeros((len(boxes_px), len(FAN_MIRROR), 2), np.float32)
    scores = np.zeros(points.shape[:2], np.float32)
    for index, box in enumerate(boxes_px):
        crop, window = crop_for_fan(frame, box, reference=reference)
        image = crop[None].astype(np.float32) / np.float32(255)
        # One face at a time: another number of faces would compile another program.
        heatmaps = np.asarray(fan_heatmaps(variables, image, flip_test=flip_test))[0]
        # The library counts pixels like an array index: the first one's centre is 0.
        found, scores[index] = decode_heatmaps(heatmaps, window, round=round)
        points[index] = found + np.float32(0.5)
    return points, scores
