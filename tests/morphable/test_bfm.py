"""BFM as Deep3DFaceRecon uses it: the vector of 257, files that count from 1, light and normals."""

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.estimator_cameras import matrix_from_deep3d_angles
from talking_heads_jax.morphable.bfm import (
    BfmModel,
    bfm_arrays,
    project_to_px,
    spherical_harmonic_colour,
    split_deep3d,
)
from tests.morphable.toy_models import bfm_fields


@pytest.fixture(scope="module")
def model():
    return BfmModel.from_arrays(bfm_arrays(bfm_fields(), where="the test"), name="bfm09")


def test_split_deep3d_has_every_number_once():
    vector = jnp.arange(257.0)[None]
    parts = split_deep3d(vector)
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(part) for part in parts]), np.arange(257.0)
    )
    assert parts.light.shape == (1, 3, 9) and parts.angles.shape == (1, 3)


def test_angles_turn_about_x_then_y_then_z():
    quarter = np.pi / 2
    matrix = matrix_from_deep3d_angles(jnp.asarray([[quarter, 0, quarter]]))[0]
    np.testing.assert_allclose(matrix @ np.array([0.0, 1, 0]), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(matrix @ np.array([0.0, 0, 1]), [1, 0, 0], atol=1e-6)


def test_template_is_centred_and_indices_count_from_zero(model):
    fields = bfm_fields()
    np.testing.assert_allclose(model.template.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(model.faces, fields["tri"].astype(int) - 1)


def test_camera_vertices_lie_ten_away_and_project_to_the_middle(model):
    vector = jnp.zeros((1, 257))
    vertices = model.camera_vertices(vector)
    np.testing.assert_allclose(vertices[0, :, 2], 10 - model.template[:, 2], atol=1e-5)
    center = jnp.asarray([[[0.0, 0.0, 10.0], [1.0, 0.5, 10.0]]])
    np.testing.assert_allclose(project_to_px(center)[0], [[112, 112], [213.5, 162.75]], rtol=1e-6)


def test_light_of_the_first_band_is_constant_and_ambient_is_added():
    normals = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6, 3)), jnp.float32)
    normals = normals / jnp.linalg.norm(normals, axis=-1, keepdims=True)
    albedo = jnp.full((1, 6, 3), 0.5)
    light = jnp.zeros((1, 3, 9))
    flat = spherical_harmonic_colour(albedo, normals, light)
    np.testing.assert_allclose(flat, 0.5 * 0.8 * np.pi / np.sqrt(4 * np.pi), rtol=1e-6)
    from_front = spherical_harmonic_colour(albedo, normals, light.at[..., 2].set(1.0))
    slope = (from_front - flat)[0, :, 0] / normals[0, :, 2]
    np.testing.assert_allclose(slope, slope[0], rtol=1e-4)
    assert slope[0] > 0  # towards +z, out of the face


def test_normals_ignore_triangles_that_are_lines(model):
    faces = np.array([[0, 1, 2], [0, 1, 0], [1, 1, 2]])
    arrays = bfm_arrays(bfm_fields(vertices=68, faces=3), where="the test")
    arrays |= {"faces": faces, "normal_faces": np.array([[0, 1, 2, 3]] * 68)}
    flat = BfmModel.from_arrays(arrays)
    vertices = jnp.zeros((1, 68, 3)).at[0, 1].set(jnp.array([0.3, 0.1, 0.0]))
    vertices = vertices.at[0, 2].set(jnp.array([0.1, 0.7, 0.0]))
    np.testing.assert_allclose(flat.normals(vertices)[0, 0], [0, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tri": lambda f: f["tri"] - 1}, "counts from 0"),
        ({"keypoints": lambda f: f["keypoints"] + 300}, "keypoints"),
        ({"tri": lambda f: f["tri"] + 0.5}, "whole numbers"),
        ({"idBase": lambda f: f["idBase"][:-3]}, "idBase"),
        ({"meantex": lambda f: f["meantex"][:, 3:]}, "meantex"),
        ({"point_buf": lambda f: f["point_buf"][:-1]}, "point_buf"),
    ],
)
def test_bfm_arrays_name_the_field_that_does_not_fit(change, word):
    fields = bfm_fields()
    fields |= {key: alter(fields) for key, alter in change.items()}
    with pytest.raises(ArgumentError, match=word):
        bfm_arrays(fields, where="the test")
