"""Rows of mesh-driven systems: the bare warp, whose mesh reaches a checkpoint, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, CheckpointError, DataError
from talking_heads_jax.evaluation import trivial
from talking_heads_jax.evaluation.answers import CheckpointAnswer
from talking_heads_jax.evaluation.mesh_answers import (
    MESH_WARP,
    MeshCheckpointAnswer,
    MotionMeshes,
    checkpoint_answer,
    mesh_trivial_answers,
)
from talking_heads_jax.evaluation.pairs import build_pairs
from talking_heads_jax.evaluation.runner import evaluate_pairs
from talking_heads_jax.evaluation.truth import ExactTruth
from talking_heads_jax.models.base import FrameOutput
from tests.evaluation.toys import Halfway, Shifted, noise_clips, protocol

SIDE = 16
warp_by_mesh = jax.jit(trivial.warp_by_mesh)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def square(left: float, top: float, side: float, z: float = 0.0) -> np.ndarray:
    """(4 3) corners of a square."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + [left, top]
    return np.concatenate([corners, np.full((4, 1), z)], axis=1).astype(np.float32)


def coordinates(side: int = SIDE) -> np.ndarray:
    """(1 h w 2) pictures whose colours are where they are, in pixels."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    return np.stack([columns, rows], axis=-1)[None].astype(np.float32)


class Mesh:
    name, num_vertices, faces = "square", 4, FACES


class Carried(Halfway):
    """Mesh-driven: paints the source's vertex 0 in red, the driving one's in green, blue 1."""

    name = "carried"
    required_inputs = frozenset({"image", "vertices"})
    mesh = Mesh()

    def encode_source(self, variables, source):
        return {"image": source.image, "vertices": source.vertices}

    def encode_driving(self, variables, driving):
        assert driving.image is None
        return driving.vertices

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        own = jnp.broadcast_to(source_encoding["vertices"], motion.shape)
        color = jnp.stack([own[:, 0, 0], motion[:, 0, 0], jnp.full(len(motion), SIDE)], axis=-1)
        shown = jnp.zeros((len(motion), SIDE, SIDE, 3)) + color[:, None, None] / SIDE
        return FrameOutput(shown, {})


def mesh_clips(**options) -> dict:
    """Clips of noise; vertex 0 of frame i of clip c lies at x = c + i / 10."""
    clips = noise_clips(size=SIDE, **options)
    return {
        name: clip._replace(
            vertices=[square(number + i / 10, 4, 6) for i in range(len(clip.frames))]
        )
        for number, (name, clip) in enumerate(clips.items())
    }


def test_warp_by_mesh_shows_where_each_point_was():
    source, driving = square(2, 3, 8), square(5, 4, 6)
    moved = np.asarray(
        warp_by_mesh(coordinates(), driving[None], source[None], driving[None], FACES)
    )[0]
    here = coordinates()[0]
    inside = np.s_[4:10, 5:11]
    np.testing.assert_allclose(moved[inside], ((here - [5, 4]) * 8 / 6 + [2, 3])[inside], atol=1e-4)
    outside = np.ones((SIDE, SIDE), bool)
    outside[inside] = False
    np.testing.assert_allclose(moved[outside], here[outside], atol=1e-4)


def test_warp_by_mesh_shows_the_nearest_and_serves_many_frames_of_one_source():
    far, near = square(1, 1, 4, z=5.0), square(8, 8, 4, z=-5.0)
    faces = np.concatenate([FACES, FACES + 4])
    source = np.concatenate([far, near])[None]
    # Both squares move onto each other: the nearer one is seen, whatever their order.
    driving = np.stack(
        [np.concatenate([square(4, 4, 4, z=z), square(4, 4, 4, z=-z)]) for z in (5.0, -5.0)]
    )
    images = warp_by_mesh(coordinates(), driving, source, driving, faces)
    assert images.shape == (2, SIDE, SIDE, 2)
    np.testing.assert_allclose(images[0, 5, 5], [9.5, 9.5], atol=1e-4)
    np.testing.assert_allclose(images[1, 5, 5], [2.5, 2.5], atol=1e-4)


def test_warp_by_the_same_mesh_is_the_source():
    source = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
    mesh = np.stack([square(3, 3, 9), square(1, 6, 7)])
    moved = warp_by_mesh(source, source, mesh, mesh, FACES)
    np.testing.assert_allclose(moved, source, atol=2e-5)  # a sample a hair off its pixel


def test_a_checkpoint_is_given_the_meshes_of_its_pair():
    clips = mesh_clips()
    pair_list = build_pairs(protocol("random_pairs", pairs_per_clip=2), clips.values())
    answer = checkpoint_answer(Carried(SIDE), {}, batch_size=2)
    assert isinstance(answer, MeshCheckpointAnswer)
    seen = {}

    class Spy(MeshCheckpointAnswer):
        def bind(self, task):
            predict = super().bind(task)

            def watch(batch):
                image = np.asarray(predict(batch))
                for place in range(batch.count):
                    number = task.pair.driving_frames[batch.start + place]
                    seen[task.pair.name, number] = image[place, 0, 0] * SIDE
                return image

            return watch

    result = evaluate_pairs(
        {"model": Spy(Carried(SIDE), {})},
        pair_list,
        clips,
        recipes=("l1/unit",),
        batch_size=2,
        more_trivial=mesh_trivial_answers(Carried(SIDE)),
    )
    assert MESH_WARP in result.values and not mesh_trivial_answers(Halfway(SIDE))
    numbers = {name: i for i, name in enumerate(clips)}
    for pair in pair_list.pairs:
        for number in pair.driving_frames:
            own = numbers[pair.source_clip] + pair.source_frame / 10
            other = numbers[pair.driving_clip] + number / 10
            np.testing.assert_allclose(seen[pair.name, number], [own, other, SIDE], atol=1e-4)


def test_across_people_the_motion_is_on_the_sources_shape():
    clips = mesh_clips(masks=True)
    pair_list = build_pairs(protocol("synthetic_cross", driving_per_clip=2), clips.values())
    pair = pair_list.pairs[0]

    def vertices(pair, number):
        return square(10 + number, 0, 3)

    truth = ExactTruth(lambda pair, number: clips[pair.driving_clip].frames[number])
    with pytest.raises(DataError, match="motion on the source's shape"):
        MotionMeshes(pair_list.pairs, clips, truth, same=False)
    with pytest.raises(DataError, match="motion on the source's shape"):
        MotionMeshes(pair_list.pairs, clips, None, same=False)
    meshes = MotionMeshes(
        pair_list.pairs, clips, ExactTruth(truth.image, vertices=vertices), same=False
    )
    np.testing.assert_array_equal(
        meshes.source(pair), clips[pair.source_clip].vertices[pair.source_frame]
    )
    found = meshes.driving(pair, [1, 3], 3)
    np.testing.assert_array_equal(found[:, 0, 0], [11, 13, 13])


def test_what_mesh_driven_systems_cannot_use_is_named():
    clips = mesh_clips()
    pair_list = build_pairs(protocol("reconstruction"), clips.values())
    answer = checkpoint_answer(Carried(SIDE), {}, batch_size=2)
    bare = {name: clip._replace(vertices=None) for name, clip in clips.items()}
    with pytest.raises(DataError, match="hold `vertices` for a mesh-driven"):
        evaluate_pairs({"model": answer}, pair_list, bare)
    three, unknown = square(0, 0, 1)[:3], square(0, 0, np.nan)
    for broken, message in ((three, "'square', got 3"), (unknown, "nan")):
        wrong = {
            name: clip._replace(vertices=[broken] * len(clip.frames))
            for name, clip in clips.items()
        }
        with pytest.raises(DataError, match=message):
            evaluate_pairs({"model": answer}, pair_list, wrong)
    with pytest.raises(DataError, match="model's 8 pixels"):
        evaluate_pairs({"model": checkpoint_answer(Carried(8), {}, batch_size=2)}, pair_list, clips)
    with pytest.raises(ArgumentError, match="relative motion"):
        checkpoint_answer(Carried(SIDE), {}, batch_size=2, relative=True)

    class Incomplete(Carried):
        inference_networks = ("generator",)

    with pytest.raises(CheckpointError, match="generator"):
        checkpoint_answer(Incomplete(SIDE), {}, batch_size=2)

    class Camera(Carried):
        required_inputs = frozenset({"image", "vertices", "camera"})

    with pytest.raises(ArgumentError, match="camera"):
        checkpoint_answer(Camera(SIDE), {}, batch_size=2)


def test_a_checkpoint_names_its_face_model_where_its_mesh_has_one():
    class Named(Carried):
        mesh = type("Mesh", (), {"name": "procedural", "num_vertices": 4, "faces": FACES})()

    assert checkpoint_answer(Named(SIDE), {}, batch_size=2).morphable == "procedural"
    assert checkpoint_answer(Carried(SIDE), {}, batch_size=2).morphable == ""


def test_keypoint_systems_keep_their_own_row():
    answer = checkpoint_answer(Shifted(SIDE), {}, batch_size=2, relative=True)
    assert isinstance(answer, CheckpointAnswer) and not answer.uses_vertices
