"""Motion transfer against the equations written out per keypoint, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.inference.motion_transfer import (
    best_frame,
    hull_area,
    movement_scale,
    normalise_landmarks,
    transfer_keypoints,
)

# float32 products of a few numbers of size 1: a handful of roundings of 6e-8.
TOLERANCE = 2e-6


def _keypoints(seed, batch=1, count=10):
    random = np.random.default_rng(seed)
    jacobian = np.eye(2) + 0.2 * random.standard_normal((batch, count, 2, 2))
    return Keypoints(
        jnp.asarray(random.uniform(-0.8, 0.8, (batch, count, 2)), jnp.float32),
        jnp.asarray(jacobian, jnp.float32),
    )


def test_transfer_keypoints_relative_equals_equations_per_keypoint():
    source, driving, initial = _keypoints(0), _keypoints(1, batch=3), _keypoints(2)
    moved = transfer_keypoints(source, driving, initial, relative=True, scale=1.5)
    for b in range(3):
        for k in range(10):
            value = 1.5 * (driving.value[b, k] - initial.value[0, k]) + source.value[0, k]
            jacobian = (
                np.asarray(driving.jacobian[b, k], np.float64)
                @ np.linalg.inv(np.asarray(initial.jacobian[0, k], np.float64))
                @ np.asarray(source.jacobian[0, k], np.float64)
            )
            np.testing.assert_allclose(moved.value[b, k], value, atol=TOLERANCE)
            np.testing.assert_allclose(moved.jacobian[b, k], jacobian, atol=5e-6)


def test_transfer_keypoints_leaves_source_still_at_the_initial_frame():
    source, initial = _keypoints(0), _keypoints(2)
    moved = transfer_keypoints(source, initial, initial, relative=True, scale=1.7)
    np.testing.assert_allclose(moved.value, source.value, atol=TOLERANCE)
    np.testing.assert_allclose(moved.jacobian, source.jacobian, atol=TOLERANCE)


def test_transfer_keypoints_absolute_is_the_driving_untouched():
    driving = _keypoints(1, batch=2)
    assert transfer_keypoints(_keypoints(0), driving, None, relative=False, scale=9.0) is driving


def test_transfer_keypoints_of_the_same_face_is_the_driving():
    source, driving = _keypoints(0), _keypoints(1, batch=2)
    moved = transfer_keypoints(source, driving, source, relative=True)
    np.testing.assert_allclose(moved.value, driving.value, atol=TOLERANCE)
    np.testing.assert_allclose(moved.jacobian, driving.jacobian, atol=TOLERANCE)


def test_transfer_keypoints_scale_changes_only_values():
    source, driving, initial = _keypoints(0), _keypoints(1), _keypoints(2)
    one = transfer_keypoints(source, driving, initial, relative=True)
    two = transfer_keypoints(source, driving, initial, relative=True, scale=2.0)
    np.testing.assert_allclose(
        two.value - source.value, 2 * (one.value - source.value), atol=TOLERANCE
    )
    np.testing.assert_array_equal(one.jacobian, two.jacobian)


def test_transfer_keypoints_is_finite_for_a_singular_initial_jacobian():
    source, driving, initial = _keypoints(0), _keypoints(1), _keypoints(2)
    singular = initial._replace(jacobian=jnp.zeros_like(initial.jacobian))
    moved = transfer_keypoints(source, driving, singular, relative=True)
    assert np.isfinite(moved.jacobian).all()


def test_transfer_keypoints_without_jacobians_moves_values():
    source, driving, initial = (_keypoints(seed)._replace(jacobian=None) for seed in range(3))
    moved = transfer_keypoints(source, driving, initial, relative=True)
    assert moved.jacobian is None
    np.testing.assert_allclose(
        moved.value, driving.value - initial.value + source.value, atol=TOLERANCE
    )


def test_transfer_keypoints_jit_equals_eager():
    arguments = _keypoints(0), _keypoints(1, batch=4), _keypoints(2)
    eager = transfer_keypoints(*arguments, relative=True, scale=1.2)
    jitted = jax.jit(transfer_keypoints, static_argnames="relative")(
        *arguments, relative=True, scale=1.2
    )
    for left, right in zip(eager, jitted, strict=True):
        np.testing.assert_allclose(left, right, atol=TOLERANCE)


def test_transfer_keypoints_refuses_missing_pieces():
    with pytest.raises(ArgumentError, match="initial keypoints must be given"):
        transfer_keypoints(_keypoints(0), _keypoints(1), None, relative=True)
    half = _keypoints(1)._replace(jacobian=None)
    with pytest.raises(ArgumentError, match="all have Jacobians"):
        transfer_keypoints(_keypoints(0), half, _keypoints(2), relative=True)


def test_hull_area_of_a_square_ignores_points_inside():
    points = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1], [0.5, 1.5]])
    assert hull_area(points) == pytest.approx(4.0, rel=1e-12)


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.outer(np.arange(5), [1.0, 2.0]), np.ones((2, 2))]
)
def test_hull_area_of_degenerate_points_is_zero(points):
    assert hull_area(points) == 0.0


def test_hull_area_refuses_what_is_no_point_list():
    with pytest.raises(ArgumentError, match="shape"):
        hull_area(np.zeros((4, 3)))
    with pytest.raises(ArgumentError, match="finite"):
        hull_area(np.array([[0.0, np.nan]] * 4))


def test_movement_scale_is_the_ratio_of_linear_sizes():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 2))
    assert movement_scale(1.3 * points + 0.1, points) == pytest.approx(1.3, rel=1e-9)


def test_movement_scale_of_two_faces_is_reciprocal():
    left, right = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 10, 2))
    assert movement_scale(left, right) * movement_scale(right, left) == pytest.approx(1.0)


def test_movement_scale_of_degenerate_hulls_is_one():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 2))
    assert movement_scale(points, np.zeros((10, 2))) == 1.0
    assert movement_scale(np.zeros((10, 2)), points) == 1.0
    # A line up to float32 rounding, as ten equal keypoints of an untrained detector are.
    nearly = np.linspace(-1, 1, 10)[:, None] * [1, 1] + 1e-8 * points
    assert movement_scale(points, nearly) == 1.0


def _clip(seed=0, frames=12):
    random = np.random.default_rng(seed)
    face = random.uniform(0, 100, (68, 2))
    return face, face + random.normal(0, 8, (frames, 68, 2))


def test_best_frame_equals_brute_force():
    source, driving = _clip()

    def normalised(points):
        from scipy.spatial import ConvexHull

        centred = points - points.mean(0)
        return centred / np.sqrt(ConvexHull(centred).volume)

    distances = [((normalised(frame) - normalised(source)) ** 2).sum() for frame in driving]
    assert best_frame(source, driving) == int(np.argmin(distances))


def test_best_frame_ignores_position_and_size():
    source, driving = _clip()
    chosen = best_frame(source, driving)
    assert best_frame(3.0 * source + 50, 0.5 * driving - 7) == chosen
    driving[9] = 2.0 * source + 11  # the same face elsewhere: distance zero
    assert best_frame(source, driving) == 9


def test_best_frame_never_chooses_a_frame_without_a_face():
    source, driving = _clip()
    driving[4] = source
    assert best_frame(source, driving) == 4
    driving[4, 10] = np.nan
    driving[5] = 0.0
    driving[6, 0] = np.inf
    assert best_frame(source, driving) not in (4, 5, 6)


def test_best_frame_takes_the_first_of_equal_frames():
    source, driving = _clip()
    driving[3] = driving[7] = source
    assert best_frame(source, driving) == 3


def test_best_frame_reports_when_there_is_no_face_at_all():
    source, driving = _clip()
    with pytest.raises(ArgumentError, match="driving landmarks must show a face"):
        best_frame(source, np.full_like(driving, np.nan))
    with pytest.raises(ArgumentError, match="source landmarks must show a face"):
        best_frame(np.full_like(source, np.nan), driving)
    with pytest.raises(ArgumentError, match="landmarks must be"):
        best_frame(source[:5], driving)


def test_normalise_landmarks_has_unit_hull_and_zero_mean():
    source, _ = _clip()
    face = normalise_landmarks(source)
    assert hull_area(face) == pytest.approx(1.0)
    np.testing.assert_allclose(face.mean(axis=0), 0.0, atol=1e-12)
