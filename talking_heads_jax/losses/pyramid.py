"""Pixel differences over an image pyramid and of image gradients, weighted pixel by pixel.

Letters: b batch, h w image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from talking_heads_jax.losses.combine import per_example_mean
from talking_heads_jax.losses.reconstruction import masked_absolute_error
from talking_heads_jax.ops.resize import average_pool, image_pyramid
from talking_heads_jax.typing import Array, Float


def pyramid_absolute_error(
    prediction: Float[Array, "b h w c"],
    target: Float[Array, "b h w c"],
    *,
    scales: Sequence[float],
    weights: Float[Array, "b h w 1"] | None = None,
) -> Float[Array, "b"]:
    """Mean over the scales of the (weighted) mean absolute difference.

    Args:
      prediction: image; differentiable.
      target: image; differentiable.
      scales: sizes of the anti-aliased pyramid, each 1 over an integer; 1 is full size.
      weights: of each pixel, at full size; smaller scales take the mean of the pixels they cover.
        None weighs all alike.

    Returns:
      One value per example, in the images' unit: the weights are divided by their sum.
    """
    predictions, targets = image_pyramid(prediction, scales), image_pyramid(target, scales)
    total = jnp.zeros(prediction.shape[0], jnp.float32)
    for scale in scales:
        ours, theirs = predictions[float(scale)], targets[float(scale)]
        if weights is None:
            total += per_example_mean(jnp.abs(ours - theirs))
        else:
            small = average_pool(weights, prediction.shape[1] // ours.shape[1])
            total += masked_absolute_error(ours, theirs, small)
    return total / len(scales)


def gradient_error(
    prediction: Float[Array, "b h w c"],
    target: Float[Array, "b h w c"],
    *,
    weights: Float[Array, "b h w 1"] | None = None,
) -> Float[Array, "b"]:
    """Mean absolute difference of the differences between neighbours, right and down.

    Args:
      prediction: image; differentiable.
      target: image; differentiable.
      weights: of each pixel; a pair of neighbours has their mean. None weighs all alike.

    Returns:
      One value per example, in the images' unit per pixel: a blurred copy has a large one.
    """
    if weights is None:
        weights = jnp.ones((*prediction.shape[:3], 1), jnp.float32)
    weights = jax.lax.stop_gradient(weights)
    difference = prediction - target
    total = jnp.zeros(prediction.shape[0], jnp.float32)
    for axis in (1, 2):
        step = jnp.diff(difference, axis=axis)
        first = jax.lax.slice_in_dim(weights, 0, step.shape[axis], axis=axis)
        second = jax.lax.slice_in_dim(weights, 1, None, axis=axis)
        total += masked_absolute_error(step, jnp.zeros_like(step), (first + second) / 2)
    return total / 2
