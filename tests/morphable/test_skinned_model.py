"""Skinned models: closed forms, pytrees, batches, bad arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from tests.morphable.toy_models import toy_arrays


@pytest.fixture(scope="module")
def model():
    return SkinnedFaceModel.from_arrays(toy_arrays(), name="toy")


def _random(model, batch=2, seed=1):
    rng = np.random.default_rng(seed)
    return FaceCoefficients(
        shape_coeffs=jnp.asarray(rng.standard_normal((batch, model.num_shape)), jnp.float32),
        expression_coeffs=jnp.asarray(
            rng.standard_normal((batch, model.num_expression)), jnp.float32
        ),
        pose=jnp.asarray(rng.uniform(-0.5, 0.5, (batch, 5, 3)), jnp.float32),
        translation=jnp.asarray(rng.standard_normal((batch, 3)), jnp.float32),
    )


def _reference(arrays, shape, expression, pose, translation):
    """The definition, joint by joint and vertex by vertex, in float64."""
    rest = arrays["v_template"].astype(np.float64)
    rest = rest + np.tensordot(shape, arrays["shapedirs"], 1)
    rest = rest + np.tensordot(expression, arrays["exprdirs"], 1)
    joints = arrays["J_template"] + arrays["J_shapedirs"] @ shape
    motions = []
    for joint, parent in enumerate(arrays["parents"]):
        turn = np.asarray(matrix_from_axis_angle(jnp.asarray(pose[joint])), np.float64)
        local = np.eye(4)
        local[:3, :3] = turn
        local[:3, 3] = joints[joint] - turn @ joints[joint]  # turns about its own joint
        motions.append(local if parent < 0 else motions[parent] @ local)
    posed = np.zeros_like(rest)
    for motion, weight in zip(motions, arrays["lbs_weights"].T, strict=True):
        posed += weight[:, None] * (rest @ motion[:3, :3].T + motion[:3, 3])
    return posed + translation


def test_vertices_follow_the_definition(model):
    coefficients = _random(model)
    found = model.vertices(coefficients)
    for row in range(2):
        expected = _reference(toy_arrays(), *(np.asarray(part[row]) for part in coefficients))
        np.testing.assert_allclose(found[row], expected, atol=3e-5)  # float32 sums of about 30


def test_vertices_at_rest_are_template_plus_bases(model):
    coefficients = _random(model)._replace(pose=None, translation=None)
    arrays = toy_arrays()
    expected = arrays["v_template"] + np.einsum(
        "bk,kvc->bvc", coefficients.shape_coeffs, arrays["shapedirs"]
    )
    expected += np.einsum("bk,kvc->bvc", coefficients.expression_coeffs, arrays["exprdirs"])
    np.testing.assert_allclose(model.vertices(coefficients), expected, atol=1e-5)
    np.testing.assert_allclose(model.vertices(model.neutral(1))[0], arrays["v_template"], atol=1e-5)


def test_vertices_turn_rigidly_with_the_root(model):
    still = _random(model)._replace(translation=None)
    still = still._replace(pose=still.pose.at[:, 0].set(0.0))
    turn = jnp.asarray([[0.3, -0.8, 0.2], [2.0, 1.0, -1.5]])
    turned = model.vertices(still._replace(pose=still.pose.at[:, 0].set(turn)))
    pivot = model.posed_joints(still)[:, :1]
    matrix = matrix_from_axis_angle(turn)
    expected = (model.vertices(still) - pivot) @ jnp.swapaxes(matrix, 1, 2) + pivot
    np.testing.assert_allclose(turned, expected, atol=5e-5)


def test_model_is_a_pytree_that_jit_and_vmap_take(model):
    coefficients = _random(model, batch=3)
    expected = model.vertices(coefficients)
    jitted = jax.jit(lambda m, c: m.vertices(c))(model, coefficients)
    np.testing.assert_allclose(jitted, expected, atol=1e-5)
    single = jax.vmap(lambda c: model.vertices(jax.tree.map(lambda x: x[None], c))[0])
    np.testing.assert_allclose(single(coefficients), expected, atol=1e-5)
    leaves, structure = jax.tree.flatten(model)
    again = jax.tree.unflatten(structure, leaves)
    assert again.description is model.description and isinstance(again, SkinnedFaceModel)
    assert isinstance(model, MorphableModel)


def test_vertices_take_the_flat_pose_of_records(model):
    coefficients = _random(model)
    flat = coefficients._replace(pose=coefficients.pose.reshape(2, 15))
    np.testing.assert_array_equal(model.vertices(flat), model.vertices(coefficients))


def test_gradient_is_finite_at_rest_and_equals_finite_differences(model):
    target = jnp.asarray(np.random.default_rng(3).standard_normal((1, model.num_vertices, 3)))

    def loss(pose):
        return jnp.sum(target * model.vertices(model.neutral(1)._replace(pose=pose)))

    for pose in (jnp.zeros((1, 5, 3)), jnp.full((1, 5, 3), 0.2)):
        gradient = jax.grad(loss)(pose)
        step = jnp.zeros((1, 5, 3)).at[0, 1, 0].set(1e-2)
        slope = (loss(pose + step) - loss(pose - step)) / 2e-2
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient[0, 1, 0], slope, rtol=2e-3)


def test_quantised_bases_give_the_same_model():
    arrays = toy_arrays()
    steps = np.random.default_rng(0).integers(-127, 128, arrays["shapedirs"].shape)
    scale = np.array([0.01, 0.02, 0.5, 1.0], np.float32)
    plain = {**arrays, "shapedirs": (steps * scale[:, None, None]).astype(np.float32)}
    packed = {key: value for key, value in arrays.items() if key != "shapedirs"}
    packed |= {"shapedirs_i8": steps.astype(np.int8), "shapedirs_scale": scale}
    first, second = (SkinnedFaceModel.from_arrays(a, name="toy") for a in (plain, packed))
    coefficients = _random(first)
    np.testing.assert_array_equal(first.vertices(coefficients), second.vertices(coefficients))


def test_weights_are_renormalised_but_not_invented():
    arrays = toy_arrays()
    half = {**arrays, "lbs_weights": arrays["lbs_weights"].astype(np.float16)}
    model = SkinnedFaceModel.from_arrays(half)
    np.testing.assert_allclose(model.arrays["weights"].sum(axis=1), 1.0, atol=1e-6)
    with pytest.raises(ArgumentError, match="add up to 1"):
        SkinnedFaceModel.from_arrays({**arrays, "lbs_weights": 0.5 * arrays["lbs_weights"]})


def test_jaw_corrective_makes_the_joint_open_the_mouth_as_the_expression_does():
    arrays = toy_arrays()
    angle = 0.44
    named = {"expr_names": np.array(["smile", "jawOpen", "other"]), "jawopen_angle_rad": angle}
    model = SkinnedFaceModel.from_arrays({**arrays, **named})
    rest = model.neutral(1)
    opened = model.vertices(rest._replace(expression_coeffs=jnp.asarray([[0.0, 1.0, 0.0]])))
    turned = model.vertices(rest._replace(pose=rest.pose.at[0, 2, 0].set(angle)))
    np.testing.assert_allclose(turned, opened, atol=2e-5)
    shut = model.vertices(rest._replace(pose=rest.pose.at[0, 2, 0].set(-0.1)))
    plain = SkinnedFaceModel.from_arrays(arrays)
    same = plain.vertices(rest._replace(pose=rest.pose.at[0, 2, 0].set(-0.1)))
    np.testing.assert_allclose(shut, same, atol=1e-5)


def test_fewer_coefficients_are_the_first_ones(model):
    few = SkinnedFaceModel.from_arrays(toy_arrays(), name="toy", num_shape=2, num_expression=1)
    assert (few.num_shape, few.num_expression) == (2, 1)
    coefficients = _random(few)
    wide = coefficients._replace(
        shape_coeffs=jnp.pad(coefficients.shape_coeffs, ((0, 0), (0, 2))),
        expression_coeffs=jnp.pad(coefficients.expression_coeffs, ((0, 0), (0, 2))),
    )
    np.testing.assert_allclose(few.vertices(coefficients), model.vertices(wide), atol=1e-5)
    with pytest.raises(ArgumentError, match="num_shape"):
        SkinnedFaceModel.from_arrays(toy_arrays(), num_shape=9)


def test_landmarks_move_with_any_affine_frame(model):
    vertices = model.vertices(_random(model))
    found = model.landmarks68(vertices)
    np.testing.assert_allclose(found, vertices[:, toy_arrays()["landmarks68"]], atol=1e-5)
    matrix, shift = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3))), 5.0
    np.testing.assert_allclose(
        model.landmarks68(vertices @ matrix + shift), found @ matrix + shift, atol=1e-4
    )


def test_face_part_comes_from_skeleton_and_outlines(model):
    part = model.face_part
    assert (part[-4:] == PARTS.index("eyeball")).all()
    center = model.template[model.faces].mean(axis=1)
    lips = center[part == PARTS.index("lips")]
    assert len(lips) > 0 and (np.abs(lips[:, 1] + 3.4) < 1.6).all()
    lids = center[part == PARTS.index("eyelids")]
    assert len(lids) > 0 and (np.abs(np.abs(lids[:, 0]) - 3.1) < 2.5).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"v_template": None}, "v_template"),
        ({"faces": lambda a: a["faces"] + 1}, "counts from 1"),
        ({"faces": lambda a: a["faces"] + 2}, "count from 0"),
        ({"faces": lambda a: a["faces"] - 1}, "count from 0"),
        ({"faces": lambda a: a["faces"][:, :2]}, "shape"),
        ({"faces": lambda a: a["faces"].astype(np.float32)}, "whole numbers"),
        ({"shapedirs": lambda a: a["shapedirs"][:, :-1]}, "shapedirs"),
        ({"exprdirs": lambda a: a["exprdirs"] * np.nan}, "finite"),
        ({"parents": lambda a: np.array([-1, 2, 1, 1, 1])}, "earlier joint"),
        ({"J_shapedirs": lambda a: a["J_shapedirs"][..., :-1]}, "J_shapedirs"),
        ({"landmarks68": lambda a: a["landmarks68"][:5]}, "68"),
        ({"landmarks68": lambda a: a["landmarks68"] + 1000}, "landmarks68"),
        ({"expr_names": lambda a: np.array(["a", "a", "b"])}, "different names"),
        ({"face_part": lambda a: np.full(len(a["faces"]), 77)}, "face_part"),
        ({"mirror": lambda a: np.zeros(3, int)}, "mirror"),
    ],
)
def test_from_arrays_names_the_key_that_does_not_fit(change, word):
    arrays = toy_arrays()
    for key, alter in change.items():
        if alter is None:
            del arrays[key]
        else:
            arrays[key] = alter(arrays)
    with pytest.raises(ArgumentError, match=word) as caught:
        SkinnedFaceModel.from_arrays(arrays, name="toy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"shape_coeffs": jnp.zeros((1, 9))},
        {"expression_coeffs": jnp.zeros((2, 3))},
        {"pose": jnp.zeros((1, 4, 3))},
    ],
)
def test_vertices_refuse_coefficients_of_another_model(model, change):
    with pytest.raises(ArgumentError, match="toy"):
        model.vertices(model.neutral(1)._replace(**change))


def test_model_without_landmarks_says_which_file_to_add():
    arrays = toy_arrays()
    del arrays["landmarks68"]
    model = SkinnedFaceModel.from_arrays(arrays, name="flame2020")
    with pytest.raises(ArgumentError, match="landmark_embedding"):
        model.landmarks68(model.vertices(model.neutral(1)))


@pytest.mark.parametrize("kind", ["nmfc", "ncc", "secc"])
def test_attributes_span_their_range_on_every_axis(model, kind):
    code = model.attributes(kind)
    low = -1.0 if kind == "secc" else 0.0
    np.testing.assert_allclose(code.min(axis=0), low, atol=1e-6)
    np.testing.assert_allclose(code.max(axis=0), 1.0, atol=1e-6)
    left = model.template[:, 0].argmax()
    assert code[left, 0] == code[:, 0].max()  # red grows towards the subject's left
    with pytest.raises(ArgumentError, match="nmfc"):
        model.attributes("pncc")
