"""Meshes in, frames out: the model's own frames, one compile, two batches at most."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs
from talking_heads_jax.errors import ArgumentError, CheckpointError
from talking_heads_jax.inference.animator import FrameAnimator
from talking_heads_jax.inference.mesh_animator import MeshAnimator, is_mesh_driven
from talking_heads_jax.inference.mesh_motion import track_vertices
from talking_heads_jax.models.base import FrameOutput

from .conftest import SIDE, BrightnessHead
from .toy_meshes import fitted_track


class DistanceHead(BrightnessHead):
    """Adds to the source how far each coordinate's mean has moved, in tenths."""

    name = "distance"
    required_inputs = frozenset({"image", "vertices"})

    def encode_source(self, variables, source):
        self.traces["encode_source"] += 1
        return source.image, source.vertices.mean(1)

    def encode_driving(self, variables, driving):
        return driving.vertices

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        self.traces["animate_frame"] += 1
        image, place = source_encoding
        moved = (motion.mean(1) - place) / 10
        return FrameOutput(jnp.clip(image + moved[:, None, None], 0, 1), {})


@pytest.fixture
def toy():
    head = DistanceHead()
    return head, head.init(None)


def test_frames_are_the_models_own(gdpw, procedural):
    """A reduced system, batched and padded, against its three calls one frame at a time."""
    model, variables = gdpw
    meshes = track_vertices(fitted_track(procedural, 4, size=(32, 32)), procedural)
    source, meshes = meshes[3], meshes[:3]
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    animator = MeshAnimator(model, variables, batch_size=2)
    animator.set_source(image, source)
    pictures = list(animator.frames(meshes))

    @jax.jit
    def direct(variables, mesh):
        encoding = model.encode_source(
            variables, FaceInputs(image=jnp.float32(image[None]) / 255, vertices=source[None])
        )
        motion = model.encode_driving(variables, FaceInputs(vertices=mesh[None]))
        return model.animate_frame(variables, encoding, motion).prediction[0]

    assert len(pictures) == 3
    for picture, mesh in zip(pictures, meshes, strict=True):
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        # A value beside a rounding boundary may fall on either side.
        assert np.abs(picture - 255.0 * np.asarray(direct(variables, mesh))).max() <= 0.51
    assert np.abs(pictures[1].astype(int) - pictures[0]).max() > 10


def test_batches_give_single_frames_and_one_size_compiles_once(toy):
    head, variables = toy
    rng = np.random.default_rng(0)
    meshes = rng.uniform(0, 5, (5, 4, 3)).astype(np.float32)
    image = np.full((SIDE, SIDE, 3), 77, np.uint8)
    expected = np.clip(77 / 255 + (meshes.mean(1) - meshes[3].mean(0)) / 10, 0, 1) * 255
    for batch_size in (1, 2, 7):
        animator = MeshAnimator(head, variables, batch_size=batch_size)
        animator.set_source(image, meshes[3])
        before = head.traces["animate_frame"]
        pictures = np.stack(list(animator.frames(meshes)))
        assert head.traces["animate_frame"] == before + 1
        np.testing.assert_allclose(pictures[:, 0, 0], expected, atol=0.51)  # rounded
        animator.set_source(image.astype(np.float32) / 255, meshes[0] + 1)
        list(animator.frames(list(meshes[:3])))
        assert head.traces["animate_frame"] == before + 1


def test_an_iterator_of_meshes_is_read_two_batches_ahead_at_most(toy):
    head, variables = toy
    taken = []

    def meshes():
        for index in range(9):
            taken.append(index)
            yield np.full((4, 3), index, np.float32)

    animator = MeshAnimator(head, variables, batch_size=2)
    animator.set_source(np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((4, 3)))
    for shown, picture in enumerate(animator.frames(meshes())):
        assert len(taken) <= shown + 4
        np.testing.assert_array_equal(picture, round(25.5 * shown))
    assert shown == 8


def test_only_mesh_driven_systems_are_taken(toy):
    head, variables = toy
    other = BrightnessHead()
    assert is_mesh_driven(head) and not is_mesh_driven(other)
    with pytest.raises(ArgumentError, match="FrameAnimator for systems that need only images"):
        MeshAnimator(other, other.init(None))
    with pytest.raises(ArgumentError, match=r"mesh_animator\.MeshAnimator"):
        FrameAnimator(head, variables)
    with pytest.raises(CheckpointError, match="generator"):
        MeshAnimator(head, {})
    with pytest.raises(ArgumentError, match="batch size must be at least 1"):
        MeshAnimator(head, variables, batch_size=0)


def test_arrays_that_do_not_fit_are_refused(toy):
    head, variables = toy
    animator = MeshAnimator(head, variables)
    image, mesh = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((4, 3), np.float32)
    with pytest.raises(ArgumentError, match="source must be set"):
        next(animator.frames(mesh[None]))
    with pytest.raises(ArgumentError, match=f"RGB of {SIDE} x {SIDE} pixels"):
        animator.set_source(image[:8], mesh)
    with pytest.raises(ArgumentError, match="uint8, or float"):
        animator.set_source(image.astype(int), mesh)
    with pytest.raises(ArgumentError, match="source vertices must be finite"):
        animator.set_source(image, mesh + np.nan)
    animator.set_source(image, mesh)
    for wrong, message in ((mesh[:3], r"be \(4 3\)"), (mesh * np.nan, "hold_pose")):
        with pytest.raises(ArgumentError, match=message):
            next(animator.frames([wrong]))
