"""Distance between the discriminator's feature maps of targets and of predictions."""

from collections.abc import Sequence

import jax.numpy as jnp

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.losses.combine import per_example_mean
from talking_heads_jax.typing import Array, Float


def feature_matching(
    real_features: Sequence[Array], fake_features: Sequence[Array], *, weights: Sequence[float]
) -> Float[Array, "b"]:
    """Weighted sum over feature maps of the mean absolute difference.

    Args:
      real_features: maps (b ...) of the target images, shallow to deep; not detached: the phase
        that minimises this loss does not train the discriminator.
      fake_features: maps of the predictions.
      weights: one factor per map.

    Returns:
      One value per example.

    Raises:
      ArgumentError: if the three lists differ in length.

    Source: first-order-model's feature matching, weights (10, 10, 10, 10), spec section 3.1.
    """
    if not len(real_features) == len(fake_features) == len(weights):
        raise ArgumentError(
            requirement(
                "feature_matching",
                "receive as many weights as feature maps",
                f"{len(weights)} weights for {len(real_features)} and {len(fake_features)} maps",
                "Give one weight per block of the discriminator.",
            )
        )
    terms = [
        weight * per_example_mean(jnp.abs(real - fake))
        for weight, real, fake in zip(weights, real_features, fake_features, strict=True)
        if weight
    ]
    if not terms:
        return jnp.zeros(fake_features[0].shape[0], jnp.float32)
    return sum(terms[1:], start=terms[0])
