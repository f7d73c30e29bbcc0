"""What FOMM is trained by: reconstruction, equivariance, and optionally a GAN."""

from collections.abc import Mapping
from typing import Any

from talking_heads_jax.models.base import Phase, TalkingHead
from talking_heads_jax.models.image_objectives import read_options
from talking_heads_jax.models.keypoint_objectives import DEFAULTS, keypoint_phases


def build_phases(model: TalkingHead, objectives: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of one training step.

    Args:
      model: the system; nothing of it is needed.
      objectives: weights and choices, keys as in `keypoint_objectives.DEFAULTS`.

    Raises:
      ConfigError: for an unknown key.

    Source: FOMM (NeurIPS 2019) section 3.4; FOMM repository.
    """
    del model
    return keypoint_phases(read_options(objectives, DEFAULTS))
