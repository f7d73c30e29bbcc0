"""Tiny models of the released architectures, and official state dicts that fit them."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from talking_heads_jax.conversion.translate import to_state_dicts
from talking_heads_jax.models.registry import build_model

_SHARED = {
    "resolution": 32,
    "num_keypoints": 3,
    "keypoint_detector": {"block_expansion": 2, "max_features": 8, "num_blocks": 2},
    "discriminator": {"block_expansion": 2, "max_features": 8, "num_blocks": 3},
}
_MOTION = {"block_expansion": 2, "max_features": 8, "num_blocks": 2}
_GENERATOR = {"block_expansion": 2, "max_features": 8, "dense_motion_options": _MOTION}
ARGUMENTS = {
    "fomm": _SHARED | {"generator": _GENERATOR | {"num_bottleneck_blocks": 2}},
    "fnevr": _SHARED
    | {
        "generator": _GENERATOR
        | {
            "spade_options": {"segmentation_features": 4, "block_features": [4, 3, 3, 2]},
            "volume_options": {"channels": 2, "depth": 4, "hidden_features": 4},
            "image_head_features": 4,
        }
    },
}
OFFICIAL = ("kp_detector", "generator", "discriminator")


def tiny(name: str) -> SimpleNamespace:
    """`model`, `variables` (random, all different) and `states` in official names."""
    model = build_model(name, **ARGUMENTS[name])
    shapes = jax.eval_shape(lambda key: model.init(key, OFFICIAL), jax.random.key(0))
    rng = np.random.default_rng(len(name))
    variables = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), shapes)
    states = to_state_dicts(model, variables)
    return SimpleNamespace(
        name=name, model=model, arguments=ARGUMENTS[name], variables=variables, states=states
    )


@pytest.fixture(scope="session", params=["fomm", "fnevr"])
def system(request) -> SimpleNamespace:
    """Each convertible model in turn."""
    return tiny(request.param)


@pytest.fixture(scope="session")
def fomm() -> SimpleNamespace:
    """The small FOMM."""
    return tiny("fomm")


@pytest.fixture(scope="session")
def fnevr() -> SimpleNamespace:
    """The small FNeVR."""
    return tiny("fnevr")
