"""Face parsing: which of 19 classes every pixel of a portrait shows.

BiSeNet on a ResNet-18, as trained on CelebAMask-HQ; the finest path of the paper is replaced by the
trunk's own map at 1/8. Classes, regions and the resizing are in `face_classes.py`. Always in
evaluation mode. Letters: b batch, h w image or map, c channels.

Source: Yu et al., BiSeNet (ECCV 2018); the layers of the repository face-parsing.PyTorch.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.networks.face_classes import (
    FACE_CLASSES,
    PARSING_SIDE,
    resize_classes,
    resize_for_parsing,
)
from talking_heads_jax.networks.resnet import RESNET_18, ResidualTrunk
from talking_heads_jax.networks.weights import load_variables
from talking_heads_jax.ops.resize import resize_bilinear, resize_nearest
from talking_heads_jax.typing import Array, Float, PyTree, UInt8

_MEAN = (0.485, 0.456, 0.406)  # ImageNet's
_STD = (0.229, 0.224, 0.225)


class ParsingLogits(NamedTuple):
    """What the three heads say; only the first is used after training.

    Attributes:
      main: (b h w 19) from the fused map.
      side_16: (b h w 19) from the path at 1/16.
      side_32: (b h w 19) from the path at 1/32.
    """

    main: Any
    side_16: Any
    side_32: Any


class _ConvNormRelu(nn.Module):
    """Convolution without bias → batch norm → ReLU.

    Attributes:
      in_features: channels in.
      features: channels out.
      side: of the kernel.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    side: int
    dtype: Any

    def setup(self) -> None:
        """Creates `conv` and `norm`."""
        self.conv = Conv(
            self.in_features,
            self.features,
            kernel_size=(self.side, self.side),
            padding=self.side // 2,
            use_bias=False,
            dtype=self.dtype,
        )
        self.norm = BatchNorm(self.features)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        return nn.relu(self.norm(self.conv(x), train=False))


class _AttentionRefinement(nn.Module):
    """A convolution whose channels are weighted by what the whole map shows ("ARM" in the paper).

    Attributes:
      in_features: channels in.
      features: channels out.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    dtype: Any

    def setup(self) -> None:
        """Creates `block`, `attention` and `attention_norm`."""
        self.block = _ConvNormRelu(self.in_features, self.features, 3, self.dtype)
        self.attention = _pointwise(self.features, self.features, self.dtype)
        self.attention_norm = BatchNorm(self.features)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        x = self.block(x)
        weights = self.attention_norm(self.attention(_mean(x)), train=False)
        return x * nn.sigmoid(weights)


class _FeatureFusion(nn.Module):
    """Joins two maps and weights the channels of the result ("FFM" in the paper).

    Attributes:
      features: channels in, of both maps together, and out.
      dtype: compute dtype.
    """

    features: int
    dtype: Any

    def setup(self) -> None:
        """Creates `block`, `squeeze` and `expand`."""
        self.block = _ConvNormRelu(self.features, self.features, 1, self.dtype)
        self.squeeze = _pointwise(self.features, self.features // 4, self.dtype)
        self.expand = _pointwise(self.features // 4, self.features, self.dtype)

    def __call__(
        self, fine: Float[Array, "b h w c"], coarse: Float[Array, "b h w c2"]
    ) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        x = self.block(jnp.concatenate([fine, coarse], axis=-1))
        weights = nn.sigmoid(self.expand(nn.relu(self.squeeze(_mean(x)))))
        return x * weights + x


class _Head(nn.Module):
    """A convolution, and a logit per class.

    Attributes:
      in_features: channels in.
      hidden: channels between.
      num_classes: channels out.
      dtype: compute dtype.
    """

    in_features: int
    hidden: int
    num_classes: int
    dtype: Any

    def setup(self) -> None:
        """Creates `block` and `classes`."""
        self.block = _ConvNormRelu(self.in_features, self.hidden, 3, self.dtype)
        self.classes = _pointwise(self.hidden, self.num_classes, self.dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        """Keeps the sides."""
        return self.classes(self.block(x))


def _pointwise(inputs: int, outputs: int, dtype: Any) -> Conv:
    return Conv(inputs, outputs, kernel_size=(1, 1), padding=0, use_bias=False, dtype=dtype)


def _mean(x: Array) -> Array:
    return jnp.mean(x, axis=(1, 2), keepdims=True)


class FaceParsingNetwork(nn.Module):
    """A trunk, two refined paths from its coarse maps, and their fusion with its fine one.

    Attributes:
      features: channels of the trunk's stem; the paths have twice those.
      num_classes: classes.
      dtype: compute dtype.
    """

    features: int = 64
    num_classes: int = len(FACE_CLASSES)
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `trunk`, the two paths, `fusion` and three heads."""
        stem, path = self.features, 2 * self.features
        self.trunk = ResidualTrunk(RESNET_18, False, stem, self.dtype)
        self.attention_16 = _AttentionRefinement(4 * stem, path, self.dtype)
        self.attention_32 = _AttentionRefinement(8 * stem, path, self.dtype)
        self.overview = _ConvNormRelu(8 * stem, path, 1, self.dtype)
        self.path_16 = _ConvNormRelu(path, path, 3, self.dtype)
        self.path_32 = _ConvNormRelu(path, path, 3, self.dtype)
        self.fusion = _FeatureFusion(2 * path, self.dtype)
        self.head = _Head(2 * path, 2 * path, self.num_classes, self.dtype)
        self.side_head_16 = _Head(path, stem, self.num_classes, self.dtype)
        self.side_head_32 = _Head(path, stem, self.num_classes, self.dtype)

    def __call__(self, images: Float[Array, "b h w 3"]) -> ParsingLogits:
        """Logits at the size of the images; a compiler drops the heads whose result is unused.

        Args:
          images: RGB in [0, 1], 512 pixels a side (multiples of 32 work).
        """
        x = (images - jnp.asarray(_MEAN, images.dtype)) / jnp.asarray(_STD, images.dtype)
        _, map_8, map_16, map_32 = self.trunk(x)
        low = self.attention_32(map_32) + self.overview(_mean(map_32))
        low = self.path_32(resize_nearest(low, map_16.shape[1:3]))
        middle = self.attention_16(map_16) + low
        middle = self.path_16(resize_nearest(middle, map_8.shape[1:3]))
        fused = self.fusion(map_8, middle)

        def enlarge(logits: Array) -> Array:
            return resize_bilinear(logits, images.shape[1:3], align_corners=True)

        return ParsingLogits(
            enlarge(self.head(fused)),
            enlarge(self.side_head_16(middle)),
            enlarge(self.side_head_32(low)),
        )


def load_face_parsing(path: Path | None = None) -> PyTree:
    """Reads the converted weights.

    Args:
      path: a converted file; None takes the one that is registered.

    Raises:
      AssetNotFoundError: there is none; says how to get it.
      ConversionError: the file holds another network.
    """
    return load_variables("face_parsing", FaceParsingNetwork(), PARSING_SIDE, path)


@jax.jit
def parse_faces(
    variables: PyTree, images: Float[Array, "b 512 512 3"]
) -> UInt8[Array, "b 512 512"]:
    """The class of every pixel, a number of `FACE_CLASSES`.

    Args:
      variables: of `load_face_parsing`.
      images: RGB in [0, 1], 512 pixels a side.
    """
    with jax.default_matmul_precision("highest"):
        logits = FaceParsingNetwork().apply(variables, images).main
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)


def parse_image(variables: PyTree, image: np.ndarray) -> np.ndarray:
    """The class of every pixel of one portrait of any size.

    Args:
      variables: of `load_face_parsing`.
      image: (h w 3) uint8 RGB, about square: it is stretched to 512 pixels a side.

    Returns:
      (h w) uint8, numbers of `FACE_CLASSES`.

    Raises:
      ArgumentError: the image is of another kind.
    """
    batch = resize_for_parsing(image)[None].astype(np.float32) / np.float32(255)
    return resize_classes(np.asarray(parse_faces(variables, batch))[0], image.shape[:2])
