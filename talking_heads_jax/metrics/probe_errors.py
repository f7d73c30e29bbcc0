"""Errors of pictures as the evaluation probe sees them, see `networks.probe`.

The probe's estimate of a picture is compared with the exact truth of the frame it should show, so
that each value holds the probe's own error too: tables print that beside them. Letters: b batch,
d components.
"""

import flax.struct
import jax.numpy as jnp

from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.typing import Array, Float

#: Landmark errors are printed in pixels of a frame of this width, whatever the frames' size.
LANDMARK_FRAME_PX = 256


def landmark_distance(
    estimate: Float[Array, "b 68 2"], truth: Float[Array, "b 68 2"]
) -> Float[Array, " b"]:
    """Mean distance of the 68 points, in pixels of a frame 256 px wide.

    Args:
      estimate: x, y over width and height of the frame.
      truth: the same; NaN where a frame has no landmarks.
    """
    return LANDMARK_FRAME_PX * jnp.linalg.norm(estimate - truth, axis=-1).mean(axis=-1)


def angle_distance(estimate: Float[Array, "b 3"], truth: Float[Array, "b 3"]) -> Float[Array, " b"]:
    """Mean absolute difference of yaw, pitch and roll in degrees.

    Args:
      estimate: radians.
      truth: radians.
    """
    turned = jnp.mod(estimate - truth + jnp.pi, 2 * jnp.pi) - jnp.pi
    return jnp.rad2deg(jnp.abs(turned)).mean(axis=-1)


def expression_distance(
    estimate: Float[Array, "b d"], truth: Float[Array, "b d"], deviation: Float[Array, " d"]
) -> Float[Array, " b"]:
    """Root mean square difference of the components, each over its standard deviation.

    Always estimating the mean scores about 1.

    Args:
      estimate: expression coefficients with jaw and eye rotations.
      truth: the same.
      deviation: of each component over the probe's training frames; 0 leaves a component out.
    """
    known = deviation > 0
    scaled = jnp.where(known, (estimate - truth) / jnp.where(known, deviation, 1.0), 0.0)
    return jnp.sqrt(jnp.square(scaled).sum(axis=-1) / jnp.maximum(known.sum(), 1))


def identity_similarity(
    embedding: Float[Array, "b d"], source: Float[Array, " d"]
) -> Float[Array, " b"]:
    """Cosine between the embeddings of pictures and of their source.

    Args:
      embedding: of the pictures, of unit length.
      source: of the source, of unit length.
    """
    return (embedding * source).sum(axis=-1)


@flax.struct.dataclass
class ProbeError(WeightedMean):
    """A probe's error over frames."""


@flax.struct.dataclass
class ProbeSimilarity(WeightedMean):
    """Cosine of the probe's embeddings over frames."""
