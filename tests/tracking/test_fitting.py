"""Fitting: exact recovery, what robustness and smoothness do, conventions, bad input."""

import dataclasses

import numpy as np
import pytest

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.tracking import fitting
from talking_heads_jax.tracking.fit_solver import solve_clips
from talking_heads_jax.tracking.fitting import (
    FaceFit,
    FitOptions,
    fit_clip,
    fit_clips,
    fit_landmarks_px,
    fit_vertices_px,
)
from tests.morphable.toy_models import toy_arrays

SIZE = (240, 320)
# Priors so wide that only the landmarks speak.
FREE = FitOptions(
    landmark_sigma=2e-3, shape_sigma=20.0, expression_sigma=20.0, smoothness=0.0, tolerance=1e-7
)


@pytest.fixture(scope="module")
def model():
    arrays = toy_arrays()
    # Bumps instead of the toys' white noise: a face's coefficients move neighbours alike.
    x, y, _ = arrays["v_template"].T
    places = [(-3, 4), (3, -3), (0, 0), (4, 5), (0, -4), (-4, -2), (2, 3)]
    bumps = [np.exp(-0.05 * ((x - a) ** 2 + (y - b) ** 2)) for a, b in places]
    rng = np.random.default_rng(7)
    basis = np.stack([bump[:, None] * rng.standard_normal(3) for bump in bumps]).astype("f4")
    arrays |= {"shapedirs": basis[:4], "exprdirs": basis[4:]}
    arrays["J_shapedirs"] = 0.2 * arrays["J_shapedirs"]
    share = np.clip(-y / 6, 0, 1)
    arrays["lbs_weights"] = np.stack([0 * x, 1 - share, share, 0 * x, 0 * x], 1).astype("f4")
    return SkinnedFaceModel.from_arrays(arrays, name="toy")


@pytest.fixture(scope="module")
def clip(model):
    return make_clip(model, times=12)


def make_clip(model, *, times, seed=0, focal_px=0.0, shape=None):
    """Projected by the full model, in NumPy: what the fit must find."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 3, times)[:, None] + rng.uniform(0, 6, (1, 9))
    shape = np.array(rng.uniform(-1, 1, 4) if shape is None else shape, "f4")[None]
    expression = 0.8 * np.sin(phase[:, :3]).astype("f4")
    angles = (np.sin(phase[:, 3:6]) * (0.5, 0.3, 0.2)).astype("f4")
    pose = np.zeros((times, 5, 3), np.float32)
    pose[:, 2, 0] = 0.15 + 0.1 * np.sin(phase[:, 6])
    vertices = model.vertices(FaceCoefficients(shape.repeat(times, 0), expression, pose))
    turned = np.einsum(
        "tab,tvb->tva", head_rotation_from_angles(angles), model.landmarks68(vertices)
    ).astype(np.float64)
    scale = 6.0 + 0.5 * np.sin(phase[:, 7])
    offset = np.array([150.0, 130.0]) + 5 * np.sin(phase[:, 7:9])
    depth = np.full(times, np.nan)
    flat = offset[:, None] + scale[:, None, None] * turned[..., :2] * (1, -1)
    if focal_px:
        depth = focal_px / scale
        middle = np.array([SIZE[1] / 2, SIZE[0] / 2])
        flat = middle + (flat - middle) / (1 - turned[..., 2:] / depth[:, None, None])
    truth = FaceFit(
        shape_coeffs=shape[0],
        expression_coeffs=expression,
        joint_pose=pose.reshape(times, -1),
        angles=angles,
        scale_px=scale,
        offset_px=offset,
        depth_cm=depth,
        focal_px=focal_px,
        camera="perspective" if focal_px else "weak_perspective",
        reprojection_px=np.zeros(times),
        principal_px=np.array([SIZE[1] / 2, SIZE[0] / 2]),
        landmark_bias_cm=np.zeros((68, 3)),
        iterations=0,
    )
    return flat, truth


def assert_same(found, want, *, factor=1.0):
    """Coefficients of about 1, angles of about 0.3 and pixels of about 200, to a few 1e-3 of that:
    the widened priors still pull, and the jaw's is not widened."""
    for name, atol in (
        ("shape_coeffs", 0.02),
        ("expression_coeffs", 0.02),
        ("joint_pose", 0.005),
        ("angles", 0.003),
        ("scale_px", 0.03),
        ("offset_px", 0.2),
    ):
        np.testing.assert_allclose(
            getattr(found, name), getattr(want, name), atol=factor * atol, err_msg=name
        )


def test_recovers_an_exact_clip(model, clip):
    points, truth = clip
    fit = fit_clip(model, points, image_size=SIZE, options=FREE)
    assert_same(fit, truth)
    assert fit.reprojection_px.max() < 0.05
    assert fit.camera == "weak_perspective" and fit.focal_px == 0 and np.isnan(fit.depth_cm).all()


def test_recovers_an_exact_perspective_clip(model):
    points, truth = make_clip(model, times=12, seed=1, focal_px=300.0)
    options = dataclasses.replace(FREE, camera="perspective", focal_px=300.0)
    fit = fit_clip(model, points, image_size=SIZE, options=options)
    assert_same(fit, truth, factor=2)  # size and distance are harder to tell apart
    np.testing.assert_allclose(fit.depth_cm, truth.depth_cm, rtol=0.01)
    weak = fit_clip(model, points, image_size=SIZE, options=FREE)
    assert weak.reprojection_px.mean() > 5 * fit.reprojection_px.mean()


def test_perspective_from_far_away_is_weak_perspective(model, clip):
    points, truth = clip
    options = dataclasses.replace(FREE, camera="perspective", focal_px=1e6)
    fit = fit_clip(model, points, image_size=SIZE, options=options)
    assert_same(fit, truth)
    np.testing.assert_allclose(fit.depth_cm, 1e6 / fit.scale_px, rtol=1e-5)


def test_distance_stands_for_an_unknown_focal_length(model, clip):
    options = dataclasses.replace(FREE, camera="perspective", distance_cm=80.0)
    fit = fit_clip(model, clip[0], image_size=SIZE, options=options)
    # The first guess of the size fixes the focal length; the fit then moves by a little.
    np.testing.assert_allclose(np.median(fit.depth_cm), 80.0, rtol=0.15)
    np.testing.assert_allclose(fit.focal_px, fit.depth_cm * fit.scale_px, rtol=1e-4)


def test_wild_points_and_missing_frames_change_little(model, clip):
    points, truth = clip
    rng = np.random.default_rng(5)
    spoiled = points.copy()
    for frame in spoiled:
        wild = 17 + rng.choice(51, 6, replace=False)
        frame[wild] += rng.uniform(40, 90, (6, 2)) * rng.choice([-1, 1], (6, 2))
    spoiled[3] = np.nan
    spoiled[7, 30:40] = np.nan
    fit = fit_clip(model, spoiled, image_size=SIZE, options=FREE)
    assert np.isnan(fit.angles[3]).all() and np.isnan(fit.reprojection_px[3])
    kept = np.arange(12) != 3
    picked = fit._replace(**{name: getattr(fit, name)[kept] for name in fitting._BY_FRAME})
    wanted = truth._replace(**{name: getattr(truth, name)[kept] for name in fitting._BY_FRAME})
    assert_same(picked, wanted, factor=2)
    squares = dataclasses.replace(FREE, robust="none")
    plain = fit_clip(model, spoiled, image_size=SIZE, options=squares)
    error = np.abs(plain.angles - truth.angles)[kept].max()
    assert error > 10 * np.abs(fit.angles - truth.angles)[kept].max()


def test_points_of_weight_zero_are_not_looked_at(model, clip):
    points, _ = clip
    weights = np.ones((12, 68))
    weights[:, 40:44] = 0
    spoiled = points.copy()
    spoiled[:, 40:44] += 7.0
    spoiled[:, :17] = -1e4  # the jaw line counts nothing by default
    one = fit_clip(model, points, image_size=SIZE, weights=weights, options=FREE)
    other = fit_clip(model, spoiled, image_size=SIZE, weights=weights, options=FREE)
    np.testing.assert_array_equal(one.angles, other.angles)
    np.testing.assert_array_equal(one.shape_coeffs, other.shape_coeffs)


def test_moving_and_scaling_the_picture_changes_only_the_camera(model, clip):
    points, _ = clip
    one = fit_clip(model, points, image_size=SIZE)
    other = fit_clip(model, 3 * points + (700, -40), image_size=(900, 1600))
    for name in ("shape_coeffs", "expression_coeffs", "angles", "joint_pose"):
        # The solver sees the same numbers up to float32 rounding.
        np.testing.assert_allclose(
            getattr(other, name), getattr(one, name), atol=2e-3, err_msg=name
        )
    np.testing.assert_allclose(other.scale_px, 3 * one.scale_px, rtol=1e-3)
    np.testing.assert_allclose(other.offset_px, 3 * one.offset_px + (700, -40), atol=0.3)


def test_a_batch_equals_single_clips_and_compiles_once(model, clip):
    second = make_clip(model, times=9, seed=2)[0]
    singles = [fit_clip(model, points, image_size=SIZE) for points in (clip[0], second)]
    programs = solve_clips._cache_size()
    fit_clip(model, make_clip(model, times=14, seed=3)[0], image_size=SIZE)
    assert solve_clips._cache_size() == programs  # 9, 12 and 14 frames share a program
    both = fit_clips(model, [clip[0], second], image_sizes=[SIZE, SIZE], batch_size=2)
    for one, other in zip(singles, both, strict=True):
        assert one.angles.shape == other.angles.shape
        # vmap batches the factorisations: other roundings, a step more or less at the end.
        np.testing.assert_allclose(other.angles, one.angles, atol=2e-3)
        np.testing.assert_allclose(other.shape_coeffs, one.shape_coeffs, atol=0.01)


def test_smoothness_calms_noise_but_not_across_a_cut(model):
    points, truth = make_clip(model, times=16, seed=4)
    points[8:] += (60.0, 0.0)  # a cut: the head jumps
    noisy = points + np.random.default_rng(0).normal(0, 1.0, points.shape)

    def shake(fit):
        return np.abs(np.diff(fit.angles - truth.angles, axis=0)[:6]).mean()

    loose, smooth, cut = (
        fit_clip(
            model,
            noisy,
            image_size=SIZE,
            segments=segments,
            options=FitOptions(smoothness=smoothness),
        )
        for smoothness, segments in ((0.0, None), (3.0, None), (3.0, [(0, 8), (8, 16)]))
    )
    assert shake(cut) < 0.7 * shake(loose)
    middle = [fit_landmarks_px(model, fit)[:, 17:, 0].mean(axis=1) for fit in (loose, smooth, cut)]
    jump = [places[8] - places[7] for places in middle]
    assert abs(jump[2] - jump[0]) < 1.0 and jump[1] < jump[2] - 1.0


def test_blend_shapes_stay_in_their_range(model, clip):
    blendshapes = SkinnedFaceModel(
        model.arrays, dataclasses.replace(model.description, name="procedural")
    )
    fit = fit_clip(blendshapes, clip[0], image_size=SIZE, options=FREE)  # wants -0.8 to 0.8
    assert fit.expression_coeffs.min() == 0.0 and fit.expression_coeffs.max() <= 1.0
    assert clip[1].expression_coeffs.min() < -0.5


def test_identities_stay_within_three_standard_deviations(model):
    """Of a face that only impossible coefficients explain; without the limit they are found."""
    points, _ = make_clip(model, times=4, shape=(6.0, 0.5, -0.5, 0.2))
    options = FitOptions(shape_sigma=10.0)
    fit = fit_clip(model, points, image_size=SIZE, options=options)
    assert 2.7 < fit.shape_coeffs[0] < 3
    free = dataclasses.replace(options, shape_limit=None)
    free = fit_clip(model, points, image_size=SIZE, options=free)
    assert free.shape_coeffs[0] > 4
    # Everything else makes the best of it: this is no fit that was cut off afterwards.
    cut_off = free._replace(shape_coeffs=fit.shape_coeffs)
    missed = [
        np.linalg.norm(fit_landmarks_px(model, found) - points, axis=-1)[:, 17:].mean()
        for found in (fit, cut_off)
    ]
    assert missed[0] < 0.5 * missed[1]


def test_a_model_without_free_joints_is_fitted(model, clip):
    points, truth = clip
    options = dataclasses.replace(FREE, fit_jaw=False)
    fit = fit_clip(model, points, image_size=SIZE, options=options)
    assert not fit.joint_pose.any()
    # The expressions stand in for the jaw as well as they can; the pose hardly notices.
    np.testing.assert_allclose(fit.angles, truth.angles, atol=0.1)
    with_jaw = fit_clip(model, points, image_size=SIZE, options=FREE)
    assert fit.reprojection_px.mean() > with_jaw.reprojection_px.mean()


def test_fixed_shape_is_kept_and_expression_found(model, clip):
    points, truth = clip
    fit = fit_clip(model, points, image_size=SIZE, fixed_shape=truth.shape_coeffs, options=FREE)
    np.testing.assert_array_equal(fit.shape_coeffs, truth.shape_coeffs)
    assert_same(fit, truth)


def test_single_photograph(model, clip):
    fit = fit_clip(model, clip[0][4:5], image_size=SIZE)
    assert fit.angles.shape == (1, 3) and fit.reprojection_px[0] < 3.0
    np.testing.assert_allclose(fit.angles, clip[1].angles[4:5], atol=0.1)  # the priors' pull


def test_landmark_bias_takes_a_constant_offset(model, clip):
    points, truth = clip
    moved = points.copy()
    moved[:, 30] += (0.0, 6.0)
    given = {"image_size": SIZE, "fixed_shape": truth.shape_coeffs}
    with_bias = fit_clip(model, moved, **given, options=FitOptions(landmark_bias=True))
    without = fit_clip(model, moved, **given)
    assert with_bias.landmark_bias_cm[30, 1] < -0.3  # 6 px of 6 px/cm, downwards, shrunk by priors
    others = np.delete(np.abs(with_bias.landmark_bias_cm), 30, axis=0)
    assert others.max() < 0.3
    assert with_bias.reprojection_px.mean() < 0.8 * without.reprojection_px.mean()


def test_long_clips_are_fitted_in_windows(model, monkeypatch):
    points, truth = make_clip(model, times=40, seed=6)
    points[20:23] = np.nan
    from talking_heads_jax.tracking import fit_result

    monkeypatch.setattr(fit_result, "LENGTHS", (16,))
    monkeypatch.setattr(fitting, "LENGTHS", (16,))
    monkeypatch.setattr(fitting, "_IDENTITY_FRAMES", 16)
    monkeypatch.setattr(fitting, "_OVERLAP", 2)
    fit = fit_clip(model, points, image_size=SIZE, options=FREE)
    assert np.isnan(fit.scale_px[20:23]).all()
    kept = np.delete(np.arange(40), [20, 21, 22])
    picked = fit._replace(**{name: getattr(fit, name)[kept] for name in fitting._BY_FRAME})
    wanted = truth._replace(**{name: getattr(truth, name)[kept] for name in fitting._BY_FRAME})
    assert_same(picked, wanted)


@pytest.mark.parametrize("focal_px", [0.0, 300.0])
def test_landmarks_and_vertices_in_pixels(model, focal_px):
    points, truth = make_clip(model, times=5, focal_px=focal_px)
    np.testing.assert_allclose(fit_landmarks_px(model, truth), points, atol=1e-3)
    vertices = fit_vertices_px(model, truth)
    assert vertices.shape == (5, model.num_vertices, 3)
    np.testing.assert_allclose(
        model.landmarks68(vertices)[..., :2], points, atol=1e-3
    )  # the toy's landmarks are vertices
    nose, ear = vertices[0, 12 * 6 + 6], vertices[0, 12 * 6]
    assert nose[2] < ear[2]  # nearer is smaller


@pytest.mark.parametrize("joint", [0, 1])
def test_landmarks_follow_the_joints_that_a_fit_leaves_at_rest(model, clip, joint):
    """Exact states and edits turn root and neck as well."""
    pose = clip[1].joint_pose.copy()
    pose[3:, 3 * joint : 3 * joint + 3] = (0.1, -0.3, 0.2)
    fit = clip[1]._replace(joint_pose=pose)
    seen = fit_landmarks_px(model, fit)
    expected = np.asarray(model.landmarks68(fit_vertices_px(model, fit)))[..., :2]
    np.testing.assert_allclose(seen, expected, atol=1e-3)  # the toy's landmarks are vertices
    before = fit_landmarks_px(model, clip[1])
    np.testing.assert_allclose(seen[:3], before[:3], atol=1e-3)
    assert np.abs(seen - before)[3:].max() > 3
    with pytest.raises(ArgumentError, match="biases must leave all joints but the jaw at rest"):
        fit_landmarks_px(model, fit._replace(landmark_bias_cm=np.ones((68, 3), np.float32)))


def test_angles_move_the_nose_as_the_schema_says(model, clip):
    rest = clip[1]._replace(**{name: getattr(clip[1], name)[:1] for name in fitting._BY_FRAME})

    def nose(angles):
        seen = fit_landmarks_px(model, rest._replace(angles=np.array([angles], "f4")))[0]
        return seen[30] - seen[[36, 45]].mean(0), seen[45] - seen[36]

    forward, _ = nose((0.0, 0.0, 0.0))
    assert nose((0.4, 0.0, 0.0))[0][0] > forward[0] + 1  # yaw > 0: to the image's right
    assert nose((0.0, 0.4, 0.0))[0][1] < forward[1] - 1  # pitch > 0: up
    assert nose((0.0, 0.0, 0.4))[1][1] > 1  # roll > 0: clockwise, the image-right eye sinks


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points_px": np.zeros((3, 51, 2))}, "points_px"),
        ({"points_px": np.full((3, 68, 2), np.nan)}, "at least 6 points"),
        ({"points_px": np.ones((3, 68, 2))}, "different places"),
        ({"points_px": np.zeros((0, 68, 2))}, "at least 6 points"),
        ({"weights": np.zeros((12, 68))}, "at least 6 points"),
        ({"weights": np.ones((12, 51))}, "weights"),
        ({"weights": np.full((12, 68), -1.0)}, "not negative"),
        ({"fixed_shape": np.zeros(3)}, "fixed_shape"),
        ({"fixed_shape": np.full(4, np.nan)}, "fixed_shape"),
        ({"image_size": (0, 10)}, "image_size"),
        ({"segments": [(5, 3)]}, "segments"),
        ({"segments": [(0, 13)]}, "segments"),
    ],
)
def test_bad_clips_are_refused(model, clip, change, words):
    arguments = {"points_px": clip[0], "image_size": SIZE} | change
    with pytest.raises(ArgumentError, match=words):
        fit_clip(model, **arguments)


def test_bad_lists_options_and_models_are_refused(model, clip):
    with pytest.raises(ArgumentError, match="image_sizes"):
        fit_clips(model, [clip[0]], image_sizes=[])
    with pytest.raises(ArgumentError, match="for every clip or for none"):
        shapes = [np.zeros(4), None]
        fit_clips(model, [clip[0]] * 2, image_sizes=[SIZE] * 2, fixed_shapes=shapes)
    for bad in (
        {"camera": "fisheye"},
        {"robust": "l1"},
        {"landmark_sigma": 0.0},
        {"smoothness": -1.0},
        {"focal_px": float("nan")},
        {"max_iterations": 0},
    ):
        with pytest.raises(ArgumentError):
            FitOptions(**bad)
    arrays = toy_arrays()
    del arrays["landmarks68"]
    without = SkinnedFaceModel.from_arrays(arrays, name="toy")
    with pytest.raises(ArgumentError, match="68 landmarks"):
        fit_clip(without, clip[0], image_size=SIZE)
    with pytest.raises(ArgumentError, match="SkinnedFaceModel"):
        fit_clip(object(), clip[0], image_size=SIZE)
    fewer = SkinnedFaceModel.from_arrays(toy_arrays(), name="toy", num_shape=2)
    with pytest.raises(ArgumentError, match="model that was fitted"):
        fit_vertices_px(fewer, clip[1])
