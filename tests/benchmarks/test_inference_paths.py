"""What the benchmarks time: both paths give one picture, of a head that is in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.inference_paths import (
    make_inputs,
    make_meshes,
    make_variables,
    paths_of,
    pyramid_of,
)
from benchmarks.train_step import make_batch
from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.models.registry import build_model

SMALL = {
    "num_levels": 2,
    "block_expansion": 4,
    "max_features": 8,
    "smooth_silhouettes": False,
}


@pytest.fixture(scope="module")
def mesh_file(tmp_path_factory):
    """An octahedron: its corners lie on the axes of the head that stands in for a face."""
    corners = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    faces = [
        (0 + 3 * i, 1 + 3 * j, 2 + 3 * k)[:: 1 - 2 * ((i + j + k) % 2)]
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    ]
    path = tmp_path_factory.mktemp("mesh") / "octahedron.npz"
    np.savez(path, v_template=corners, faces=np.array(faces, np.int32))
    return path


def build(mesh_file, implementation):
    return build_model(
        "gdpw",
        resolution=32,
        guidance="codes",
        num_codes=2,
        morphable=str(mesh_file),
        generator=SMALL,
        implementation=implementation,
    )


def test_both_paths_of_a_mesh_driven_system_give_one_picture(mesh_file):
    plain, fast = build(mesh_file, "plain"), build(mesh_file, "fast")
    variables = make_variables(fast)
    source, driving = make_inputs(fast, 1)

    @jax.jit
    def run(variables, source, driving):
        official = paths_of(plain).official_network(variables, source, None, driving)
        paths = paths_of(fast)
        encoding = paths.encode(variables, source)
        maps = paths.served_motion(variables, encoding, driving)
        pyramids = [pyramid_of(fast, name)(maps) for name in ("plain", "fast")]
        served = paths.served_network(variables, encoding, driving)
        return official.prediction, served, maps.driving_codes[0], pyramids

    official, served, codes, (literal, strided) = jax.device_get(run(variables, source, driving))
    # Rounding through a dozen layers, as tests/models compare the two implementations.
    np.testing.assert_allclose(served, official, atol=2e-5)
    assert np.std(served) > 0.02, "random weights must not make it flat"
    assert 0.15 < codes.any(axis=-1).mean() < 0.6, "the head is in the picture"
    assert set(literal) == {2}
    np.testing.assert_allclose(strided[2], literal[2], atol=1e-5)


def test_meshes_turn_and_face_the_camera(mesh_file):
    straight, turned = (make_meshes(build(mesh_file, "fast"), 1, yaw)[0] for yaw in (0.0, 0.3))
    # Right, up and nose of the face: y is down in the picture, and what is near has small z.
    np.testing.assert_allclose(straight[0], [16 + 0.55 * 16, 16, 0], atol=1e-4)
    np.testing.assert_allclose(straight[1], [16, 16 - 0.75 * 16, 0], atol=1e-4)
    np.testing.assert_allclose(straight[2], [16, 16, -0.65 * 16], atol=1e-4)
    assert abs(turned[2, 0] - (16 - 0.65 * 16 * np.sin(0.3))) < 1e-4
    assert np.allclose(turned[1], straight[1], atol=1e-4)


def test_spectral_norm_of_the_random_weights_divides_by_one(mesh_file):
    variables = make_variables(build(mesh_file, "fast"))["generator"]

    def check(vectors, params):
        if set(vectors) == {"u", "v"}:
            matrix = params["kernel"].reshape(-1, len(vectors["u"]))
            assert abs(vectors["v"].ravel() @ matrix @ vectors["u"] - 1) < 1e-4
            return 1
        return sum(check(vectors[name], params[name]) for name in vectors)

    assert check(variables["spectral"], variables["params"]) > 10


def test_training_step_is_given_meshes_in_the_picture(mesh_file):
    model = build(mesh_file, "fast")
    shapes = FaceInputs(
        image=jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),
        vertices=jax.ShapeDtypeStruct((2, 6, 3), jnp.float32),
    )
    batch = make_batch(FramePair(shapes, shapes), model)
    assert batch.source.image.shape == (2, 32, 32, 3) and batch.weight is None
    np.testing.assert_array_equal(batch.source.vertices, make_meshes(model, 2, 0.0))
    assert (batch.driving.vertices != batch.source.vertices).any()
    assert batch.driving.vertices.shape == (2, 6, 3)
    drawn = batch.driving.vertices[..., :2]
    assert drawn.min() > 0 and drawn.max() < 32
