"""Cases of the fixed networks that losses, metrics and tracking use."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from talking_heads_jax.conversion.apply import to_variables
from talking_heads_jax.networks.deca import DecaEncoder
from talking_heads_jax.networks.deep3d import Deep3DRegressor
from talking_heads_jax.networks.face_parsing import FaceParsingNetwork
from talking_heads_jax.networks.fan import FaceAlignmentNetwork
from talking_heads_jax.networks.vgg19 import TAPS, Vgg19Features
from talking_heads_jax.parity.cases import GoldenCase
from talking_heads_jax.typing import PyTree


def _variables(network: str, case: GoldenCase) -> PyTree:
    return to_variables(network, {network: case.state_dict()})[network]


def extract_vgg19_features(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `vgg19_features`: the five activations that perceptual losses compare."""
    del options
    features = jax.jit(Vgg19Features().apply)(_variables("vgg19", case), case.image("image"))
    return {name: np.asarray(value) for name, value in zip(TAPS, features, strict=True)}


def find_fan_heatmaps(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `fan_2d`: the heatmaps of each hourglass."""
    del options
    heatmaps = jax.jit(FaceAlignmentNetwork().apply)(_variables("fan", case), case.image("image"))
    return {f"heatmaps_{index}": np.asarray(value) for index, value in enumerate(heatmaps)}


def parse_faces(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `bisenet_face_parsing`: the main head's logits."""
    del options

    @jax.jit
    def parse(variables: PyTree, image: jax.Array) -> jax.Array:
        return FaceParsingNetwork().apply(variables, image).main

    return {"logits": np.asarray(parse(_variables("face_parsing", case), case.image("image")))}


def estimate_deca(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `deca_regressor`: the vector of 236 coefficients."""
    del options
    run = jax.jit(DecaEncoder().apply)
    return {"coeffs": np.asarray(run(_variables("deca", case), case.image("image")))}


def estimate_deep3d(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `deep3d_regressor`: the vector of 257 coefficients."""
    del options
    run = jax.jit(Deep3DRegressor().apply)
    return {"coeffs": np.asarray(run(_variables("deep3d", case), case.image("image")))}
