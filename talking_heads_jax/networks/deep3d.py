"""Deep3DFaceRecon's regressor: a face of 224 pixels to coefficients of the Basel face model.

The crop is the recipe `deep3d_224` of `tracking/alignment.py`; `morphable.bfm.split_deep3d` takes
the 257 numbers apart. Letters: b batch, h w image.

Source: Deng et al., Accurate 3D face reconstruction with weakly-supervised learning (CVPRW 2019);
  the PyTorch release of its authors.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.networks.resnet import RESNET_50, ResidualTrunk
from talking_heads_jax.networks.weights import load_variables
from talking_heads_jax.typing import Array, Float, PyTree

DEEP3D_SIDE = 224
#: Head -> its width, in the order of the 257 numbers; the translation has two heads.
DEEP3D_HEADS = {
    "shape": 80,
    "expression": 64,
    "texture": 80,
    "angles": 3,
    "light": 27,
    "translation_xy": 2,
    "translation_z": 1,
}


class Deep3DRegressor(nn.Module):
    """ResNet-50, mean over the map, and a 1 × 1 convolution per group of coefficients.

    Attributes:
      features: channels of the trunk's stem.
      depths: blocks per stage of the trunk.
      dtype: compute dtype.
    """

    features: int = 64
    depths: tuple[int, ...] = RESNET_50
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `trunk` and a head of each name in `DEEP3D_HEADS`."""
        self.trunk = ResidualTrunk(self.depths, features=self.features, dtype=self.dtype)
        for name, width in DEEP3D_HEADS.items():
            head = Conv(
                self.trunk.out_features, width, kernel_size=(1, 1), padding=0, dtype=self.dtype
            )
            setattr(self, name, head)

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b 257"]:
        """The coefficients of RGB crops in [0, 1], 224 pixels a side."""
        pooled = jnp.mean(self.trunk(images)[-1], axis=(1, 2), keepdims=True)
        parts = [getattr(self, name)(pooled)[:, 0, 0] for name in DEEP3D_HEADS]
        return jnp.concatenate(parts, axis=-1)


def load_deep3d(path: Path | None = None) -> PyTree:
    """Reads the converted weights.

    Args:
      path: a converted file; None takes the one that is registered.

    Raises:
      AssetNotFoundError: there is none; says how to get it.
      ConversionError: the file holds another network.
    """
    return load_variables("deep3d", Deep3DRegressor(), DEEP3D_SIDE, path)


@jax.jit
def estimate_deep3d(
    variables: PyTree, images: Float[Array, "b 224 224 3"]
) -> Float[Array, "b 257"]:
    """Looks at aligned faces.

    Args:
      variables: of `load_deep3d`.
      images: RGB in [0, 1], cropped by `deep3d_224`.
    """
    with jax.default_matmul_precision("highest"):
        return Deep3DRegressor().apply(variables, images)
