"""Cases of the fixed networks that losses and metrics use."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from talking_heads_jax.conversion.apply import to_variables
from talking_heads_jax.networks.vgg19 import TAPS, Vgg19Features
from talking_heads_jax.parity.cases import GoldenCase


def extract_vgg19_features(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `vgg19_features`: the five activations that perceptual losses compare."""
    del options
    variables = to_variables("vgg19", {"vgg19": case.state_dict()})["vgg19"]
    features = jax.jit(Vgg19Features().apply)(variables, case.image("image"))
    return {name: np.asarray(value) for name, value in zip(TAPS, features, strict=True)}
