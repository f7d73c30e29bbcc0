"""Whose face shape a prediction shows, source or driver. Letters: b batch, h w image."""

import flax.struct
import jax.numpy as jnp

from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.typing import Array, Float

#: Mean difference of the two pictures below which they are one, and the question has no answer.
_SAME = 1e-4


def shape_preference(
    prediction: Float[Array, "b h w 3"],
    own: Float[Array, "b h w 3"],
    other: Float[Array, "b h w 3"],
) -> Float[Array, " b"]:
    """How much nearer a prediction is to one picture than to another, over their distance.

        (|p - other| - |p - own|) / |own - other|, with means over pixels and channels

    1 is the first picture itself, -1 the second one, 0 as near to one as to the other. Where the
    two pictures agree the prediction does not count.

    Args:
      prediction: in [0, 1].
      own: what it should be: the source's shape.
      other: the same picture with the driver's shape.

    Returns:
      Values in [-1, 1]; NaN where both pictures are one.
    """

    def distance(first: Array, second: Array) -> Array:
        return jnp.abs(first - second).mean(axis=(1, 2, 3))

    apart = distance(own, other)
    difference = distance(prediction, other) - distance(prediction, own)
    return jnp.where(apart > _SAME, difference / jnp.maximum(apart, _SAME), jnp.nan)


@flax.struct.dataclass
class ShapePreference(WeightedMean):
    """Mean of `shape_preference` over frames."""
