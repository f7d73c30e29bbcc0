"""FOMM as a `TalkingHead`: FNeVR's baseline."""

from typing import ClassVar

from flax import linen as nn

from talking_heads_jax.models.fomm.generator import OcclusionAwareGenerator
from talking_heads_jax.models.keypoint_driven import KeypointDrivenModel


class FirstOrderMotionModel(KeypointDrivenModel):
    """First order motion model; the defaults are vox-256.

    Networks: `kp_detector`, `generator`, `discriminator`.

    Source: Siarohin et al., First Order Motion Model for Image Animation (NeurIPS 2019).
    """

    name: ClassVar[str] = "fomm"
    generator_module: ClassVar[type[nn.Module]] = OcclusionAwareGenerator
