"""Case `fomm_training_step`: one step of the shipped recipe against official losses and gradients.

Objectives, phases and the jitted step are those of training. The case only fixes what training
draws at random (the thin-plate transform) and where the spectral vectors start. Gradients and
statistics are compared under their official names, through the conversion tables in reverse.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.conversion.apply import to_state_dicts, to_variables
from talking_heads_jax.errors import ParityError, requirement
from talking_heads_jax.models.base import Networks, ObjectiveResult, Phase, StepContext
from talking_heads_jax.models.registry import build_model, build_phases
from talking_heads_jax.networks.vgg19 import Vgg19Features
from talking_heads_jax.ops.thin_plate_spline import ThinPlateSpline
from talking_heads_jax.parity import sizes
from talking_heads_jax.parity.cases import GoldenCase
from talking_heads_jax.parity.first_order import thin_plate_spline
from talking_heads_jax.train.optimizers import adam
from talking_heads_jax.train.state import create_state
from talking_heads_jax.train.step import make_train_step

_MODEL = "fomm"
# Our network -> the case (of `uses`) with its weights, and the reader of its sizes.
_NETWORKS = {
    "kp_detector": ("fomm_kp_detector", sizes.keypoint_detector_arguments),
    "generator": ("fomm_generator", sizes.fomm_generator_arguments),
    "discriminator": ("fomm_discriminator", sizes.discriminator_arguments),
}
_PERCEPTUAL = "vgg19"
_PERCEPTUAL_CASE = "vgg19_features"
# The case's loss names -> ours.
_LOSSES = {
    "perceptual": "loss/generator/perceptual",
    "gen_gan": "loss/generator/generator_gan",
    "feature_matching": "loss/generator/feature_matching",
    "equivariance_value": "loss/generator/equivariance_value",
    "equivariance_jacobian": "loss/generator/equivariance_jacobian",
    "disc_gan": "loss/discriminator/discriminator_gan",
}
# vox-256 with its adversarial term on, as the case says.
_OBJECTIVES = {"generator_gan": 1.0}
_LEARNING_RATE = 2e-4  # of the recipe; the compared numbers do not depend on it


def take_step(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs one training step and returns its outputs under the case's names.

    Args:
      case: gives images, transform and spectral vectors, and names the cases with the weights.
      options: constructor arguments that override the model's.
    """
    source, driving = case.image("source"), case.image("driving")
    states, arguments = _read_weights(case)
    model = build_model(_MODEL, **{"resolution": source.shape[1], **arguments, **options})
    variables = to_variables(model, states)
    helper = to_variables(_PERCEPTUAL, {_PERCEPTUAL: case.other(_PERCEPTUAL_CASE).state_dict()})
    vgg19 = Vgg19Features()

    phases = build_phases(model, _OBJECTIVES)
    transform = thin_plate_spline(case, source.shape[0])
    optimizers = {name: adam([(".*", lambda step: _LEARNING_RATE)]) for name in variables}
    step = make_train_step(
        model.networks,
        (_given_transform(transform), *phases),
        optimizers,
        helpers={_PERCEPTUAL: vgg19.apply},
        with_gradients=True,
        donate=False,
    )
    state, metrics, details = step(
        create_state(variables, optimizers),
        FramePair(FaceInputs(image=jnp.asarray(source)), FaceInputs(image=jnp.asarray(driving))),
        helper,
        jax.random.key(0),
    )
    outputs = {f"loss/{theirs}": np.asarray(metrics[ours]) for theirs, ours in _LOSSES.items()}
    outputs["prediction"] = np.asarray(details.carry["prediction"])
    gradients = {name: tree for trees in details.gradients.values() for name, tree in trees.items()}
    after = {
        network: {"params": gradients[network], **state.networks[network].collections}
        for network in variables
    }
    for network, tensors in to_state_dicts(model, after).items():
        for name, value in tensors.items():
            if _is_gradient(name):
                norm = np.sqrt(np.square(value.astype(np.float64)).sum())
                outputs[f"grad_norm/{network}/{name}"] = norm
            else:
                outputs[f"after/{network}/{name}"] = value
    return outputs


def _is_gradient(name: str) -> bool:
    """Whether an official tensor is a parameter; the others are state."""
    return not name.endswith(("running_mean", "running_var", "weight_u", "weight_v"))


def _read_weights(case: GoldenCase) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """State dicts of the networks, the discriminator's vectors replaced; model arguments."""
    states, arguments = {}, {}
    for network, (used, read_arguments) in _NETWORKS.items():
        other = case.other(used)
        states[network] = other.state_dict()
        found = read_arguments(other.shapes)
        for key in set(found) & set(arguments):
            if found[key] != arguments[key]:
                raise ParityError(
                    requirement(
                        f"'{key}' of the networks of case '{case.name}'",
                        "be the same",
                        (found[key], arguments[key]),
                        "Fetch or write the cases again.",
                    )
                )
        arguments |= found
    for key in case.inputs:
        if key.startswith("spectral/"):
            name = key.removeprefix("spectral/")
            shape = sizes.shape_of({k: v.shape for k, v in states["discriminator"].items()}, name)
            states["discriminator"][name] = case.input(key, shape)
    return states, arguments


def _given_transform(transform: ThinPlateSpline) -> Phase:
    """A phase that trains nothing and hands the case's transform to the objectives."""

    def objective(networks: Networks, batch: FramePair, context: StepContext) -> ObjectiveResult:
        del networks, batch, context
        return ObjectiveResult({}, {"equivariance_transform": transform})

    return Phase(name="given_transform", trains=(), objective=objective)
