"""A talking head small enough to reason about, and clips small enough to write in a test."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.media.video import VideoWriter
from talking_heads_jax.models.base import FrameOutput, TalkingHead
from talking_heads_jax.morphable.registry import load_morphable
from tests.models.toy_gdpw import random_variables, tiny_gdpw

SIDE = 16


class BrightnessHead(TalkingHead):
    """Keypoints are brightness-weighted centres; the source is tinted by where they go.

    `traces` counts how often each method was traced, which is how often it was compiled.
    """

    name = "brightness"
    inference_networks = ("generator",)
    resolution = SIDE

    def __init__(self):
        self.traces = {"encode_source": 0, "encode_driving": 0, "animate_frame": 0}

    @property
    def networks(self):
        return {"generator": None}

    def arguments(self):
        return {}

    def init(self, rng, names=None):
        return {"generator": {"params": {"gain": jnp.float32(0.5)}}}

    def encode_source(self, variables, source):
        self.traces["encode_source"] += 1
        return {"image": source.image}

    def encode_driving(self, variables, driving):
        self.traces["encode_driving"] += 1
        image = driving.image
        axis = jnp.linspace(-1.0, 1.0, SIDE)
        weights = jnp.concatenate([image, 1.0 - image.mean(-1, keepdims=True)], axis=-1) ** 4 + 1e-3
        weights = weights / weights.sum(axis=(1, 2), keepdims=True)
        value = jnp.stack(
            [jnp.einsum("bhwk,w->bk", weights, axis), jnp.einsum("bhwk,h->bk", weights, axis)], -1
        )
        spread = jnp.einsum("bhwk,h->bk", weights, axis**2)
        eye = jnp.eye(2)
        return Keypoints(
            value, eye * (1.0 + spread[..., None, None]) + 0.1 * value[..., None] * eye
        )

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        self.traces["animate_frame"] += 1
        gain = variables["generator"]["params"]["gain"]
        tint = (motion.value.sum(-1) * jnp.linalg.det(motion.jacobian))[:, None, None, :3]
        return FrameOutput(jnp.clip(source_encoding["image"] + gain * tint, 0.0, 1.0), {})


class TurnableHead(BrightnessHead):
    """With a pose editor that shifts the source's keypoints by the angles in radians."""

    @property
    def networks(self):
        return {"generator": None, "pose_editor": None}

    def edit_pose(self, variables, source_encoding, angles):
        keypoints = self.encode_driving(variables, _Inputs(source_encoding["image"]))
        gain = variables["pose_editor"]["params"]["gain"]
        return keypoints._replace(value=keypoints.value + gain * angles[:, None, :2])


class _Inputs:
    def __init__(self, image):
        self.image = image


def moving_frames(count: int, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0) -> np.ndarray:
    """(count, h, w, 3) uint8: smooth blobs of three colours that wander."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    frames = np.full((count, height, width, 3), 30.0)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 3)
    for index in range(count):
        for channel, phase in enumerate(phases):
            angle = phase + 0.35 * index * (1 + 0.3 * channel)
            x = width * (0.5 + 0.3 * np.cos(angle))
            y = height * (0.5 + 0.3 * np.sin(angle))
            distance = ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2
            frames[index, ..., channel] += 200 * np.exp(-distance / 0.03)
    return frames.astype(np.uint8)


def write_clip(path: Path, frames: np.ndarray, *, fps: float = 25) -> Path:
    """An mp4 of the frames."""
    with VideoWriter(path, fps, frames.shape[1:3], crf=10) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="session")
def head():
    """One object for all tests, as compiled code belongs to the object."""
    return BrightnessHead()


@pytest.fixture(scope="session")
def variables(head):
    return head.init(None)


@pytest.fixture(scope="session")
def procedural():
    """The built-in face model."""
    return load_morphable("procedural")


@pytest.fixture(scope="session")
def gdpw():
    """A mesh-driven system of 32 px on the built-in head and weights that show what moves."""
    small = {"num_levels": 2, "block_expansion": 4, "max_features": 8, "residual": True}
    model = tiny_gdpw("procedural", generator=small, spectral_norm=False)
    variables = random_variables(model)
    decoder = variables["generator"]["params"]["decoder"]
    decoder["output"]["kernel"] *= 10
    return model, variables
