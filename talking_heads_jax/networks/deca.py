"""DECA's coarse encoder: a face of 224 pixels to FLAME's coefficients.

Only `E_flame` of the release is here: what it says about shape, expression, pose and camera is all
that tracking needs. The crop is the recipe `deca_224` of `tracking/alignment.py`. Letters: b batch,
h w image.

Source: Feng et al., Learning an animatable detailed 3D face model from in-the-wild images
  (SIGGRAPH 2021).
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talking_heads_jax.layers.convolution import Dense
from talking_heads_jax.networks.resnet import RESNET_50, ResidualTrunk
from talking_heads_jax.networks.weights import load_variables
from talking_heads_jax.typing import Array, Float, PyTree, typechecked

DECA_SIDE = 224
#: Sizes of the parts of the vector of 236, in order.
DECA_SIZES = (100, 50, 50, 6, 3, 27)
_HIDDEN = 1024


class DecaCoefficients(NamedTuple):
    """What the encoder says about a face.

    Attributes:
      shape_coeffs: (b 100) FLAME's first identity components.
      texture_coeffs: (b 50) of the albedo model DECA was trained with.
      expression_coeffs: (b 50) FLAME's first expression components.
      pose: (b 6) axis-angle, radians: of the whole head, then of the jaw.
      camera: (b 3) weak perspective: scale, and x, y in FLAME's units, y up; a vertex lies at
        scale (x + camera x, y + camera y) on the crop's normalised plane, -1 to 1.
      light: (b 9 3) spherical harmonics, their colours last.
    """

    shape_coeffs: Any
    texture_coeffs: Any
    expression_coeffs: Any
    pose: Any
    camera: Any
    light: Any


class DecaEncoder(nn.Module):
    """ResNet-50, mean over the map, and two dense layers.

    Attributes:
      features: channels of the trunk's stem.
      depths: blocks per stage of the trunk.
      hidden: width between the dense layers.
      dtype: compute dtype.
    """

    features: int = 64
    depths: tuple[int, ...] = RESNET_50
    hidden: int = _HIDDEN
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `trunk`, `dense_1` and `dense_2`."""
        self.trunk = ResidualTrunk(self.depths, features=self.features, dtype=self.dtype)
        width = self.trunk.out_features
        self.dense_1 = Dense(width, self.hidden, dtype=self.dtype)
        self.dense_2 = Dense(self.hidden, sum(DECA_SIZES), dtype=self.dtype)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b 236"]:
        """The coefficients of RGB crops in [0, 1], 224 pixels a side; see `split_deca`."""
        # Released weights pool 7 x 7: the whole map of 224 pixels.
        pooled = jnp.mean(self.trunk(images)[-1], axis=(1, 2))
        return self.dense_2(nn.relu(self.dense_1(pooled)))


@typechecked
def split_deca(vector: Float[Array, "b 236"]) -> DecaCoefficients:
    """Takes the encoder's output apart.

    Args:
      vector: shape, texture, expression, pose, camera, light.
    """
    bounds = np.cumsum(DECA_SIZES)[:-1].tolist()
    *parts, light = jnp.split(vector, bounds, axis=-1)
    return DecaCoefficients(*parts, light=light.reshape(-1, 9, 3))


def load_deca(path: Path | None = None) -> PyTree:
    """Reads the converted weights.

    Args:
      path: a converted file; None takes the one that is registered.

    Raises:
      AssetNotFoundError: there is none; says how to get it.
      ConversionError: the file holds another network.
    """
    return load_variables("deca", DecaEncoder(), DECA_SIDE, path)


@jax.jit
def estimate_deca(variables: PyTree, images: Float[Array, "b 224 224 3"]) -> DecaCoefficients:
    """Looks at aligned faces.

    Args:
      variables: of `load_deca`.
      images: RGB in [0, 1], cropped by `deca_224`.
    """
    with jax.default_matmul_precision("highest"):
        return split_deca(DecaEncoder().apply(variables, images))
