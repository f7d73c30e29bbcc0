"""Distance between two images in the feature maps of a frozen network, over an image pyramid.

Letters: b batch, h w c image.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.losses.combine import per_example_mean
from talking_heads_jax.ops.resize import image_pyramid
from talking_heads_jax.typing import Array, Float

FeatureExtractor = Callable[[Array], Sequence[Array]]


def perceptual_loss(
    extractor: FeatureExtractor,
    prediction: Float[Array, "b h w 3"],
    target: Float[Array, "b h w 3"],
    *,
    scales: Sequence[float],
    weights: Sequence[float],
) -> Float[Array, "b"]:
    """Sum over scales and feature maps of the mean absolute feature difference.

    Args:
      extractor: images in [0, 1] -> feature maps, shallow to deep; its own parameters are frozen.
      prediction: RGB in [0, 1]; the gradient flows through it.
      target: RGB in [0, 1]; no gradient flows through its features.
      scales: sizes of the anti-aliased pyramid, 1 is full size.
      weights: one factor per feature map, shared by all scales.

    Returns:
      One value per example.

    Raises:
      ArgumentError: if the extractor returns another number of maps than there are weights.

    Source: first-order-model's training objective (VGG19, five maps, weights 10, four scales);
      FNeVR's Eq. 13 and supplement B.2, spec section 3.1.
    """
    predictions = image_pyramid(prediction, scales)
    targets = image_pyramid(target, scales)
    terms = []
    for scale in scales:
        target_maps = [jax.lax.stop_gradient(x) for x in extractor(targets[scale])]
        prediction_maps = extractor(predictions[scale])
        if len(prediction_maps) != len(weights):
            raise ArgumentError(
                requirement(
                    "perceptual weights",
                    f"have one number per feature map ({len(prediction_maps)})",
                    len(weights),
                    "Give one weight per map of the extractor.",
                )
            )
        for weight, ours, theirs in zip(weights, prediction_maps, target_maps, strict=True):
            if weight:
                terms.append(weight * per_example_mean(jnp.abs(ours - theirs)))
    return sum(terms, start=jnp.zeros(prediction.shape[0], jnp.float32))
