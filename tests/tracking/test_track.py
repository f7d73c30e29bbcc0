"""The track in other pixels, other frames, and as a report."""

import dataclasses
import json

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.tracking.track import PERSPECTIVE, WEAK_PERSPECTIVE, empty_track
from tests.tracking.scenes import face_points


def fitted_track(camera=WEAK_PERSPECTIVE, count=4):
    rng = np.random.default_rng(0)
    points = np.stack([face_points((60 + index, 50), 30) for index in range(count)])
    depth = np.full(count, 60.0) if camera == PERSPECTIVE else np.full(count, np.nan)
    return empty_track(
        count,
        fps=25.0,
        frame_size=(96, 128),
        face=np.ones(count, bool),
        box_px=np.tile(np.float32([40, 30, 80, 90]), (count, 1)),
        landmarks68_px=points,
        visible=np.ones((count, 68), np.uint8),
        landmark_source="file",
        morphable="procedural",
        shape_coeffs=rng.normal(size=5).astype(np.float32),
        expression_coeffs=rng.normal(size=(count, 3)).astype(np.float32),
        joint_pose=np.zeros((count, 15), np.float32),
        angles=rng.uniform(-0.5, 0.5, (count, 3)).astype(np.float32),
        scale_px=np.full(count, 3.0, np.float32),
        offset_px=np.float32([60, 55]) + rng.normal(size=(count, 2)).astype(np.float32),
        camera=camera,
        focal_px=180.0 if camera == PERSPECTIVE else 0.0,
        depth_cm=depth.astype(np.float32),
        reprojection_px=np.full(count, 0.6, np.float32),
        segments=((0, 1), (1, count)),
        raw_jitter=0.02,
        notes=("a note",),
    )


def projected(track, points_cm):
    """The formulas of the class's docstring, frame by frame."""
    rotation = np.asarray(head_rotation_from_angles(track.angles))
    q = np.einsum("tij,nj->tni", rotation, points_cm)
    moved = track.scale_px[:, None, None] * q[..., :2] * (1, -1)
    if track.camera == WEAK_PERSPECTIVE:
        return track.offset_px[:, None] + moved
    principal = np.asarray(track.principal_px)
    nearness = 1 - q[..., 2:] / track.depth_cm[:, None, None]
    return principal + (track.offset_px[:, None] - principal + moved) / nearness


@pytest.mark.parametrize("camera", [WEAK_PERSPECTIVE, PERSPECTIVE])
@pytest.mark.parametrize("turn_deg", [0.0, 25.0, 180.0])
def test_to_crop_moves_every_pixel_quantity_alike(camera, turn_deg):
    track = fitted_track(camera)
    turn, scale = np.deg2rad(turn_deg), 1.7
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.concatenate([linear, [[-20.0], [7.0]]], axis=1)
    crop = track.to_crop(matrix, (256, 200))
    points = np.random.default_rng(1).normal(size=(20, 3)) * 5
    expected = projected(track, points) @ linear.T + matrix[:, 2]
    # float32 fields: a hundred pixels to seven digits.
    np.testing.assert_allclose(projected(crop, points), expected, atol=2e-3)
    landmarks = track.landmarks68_px @ linear.T + matrix[:, 2]
    np.testing.assert_allclose(crop.landmarks68_px, landmarks, atol=1e-3)
    np.testing.assert_allclose(crop.reprojection_px, scale * track.reprojection_px, rtol=1e-6)
    assert crop.frame_size == (256, 200)
    if camera == PERSPECTIVE:
        assert crop.focal_px / crop.depth_cm[0] == pytest.approx(float(crop.scale_px[0]))


def test_to_crop_boxes_surround_the_turned_ones():
    quarter = np.array([[0.0, -1.0, 96.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(fitted_track().to_crop(quarter).box_px[0], [6, 40, 66, 80])


@pytest.mark.parametrize(
    "linear", [np.diag([-1.0, 1.0]), np.diag([1.0, 2.0]), [[1, 0.3], [0, 1]], np.zeros((2, 2))]
)
def test_to_crop_refuses_what_is_no_camera(linear):
    with pytest.raises(ArgumentError, match="scale, turn and shift"):
        fitted_track().to_crop(np.concatenate([np.asarray(linear, float), np.zeros((2, 1))], 1))


def test_slice_keeps_rows_and_moves_segments():
    track = dataclasses.replace(fitted_track(count=6), segments=((0, 2), (2, 5), (5, 6)))
    part = track.slice(1, 5)
    assert len(part) == 4 and part.segments == ((0, 1), (1, 4))
    np.testing.assert_array_equal(part.landmarks68_px, track.landmarks68_px[1:5])
    np.testing.assert_array_equal(part.shape_coeffs, track.shape_coeffs)
    for start, stop in ((2, 2), (-1, 3), (0, 7)):
        with pytest.raises(ArgumentError):
            track.slice(start, stop)


def test_quality_states_shares_of_the_eye_distance():
    track = fitted_track()
    face = np.array([True, False, True, True])
    quality = dataclasses.replace(track, face=face).quality()
    assert quality["share_without_face"] == pytest.approx(0.25)
    assert quality["reprojection_share"] == pytest.approx(0.6 / 30, rel=1e-5)
    assert quality["jitter_raw"] == 0.02
    assert quality["jitter"] == pytest.approx(0.0, abs=1e-6)
    assert quality["cuts"] == [1]
    assert json.loads(json.dumps(quality)) == quality


def test_quality_of_landmarks_in_one_place_has_no_shares():
    track = fitted_track()
    quality = dataclasses.replace(
        track, landmarks68_px=np.ones_like(track.landmarks68_px)
    ).quality()
    assert quality["reprojection_share"] is None and quality["jitter"] is None
    assert quality["reprojection_px"] == pytest.approx(0.6)


def test_quality_of_an_empty_track_is_json_without_numbers():
    quality = empty_track(3, fps=25, frame_size=(8, 9)).quality()
    assert json.loads(json.dumps(quality, allow_nan=False)) == quality
    assert quality["jitter"] is None and quality["morphable"] is None


def test_variable_frame_rate_is_told_by_the_times():
    steady = empty_track(4, fps=25, frame_size=(8, 8))
    assert not steady.variable_frame_rate
    uneven = empty_track(4, fps=25, frame_size=(8, 8), time_s=np.array([0, 0.04, 0.1, 0.14]))
    assert uneven.variable_frame_rate
