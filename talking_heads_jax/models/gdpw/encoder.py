"""GDPW's encoder: a feature pyramid of the source, seen once per portrait.

Letters: b batch, h w image, c channels.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.models.gdpw.blocks import DownBlock, SameBlock
from talking_heads_jax.typing import Array, Float


class SourcePyramid(NamedTuple):
    """What the decoder warps.

    Attributes:
      bottleneck: (b h/s w/s c) the coarsest features.
      shortcuts: stride -> (b h/s w/s c) features of the finer levels, after their shortcut block.
    """

    bottleneck: Array
    shortcuts: dict[int, Array]


class PyramidEncoder(nn.Module):
    """`SameBlock` at full size, then `DownBlock`s; a shortcut `SameBlock` on each but the last.

    Attributes:
      in_features: channels of the input: the image, and codes drawn on the source's mesh.
      features: channels per level, finest first.
      spectral_norm: of its convolutions.
      dtype: compute dtype.

    Differs from source: the official checkpoint holds a shortcut block of the coarsest level too,
      which no image ever passes.
    """

    in_features: int
    features: tuple[int, ...]
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `down_<stride>` and `shortcut_<stride>`."""
        options = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        widths = (self.in_features, *self.features)
        for level, features in enumerate(self.features):
            block = DownBlock if level else SameBlock
            setattr(self, f"down_{2**level}", block(widths[level], features, **options))
            if level < len(self.features) - 1:
                setattr(self, f"shortcut_{2**level}", SameBlock(features, features, **options))

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> SourcePyramid:
        """Encodes."""
        shortcuts = {}
        for level in range(len(self.features)):
            x = getattr(self, f"down_{2**level}")(x, train=train)
            if level < len(self.features) - 1:
                shortcuts[2**level] = getattr(self, f"shortcut_{2**level}")(x, train=train)
        return SourcePyramid(x, shortcuts)
