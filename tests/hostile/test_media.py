"""Videos and pictures that are something else, given to `prepare` and `animate`."""

import json
import os
from pathlib import Path

import pytest

from talking_heads_jax.cli import main
from tests.hostile.conftest import MODEL
from tests.hostile.files import IMAGES, NAMES, VIDEOS
from tests.media.video_files import moving_frames, write_clip


def animate(good, **changes):
    files = {
        "checkpoint": good.checkpoint,
        "source": good.source,
        "driving": good.driving,
        "output": "out.mp4",
    }
    options = [part for name, path in (files | changes).items() for part in (f"--{name}", path)]
    return ["animate", *options]


@pytest.mark.parametrize("case", VIDEOS)
def test_animate_refuses_a_driving_file_that_is_no_video(case, good, refused, tmp_path):
    driving = tmp_path / "clip.mp4"
    VIDEOS[case](driving)
    output = tmp_path / "out.mp4"
    output.write_bytes(b"an earlier video")
    refused(animate(good, driving=driving, output=output), "clip.mp4")


@pytest.mark.parametrize("case", IMAGES)
def test_animate_refuses_a_source_that_is_no_picture(case, good, refused, tmp_path):
    source = tmp_path / "portrait.png"
    IMAGES[case](source)
    said = refused(animate(good, source=source, output=tmp_path / "out.mp4"), "portrait.png")
    if case == "1 x 1":
        assert "at least 8 pixels" in said
    if case.startswith("20000"):
        assert "--max-pixels" in said


@pytest.mark.parametrize("case", VIDEOS)
def test_prepare_refuses_a_folder_of_files_that_are_no_videos(case, refused, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    VIDEOS[case](videos / "clip.mp4")
    (videos / "elsewhere.mp4").unlink(missing_ok=True)
    arguments = ["prepare", videos, "--output", tmp_path / "data", "--workers", "0"]
    refused(arguments, "" if case in ("missing", "folder") else "clip.mp4")


@pytest.mark.parametrize("case", sorted(set(IMAGES) - {"missing", "folder"}))
def test_prepare_refuses_a_folder_of_files_that_are_no_pictures(case, refused, tmp_path):
    clip = tmp_path / "videos" / "clip"
    clip.mkdir(parents=True)
    for name in ("1.png", "2.png"):
        IMAGES[case](clip / name)
    arguments = ["prepare", tmp_path / "videos", "--output", tmp_path / "data", "--workers", "0"]
    refused(arguments, "clip")


@pytest.mark.parametrize(
    "flag, value", [("pixels", "4095"), ("clip-frames", "3"), ("duration", "0.1")]
)
def test_limits_are_options_whose_names_the_message_states(flag, value, good, refused, tmp_path):
    option = [f"--max-{flag}", value]
    data = ["--output", tmp_path / "data", "--workers", "0"]
    refused(["prepare", good.videos, *data, *option], option[0], unchanged=tmp_path)
    refused([*animate(good, output=tmp_path / "out.mp4"), *option], option[0])


def test_limits_may_be_raised(good, tmp_path):
    """The same clip passes at its exact size: the option is what decided."""
    limits = ["--max-pixels", "4096", "--max-clip-frames", "4", "--max-duration", "1"]
    data = ["--output", str(tmp_path / "data"), "--workers", "0"]
    assert main(["prepare", str(good.videos), *data, *limits]) == 0


@pytest.mark.parametrize("flag", ["--max-pixels", "--max-clip-frames", "--max-duration"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "nan"])
def test_limits_must_be_positive_numbers(flag, value, refused, tmp_path):
    refused(["prepare", tmp_path, "--output", tmp_path / "data", flag, value], flag)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_reach_the_terminal_escaped(name, good, refused, tmp_path):
    driving = tmp_path / f"{name}.mp4"
    driving.write_text("no video")
    refused(animate(good, driving=driving, output=tmp_path / "out.mp4"))
    refused(animate(good, checkpoint=tmp_path / name, output=tmp_path / "out.mp4"))
    refused(["prepare", tmp_path, "--output", tmp_path / "data", "--workers", "0"])
    refused(["prepare", tmp_path, "--output", tmp_path / "data", f"--{name}"])
    refused(["convert", driving, "--model", "fomm", "--output", tmp_path / "model"])


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_prepare_refuses_a_good_clip_whose_name_no_record_can_hold(name, refused, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    plain = write_clip(videos / "plain.mp4", moving_frames(3))
    plain.rename(videos / f"{name}.mp4")
    refused(["prepare", videos, "--output", tmp_path / "data", "--workers", "0"], "Rename")


@pytest.mark.parametrize("case", ["a file", "below a file", "full of files", "no such device"])
@pytest.mark.parametrize("verb", ["prepare", "animate", "convert"])
def test_outputs_that_cannot_be_written(case, verb, good, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    place = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "full of files": tmp_path / "folder",
        "no such device": Path("/proc/nowhere/out"),
    }[case]
    if case == "no such device" and not os.path.isdir("/proc/self"):
        pytest.skip("no /proc, where even root may not make files")
    if verb == "prepare":
        refused(["prepare", good.videos, "--output", place, "--workers", "0"])
    elif verb == "animate":
        refused(animate(good, output=place))
    else:
        refused(["convert", good.tensors, "--model", "fomm", "--output", place])


@pytest.mark.parametrize("verb", ["prepare", "animate", "convert"])
def test_a_disk_that_fills_up_leaves_what_was_there(verb, good, refused, tmp_path):
    """No file may grow beyond 1 KB: what writing to a full disk looks like to a program."""
    resource = pytest.importorskip("resource", reason="limits of a process exist on Unix only")
    earlier = tmp_path / "out.mp4"
    earlier.write_bytes(b"an earlier video")
    commands = {
        "prepare": ["prepare", good.videos, "--output", tmp_path / "data", "--workers", "0"],
        "animate": animate(good, output=earlier),
        "convert": ["convert", good.tensors, "--model", "fomm", "--output", tmp_path / "model"],
    }
    if verb == "convert":
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps(MODEL))
        commands[verb] += ["--arguments", arguments]
    own, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    unchanged = tmp_path if verb != "prepare" else good.videos  # finished clips are kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
    try:
        refused(commands[verb], unchanged=unchanged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (own, most))
    assert earlier.read_bytes() == b"an earlier video"
    assert not (tmp_path / "data" / "clips.json").exists()
