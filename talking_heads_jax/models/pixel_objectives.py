"""Losses on pixels that any system may add: an image pyramid, gradients, weights by face region.

A smile changes a fraction of a percent of the pixels, so a plain mean over the image hardly rewards
it. Weighing pixels by what they show needs the masks of the records. Letters: b batch, h w image.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FramePair
from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.losses.pyramid import gradient_error, pyramid_absolute_error
from talking_heads_jax.morphable.parts import PARTS, REGIONS
from talking_heads_jax.typing import Array, Float

# All weights are zero: the term, or the use of masks, is absent.
PIXEL_DEFAULTS = MappingProxyType(
    {
        "region_weights": {"head": 0.0, "features": 0.0},
        "pixel_pyramid": {"weight": 0.0, "scales": (1.0, 0.5, 0.25), "warped_weight": 0.0},
        "gradient_l1": 0.0,
    }
)


def uses_masks(options: Mapping[str, Any]) -> bool:
    """Whether the pixel terms weigh regions, and so need `mask` in the records."""
    return any(options["region_weights"].values())


def check_pixel_options(options: Mapping[str, Any]) -> None:
    """Raises for region weights that nothing would use, or negative ones.

    Args:
      options: the section `objectives`, filled with defaults.

    Raises:
      ConfigError: if regions have a weight and no pixel term has one, or a weight is negative.
    """
    pyramid = options["pixel_pyramid"]
    weights = (*options["region_weights"].values(), options["gradient_l1"])
    weights += (pyramid["weight"], pyramid["warped_weight"])
    if min(weights) < 0:
        raise ConfigError(
            requirement("weights of pixel terms", "not be negative", min(weights), "Use 0 for off.")
        )
    terms = (pyramid["weight"], pyramid["warped_weight"], options["gradient_l1"])
    if uses_masks(options) and not any(terms):
        raise ConfigError(
            requirement(
                "objectives.region_weights",
                "weigh a term",
                "none",
                "Give objectives.pixel_pyramid.weight or objectives.gradient_l1 a weight.",
            )
        )


def region_weights(mask: Array, *, head: float, features: float) -> Float[Array, "b h w 1"]:
    """Weight of each pixel: 1 + head on the head, + features on mouth and eyes.

    Args:
      mask: (b h w 1) uint8, indices into `morphable.parts.PARTS`.
      head: added on the head, hair included.
      features: added on lips, teeth, mouth, eyelids and eyeballs, which count as head too.
    """
    table = np.ones(len(PARTS), np.float32)
    table[list(REGIONS["head"])] += head
    table[sorted({*REGIONS["mouth"], *REGIONS["eyes"]})] += features
    return jnp.asarray(table)[mask.astype(jnp.int32)]


def pixel_terms(
    options: Mapping[str, Any],
    batch: FramePair,
    prediction: Float[Array, "b h w 3"],
    warped: Float[Array, "b h w 3"],
) -> dict[str, Array]:
    """The terms `pixel_pyramid`, `warped_pyramid` and `gradient_l1`, those with a weight.

    Args:
      options: the section `objectives`, filled with defaults.
      batch: `driving.image` is the target; its `mask` is read where regions have weights.
      prediction: of the system.
      warped: the source moved by the predicted motion alone.

    Returns:
      Term → (b,) weighted values.
    """
    pyramid, target = options["pixel_pyramid"], batch.driving.image
    weights = None
    if uses_masks(options):
        weights = region_weights(batch.driving.mask, **options["region_weights"])
    terms = {}
    for name, weight, image in (
        ("pixel_pyramid", pyramid["weight"], prediction),
        ("warped_pyramid", pyramid["warped_weight"], warped),
    ):
        if weight:
            terms[name] = weight * pyramid_absolute_error(
                image, target, scales=tuple(pyramid["scales"]), weights=weights
            )
    if options["gradient_l1"]:
        terms["gradient_l1"] = options["gradient_l1"] * gradient_error(
            prediction, target, weights=weights
        )
    return terms
