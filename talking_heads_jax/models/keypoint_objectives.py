"""What the keypoint-driven systems are trained by: the terms and the two phases FOMM introduced.

One phase trains detector and generator from one summed loss; a second trains the discriminator on
the same forward's prediction, before the first phase's update. FNeVR adds terms to the first phase.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from talking_heads_jax.batch import FramePair, Keypoints
from talking_heads_jax.losses.equivariance import equivariance_jacobian, equivariance_value
from talking_heads_jax.losses.reconstruction import absolute_error
from talking_heads_jax.models.base import Networks, ObjectiveResult, Phase, StepContext
from talking_heads_jax.models.image_objectives import (
    PERCEPTUAL_HELPER,
    discriminator_term,
    generator_terms,
    perceptual_term,
    require_field,
    uses_perceptual,
)
from talking_heads_jax.models.pixel_objectives import (
    PIXEL_DEFAULTS,
    check_pixel_options,
    pixel_terms,
    uses_masks,
)
from talking_heads_jax.ops.thin_plate_spline import (
    random_transform,
    transform_frame,
    transform_jacobian,
    transform_points,
)
from talking_heads_jax.typing import Array

# FOMM's vox-256 weights; its GAN weight is 0 there and 1 in vox-adv and in FNeVR.
DEFAULTS = MappingProxyType(
    {
        "perceptual": {
            "weights": "vgg19",
            "seed": 0,
            "taps": (10.0,) * 5,
            "scales": (1.0, 0.5, 0.25, 0.125),
        },
        "adversarial": "least_squares",
        "generator_gan": 1.0,
        "discriminator_gan": 1.0,
        "feature_matching": (10.0,) * 4,
        "equivariance_value": 10.0,
        "equivariance_jacobian": 10.0,
        "transform": {"sigma_affine": 0.05, "sigma_tps": 0.005, "points_tps": 5},
        "pixel_l1": 0.0,
        **PIXEL_DEFAULTS,
    }
)


class Reconstruction(NamedTuple):
    """One training forward, for the terms of the first phase.

    Attributes:
      source_keypoints: of the source.
      driving_keypoints: of the driving frame.
      outputs: of the generator, intermediates included.
    """

    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    outputs: Mapping[str, Array]


ExtraTerms = Callable[[Networks, FramePair, StepContext, Reconstruction], dict[str, Array]]


def reconstruct(networks: Networks, batch: FramePair) -> Reconstruction:
    """Detects both sets of keypoints and animates the source, in training mode.

    The detector runs once per image set, not on a joint batch: each call has its own batch
    statistics and its own update of the running ones.
    """
    source = networks("kp_detector", batch.source.image, train=True)
    driving = networks("kp_detector", batch.driving.image, train=True)
    outputs = networks(
        "generator",
        batch.source.image,
        source_keypoints=source,
        driving_keypoints=driving,
        train=True,
    )
    return Reconstruction(source, driving, outputs)


def _equivariance_terms(
    options: Mapping[str, Any],
    networks: Networks,
    batch: FramePair,
    context: StepContext,
    driving: Keypoints,
) -> dict[str, Array]:
    """Keypoints must follow a random thin-plate transform of the driving frame.

    A caller may hand in the transform as `carry['equivariance_transform']`.
    """
    value_weight, jacobian_weight = options["equivariance_value"], options["equivariance_jacobian"]
    if not (value_weight or jacobian_weight):
        return {}
    image = batch.driving.image
    transform = context.carry.get("equivariance_transform")
    if transform is None:
        transform = random_transform(context.rng, image.shape[0], **options["transform"])
    moved = networks("kp_detector", transform_frame(transform, image), train=True)
    terms = {}
    if value_weight:
        mapped = transform_points(transform, moved.value)
        terms["equivariance_value"] = value_weight * equivariance_value(driving.value, mapped)
    if jacobian_weight and driving.jacobian is not None:
        terms["equivariance_jacobian"] = jacobian_weight * equivariance_jacobian(
            driving.jacobian, transform_jacobian(transform, moved.value), moved.jacobian
        )
    return terms


def generator_objective(
    options: Mapping[str, Any], extra_terms: ExtraTerms | None = None
) -> Callable[[Networks, FramePair, StepContext], ObjectiveResult]:
    """The objective of the phase that trains detector and generator.

    Terms: `perceptual`, `pixel_l1`, those of `pixel_terms`, `generator_gan`, `feature_matching`,
    `equivariance_value`, `equivariance_jacobian`, and what `extra_terms` adds. Its carry holds
    `prediction` and `driving_keypoints` for the discriminator's phase.

    Args:
      options: the section `objectives`, filled by `read_options`.
      extra_terms: more terms of the same phase.

    Source: FOMM (NeurIPS 2019) section 3.4 and repository; FNeVR (NeurIPS 2022) supplement B.2.
    """

    def objective(networks: Networks, batch: FramePair, context: StepContext) -> ObjectiveResult:
        forward = reconstruct(networks, batch)
        prediction, target = forward.outputs["prediction"], batch.driving.image
        losses = {}
        if uses_perceptual(options):
            losses["perceptual"] = perceptual_term(options, context, prediction, target)
        if options["pixel_l1"]:
            losses["pixel_l1"] = options["pixel_l1"] * absolute_error(prediction, target)
        if uses_masks(options):
            require_field(batch.driving.mask, "mask", "region_weights")
        losses |= pixel_terms(options, batch, prediction, forward.outputs["deformed"])
        if options["generator_gan"]:
            points = jax.lax.stop_gradient(forward.driving_keypoints.value)
            losses |= generator_terms(options, networks, prediction, target, points)
        losses |= _equivariance_terms(options, networks, batch, context, forward.driving_keypoints)
        if extra_terms is not None:
            losses |= extra_terms(networks, batch, context, forward)
        carry = {"prediction": prediction, "driving_keypoints": forward.driving_keypoints}
        return ObjectiveResult(losses, carry)

    return objective


def discriminator_objective(
    options: Mapping[str, Any],
) -> Callable[[Networks, FramePair, StepContext], ObjectiveResult]:
    """The objective of the discriminator's phase: term `discriminator_gan`."""

    def objective(networks: Networks, batch: FramePair, context: StepContext) -> ObjectiveResult:
        points = context.carry["driving_keypoints"].value
        loss = discriminator_term(
            options, networks, context.carry["prediction"], batch.driving.image, points
        )
        return ObjectiveResult({"discriminator_gan": loss}, {})

    return objective


def keypoint_phases(
    options: Mapping[str, Any],
    *,
    extra_terms: ExtraTerms | None = None,
    extra_networks: tuple[str, ...] = (),
    extra_inputs: tuple[str, ...] = (),
    needs_perceptual: bool = False,
) -> tuple[Phase, ...]:
    """The phases of one step; without a GAN weight there is no discriminator phase.

    Args:
      options: the section `objectives`, filled by `read_options`.
      extra_terms: see `generator_objective`.
      extra_networks: networks trained beside detector and generator.
      extra_inputs: what the extra terms read of the records besides images.
      needs_perceptual: whether the extra terms call the perceptual network.

    Raises:
      ConfigError: for weights of pixel terms that make no sense.
    """
    check_pixel_options(options)
    helpers = (PERCEPTUAL_HELPER,) if uses_perceptual(options) or needs_perceptual else ()
    phases = [
        Phase(
            name="generator",
            trains=("generator", "kp_detector", *extra_networks),
            objective=generator_objective(options, extra_terms),
            helpers=helpers,
            inputs=(*(("mask",) if uses_masks(options) else ()), *extra_inputs),
        )
    ]
    if options["generator_gan"]:
        phases.append(
            Phase(
                name="discriminator",
                trains=("discriminator",),
                objective=discriminator_objective(options),
            )
        )
    return tuple(phases)
