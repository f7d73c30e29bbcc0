"""Files that are something else, given to `track`: as the clip, as its landmarks."""

import os

import pytest

from tests.hostile.files import IMAGES, NAMES, VIDEOS
from tests.media.video_files import moving_frames, write_clip

PLAIN = ("--detector", "centre", "--morphable", "none")


@pytest.mark.parametrize("case", VIDEOS)
def test_track_refuses_a_clip_that_is_no_video(case, refused, tmp_path):
    VIDEOS[case](tmp_path / "clip.mp4")
    (tmp_path / "motion.npz").write_bytes(b"an earlier file")
    refused(["track", tmp_path / "clip.mp4", *PLAIN, "--save", tmp_path / "motion.npz"], "clip.mp4")


@pytest.mark.parametrize("case", IMAGES)
def test_track_refuses_a_photograph_that_is_none(case, refused, tmp_path):
    IMAGES[case](tmp_path / "photo.png")
    refused(["track", tmp_path / "photo.png", *PLAIN, "--overlay", tmp_path / "o.png"], "photo.png")


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", moving_frames(3, 64, 64))


@pytest.mark.parametrize("ending", ["npz", "csv"])
@pytest.mark.parametrize("case", ["pipe", "device", "folder", "missing", "empty", "text"])
def test_track_refuses_landmarks_that_are_none(case, ending, clip, refused, tmp_path):
    marks = tmp_path / f"marks.{ending}"
    VIDEOS[case](marks)
    refused(["track", clip, "--landmarks", marks, "--morphable", "none"], "marks")


def test_track_refuses_a_table_that_is_one_endless_line(clip, refused, tmp_path):
    marks = tmp_path / "marks.csv"
    marks.write_bytes(b"")
    os.truncate(marks, 1 << 20)  # a hole
    refused(["track", clip, "--landmarks", marks, "--morphable", "none"], "short lines")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_reach_the_terminal_escaped(name, refused, tmp_path, capfd):
    refused(["track", tmp_path / f"{name}.mp4", *PLAIN])
    refused(["track", tmp_path / "clip.mp4", "--landmarks", tmp_path / f"{name}.csv"])
    refused(["track", tmp_path / "clip.mp4", "--save", tmp_path / name])
