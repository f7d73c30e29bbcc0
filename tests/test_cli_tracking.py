"""The verb `track`: options reach the library, results are written whole, mistakes are one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from talking_heads_jax import cli_options
from talking_heads_jax.cli import build_parser, main
from talking_heads_jax.cli_tracking import summary
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.morphable.registry import MORPHABLE_NAMES
from talking_heads_jax.tracking import tracker
from talking_heads_jax.tracking.detection import DETECTORS
from talking_heads_jax.tracking.motion_file import load_motion
from talking_heads_jax.tracking.track import CAMERAS
from talking_heads_jax.tracking.tracker import LANDMARKERS, NO_MODEL, SMOOTHINGS, TrackOptions
from tests.media.video_files import write_clip
from tests.tracking.scenes import RED, face_points, scene
from tests.tracking.test_track import fitted_track


@pytest.fixture
def clip(tmp_path):
    frames = np.stack([scene([(30 + 2 * i, 30, 30, RED)]) for i in range(4)])
    points = np.stack([face_points((45 + 2 * i, 45), 24) for i in range(4)])
    np.savez(tmp_path / "marks.npz", landmarks68_px=points)
    return write_clip(tmp_path / "clip.mp4", frames)


def track(*arguments):
    return main(["track", *map(str, arguments)])


def test_track_writes_motion_overlay_and_report(clip, tmp_path, capsys):
    outputs = {"save": "m.npz", "overlay": "o.mp4", "report": "r.json"}
    flags = [part for name, file in outputs.items() for part in (f"--{name}", tmp_path / file)]
    marks = ("--landmarks", tmp_path / "marks.npz", "--morphable", "none", "--smooth", "gaussian")
    assert track(clip, *marks, *flags) == 0
    said = capsys.readouterr().out
    assert "clip.mp4: 4 frames at 25 a second, 128x96" in said
    assert "face: in 4 of 4 frames" in said and "landmarks: file; jitter" in said
    motion = load_motion(tmp_path / "m.npz")
    assert len(motion) == 4 and motion.landmark_source == "file"
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["file"] == "clip.mp4" and report["share_without_face"] == 0
    reader = VideoReader(tmp_path / "o.mp4")
    assert reader.size == (96 * 4, 128 * 4) and len(list(reader)) == 4


def test_overlay_of_a_picture_shows_box_and_landmarks(tmp_path):
    frame = np.full((600, 600, 3), 90, np.uint8)
    write_image(tmp_path / "photo.png", frame)
    points = face_points((300, 300), 150)
    np.savez(tmp_path / "marks.npz", landmarks68_px=points)
    marks = ("--landmarks", tmp_path / "marks.npz", "--morphable", "none")
    assert track(tmp_path / "photo.png", *marks, "--overlay", tmp_path / "o.png") == 0
    drawn = read_image(tmp_path / "o.png")
    assert drawn.shape == frame.shape
    for x, y in points.round().astype(int):
        assert tuple(drawn[y, x]) == (60, 230, 90)
    left = int(points[:, 0].min())
    assert tuple(drawn[280, left]) == (70, 130, 255)
    np.testing.assert_array_equal(drawn[:100], frame[:100])


def test_track_says_what_is_missing_and_still_reports_the_box(clip, capsys):
    assert track(clip, "--box", 30, 30, 60, 60) == 0
    said = capsys.readouterr().out
    assert "face: in 4 of 4 frames" in said and "no landmarks" in said and "--landmarks" in said


def test_options_arrive(clip, monkeypatch):
    calls = []

    def record(path, options, **keywords):
        calls.append((path, options, keywords))
        raise KeyboardInterrupt

    monkeypatch.setattr(tracker, "track_file", record)
    assert track(clip) == 130
    assert calls[0][:2] == (Path(clip), TrackOptions())
    flags = ["--detector", "centre", "--box", 1, 2, 3.5, 4, "--detect-every", 7, "--camera"]
    flags += ["perspective", "--smooth", "one-euro", "--min-cutoff", 3, "--speed-coefficient", 4]
    flags += ["--landmarker", "none", "--morphable", "flame2020", "--max-pixels", 99]
    assert track(clip, *flags) == 130
    assert calls[1][1] == TrackOptions(
        detector="centre",
        box=(1.0, 2.0, 3.5, 4.0),
        detect_every=7,
        camera="perspective",
        smooth="one_euro",
        min_cutoff_hz=3.0,
        speed_coefficient=4.0,
        landmarker="none",
        morphable="flame2020",
    )
    assert calls[1][2]["limits"].max_pixels == 99
    flags = ["--smooth", "gaussian", "--sigma", 2, "--camera", "perspective", "--focal", 800]
    assert track(clip, *flags) == 130
    options = calls[2][1]
    assert (options.smooth, options.sigma_frames, options.fit.focal_px) == ("gaussian", 2.0, 800.0)


@pytest.mark.parametrize(
    "flags",
    [
        ["--overlay", "o.txt"],
        ["--save", "m.json"],
        ["--report", "nowhere/r.json"],
        ["--save", "marks.npz", "--landmarks", "marks.npz"],
        ["--ict", "marks.npz"],
        ["--landmarks", "absent.npz"],
        ["--landmarks", "clip.mp4"],
        ["--morphable", "flame2020", "--landmarks", "marks.npz"],
        ["--box", "5", "5", "5", "9"],
        ["--landmarker", "fan"],
        ["--smooth", "gaussian", "--sigma", "-1", "--landmarks", "marks.npz"],
        ["--sigma", "2"],
        ["--smooth", "gaussian", "--min-cutoff", "1"],
        ["--focal", "900"],
        ["--detect-every", "5000"],
        ["--save", "folder.npz"],
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line_and_status_2(clip, flags, monkeypatch, capsys):
    monkeypatch.chdir(clip.parent)
    (clip.parent / "folder.npz").mkdir()
    files = sorted(clip.parent.iterdir())
    assert track(clip, *flags) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ") and complaint.count("\n") == 1
    assert len(complaint) < 500
    assert sorted(clip.parent.iterdir()) == files


def test_every_choice_of_the_library_is_one_of_the_command():
    """The command names them itself: the library is too heavy for `--help`."""
    assert cli_options.DETECTORS == DETECTORS
    assert (*MORPHABLE_NAMES, NO_MODEL) == cli_options.MORPHABLES
    choices = {"landmarker": LANDMARKERS, "camera": CAMERAS}
    choices["smooth"] = [name.replace("_", "-") for name in SMOOTHINGS]
    for option, names in choices.items():
        for name in names:
            arguments = build_parser().parse_args(["track", "a.mp4", f"--{option}", name])
            assert getattr(arguments, option) == name


def test_summary_says_what_is_known_of_a_fit():
    fit = fitted_track()
    said = list(summary({"file": "a.mp4", **fit.quality()}, fit))
    assert said[3].endswith("by 0.60 px, 2.0 % of the outer eye corners' distance (median)")
    fit.landmarks68_px[:, 36] = np.nan  # no frame has both corners
    said = list(summary({"file": "a.mp4", **fit.quality()}, fit))
    assert said[3].endswith("by 0.60 px (median)")
    fit.reprojection_px[:] = np.nan
    said = list(summary({"file": "a.mp4", **fit.quality()}, fit))
    assert said[3] == "fit: procedural, weak_perspective"


def test_files_that_are_no_clips_are_one_line(tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "text.png").write_text("hello")
    for name in ("text.mp4", "text.png", "absent.mp4", "."):
        assert track(tmp_path / name) == 2
        assert capsys.readouterr().err.count("\n") == 1
