"""Compositing of samples along rays.

Letters: s samples per ray, nearest first, d features. `density` is the optical thickness of a
sample (density times step), non-negative: the caller applies the activation.
"""

import jax.numpy as jnp

from talking_heads_jax.errors import check_choice
from talking_heads_jax.typing import Array, Float, typechecked

TRANSMITTANCES = ("exclusive", "inclusive")


@typechecked
def composite_weights(
    density: Float[Array, "*rays s"], *, transmittance: str
) -> Float[Array, "*rays s"]:
    """Share of each sample in the colour of its ray.

    Args:
      density: non-negative optical thickness.
      transmittance: 'exclusive', light is dimmed by the samples in front (the textbook rule);
        'inclusive', by the sample itself as well (FNeVR's released code).

    Returns:
      T_i (1 - exp(-density_i)), T_i = exp(-sum of the densities up to i). Exclusive weights sum to
      at most 1.

    Raises:
      ArgumentError: an unknown `transmittance`.

    Source:
      NeRF (Mildenhall et al. 2020), equation 3; FNeVR (Zeng et al. 2022), equation 9
      (exclusive) and its released code (inclusive).
    """
    check_choice("the transmittance", transmittance, TRANSMITTANCES)
    thickness = jnp.cumsum(density, axis=-1)
    if transmittance == "exclusive":
        thickness = jnp.pad(thickness[..., :-1], [(0, 0)] * (density.ndim - 1) + [(1, 0)])
    return jnp.exp(-thickness) * -jnp.expm1(-density)


@typechecked
def render(
    density: Float[Array, "*rays s"],
    features: Float[Array, "*rays s d"],
    *,
    transmittance: str,
) -> Float[Array, "*rays d"]:
    """Composites the features of the samples of each ray.

    Args:
      density: non-negative optical thickness.
      features: colours or features of the samples.
      transmittance: 'exclusive' or 'inclusive', see `composite_weights`.

    Returns:
      The weighted sum over samples, in the dtype of `features`; nothing lies behind the last one.

    Raises:
      ArgumentError: an unknown `transmittance`.
    """
    weights = composite_weights(density, transmittance=transmittance).astype(features.dtype)
    return jnp.sum(weights[..., None] * features, axis=-2)
