"""The mesh feature F_m that supervises the volume, and the network that weighs its vertices.

F_m is a sum of 3-D Gaussians at the vertices of a reconstructed face, on the volume's own grid.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.layers.convolution import Dense, DownBlock2d
from talking_heads_jax.ops.coordinates import splat_gaussians_3d
from talking_heads_jax.typing import Array, Float


def sample_vertices(vertices: Float[Array, "b v 3"], count: int) -> Float[Array, "b n 3"]:
    """Keeps `count` vertices, evenly spaced in the mesh's own order.

    Raises:
      ArgumentError: if the mesh has fewer vertices.

    Differs from source: FNeVR does not say how, or to how many, it thins the vertices.
    """
    total = vertices.shape[1]
    if total < count:
        raise ArgumentError(
            requirement("the mesh", f"have at least {count} vertices", total, "Lower num_vertices.")
        )
    return vertices[:, (jnp.arange(count) * total) // count]


def normalize_vertices(vertices: Float[Array, "b v 3"], size: int) -> Float[Array, "b v 3"]:
    """Crop pixels → the volume's cube [-1, 1]³.

    Args:
      vertices: x, y in pixels of a square crop (pixel centres at +0.5), z in the same scale with 0
        in the middle of the head.
      size: side of the crop in pixels.

    Returns:
      x, y corner-aligned at the crop's pixel centres, z in the same scale, smaller is nearer.
    """
    half = (size - 1) / 2.0
    centre = jnp.asarray([size / 2.0, size / 2.0, 0.0], vertices.dtype)
    return (vertices - centre) / half


def mesh_feature(
    vertices: Float[Array, "b n 3"],
    weights: Float[Array, "b n"],
    *,
    size: tuple[int, int, int],
    variance: float = 0.01,
) -> Float[Array, "b d h w"]:
    """Weighted sum of Gaussians at the vertices.

    Args:
      vertices: x, y, z in [-1, 1], corner-aligned; slices run from z = -1 (near) to 1.
      weights: of each vertex.
      size: depth, height, width of the volume.
      variance: in normalised units squared. The paper prints exp(−d²/(2σ)) with σ = 0.01, which is
        this.

    Source: FNeVR (NeurIPS 2022) Eqs. 5-6.
    """
    return splat_gaussians_3d(vertices, weights, size, variance=variance)


class VertexWeights(nn.Module):
    """Predicts the weight of each sampled vertex from the driving image.

    Attributes:
      num_vertices: n.
      image_channels: c.
      features: widths of the convolution blocks, each halving the sides.
      dtype: compute dtype.

    Source: FNeVR (NeurIPS 2022) Eq. 6: w_i from "an additional CNN".
    Differs from source: its input, layers and range are not published. Ours reads the driving
    image; a softplus keeps the weights positive and lets them vanish.
    """

    num_vertices: int = 512
    image_channels: int = 3
    features: tuple[int, ...] = (16, 32, 64, 64)
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `blocks_N` and `output`."""
        widths = (self.image_channels, *self.features)
        self.blocks = [
            DownBlock2d(widths[i], widths[i + 1], dtype=self.dtype)
            for i in range(len(self.features))
        ]
        self.output = Dense(widths[-1], self.num_vertices, dtype=self.dtype)

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b n"]:
        """Returns positive weights."""
        x = image
        for block in self.blocks:
            x = block(x, train=train)
        return jax.nn.softplus(self.output(jnp.mean(x, axis=(1, 2))).astype(jnp.float32))
