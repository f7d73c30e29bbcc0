"""Cases of GDPW: generator fed by guidance maps, and discriminator."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from talking_heads_jax.conversion.apply import to_variables
from talking_heads_jax.conversion.gdpw import arguments_of_shapes
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.gdpw.guidance import GuidanceMaps
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.parity.cases import GoldenCase

_INPUTS = {"flow": "flow", "driving_codes": "codes_driving", "source_codes": "codes_source"}


def generate_frame(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `gdpw_generator_*`.

    Args:
      case: `source`, and the drawn maps of its variant.
      options: constructor arguments.
    """
    image = case.image("source")
    model, variables = _build(case, "generator", image.shape[1], options)
    generator = model.networks["generator"]
    channels = {"flow": 2, "driving_codes": generator.code_features}
    channels["source_codes"] = generator.code_features
    wanted = [*(["flow"] if generator.with_flow else [])]
    if generator.code_features:
        wanted += ["driving_codes", "source_codes"]
    maps = GuidanceMaps(
        **{
            name: case.input(_INPUTS[name], (*image.shape[:3], channels[name])).astype(np.float32)
            for name in wanted
        }
    )

    @jax.jit
    def generate(variables: Mapping[str, Variables], image: Any, maps: GuidanceMaps) -> Any:
        return generator.apply(variables["generator"], image, maps, train=False)

    found = generate(variables, image, maps)
    outputs = {"image": found["prediction"], "warped_source": found["deformed"]}
    strides = sorted(
        (int(m[1]) for name in case.expected if (m := re.fullmatch(r"flow_x(\d+)", name))),
        reverse=True,
    )
    by_size = {image.shape[1] // flow.shape[1]: flow for flow in found["flows"]}
    outputs |= {f"flow_x{stride}": by_size[stride] for stride in strides if stride in by_size}
    return {name: np.asarray(value) for name, value in outputs.items()}


def discriminate(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `gdpw_discriminator`, in evaluation: the stored spectral vectors are used.

    Args:
      case: `image`.
      options: constructor arguments.
    """
    image = case.image("image")
    model, variables = _build(case, "discriminator", image.shape[1], options)
    score = jax.jit(
        lambda v, image: model.networks["discriminator"].apply(
            v["discriminator"], image, train=False
        )
    )
    scores = next(iter(score(variables, image).values()))
    outputs = {"logits": np.asarray(scores.logits)}
    for i, features in enumerate(scores.features):
        outputs[f"feature_{i}"] = np.asarray(features)
    return outputs


def _build(
    case: GoldenCase, network: str, resolution: int, options: Mapping[str, Any]
) -> tuple[TalkingHead, dict[str, Variables]]:
    """The registry's model in the size of a case, and its converted variables."""
    shapes = {"generator": {}, "discriminator": {}, network: case.shapes}
    arguments = arguments_of_shapes(**shapes)
    model = build_model("gdpw", **{"resolution": resolution, **arguments, **options})
    return model, to_variables(model, {network: case.state_dict()})
