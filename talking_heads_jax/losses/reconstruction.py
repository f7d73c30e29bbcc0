"""Per-pixel distances between a prediction and its target. Letters: b batch."""

import jax
import jax.numpy as jnp

from talking_heads_jax.losses.combine import per_example_mean
from talking_heads_jax.typing import Array, Float


def absolute_error(
    prediction: Float[Array, "b ..."], target: Float[Array, "b ..."]
) -> Float[Array, "b"]:
    """Mean absolute difference of each example.

    Args:
      prediction: any array; differentiable.
      target: of the same shape; differentiable too: stop the gradient outside where the source of
        the objective does.

    Returns:
      One value per example.
    """
    return per_example_mean(jnp.abs(prediction - target))


def squared_error(
    prediction: Float[Array, "b ..."], target: Float[Array, "b ..."]
) -> Float[Array, "b"]:
    """Mean squared difference of each example.

    Args:
      prediction: any array; differentiable.
      target: of the same shape; differentiable.

    Returns:
      One value per example.
    """
    return per_example_mean(jnp.square(prediction - target))


def masked_absolute_error(
    prediction: Float[Array, "b h w c"],
    target: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"],
) -> Float[Array, "b"]:
    """Mean absolute difference of each example inside a mask.

    Args:
      prediction: image; differentiable.
      target: image; differentiable.
      mask: weight of each pixel, 1 inside; no gradient flows into it.

    Returns:
      One value per example; zero for an example whose mask is empty.
    """
    mask = jax.lax.stop_gradient(mask)
    error = jnp.mean(jnp.abs(prediction - target), axis=-1, keepdims=True)
    area = jnp.sum(mask, axis=(1, 2, 3))
    return jnp.sum(error * mask, axis=(1, 2, 3)) / jnp.maximum(area, 1e-6)
