"""FNeVR's density loss L_sigma: the voxel densities should light up where the face mesh is.

Letters: b batch, d h w voxels, c channels.
"""

import jax.numpy as jnp

from talking_heads_jax.errors import check_choice
from talking_heads_jax.ops.numerics import safe_divide, safe_sqrt
from talking_heads_jax.typing import Array, Float

CHANNEL_REDUCTIONS = ("norm", "mean")


def density_alignment(
    shape_features: Float[Array, "b d h w c"],
    mesh_features: Float[Array, "b d h w"],
    *,
    alpha_1: float = 10.0,
    alpha_2: float = 0.9,
    channel_reduction: str = "norm",
) -> Float[Array, "b"]:
    """exp(-alpha_1 cos) - alpha_2, with cos between the voxel volumes as vectors.

    Args:
      shape_features: F_sigma, the output of the shape extractor.
      mesh_features: F_m >= 0, Gaussians at the weighted mesh vertices.
      alpha_1: steepness.
      alpha_2: constant; it moves the value, not the gradient.
      channel_reduction: how the channels of F_sigma become one volume: `norm` (non-negative, so
        that cos lies in [0, 1] and the loss in [exp(-alpha_1), 1] - alpha_2) or `mean` (cos can be
        negative and the loss as large as exp(alpha_1)).

    Returns:
      One value per example.

    Raises:
      ArgumentError: for an unknown `channel_reduction`.

    Source: FNeVR Eq. 4, alpha_1 = 10, alpha_2 = 0.9.
    Differs from source: the paper says neither how 16 channels meet one nor how the inner product
      is normalised; both volumes are L2-normalised here (spec section 3.1).
    """
    check_choice("channel_reduction", channel_reduction, CHANNEL_REDUCTIONS)
    features = shape_features.astype(jnp.promote_types(shape_features.dtype, jnp.float32))
    if channel_reduction == "norm":
        volume = safe_sqrt(jnp.sum(jnp.square(features), axis=-1))
    else:
        volume = jnp.mean(features, axis=-1)
    ours = volume.reshape(volume.shape[0], -1)
    mesh = mesh_features.astype(ours.dtype).reshape(ours.shape)
    inner = jnp.sum(ours * mesh, axis=1)
    squares = jnp.sum(jnp.square(ours), axis=1) * jnp.sum(jnp.square(mesh), axis=1)
    return jnp.exp(-alpha_1 * safe_divide(inner, safe_sqrt(squares))) - alpha_2
