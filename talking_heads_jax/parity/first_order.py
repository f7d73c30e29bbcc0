"""Cases of FOMM and FNeVR that run forward: detector, generators, discriminator, transforms."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceInputs, Keypoints
from talking_heads_jax.conversion.apply import to_variables
from talking_heads_jax.errors import ParityError, requirement
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.keypoint_driven import EncodedSource
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.resize import image_pyramid
from talking_heads_jax.ops.thin_plate_spline import (
    ThinPlateSpline,
    transform_frame,
    transform_jacobian,
    transform_points,
)
from talking_heads_jax.parity import sizes
from talking_heads_jax.parity.cases import GoldenCase

Options = Mapping[str, Any]
Outputs = dict[str, np.ndarray]


def build_converted(
    name: str,
    case: GoldenCase,
    network: str,
    arguments: Callable[[sizes.Shapes], dict[str, Any]],
    *,
    resolution: int,
    options: Options,
) -> tuple[TalkingHead, dict[str, Variables]]:
    """The registry's model in the size of a case, and one network's converted variables.

    Args:
      name: registry name.
      case: holds the network's weights.
      network: which one.
      arguments: reads constructor arguments off the shapes.
      resolution: side of the images.
      options: further constructor arguments.
    """
    model = build_model(name, **{"resolution": resolution, **arguments(case.shapes), **options})
    return model, to_variables(model, {network: case.state_dict()})


def detect_fomm_keypoints(case: GoldenCase, options: Options) -> Outputs:
    """Runs case `fomm_kp_detector`."""
    return _detect("fomm", case, options)


def detect_fnevr_keypoints(case: GoldenCase, options: Options) -> Outputs:
    """Runs case `fnevr_kp_detector`: the same network under the other system's name."""
    return _detect("fnevr", case, options)


def _detect(name: str, case: GoldenCase, options: Options) -> Outputs:
    images = {key: case.image(key) for key in ("source", "driving")}
    model, variables = build_converted(
        name,
        case,
        "kp_detector",
        sizes.keypoint_detector_arguments,
        resolution=images["source"].shape[1],
        options=options,
    )
    detect = jax.jit(lambda v, image: model.encode_driving(v, FaceInputs(image=image)))
    outputs = {}
    for key, image in images.items():
        keypoints = detect(variables, image)
        outputs[f"{key}_value"] = np.asarray(keypoints.value)
        if keypoints.jacobian is not None:
            outputs[f"{key}_jacobian"] = np.asarray(keypoints.jacobian)
    return outputs


def generate_fomm_frame(case: GoldenCase, options: Options) -> Outputs:
    """Runs case `fomm_generator`."""
    return _generate("fomm", sizes.fomm_generator_arguments, case, options)


def generate_fnevr_frame(case: GoldenCase, options: Options) -> Outputs:
    """Runs case `fnevr_generator`."""
    return _generate("fnevr", sizes.fnevr_generator_arguments, case, options)


def _generate(
    name: str,
    arguments: Callable[[sizes.Shapes], dict[str, Any]],
    case: GoldenCase,
    options: Options,
) -> Outputs:
    image = case.image("source")
    model, variables = build_converted(
        name, case, "generator", arguments, resolution=image.shape[1], options=options
    )
    count = arguments(case.shapes)["num_keypoints"]

    @jax.jit
    def animate(
        variables: Mapping[str, Variables], image: Any, source: Keypoints, driving: Keypoints
    ) -> dict[str, Any]:
        features = model.networks["generator"].apply(
            variables["generator"], image, train=False, method="encode"
        )
        frame = model.animate_frame(
            variables, EncodedSource(features, source), driving, with_intermediates=True
        )
        wanted = {key: frame.intermediates.get(key) for key in case.expected}
        return {
            "prediction": frame.prediction,
            **{key: value for key, value in wanted.items() if value is not None},
        }

    outputs = animate(
        variables,
        image,
        _keypoints(case, "source", image.shape[0], count),
        _keypoints(case, "driving", image.shape[0], count),
    )
    return {key: np.asarray(value) for key, value in outputs.items()}


def _keypoints(case: GoldenCase, role: str, batch: int, count: int) -> Keypoints:
    jacobian = None
    if f"kp_{role}_jacobian" in case.inputs:
        jacobian = case.input(f"kp_{role}_jacobian", (batch, count, 2, 2)).astype(np.float32)
    value = case.input(f"kp_{role}_value", (batch, count, 2)).astype(np.float32)
    return Keypoints(value, jacobian)


def discriminate(case: GoldenCase, options: Options) -> Outputs:
    """Runs case `fomm_discriminator`, in evaluation: the stored spectral vectors are used."""
    image = case.image("image")
    model, variables = build_converted(
        "fomm",
        case,
        "discriminator",
        sizes.discriminator_arguments,
        resolution=image.shape[1],
        options=options,
    )
    score = jax.jit(
        lambda v, image: model.networks["discriminator"].apply(
            v["discriminator"], image, train=False
        )
    )
    scores = next(iter(score(variables, image).values()))
    outputs = {"map": np.asarray(scores.logits)}
    for i, features in enumerate(scores.features):
        outputs[f"feature_{i}"] = np.asarray(features)
    return outputs


def thin_plate_spline(case: GoldenCase, batch: int) -> ThinPlateSpline:
    """The transform whose parameters a case gives.

    Args:
      case: has `theta` (b 2 3), `control_params` (b … n) row-major, and perhaps `control_points`
        (… 2); without them they are the corner-aligned square grid.
      batch: b.

    Raises:
      ParityError: if the arrays do not fit together.
    """
    params = case.input("control_params").reshape(batch, -1)
    count = params.shape[1]
    if "control_points" in case.inputs:
        points = case.input("control_points").reshape(-1, 2)
    else:
        side = math.isqrt(count)
        points = np.asarray(corner_grid(side, side)).reshape(-1, 2)
    if len(points) != count:
        raise ParityError(
            requirement(
                f"control points of case '{case.name}'",
                f"be as many as parameters ({count})",
                len(points),
                "Fetch or write the case again.",
            )
        )
    return ThinPlateSpline(
        jnp.asarray(case.input("theta", (batch, 2, 3))), jnp.asarray(points), jnp.asarray(params)
    )


def transform_thin_plate(case: GoldenCase, options: Options) -> Outputs:
    """Runs case `fomm_equivariance`: transformed frame, points, Jacobians; the image pyramid."""
    del options
    image = case.image("image")
    transform = thin_plate_spline(case, image.shape[0])
    points = jnp.asarray(case.input("points", (image.shape[0], None, 2)))
    outputs = {
        "frame": jax.jit(transform_frame)(transform, image),
        "points": jax.jit(transform_points)(transform, points),
        "jacobian": jax.jit(transform_jacobian)(transform, points),
    }
    scales = [
        m.group(1) for name in case.expected if (m := re.fullmatch(r"pyramid_([\d.]+)", name))
    ]
    if scales:
        pyramid = image_pyramid(jnp.asarray(image), tuple(float(scale) for scale in scales))
        outputs |= {f"pyramid_{scale}": pyramid[float(scale)] for scale in scales}
    return {key: np.asarray(value) for key, value in outputs.items()}
