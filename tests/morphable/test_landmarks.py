"""Order and mirror image of the landmarks; the mirror map of a mesh; coordinate codes' pose."""

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.morphable.coordinate_code import pose_free
from talking_heads_jax.morphable.face_regions import outline_distance
from talking_heads_jax.morphable.landmarks import LANDMARK_MIRROR, mirror_vertices
from talking_heads_jax.morphable.parts import PARTS, REGIONS
from talking_heads_jax.morphable.registry import load_morphable
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from tests.morphable.toy_models import toy_arrays, toy_template


def test_landmark_mirror_is_an_involution_that_fixes_the_middle():
    np.testing.assert_array_equal(LANDMARK_MIRROR[LANDMARK_MIRROR], np.arange(68))
    fixed = set(np.flatnonzero(np.arange(68) == LANDMARK_MIRROR).tolist())
    assert fixed == {8, *range(27, 31), 33, 51, 57, 62, 66}


def test_landmark_mirror_maps_the_built_in_head_onto_itself():
    model = load_morphable("procedural")
    points = np.asarray(model.landmarks68(model.vertices(model.neutral(1))))[0]
    np.testing.assert_allclose(points[LANDMARK_MIRROR] * [-1, 1, 1], points, atol=0.02)
    assert points[0, 0] < 0 < points[16, 0]  # the image's left is the subject's right


def test_mirror_vertices_is_an_involution_on_a_symmetric_mesh():
    template = toy_template()
    mirror = mirror_vertices(template)
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(template)))
    np.testing.assert_allclose(template[mirror] * [-1, 1, 1], template, atol=1e-12)
    with pytest.raises(ArgumentError):
        mirror_vertices(np.zeros((0, 3)))


def test_regions_are_made_of_parts():
    assert len(set(PARTS)) == 13 and PARTS[0] == "background"
    named = {region: {PARTS[number] for number in REGIONS[region]} for region in REGIONS}
    assert named["mouth"] == {"lips", "teeth", "mouth_interior"}
    assert named["eyes"] == {"eyelids", "eyeball"}
    assert named["face"] == named["mouth"] | named["eyes"] | {"face_skin", "glasses"}
    assert named["head"] == named["face"] | {"ears", "scalp", "hair"}
    assert named["foreground"] == set(PARTS[1:])


def test_outline_distance_of_a_square():
    square = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    points = np.array([[1.0, 1], [1, 1.5], [3, 1], [3, 3], [-0.5, 1]])
    expected = [-1, -0.5, 1, np.sqrt(2), 0.5]
    np.testing.assert_allclose(outline_distance(points, square), expected)


def test_pose_free_keeps_the_expression_and_drops_the_head_pose():
    model = SkinnedFaceModel.from_arrays(toy_arrays(), name="toy")
    full = model.neutral(1)._replace(
        expression_coeffs=jnp.ones((1, 3)), pose=jnp.ones((1, 5, 3)), translation=jnp.ones((1, 3))
    )
    secc = pose_free(full, model.joint_names)
    np.testing.assert_array_equal(secc.pose[0, :, 0], [0, 0, 1, 1, 1])
    assert not secc.translation.any() and secc.expression_coeffs.all()
    canonical = pose_free(full, model.joint_names, expression=False)
    np.testing.assert_allclose(model.vertices(canonical)[0], model.template, atol=1e-5)
