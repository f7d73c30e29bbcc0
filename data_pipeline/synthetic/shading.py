"""Deferred shading: which triangle a sample shows → its colour. Plain array functions, for jit.

Textures are packed, four bytes to an unsigned integer, so that a texel is one memory access.
Letters: n samples, t texels.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from data_pipeline.synthetic.scene import harmonic_basis
from talking_heads_jax.typing import Array, Float

# Highlights: exponent and strength of Blinn's term; strength multiplies the texture's alpha.
_SKIN_EXPONENT, _SKIN_STRENGTH = 24.0, 0.3
_CORNEA_EXPONENT, _CORNEA_STRENGTH = 260.0, 1.6


def pack_texture(texture: np.ndarray) -> np.ndarray:
    """Packs a texture for `sample_texture`.

    Args:
      texture: (t t 4) uint8.

    Returns:
      (t t) uint32, first channel lowest.
    """
    texture = np.ascontiguousarray(texture, np.uint8)
    return texture.view("<u4")[..., 0].astype(np.uint32, copy=False)


def sample_texture(
    texture: Array, u: Float[Array, "n"], v: Float[Array, "n"]
) -> list[Float[Array, "n"]]:
    """Bilinear lookup, clamped at the border.

    Args:
      texture: (t t) packed.
      u: from 0 at the left edge of the texture to 1 at its right edge.
      v: from 0 at its top to 1 at its bottom.

    Returns:
      The four channels in [0, 1].
    """
    side = texture.shape[0]
    flat = jnp.asarray(texture).reshape(-1)

    def position(coordinate: Array) -> tuple[Array, Array]:
        place = jnp.clip(coordinate * side - 0.5, 0.0, side - 1.0)
        low = jnp.minimum(place.astype(jnp.int32), side - 2)
        return low, place - low

    column, right = position(u)
    row, down = position(v)
    corner = row * side + column
    texels = [
        flat.at[corner + offset].get(mode="promise_in_bounds") for offset in (0, 1, side, side + 1)
    ]
    channels = []
    for shift in (0, 8, 16, 24):
        a, b, c, d = (((texel >> shift) & 255).astype(jnp.float32) for texel in texels)
        upper, lower = a + (b - a) * right, c + (d - c) * right
        channels.append((upper + (lower - upper) * down) * (1 / 255))
    return channels


def shade(
    albedo: list[Float[Array, "n"]],
    normal: list[Float[Array, "n"]],
    cornea: Float[Array, "n"],
    *,
    harmonics: Float[Array, "9 3"],
    direction: Float[Array, "3"],
    highlight: Float[Array, "3"],
) -> list[Float[Array, "n"]]:
    """Colour of surface samples: albedo · irradiance + highlight.

    Args:
      albedo: red, green, blue and the strength of the highlight, each in [0, 1].
      normal: x, y, z in world axes; need not be of unit length.
      cornea: 1 on eyeballs, whose wet surface has a small bright highlight, else 0.
      harmonics: of the light.
      direction: to the lamp.
      highlight: its colour.

    Returns:
      Red, green, blue, clipped to [0, 1].
    """
    square = normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2
    scale = lax.rsqrt(jnp.maximum(square, 1e-12))
    x, y, z = (value * scale for value in normal)
    basis = harmonic_basis(jnp.stack([x, y, z], axis=-1))
    # The camera is far: the direction to it is the z axis.
    half = direction + jnp.array([0.0, 0.0, 1.0], jnp.float32)
    half = half * lax.rsqrt(jnp.sum(half * half))
    facing = jnp.maximum(x * half[0] + y * half[1] + z * half[2], 1e-6)
    exponent = jnp.where(cornea > 0.5, _CORNEA_EXPONENT, _SKIN_EXPONENT)
    strength = jnp.where(cornea > 0.5, _CORNEA_STRENGTH, _SKIN_STRENGTH)
    shine = albedo[3] * strength * jnp.exp2(exponent * jnp.log2(facing))
    colors = []
    for channel in range(3):
        irradiance = sum(basis[..., i] * harmonics[i, channel] for i in range(9))
        color = albedo[channel] * jnp.maximum(irradiance, 0.0) + shine * highlight[channel]
        colors.append(jnp.clip(color, 0.0, 1.0))
    return colors
