"""Meshes from coefficients: whose shape they have, and how the motion is smoothed and held."""

import dataclasses

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError
from talking_heads_jax.inference.mesh_motion import (
    GAUSSIAN,
    MOTION_FIELDS,
    NONE,
    OFFICIAL_WEIGHT,
    ONE_EURO,
    SMOOTHINGS,
    exponential_average,
    hold_pose,
    load_driver_model,
    motion_filter,
    official_smoothing,
    smooth_motion,
    track_vertices,
)
from talking_heads_jax.models.registry import build_model
from tests.models.toy_gdpw import tiny_gdpw, write_mesh

from .conftest import BrightnessHead
from .toy_meshes import fitted_track, posed_px


def test_vertices_are_the_model_posed_by_the_driver_in_the_shape_that_is_asked_for(procedural):
    track = fitted_track(procedural, 3)
    other = np.random.default_rng(7).normal(size=procedural.num_shape).astype(np.float32)
    for shape, meshes in (
        (track.shape_coeffs, track_vertices(track, procedural)),
        (other, track_vertices(track, procedural, shape_coeffs=other)),
    ):
        assert meshes.shape == (3, procedural.num_vertices, 3) and meshes.dtype == np.float32
        # float32 of a hundred pixels
        np.testing.assert_allclose(meshes, posed_px(procedural, shape, track), atol=2e-4)
    assert np.abs(track_vertices(track, procedural) - meshes).max() > 0.1  # shapes do differ


def test_vertices_of_frames_without_a_fit_are_missing(procedural):
    track = fitted_track(procedural, 2)
    track.angles[1] = np.nan
    meshes = track_vertices(track, procedural)
    assert np.isfinite(meshes[0]).all() and np.isnan(meshes[1]).all()


@pytest.mark.parametrize(
    "changes, shape, message",
    [
        ({"morphable": "ict"}, None, "fitted with 'procedural', the model's morphable, got 'ict'"),
        ({"morphable": ""}, None, "got no fit. Track it again: talking-heads track"),
        ({}, np.zeros(3), "shape_coeffs must be the"),
    ],
)
def test_vertices_need_the_coefficients_of_their_model(procedural, changes, shape, message):
    track = dataclasses.replace(fitted_track(procedural, 1), **changes)
    with pytest.raises(ArgumentError, match=message):
        track_vertices(track, procedural, shape_coeffs=shape)


def test_the_morphable_model_is_that_of_the_checkpoint(tmp_path):
    assert load_driver_model(tiny_gdpw("procedural")).name == "procedural"
    with pytest.raises(AssetNotFoundError, match="flame2020"):
        load_driver_model(build_model("gdpw", morphable="flame2020"))
    with pytest.raises(ArgumentError, match=r"ball\.npz.*drive the checkpoint by arrays"):
        load_driver_model(tiny_gdpw(write_mesh(tmp_path)))
    with pytest.raises(ArgumentError, match="brightness must be driven by the meshes"):
        load_driver_model(BrightnessHead())


def test_the_official_average_has_its_closed_form():
    values = np.random.default_rng(0).normal(size=(9, 2, 3))
    weight, keep = OFFICIAL_WEIGHT, 1 - OFFICIAL_WEIGHT
    assert weight == pytest.approx(0.7585, abs=5e-5)  # the number of the released demo
    smooth = exponential_average(values, weight, segments=((0, 9),))
    for now in range(9):
        shares = weight * keep ** np.arange(now)  # of the frames from `now` down to 1
        expected = keep**now * values[0]
        expected = expected + np.tensordot(shares, values[now:0:-1][:now], 1)
        np.testing.assert_allclose(smooth[now], expected, rtol=1e-12)


def test_the_official_average_starts_anew_after_cuts_and_keeps_gaps():
    values = np.array([1.0, 3.0, np.nan, 5.0, 10.0, 10.0])
    smooth = exponential_average(values, 0.75, segments=((0, 4), (4, 6)))
    np.testing.assert_allclose(smooth, [1, 2.5, np.nan, 4.375, 10, 10])


def test_official_smoothing_filters_expression_pose_and_camera(procedural):
    track = fitted_track(procedural, 6)
    track = dataclasses.replace(track, segments=((0, 4), (4, 6)))
    smooth = official_smoothing(track)
    for name in set(MOTION_FIELDS) - {"depth_cm"}:
        expected = exponential_average(
            getattr(track, name), OFFICIAL_WEIGHT, segments=track.segments
        )
        np.testing.assert_allclose(getattr(smooth, name), expected, atol=1e-5)
        assert np.abs(getattr(smooth, name) - getattr(track, name)).max() > 1e-3
    np.testing.assert_array_equal(smooth.shape_coeffs, track.shape_coeffs)
    np.testing.assert_array_equal(smooth.angles[4], track.angles[4])


def test_a_roll_across_half_a_turn_is_smoothed_the_short_way(procedural):
    roll = np.deg2rad([178, -178]).astype(np.float32)
    angles = np.stack([0 * roll, 0 * roll, roll], -1)
    track = fitted_track(procedural, 2, angles=angles)
    got = np.rad2deg(official_smoothing(track).angles[1, 2]) % 360
    assert got == pytest.approx(178 + 4 * OFFICIAL_WEIGHT, abs=1e-3)


@pytest.mark.parametrize("method", [ONE_EURO, GAUSSIAN])
def test_the_other_filters_do_not_lag(procedural, method):
    """Backwards they give the same, which an average over the past cannot."""
    track = fitted_track(procedural, 7)
    angles = track.angles.copy()
    reverse = dataclasses.replace(track, angles=angles[::-1].copy())
    forwards, backwards = (smooth_motion(each, method).angles for each in (track, reverse))
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-6)
    assert np.std(np.diff(forwards, axis=0)) < 0.9 * np.std(np.diff(angles, axis=0))
    official = [smooth_motion(each, "official").angles for each in (track, reverse)]
    assert np.abs(official[0] - official[1][::-1]).max() > 1e-2


def test_no_smoothing_changes_nothing_and_unknown_ones_are_named(procedural):
    track = fitted_track(procedural, 4)
    for name in MOTION_FIELDS:
        np.testing.assert_array_equal(
            getattr(smooth_motion(track, NONE), name), getattr(track, name)
        )
    with pytest.raises(ArgumentError, match="smoothing of the motion must be"):
        motion_filter(track, "kalman")
    assert set(SMOOTHINGS) == {"official", "none", "one_euro", "gaussian"}


def test_gaps_hold_the_pose_before_them(procedural):
    track = fitted_track(procedural, 6)
    for row in (0, 3, 4):
        for name in MOTION_FIELDS:
            getattr(track, name)[row] = np.nan
    held = hold_pose(track)
    for name in set(MOTION_FIELDS) - {"depth_cm"}:
        np.testing.assert_array_equal(getattr(held, name), getattr(track, name)[[1, 1, 2, 2, 2, 5]])
    assert held.notes == ("3 of 6 frames have no face: the last pose is held",)
    shots = dataclasses.replace(track, segments=((0, 3), (3, 6)))  # a gap after the cut
    np.testing.assert_array_equal(hold_pose(shots).angles, track.angles[[1, 1, 2, 5, 5, 5]])
    shots = dataclasses.replace(track, segments=((0, 3), (3, 5), (5, 6)))  # a shot without a face
    np.testing.assert_array_equal(hold_pose(shots).angles, track.angles[[1, 1, 2, 2, 2, 5]])
    whole = fitted_track(procedural, 2)
    assert hold_pose(whole) is whole
    whole.angles[:] = np.nan
    with pytest.raises(ArgumentError, match="driving track must have a frame with a fitted face"):
        hold_pose(whole)
