"""States of the built-in head, and a mesh-driven system, for the tests of editing."""

import functools

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.models.base import FrameOutput, TalkingHead
from talking_heads_jax.morphable.registry import load_morphable
from talking_heads_jax.tracking.track import PERSPECTIVE, WEAK_PERSPECTIVE, empty_track

SIDE = 96


@functools.cache
def head():
    """The built-in head, once: its compiled functions are shared."""
    return load_morphable("procedural")


def state(camera=WEAK_PERSPECTIVE, *, size=(SIDE, SIDE), count=1, **changes):
    """A face that looks a little aside, smiles a little and has its mouth ajar."""
    model = head()
    pose = np.zeros((count, len(model.joint_names), 3), np.float32)
    pose[:, model.joint_names.index("jaw"), 0] = 0.1
    expression = np.zeros((count, model.num_expression), np.float32)
    expression[:, model.expression_names.index("smile_L")] = 0.3
    shape = np.zeros(model.num_shape, np.float32)
    shape[:4] = (0.5, -0.4, 0.3, 0.2)
    perspective = camera == PERSPECTIVE
    scale = size[0] / 32
    values = {
        "face": np.ones(count, bool),
        "morphable": "procedural",
        "shape_coeffs": shape,
        "expression_coeffs": expression,
        "joint_pose": pose.reshape(count, -1),
        "angles": np.tile(np.float32([0.1, -0.05, 0.02]), (count, 1)),
        "scale_px": np.full(count, scale, np.float32),
        "offset_px": np.tile(np.float32([size[1] * 0.52, size[0] * 0.55]), (count, 1)),
        "camera": camera,
        "focal_px": 90.0 * scale if perspective else 0.0,
        "depth_cm": np.full(count, 90.0 if perspective else np.nan, np.float32),
    }
    return empty_track(count, fps=25.0, frame_size=size, **values | changes)


def landmarks(mesh):
    """(68 3) of a mesh (v 3)."""
    return np.asarray(head().landmarks68(mesh[None]))[0]


class MovedHead(TalkingHead):
    """Mesh-driven: grey, the brighter in red, green, blue the further x, y, z have moved."""

    name = "moved"
    required_inputs = frozenset({"image", "vertices"})
    inference_networks = ("generator",)
    resolution = 32

    networks = property(lambda self: {"generator": None})

    def arguments(self):
        return {"morphable": "procedural"}

    def init(self, rng, names=None):
        return {"generator": {"params": {}}}

    def encode_source(self, variables, source):
        return source.vertices.mean(1)

    def encode_driving(self, variables, driving):
        return driving.vertices

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        moved = 0.5 + (motion.mean(1) - source_encoding) / 20
        shape = (len(motion), self.resolution, self.resolution, 3)
        return FrameOutput(jnp.broadcast_to(moved[:, None, None], shape), {})
