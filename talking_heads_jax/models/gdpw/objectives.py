"""What GDPW is trained by: losses on the result, and on the source that its flows warp.

One phase trains the generator, its neural codes included; a second one trains the discriminator on
the images of the same forward, before the first phase's update. The paper names a perceptual loss,
a hinge GAN and feature matching; the released code adds pixels and everything on the warped source.
Letters: b batch, h w image.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from talking_heads_jax.batch import FramePair
from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.losses.reconstruction import absolute_error
from talking_heads_jax.models.base import (
    Networks,
    Objective,
    ObjectiveResult,
    Phase,
    StepContext,
    TalkingHead,
)
from talking_heads_jax.models.image_objectives import (
    PERCEPTUAL_HELPER,
    discriminator_term,
    generator_terms,
    perceptual_term,
    read_options,
    require_field,
    uses_perceptual,
)
from talking_heads_jax.models.pixel_objectives import (
    PIXEL_DEFAULTS,
    check_pixel_options,
    pixel_terms,
    uses_masks,
)
from talking_heads_jax.ops.resize import average_pool
from talking_heads_jax.typing import Array

# The released code's weights and choices.
GDPW_DEFAULTS = MappingProxyType(
    {
        "perceptual": {
            "weights": "vgg19",
            "seed": 0,
            "taps": (10.0,) * 5,
            "scales": (1.0, 0.5, 0.25, 0.125),
        },
        # A factor of `perceptual.taps`, for the source as every predicted flow warps it.
        "warped_perceptual": 1.0,
        "adversarial": "least_squares",
        "generator_gan": 1.0,
        "discriminator_gan": 1.0,
        "feature_matching": (10.0,) * 4,
        # A factor of the three terms above, for the source as the finest flow warps it.
        "warped_gan": 1.0,
        "pixel_l1": 10.0,
        **PIXEL_DEFAULTS,
    }
)
# VGG19 halves its maps four times before the last one that is compared.
SMALLEST_WARPED_SIDE = 16


def build_phases(model: TalkingHead, objectives: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of one training step; without a GAN weight there is no discriminator phase.

    Args:
      model: the system.
      objectives: weights and choices, keys as in `GDPW_DEFAULTS`.

    Raises:
      ConfigError: for an unknown key, a negative factor, or pixel weights that make no sense.

    Source: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation (BMVC
      2022), section 3.4, and its repository, whose defaults these are.
    """
    options = read_options(objectives, GDPW_DEFAULTS)
    check_pixel_options(options)
    for name in ("warped_perceptual", "warped_gan"):
        if options[name] < 0:
            raise ConfigError(
                requirement(f"objectives.{name}", "not be negative", options[name], "0 is off.")
            )
    phases = [
        Phase(
            name="generator",
            trains=("generator",),
            objective=_generator_objective(model, options),
            helpers=(PERCEPTUAL_HELPER,) if uses_perceptual(options) else (),
            inputs=("vertices", *(("mask",) if uses_masks(options) else ())),
        )
    ]
    if options["generator_gan"]:
        phases.append(
            Phase(
                name="discriminator",
                trains=("discriminator",),
                objective=_discriminator_objective(options),
            )
        )
    return tuple(phases)


def _generator_objective(model: TalkingHead, options: Mapping[str, Any]) -> Objective:
    """Terms on the prediction, and the same names after `warped_` on the warped source."""

    def objective(networks: Networks, batch: FramePair, context: StepContext) -> ObjectiveResult:
        outputs = _reconstruct(model, networks, batch)
        prediction, warped = outputs["prediction"], outputs["deformed"]
        target = batch.driving.image
        losses = {}
        if options["pixel_l1"]:
            losses["pixel_l1"] = options["pixel_l1"] * absolute_error(prediction, target)
        if uses_perceptual(options):
            losses["perceptual"] = perceptual_term(options, context, prediction, target)
            if options["warped_perceptual"]:
                losses["warped_perceptual"] = options["warped_perceptual"] * _warped_perceptual(
                    options, context, outputs["warped_sources"], target
                )
        if uses_masks(options):
            require_field(batch.driving.mask, "mask", "region_weights")
        losses |= pixel_terms(options, batch, prediction, warped)
        if options["generator_gan"]:
            losses |= generator_terms(options, networks, prediction, target)
            if options["warped_gan"]:
                terms = generator_terms(options, networks, warped, target)
                losses |= {f"warped_{k}": options["warped_gan"] * v for k, v in terms.items()}
        return ObjectiveResult(losses, {"prediction": prediction, "deformed": warped})

    return objective


def _discriminator_objective(options: Mapping[str, Any]) -> Objective:
    """Terms `discriminator_gan` and `warped_discriminator_gan`."""

    def objective(networks: Networks, batch: FramePair, context: StepContext) -> ObjectiveResult:
        target = batch.driving.image
        losses = {
            "discriminator_gan": discriminator_term(
                options, networks, context.carry["prediction"], target
            )
        }
        if options["warped_gan"]:
            losses["warped_discriminator_gan"] = options["warped_gan"] * discriminator_term(
                options, networks, context.carry["deformed"], target
            )
        return ObjectiveResult(losses, {})

    return objective


def _reconstruct(model: TalkingHead, networks: Networks, batch: FramePair) -> Mapping[str, Any]:
    """Animates the source by the driving frame's mesh, in training mode."""
    term = "generator"
    source = require_field(batch.source.vertices, "vertices", term)
    driving = require_field(batch.driving.vertices, "vertices", term)
    guidance = model.guidance(source, driving)
    return networks("generator", batch.source.image, guidance, train=True)


def _warped_perceptual(
    options: Mapping[str, Any], context: StepContext, warped_sources: list[Array], target: Array
) -> Array:
    """Perceptual losses of the warped sources against the target, each at its own size; (b,).

    Source: the released code shrinks source and target by area means to the size of each flow.
    Differs from source: warped sources too small for the deepest feature map are left out; at 256
      px there are none.
    """
    total = jnp.zeros(target.shape[0], jnp.float32)
    for warped in warped_sources:
        side = warped.shape[1]
        if side >= SMALLEST_WARPED_SIDE:
            small = average_pool(target, target.shape[1] // side)
            total += perceptual_term(options, context, warped, small, scales=(1.0,))
    return total
