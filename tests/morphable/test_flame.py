"""FLAME's own parts: joints from the regressor, correctives, and the jaw line that slides."""

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.morphable.flame import (
    FlameModel,
    contour_row,
    embedding_arrays,
    flame_arrays,
)
from tests.morphable.toy_models import flame_embedding, flame_fields


@pytest.fixture(scope="module")
def fields():
    small = flame_fields(vertices=60, faces=90, columns=12)
    return {**small, "J_regressor": small["J_regressor"].toarray()}


@pytest.fixture(scope="module")
def model(fields):
    arrays = flame_arrays(fields, where="the test", num_identity=8)
    embedding = embedding_arrays(flame_embedding(faces=90), arrays["faces"], where="the test")
    return FlameModel.from_arrays({**arrays, **embedding}, name="flame2020")


def _coefficients(model, pose):
    rng = np.random.default_rng(4)
    return model.neutral(len(pose))._replace(
        shape_coeffs=jnp.asarray(rng.standard_normal((len(pose), 8)), jnp.float32),
        expression_coeffs=jnp.asarray(rng.standard_normal((len(pose), 4)), jnp.float32),
        pose=jnp.asarray(pose, jnp.float32),
    )


def test_joints_are_regressed_from_the_shaped_face(fields, model):
    """With expression too: the regressor sees the whole unposed face."""
    coefficients = _coefficients(model, np.zeros((1, 5, 3)))
    both = np.concatenate([coefficients.shape_coeffs[0], coefficients.expression_coeffs[0]])
    shaped = fields["v_template"] + fields["shapedirs"] @ both
    np.testing.assert_allclose(
        model.posed_joints(coefficients)[0], fields["J_regressor"] @ shaped, atol=1e-5
    )
    np.testing.assert_allclose(model.vertices(coefficients)[0], shaped, atol=1e-5)


def test_correctives_are_linear_in_the_rotations_of_all_joints_but_the_root(fields, model):
    """A quarter turn of an eye that no vertex follows shows the corrective alone."""
    idle = {**fields, "weights": np.eye(5)[np.zeros(60, int)]}
    model = FlameModel.from_arrays(flame_arrays(idle, where="the test", num_identity=8))
    pose = np.zeros((1, 5, 3))
    pose[0, 4, 2] = np.pi / 2
    offset = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) - np.eye(3)
    expected = fields["v_template"] + fields["posedirs"][..., 27:] @ offset.ravel()
    found = model.vertices(model.neutral(1)._replace(pose=jnp.asarray(pose, jnp.float32)))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("yaw_deg", "row"), [(0, 0), (12.4, 12), (39, 39), (70, 39), (-1, 40), (-38.7, 78), (-80, 78)]
)
def test_contour_row_follows_the_yaw_of_root_and_neck(yaw_deg, row):
    """Half of the turn in each joint; rows 0-39 for one side, 40-78 for the other."""
    pose = np.zeros((1, 5, 3), np.float32)
    pose[0, :2, 1] = np.deg2rad(yaw_deg) / 2
    assert int(contour_row(jnp.asarray(pose))[0]) == row


def test_landmarks68_take_the_jaw_line_of_the_pose_and_51_fixed_points(fields, model):
    pose = np.zeros((2, 5, 3))
    pose[:, 0, 1] = np.deg2rad((20.0, -20.0))
    coefficients = _coefficients(model, pose)
    vertices = np.asarray(model.vertices(coefficients))
    found = model.landmarks68(jnp.asarray(vertices), coefficients)
    tree = flame_embedding(faces=90)

    def points(index, weights, row):
        corners = vertices[row][fields["f"].astype(int)[index]]
        return (corners * weights[..., None]).sum(axis=-2)

    for row, line in enumerate((20, 59)):
        contour = points(
            tree["dynamic_lmk_faces_idx"][line], tree["dynamic_lmk_bary_coords"][line], row
        )
        inner = points(tree["static_lmk_faces_idx"], tree["static_lmk_bary_coords"], row)
        np.testing.assert_allclose(found[row], np.concatenate([contour, inner]), atol=1e-5)
        fixed = points(tree["full_lmk_faces_idx"][0], tree["full_lmk_bary_coords"][0], row)
        np.testing.assert_allclose(model.landmarks68(vertices)[row], fixed, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"f": lambda f: f["f"] + 1}, "counts from 1"),
        ({"J_regressor": lambda f: f["J_regressor"][:4]}, "J_regressor"),
        ({"weights": lambda f: f["weights"][:-1]}, "weights"),
        ({"shapedirs": lambda f: f["shapedirs"][..., :8]}, "more than 8 columns"),
        ({"posedirs": lambda f: f["posedirs"][..., :27]}, "posedirs"),
        ({"v_template": lambda f: np.array(["x"] * 60)}, "numbers"),
    ],
)
def test_flame_arrays_name_the_field_that_does_not_fit(fields, change, word):
    wrong = {**fields, **{key: alter(fields) for key, alter in change.items()}}
    with pytest.raises(ArgumentError, match=word):
        FlameModel.from_arrays(flame_arrays(wrong, where="the test", num_identity=8))
