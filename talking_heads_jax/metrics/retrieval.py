"""Retrieval: does an output match its own driving frame better than the others of the clip?

Full-image errors hardly notice an expression. Retrieval asks for nothing else: a frame counts when
the true picture nearest to it, within the mouth or the eyes, is that of its own driving frame.
All candidates are compared within one region, the union over the candidates' own regions, dilated;
ties share the point. An answer that does not depend on the driving frame therefore scores exactly
one over the number of candidates, whatever it shows. Letters: b batch, h w c image, k candidates.
"""

import flax.struct
import jax
import jax.numpy as jnp

from talking_heads_jax.metrics.pixel import masked_mean
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.typing import Array, Float, Int

#: The candidates' regions grow by one pixel per so many of the width, on each side.
_WIDTH_PER_DILATION_PX = 32


def dilation_px(width: int) -> int:
    """Pixels that are added around the region on each side: 2 at 64 px, 8 at 256 px.

    Args:
      width: of the frames in pixels.
    """
    return max(1, width // _WIDTH_PER_DILATION_PX)


def retrieval_score(
    prediction: Float[Array, "b h w c"],
    candidates: Float[Array, "k h w c"],
    region: Float[Array, "h w 1"],
    own: Int[Array, " b"],
    count: Int[Array, ""],
) -> Float[Array, " b"]:
    """1 where no candidate is nearer than a prediction's own, divided by how many are as near.

    Args:
      prediction: in [0, 1].
      candidates: the true pictures of all driving frames of a pair, in [0, 1].
      region: where they are compared, by the mean absolute difference; 1 inside.
      own: which candidate is the truth of each prediction.
      count: candidates beyond so many are padding.

    Returns:
      In [0, 1]; NaN where the region is empty or there is one candidate only: nothing is chosen.
    """

    def one(arguments: tuple[Array, Array]) -> Array:
        image, number = arguments
        distances = masked_mean(jnp.abs(image[None] - candidates), region[None])
        distances = jnp.where(jnp.arange(candidates.shape[0]) < count, distances, jnp.inf)
        best = distances[number]
        ties = (distances == best).sum()
        return jnp.where((distances < best).any(), 0.0, 1.0 / ties)

    # One prediction after the other: all differences at once would be b times the candidates.
    scores = jax.lax.map(one, (prediction, own))
    return jnp.where(region.any() & (count > 1), scores, jnp.nan)


@flax.struct.dataclass
class Retrieval(WeightedMean):
    """Share of frames that match their own driving frame best."""
