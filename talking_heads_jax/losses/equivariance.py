"""Keypoints must follow a known transform of the image: constraints on values and Jacobians.

T maps points of the transformed frame to points of the original one (the frame is sampled at T(z)).
Coordinates are x, y in [-1, 1], corner-aligned. Letters: b batch, k keypoints.
"""

import jax.numpy as jnp

from talking_heads_jax.losses.combine import per_example_mean
from talking_heads_jax.ops.numerics import inverse_2x2, matmul_highest
from talking_heads_jax.typing import Array, Float


def equivariance_value(
    value: Float[Array, "b k 2"], mapped_value: Float[Array, "b k 2"]
) -> Float[Array, "b"]:
    """Mean |p - T(p')| of each example.

    Args:
      value: keypoints p of the frame.
      mapped_value: T(p'), the keypoints p' of the transformed frame carried back by T.

    Returns:
      One value per example.

    Source: first-order-model Eq. 9; FNeVR supplement B.2. Neither side is detached.
    """
    return per_example_mean(jnp.abs(value - mapped_value))


def equivariance_jacobian(
    jacobian: Float[Array, "b k 2 2"],
    transform_jacobian: Float[Array, "b k 2 2"],
    transformed_jacobian: Float[Array, "b k 2 2"],
) -> Float[Array, "b"]:
    """Mean |I - J^-1 (dT/dp) J'| of each example.

    Args:
      jacobian: J, at the keypoints of the frame.
      transform_jacobian: dT/dp at the keypoints of the transformed frame.
      transformed_jacobian: J', at the keypoints of the transformed frame.

    Returns:
      One value per example.

    Source: first-order-model Eq. 11, in its inverse form; means over the four entries and the
      keypoints, as the code, where FNeVR's supplement prints sums.
    """
    mapped = matmul_highest(transform_jacobian, transformed_jacobian)
    product = matmul_highest(inverse_2x2(jacobian), mapped)
    return per_example_mean(jnp.abs(jnp.eye(2, dtype=product.dtype) - product))
