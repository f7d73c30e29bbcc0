"""Tiny systems: full structure, 32 px, a handful of channels."""

import copy
import functools
from typing import Any

import jax
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.models.registry import build_model

_MOTION = {"block_expansion": 2, "max_features": 4, "num_blocks": 1, "scale_factor": 0.5}
_TINY: dict[str, Any] = {
    "resolution": 32,
    "num_keypoints": 3,
    "keypoint_detector": {**_MOTION},
    "generator": {
        "block_expansion": 4,
        "max_features": 8,
        "num_bottleneck_blocks": 1,
        "dense_motion_options": _MOTION,
    },
    "discriminator": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
}
_TINY_FNEVR = {
    "volume_options": {"channels": 2, "depth": 3, "hidden_features": 4},
    "spade_options": {"segmentation_features": 4, "block_features": [4, 4, 4, 4]},
    "image_head_features": 4,
}


def tiny_model(name: str, **changes: Any) -> TalkingHead:
    """A tiny system; `changes` update its constructor arguments, `generator` key by key."""
    arguments = copy.deepcopy(_TINY)
    if name == "fnevr":
        arguments["generator"] |= _TINY_FNEVR
        arguments["pose_editor"] = {"hidden_features": [8]}
        arguments["vertex_weights"] = {"num_vertices": 8, "features": [2, 2]}
    arguments["generator"] |= changes.pop("generator", {})
    return build_model(name, **arguments | changes)


@pytest.fixture(scope="session")
def model_and_variables() -> Any:
    """`(name) -> (model, variables)`, built once per session."""

    @functools.cache
    def build(name: str) -> tuple:
        model = tiny_model(name)
        return model, model.init(jax.random.key(0))

    return build


@pytest.fixture(scope="session")
def pair() -> FramePair:
    """Two random frame pairs with vertices, angles and masks of parts."""
    rng = np.random.default_rng(0)

    def face() -> FaceInputs:
        return FaceInputs(
            image=jax.numpy.asarray(rng.random((2, 32, 32, 3), np.float32)),
            vertices=jax.numpy.asarray(rng.uniform(4, 28, (2, 40, 3)).astype(np.float32)),
            angles=jax.numpy.asarray(rng.uniform(-0.3, 0.3, (2, 3)).astype(np.float32)),
            mask=jax.numpy.asarray(rng.integers(0, 13, (2, 32, 32, 1)).astype(np.uint8)),
        )

    return FramePair(face(), face())
