"""The verb `edit`: options reach the library, results are written whole, mistakes are one line."""

import json
import re
import shlex

import numpy as np
import pytest

from talking_heads_jax import checkpoints, cli_edit
from talking_heads_jax.checkpoints import LoadedModel
from talking_heads_jax.cli import build_parser, main
from talking_heads_jax.inference.edit_changes import parse_setting, parse_sweeps
from talking_heads_jax.inference.edit_presets import PRESETS
from talking_heads_jax.inference.edit_quantities import find_quantity, quantities_of
from talking_heads_jax.inference.edit_timeline import INTERPOLATIONS, read_timeline
from talking_heads_jax.inference.editing import SHOULDERS
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.tracking.motion_file import save_motion
from tests.inference.edit_states import MovedHead, head, state

moved = MovedHead()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A portrait of 32 px, its state, and a checkpoint that needs no file."""
    loaded = LoadedModel(moved, moved.init(None), {})
    monkeypatch.setattr(checkpoints, "load_model", lambda path: loaded)
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    write_image(tmp_path / "face.png", image)
    save_motion(tmp_path / "face.npz", state(size=(32, 32)))
    return tmp_path


SOURCE = ("--source", "face.png", "--source-motion", "face.npz")


def edit(*flags, source=SOURCE, output="out.png"):
    where = ["--output", output] if output else []
    return main(["edit", "--checkpoint", "CHECKPOINT", *source, *where, *map(str, flags)])


def test_list_prints_the_models_quantities(files, capsys):
    assert edit("--list", source=(), output=None) == 0
    said = capsys.readouterr().out
    for name in ("head.yaw", "jaw.open", "left_eye.pitch", "expression.smile_L", "shape.glasses"):
        assert f"\n{name} " in said
    assert "standard deviations" in said and "degrees" in said


def test_everything_together(files, capsys):
    (files / "moves.csv").write_text("frame,head.yaw\n0,0\n3,30\n")
    flags = ("--timeline", "moves.csv", "--preset", "neutral", "--set", "camera.x=0.25", "jaw+=70")
    assert edit(*flags, "--sweep", "head.roll=0:5:6", "--side-by-side", output="clip") == 0
    assert len(list((files / "clip").iterdir())) == 6
    said = capsys.readouterr().out
    assert "jaw.open: 70 is outside 0 to 34" in said and "clip: 6 frames" in said
    # Panels of a frame: source, mesh, result; in red, a shift by a quarter of the picture.
    shown = read_image(files / "clip" / "frame_000000.png")
    assert shown.shape == (32, 96, 3)
    assert 255 * 0.8 < shown[16, 80, 0] < 255


def test_words_of_the_options_are_those_of_the_library():
    assert tuple(PRESETS) == cli_edit.PRESETS
    assert cli_edit.INTERPOLATIONS == INTERPOLATIONS and cli_edit.SHOULDERS == SHOULDERS
    parsed = build_parser().parse_args(
        ["edit", "--checkpoint", "C", "--set", "a=1", "b=2", "--set", "c=3"]
    )
    assert parsed.settings == ["a=1", "b=2", "c=3"]


@pytest.mark.parametrize(
    "flags, word",
    [
        (["--set", "head.jaw=3"], "Did you mean head.yaw"),
        (["--set", "head.yaw=nan"], "be a number"),
        (["--set", "head.yaw"], "NAME=VALUE"),
        (["--sweep", "head.yaw=1:2"], "NAME=START:STOP:FRAMES"),
        (["--sweep", "camera.x=0:1:500"], "at most 400 frames"),
        (["--timeline", "moves.json"], "hold numbers"),
        (["--timeline", "absent.csv"], "be a readable file"),
        (["--set", "head.yaw=1", "--source-landmarks", "face.npz"], "have an effect"),
        (["--set", "head.yaw=1", "--person", "3"], "one of them"),
        (["--set", "head.yaw=1", "--together"], "have an effect"),
        (["--set", "head.yaw=1", "--output", "face.png"], "differ from the inputs"),
        (["--set", "head.yaw=1", "--output", "nowhere/a.png"], "existing folder"),
        (["--set", "head.yaw=1", "--output", "a.gif"], "be a picture, a video or a folder"),
        (["--set", "head.yaw=1", "--fps", "30"], "fps must have an effect"),
        (["--timeline", "frames.csv", "--fps", "30"], "fps must have an effect"),
        (["--timeline", "far.csv"], "far.csv must hold -180 to 180 (degrees)"),
        (["--set", "head.yaw=1", "--detector", "dlib"], "--detector must have an effect"),
        (["--set", "head.yaw=1", "--recipe", "eg3d_512", "--crop", "none"], "--recipe must have"),
        (["--set", "head.yaw=1", "--crop", "none", "--source-box", *"0011"], "--crop must have"),
        (["--set", "head.yaw=1", "--source", "clip.mp4"], "be an image"),
        (["--set", "head.yaw=1", "--source-motion", "other.npz"], "fitted with 'procedural'"),
        (["--set", "head.yaw=1", "--fps", "nan"], "fps"),
        ([], "change something"),
    ],
)
def test_mistakes_end_in_one_line(files, capsys, flags, word):
    rows = [{"frame": 0, "head.yaw": "__import__('os').system('true')"}]
    (files / "moves.json").write_text(json.dumps({"rows": rows}))
    (files / "frames.csv").write_text("frame,head.yaw\n0,0\n3,30\n")
    (files / "far.csv").write_text("frame,head.yaw\n0,0\n3,300\n")
    save_motion(files / "other.npz", state(size=(32, 32), morphable="ict"))
    assert edit(*flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and word in said and said.count("\n") == 1
    assert not (files / "out.png").exists()


@pytest.mark.parametrize(
    "flags", [("--crop", "none"), ("--recipe", "gdpw_256"), ("--detector", "centre")]
)
def test_a_rendered_person_is_neither_looked_for_nor_cropped(files, capsys, flags):
    assert edit("--set", "head.yaw=1", *flags, source=("--person", "20003")) == 2
    assert f"{flags[0]} must have an effect" in capsys.readouterr().err


def test_a_rate_spreads_a_timeline_in_seconds_over_a_sheet(files):
    (files / "seconds.csv").write_text("time_s,head.yaw\n0,0\n1,30\n")
    assert edit("--timeline", "seconds.csv", "--fps", "4") == 0
    assert read_image(files / "out.png").shape == (12 + 128, 5 * 128, 3)


@pytest.mark.parametrize("limit", ["--max-frames", "--max-duration"])
def test_limits_are_those_of_a_picture(files, capsys, limit):
    with pytest.raises(SystemExit):
        edit("--set", "head.yaw=1", limit, "3")
    assert f"unrecognized arguments: {limit}" in capsys.readouterr().err
    assert edit("--set", "head.yaw=1", "--max-pixels", "1000") == 2
    assert "pixels" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["/proc/x.png", "/proc/x.mp4"])
def test_an_output_that_cannot_be_written_is_told_first(files, capsys, monkeypatch, output):
    def load(path):
        raise AssertionError("it is too late")

    monkeypatch.setattr(checkpoints, "load_model", load)
    assert edit("--set", "head.yaw=1", output=output) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: output ") and said.count("\n") == 1


def test_no_landmarks_says_what_to_give(files, capsys):
    assert edit("--set", "head.yaw=1", source=("--source", "face.png")) == 2
    said = capsys.readouterr().err
    assert "--source-landmarks" in said and "--source-motion" in said


def test_examples_of_the_page_are_what_the_program_takes(repository, tmp_path):
    page = (repository / "docs" / "editing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, re.S)
    quantities = quantities_of(head())
    commands = [
        line
        for _, text in blocks
        for line in text.splitlines()
        if line.startswith("talking-heads edit")
    ]
    assert len(commands) >= 5
    for line in commands:
        parsed = build_parser().parse_args(shlex.split(line)[1:])
        for change in (*map(parse_setting, parsed.settings), *parse_sweeps(parsed.sweeps)):
            assert find_quantity(quantities, change.name)
    tables = {kind: text for kind, text in blocks if kind in ("csv", "json")}
    for kind, text in tables.items():
        (tmp_path / f"moves.{kind}").write_text(text)
        assert read_timeline(tmp_path / f"moves.{kind}", quantities).changes
    assert set(tables) == {"csv", "json"}
    listed = set(re.findall(r"`((?:head|jaw|eyes|neck|camera)\.\w+)`", page))
    assert listed <= set(quantities) and len(listed) >= 14


def test_people_of_the_set_are_rendered_at_the_models_size(files, monkeypatch):
    from data_pipeline.synthetic import exact_motion

    asked = []

    def render(identity, **options):
        asked.append((identity, options["size"], options["frame"], options["morphable"].name))
        return np.full((32, 32, 3), 9, np.uint8), state(size=(32, 32))

    monkeypatch.setattr(exact_motion, "exact_portrait", render)
    flags = ("--set", "head.yaw=5", "--person-frame", "7")
    assert edit(*flags, source=("--person", "20003")) == 0
    assert asked == [(20003, 32, 7, "procedural")]
    assert read_image(files / "out.png").shape == (32, 32, 3)
