"""What FNeVR is trained by: FOMM's terms, and those of its volume and of its pose editor.

Total loss: L_P + L_G + L_E + L_R + L_sigma + L_editor (Eq. 13). L_P, L_G and L_E are FOMM's
`perceptual`, the two GAN terms with `feature_matching`, and the equivariance terms.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from talking_heads_jax.batch import FramePair
from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.losses.density import density_alignment
from talking_heads_jax.losses.reconstruction import absolute_error
from talking_heads_jax.models.base import Networks, Phase, StepContext, TalkingHead
from talking_heads_jax.models.fnevr.mesh_feature import (
    mesh_feature,
    normalize_vertices,
    sample_vertices,
)
from talking_heads_jax.models.image_objectives import perceptual_term, read_options, require_field
from talking_heads_jax.models.keypoint_objectives import (
    DEFAULTS,
    ExtraTerms,
    Reconstruction,
    keypoint_phases,
)
from talking_heads_jax.typing import Array

FNEVR_DEFAULTS = MappingProxyType(
    {
        **DEFAULTS,
        "render_perceptual": 1.0,
        "density": {
            "weight": 0.0,
            "alpha_1": 10.0,
            "alpha_2": 0.9,
            "channel_reduction": "norm",
            "variance": 0.01,
        },
        "pose_edit": {"weight": 0.0, "value": 1.0, "jacobian": 0.5},
    }
)


def build_phases(model: TalkingHead, objectives: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of one training step.

    L_sigma and L_editor have weight 0 unless asked for: they need `vertices` and `angles` in the
    records. `pose_editor` and `vertex_weights` are trained only when their losses are.

    Args:
      model: the system: its volume and its networks decide which terms are possible.
      objectives: weights and choices, keys as in `FNEVR_DEFAULTS`.

    Raises:
      ConfigError: for an unknown key, or a volume term without a volume.

    Source: FNeVR (NeurIPS 2022) Eqs. 4, 10, 12, 13; supplement B.2.
    """
    options = read_options(objectives, FNEVR_DEFAULTS)
    has_volume = model.networks["generator"].volume_rendering
    for term, weight in (
        ("render_perceptual", options["render_perceptual"]),
        ("density.weight", options["density"]["weight"]),
    ):
        if weight and not has_volume:
            raise ConfigError(
                requirement(
                    f"objectives.{term}", "be 0 without volume rendering", weight, "Set it to 0."
                )
            )
    extra_networks, extra_inputs = [], []
    if options["density"]["weight"]:
        extra_networks.append("vertex_weights")
        extra_inputs.append("vertices")
    if options["pose_edit"]["weight"]:
        extra_networks.append("pose_editor")
        extra_inputs.append("angles")
    return keypoint_phases(
        options,
        extra_terms=_volume_and_pose_terms(model, options),
        extra_networks=tuple(extra_networks),
        extra_inputs=tuple(extra_inputs),
        needs_perceptual=bool(options["render_perceptual"]),
    )


def _volume_and_pose_terms(model: TalkingHead, options: Mapping[str, Any]) -> ExtraTerms:
    """L_R, L_sigma and L_editor."""

    def terms(
        networks: Networks, batch: FramePair, context: StepContext, forward: Reconstruction
    ) -> dict[str, Array]:
        losses = {}
        if options["render_perceptual"]:
            losses["render_perceptual"] = options["render_perceptual"] * perceptual_term(
                options, context, forward.outputs["render"], batch.driving.image
            )
        if options["density"]["weight"]:
            losses["density"] = _density_term(model, options["density"], networks, batch, forward)
        if options["pose_edit"]["weight"]:
            losses["pose_edit"] = _pose_term(options["pose_edit"], networks, batch, forward)
        return losses

    return terms


def _density_term(
    model: TalkingHead,
    section: Mapping[str, Any],
    networks: Networks,
    batch: FramePair,
    forward: Reconstruction,
) -> Array:
    """L_sigma: the shape volume against Gaussians at the driving face's vertices (Eqs. 4-6)."""
    vertices = require_field(batch.driving.vertices, "vertices", "density.weight")
    weights = networks("vertex_weights", batch.driving.image, train=True)
    vertices = sample_vertices(normalize_vertices(vertices, model.resolution), weights.shape[1])
    volume = forward.outputs["shape_volume"]
    target = mesh_feature(vertices, weights, size=volume.shape[1:4], variance=section["variance"])
    return section["weight"] * density_alignment(
        volume,
        target,
        alpha_1=section["alpha_1"],
        alpha_2=section["alpha_2"],
        channel_reduction=section["channel_reduction"],
    )


def _pose_term(
    section: Mapping[str, Any], networks: Networks, batch: FramePair, forward: Reconstruction
) -> Array:
    """L_editor: keypoints turned by the change of angles against the driving ones (Eq. 12).

    Differs from source: keypoints are detached on both sides, so that this loss trains the editor
    and leaves the detector alone; the paper does not say.
    """
    source_angles = require_field(batch.source.angles, "angles", "pose_edit.weight")
    driving_angles = require_field(batch.driving.angles, "angles", "pose_edit.weight")
    source, driving = jax.lax.stop_gradient((forward.source_keypoints, forward.driving_keypoints))
    edited = networks("pose_editor", driving_angles - source_angles, source, train=True)
    value = section["value"] * absolute_error(edited.value, driving.value)
    jacobian = section["jacobian"] * absolute_error(edited.jacobian, driving.jacobian)
    return section["weight"] * (value + jacobian)
