"""A renderer with the interface of `SyntheticTalkingHeads` that draws flat squares in no time."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from data_pipeline.synthetic.talking_heads import FrameState, SyntheticFrame
from talking_heads_jax.batch import FaceCoefficients

VERTICES, SHAPES, EXPRESSIONS, JOINTS = 10, 3, 4, 2
# Vertices 0..4 lie to the left, 5..9 to the right, in the same order.
MODEL = SimpleNamespace(
    name="toy",
    num_vertices=VERTICES,
    num_shape=SHAPES,
    num_expression=EXPRESSIONS,
    joint_names=("root", "jaw"),
    faces=np.array([[0, 1, 2], [5, 6, 7]], np.int32),
    face_part=np.array([1, 4], np.uint8),
    mirror=np.roll(np.arange(VERTICES, dtype=np.int32), 5),
)


class ToyHeads:
    """Draws a square whose place says which identity and frame it is.

    Attributes:
      rendered: (identity, frame) of every frame that any renderer drew.
    """

    rendered: list[tuple[int, int]] = []
    num_threads = 2

    def __init__(self, *, size, seed, motion, poses, morphable, fields=()):
        self.size, self.seed, self.poses, self.fields = size, seed, poses, fields
        self.model = MODEL

    def identity(self, number: int) -> tuple[int]:
        return (number,)

    def clip(self, identity: int, take: int = 0, num_frames: int = 64, stride: int = 1) -> list:
        turn = 1.0 if self.poses == "extrapolation" else 0.1
        return [
            FrameState(
                identity,
                take,
                index * stride,
                np.array([turn, 0.01 * index, 0.2], np.float32),
                np.full(EXPRESSIONS, 0.25 * index, np.float32),
                np.zeros((JOINTS, 3), np.float32),
                False,
            )
            for index in range(num_frames)
        ]

    def render(self, identity: int | tuple[int], state: FrameState) -> SyntheticFrame:
        identity = identity[0] if isinstance(identity, tuple) else identity
        self.rendered.append((identity, state.frame_index))
        rng = np.random.default_rng([self.seed, identity, state.take, state.frame_index])
        image = rng.integers(0, 256, (self.size, self.size, 3)).astype(np.uint8)
        mask = rng.integers(0, 13, (self.size, self.size)).astype(np.uint8)
        vertices = rng.uniform(0, self.size, (VERTICES, 3)).astype(np.float32)
        vertices[:, 2] -= self.size / 2
        truth: dict[str, Any] = dict.fromkeys(("depth", "normals", "face_id"))
        if "depth" in self.fields:
            truth["depth"] = rng.uniform(90, 130, mask.shape).astype(np.float32)
        if "normals" in self.fields:
            truth["normals"] = rng.uniform(-1, 1, image.shape).astype(np.float32)
        if "flow" in self.fields:
            truth["face_id"] = np.zeros(mask.shape, np.int32)
        return SyntheticFrame(
            image=image,
            mask=mask,
            vertices_px=vertices if {"vertices", "flow"} & {*self.fields} else None,
            landmarks68_px=rng.uniform(0, self.size, (68, 2)).astype(np.float32),
            landmarks68_visible=rng.integers(0, 2, 68).astype(np.uint8),
            angles=state.angles,
            coefficients=FaceCoefficients(
                np.full(SHAPES, identity, np.float32), state.expression_coeffs, state.pose
            ),
            camera25=rng.uniform(-1, 1, 25).astype(np.float32),
            **truth,
        )

    def render_iter(self, items):
        return (self.render(identity, state) for identity, state in items)

    def flow_px(self, source: SyntheticFrame, target: SyntheticFrame) -> np.ndarray:
        assert source.face_id is not None
        shift = target.vertices_px.mean() - source.vertices_px.mean()
        return np.full((self.size, self.size, 2), shift, np.float32)
