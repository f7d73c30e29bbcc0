"""The motion file: what goes in comes out, and nothing else is let in."""

import dataclasses
import os

import numpy as np
import pytest

from talking_heads_jax.errors import DataError
from talking_heads_jax.tracking import motion_file
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.motion_file import load_motion, save_motion
from talking_heads_jax.tracking.track import PERSPECTIVE, WEAK_PERSPECTIVE, empty_track
from tests.tracking.test_track import fitted_track


def assert_same(first, second):
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b or (a != a and b != b), field.name


@pytest.mark.parametrize("camera", [WEAK_PERSPECTIVE, PERSPECTIVE])
def test_what_was_saved_is_loaded(tmp_path, camera):
    track = fitted_track(camera)
    save_motion(tmp_path / "motion.npz", track)
    assert_same(load_motion(tmp_path / "motion.npz"), track)


def test_a_track_without_a_face_is_saved_too(tmp_path):
    track = empty_track(3, fps=29.97, frame_size=(48, 64), time_s=np.array([0, 0.03, 0.1]))
    save_motion(tmp_path / "motion.npz", track)
    assert_same(load_motion(tmp_path / "motion.npz"), track)


def test_a_motion_file_serves_as_a_landmark_file(tmp_path):
    track = fitted_track()
    save_motion(tmp_path / "motion.npz", track)
    np.testing.assert_array_equal(
        read_landmarks(tmp_path / "motion.npz").points_px, track.landmarks68_px
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("motion") / "motion.npz"
    save_motion(path, fitted_track(PERSPECTIVE))
    with np.load(path) as archive:
        return dict(archive)


def test_units_stand_in_the_file(content):
    text = str(content["units"])
    for words in ("angles", "radians", "px", "centimetre", "seconds"):
        assert words in text


NAMES = ("fps", "time_s", "landmarks68_px", "shape_coeffs", "camera", "segments", "version")
CHANGES = {
    **{f"no {name}": {name: None} for name in NAMES},
    "another kind": {"format": np.array("a picture")},
    "a later version": {"version": np.array(2)},
    "a version in words": {"version": np.array("1")},
    "objects": {"notes": np.array([{"code": 1}], dtype=object)},
    "fewer landmarks": {"landmarks68_px": np.zeros((4, 67, 2), np.float32)},
    "another count": {"angles": np.zeros((5, 3), np.float32)},
    "whole numbers": {"angles": np.zeros((4, 3), np.int32)},
    "infinite angles": {"angles": np.full((4, 3), np.inf, np.float32)},
    "huge landmarks": {"landmarks68_px": np.full((4, 68, 2), 1e20, np.float32)},
    "missing coefficients": {"expression_coeffs": np.full((4, 3), np.nan, np.float32)},
    "NaN identity": {"shape_coeffs": np.full(5, np.nan, np.float32)},
    "times that go back": {"time_s": np.array([0, 0.2, 0.1, 0.3])},
    "no rate": {"fps": np.array(0.0)},
    "no pixels": {"frame_size": np.array([0, 64])},
    "an unknown camera": {"camera": np.array("fisheye")},
    "a negative scale": {"scale_px": np.full(4, -1, np.float32)},
    "no focal length": {"focal_px": np.array(0.0)},
    "a face behind the camera": {"depth_cm": np.full(4, -5, np.float32)},
    "segments with a hole": {"segments": np.array([[0, 1], [2, 4]])},
    "segments beyond the end": {"segments": np.array([[0, 9]])},
    "no segments": {"segments": np.zeros((0, 2), np.int64)},
    "faces that are 2": {"face": np.full(4, 2, np.uint8)},
    "no frames": {"time_s": np.zeros(0)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_impossible_files_are_refused_in_one_line(tmp_path, content, name):
    changed = {**content, **CHANGES[name]}
    path = tmp_path / "motion.npz"
    np.savez(path, **{key: value for key, value in changed.items() if value is not None})
    with pytest.raises(DataError) as refusal:
        load_motion(path)
    assert "\n" not in str(refusal.value) and "motion.npz" in str(refusal.value)


def test_files_that_are_no_archives_are_refused(tmp_path, content):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "whole.npz", **content)
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(data[: len(data) // 2])
    for name in ("text.npz", "half.npz", "absent.npz", "."):
        with pytest.raises(DataError):
            load_motion(tmp_path / name)


def test_a_small_file_may_not_unpack_to_a_large_clip(tmp_path, content, monkeypatch):
    """A file may be a hundredth of its content; the content itself has a size."""
    path = tmp_path / "motion.npz"
    np.savez_compressed(path, **content, padding=np.zeros(2**20))
    assert load_motion(path) and 20 * path.stat().st_size < 2**20
    monkeypatch.setattr(motion_file, "MAX_BYTES", 2**20)
    with pytest.raises(DataError, match="unpack to at most 1048576 bytes"):
        load_motion(path)
    monkeypatch.setattr(motion_file, "MAX_BYTES", 2**10)
    with pytest.raises(DataError, match="the track must have at most 1024 bytes"):
        save_motion(path, fitted_track())


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "motion.npz"
    track = fitted_track()
    save_motion(path, track)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        save_motion(path, track.slice(0, 2))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_save_refuses_what_load_would(tmp_path):
    track = fitted_track()
    with pytest.raises(DataError, match="scale_px"):
        save_motion(tmp_path / "motion.npz", dataclasses.replace(track, scale_px=-track.scale_px))
    with pytest.raises(DataError, match="end in"):
        save_motion(tmp_path / "motion.json", track)
    assert not list(tmp_path.iterdir())
