"""Edits from text and files: values of sweeps and timelines, and files nobody should trust."""

import json

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, DataError, TalkingHeadsError
from talking_heads_jax.inference import edit_timeline
from talking_heads_jax.inference.edit_changes import (
    MOST_FRAMES,
    frame_count,
    parse_setting,
    parse_sweeps,
)
from talking_heads_jax.inference.edit_quantities import quantities_of
from talking_heads_jax.inference.edit_timeline import read_timeline
from tests.inference.edit_states import head


@pytest.fixture(scope="module")
def quantities():
    return quantities_of(head())


def test_settings():
    change = parse_setting(" head.yaw = -12.5")
    assert (change.name, change.values.tolist(), change.offset) == ("head.yaw", [-12.5], False)
    assert parse_setting("jaw.open+=5").offset
    assert change.over(3).tolist() == [-12.5] * 3


@pytest.mark.parametrize(
    "text",
    ["", "head.yaw", "=3", "head.yaw=", "head.yaw=nan", "head.yaw=inf", "head.yaw=20deg", "a=1=2"],
)
def test_settings_that_say_nothing(text):
    with pytest.raises(ArgumentError):
        parse_setting(text)


def test_sweeps_run_one_after_another_or_together():
    yaw, jaw = parse_sweeps(["head.yaw=-30:30:5", "jaw+=0:8:3"])
    assert yaw.values.tolist() == [-30, -15, 0, 15, 30] and not yaw.held
    np.testing.assert_array_equal(jaw.values, [np.nan] * 5 + [0, 4, 8])
    assert jaw.offset and frame_count([yaw, jaw]) == 8
    np.testing.assert_array_equal(yaw.over(7), [-30, -15, 0, 15, 30, np.nan, np.nan])
    back = parse_sweeps(["head.yaw=0:10:3"], there_and_back=True)[0]
    assert back.values.tolist() == [0, 5, 10, 5, 0]
    yaw, jaw = parse_sweeps(["head.yaw=-30:30:5", "jaw=0:8:3"], together=True)
    assert jaw.over(5).tolist() == [0, 4, 8, 8, 8]


@pytest.mark.parametrize(
    "text",
    [
        *("head.yaw=1:2", "head.yaw=1:2:3:4", "head.yaw=a:2:3", "head.yaw=1:2:1", "head.yaw"),
        *("head.yaw=1:2:2.5", f"head.yaw=1:2:{MOST_FRAMES + 1}", "head.yaw=nan:2:3"),
    ],
)
def test_sweeps_that_make_no_sense(text):
    with pytest.raises(ArgumentError):
        parse_sweeps([text])


def test_many_sweeps_have_a_limit_too():
    with pytest.raises(ArgumentError, match="at most"):
        parse_sweeps([f"head.yaw=0:1:{MOST_FRAMES // 2}"] * 3)


def test_csv_by_key_frames(tmp_path, quantities):
    path = tmp_path / "moves.csv"
    path.write_text("\ufeffframe, head.yaw ,jaw.open+\n0,0,\n4,20,2\n6,,4\n\n")
    timeline = read_timeline(path, quantities)
    yaw, jaw = timeline.changes
    assert not timeline.in_seconds
    assert (yaw.name, jaw.name, jaw.offset, timeline.fps) == ("head.yaw", "jaw.open", True, 25)
    assert yaw.values.tolist() == [0, 5, 10, 15, 20, 20, 20]
    assert jaw.values.tolist() == [2, 2, 2, 2, 2, 3, 4]
    held = read_timeline(path, quantities, interpolate="hold").changes
    assert held[0].values.tolist() == [0, 0, 0, 0, 20, 20, 20]


def test_json_by_seconds(tmp_path, quantities):
    path = tmp_path / "moves.json"
    rows = [
        {"time_s": 0, "camera.scale": 1},
        {"time_s": 0.3, "camera.scale": 1.3},
        {"time_s": 0.5, "head.yaw": 7, "camera.scale": None},
    ]
    path.write_text(json.dumps({"rows": rows, "fps": 10, "interpolate": "hold"}))
    timeline = read_timeline(path, quantities)
    scale, yaw = timeline.changes
    assert timeline.in_seconds
    assert timeline.fps == 10 and yaw.values.tolist() == [7] * 6
    assert scale.values.tolist() == [1, 1, 1, 1.3, 1.3, 1.3]
    finer = read_timeline(path, quantities, fps=20, interpolate="linear")
    np.testing.assert_allclose(finer.changes[0].values[:7], 1 + 0.05 * np.arange(7))
    assert finer.fps == 20 and len(finer.changes[0].values) == 11


def test_every_frame_of_a_clip_by_its_time(tmp_path, quantities):
    path = tmp_path / "moves.csv"
    times = [round(index / 29.97, 4) for index in range(200)]
    lines = [f"{time},{index % 50}" for index, time in enumerate(times)]
    path.write_text("time_s,head.yaw\n" + "\n".join(lines))
    change = read_timeline(path, quantities, fps=29.97).changes[0]
    assert len(change.values) == 200
    np.testing.assert_allclose(change.values, np.arange(200) % 50, atol=0.1)


@pytest.mark.parametrize(
    "name, text, word",
    [
        ("far.csv", "frame,jaw,head.yaw\n0,1,0\n4,1,200\n", "200 as head.yaw of row 1"),
        # Between frames: no frame would show it as it is stated.
        ("far.csv", "time_s,head.yaw\n0,0\n0.01,-900\n0.2,0\n", "-900 as head.yaw of row 1"),
        ("far.csv", "frame,camera.scale\n0,0\n", "0 as camera.scale of row 0"),
        ("far.csv", "frame,head.yaw+\n0,361\n", "361 as head.yaw+ of row 0"),
        ("far.json", '{"rows": [{"frame": 0, "jaw": -181}]}', "-181 as jaw of row 0"),
        ("key.json", '{"rows": [{"frame": 0, "jaw": 1, "jaw": 2}]}', "'jaw' twice"),
        ("key.json", '{"fps": 1, "rows": [{"frame": 0, "jaw": 1}], "fps": 2}', "'fps' twice"),
    ],
)
def test_what_a_row_states_is_named_as_it_is_stated(tmp_path, quantities, name, text, word):
    path = tmp_path / name
    path.write_text(text)
    for how in ("linear", "hold"):
        with pytest.raises(DataError) as caught:
            read_timeline(path, quantities, interpolate=how)
        assert str(caught.value).startswith(f"{path} must ") and word in str(caught.value)


def test_offsets_may_be_as_large_as_a_range(tmp_path, quantities):
    path = tmp_path / "moves.csv"
    path.write_text("frame,head.yaw+\n0,-360\n1,360\n")
    assert read_timeline(path, quantities).changes[0].values.tolist() == [-360, 360]


HOSTILE = {
    "empty.csv": "",
    "names_only.csv": "frame,head.yaw\n",
    "no_clock.csv": "head.yaw,jaw\n1,2\n",
    "two_clocks.csv": "frame,time_s,head.yaw\n0,0,1\n",
    "nothing_else.csv": "frame\n0\n",
    "nan.csv": "frame,head.yaw\n0,nan\n",
    "inf.csv": "frame,head.yaw\n0,1e999\n",
    "text.csv": "frame,head.yaw\n0,__import__('os')\n",
    "ragged.csv": "frame,head.yaw\n0,1,2\n",
    "backwards.csv": "frame,head.yaw\n3,1\n2,1\n",
    "negative.csv": "frame,head.yaw\n-3,1\n2,1\n",
    "half.csv": "frame,head.yaw\n0.5,1\n",
    "far.csv": "frame,head.yaw\n0,1\n1e15,1\n",
    "late.csv": "time_s,head.yaw\n0,1\n1e308,1\n",
    "long_text.csv": "frame,head.yaw\n0," + 100_000 * "x" + "\n",
    "long_name.json": '{"rows": [{"frame": 0, "' + 100_000 * "head." + '": 1}]}',
    "long_key.json": '{"rows": [], "' + 100_000 * "x" + '": 1}',
    "no_frame.csv": "frame,head.yaw\n0,1\n,1\n",
    "twice.csv": "frame,jaw,jaw.open\n0,1,1\n",
    "same.csv": "frame,jaw,jaw\n0,1,1\n",
    "unknown.csv": "frame,head.jaw\n0,1\n",
    "blank_name.csv": "frame,\n0,1\n",
    "silent.csv": "frame,head.yaw\n0,\n",
    "quote.csv": 'frame,"head.yaw\n0,1\n',
    "zero.csv": "frame,head.yaw\n0,\0\n",
    "list.json": "[1, 2]",
    "no_rows.json": "{}",
    "rows_of_lists.json": '{"rows": [[1, 2]]}',
    "code.json": '{"rows": [{"frame": 0, "head.yaw": "__import__(\'os\').getcwd()"}]}',
    "true.json": '{"rows": [{"frame": 0, "head.yaw": true}]}',
    "nan.json": '{"rows": [{"frame": 0, "head.yaw": NaN}]}',
    "inf.json": '{"rows": [{"frame": 0, "head.yaw": 1e999}]}',
    "huge_integer.json": '{"rows": [{"frame": 0, "head.yaw": 1' + 400 * "0" + "}]}",
    "nested.json": '{"rows": ' + "[" * 100_000,
    "object.json": '{"rows": [{"frame": 0, "head.yaw": {"a": 1}}]}',
    "other_key.json": '{"rows": [{"frame": 0, "head.yaw": 1}], "run": "x"}',
    "fps.json": '{"rows": [{"frame": 0, "head.yaw": 1}], "fps": 1e9}',
    "fps_text.json": '{"rows": [{"frame": 0, "head.yaw": 1}], "fps": "fast"}',
    "how.json": '{"rows": [{"frame": 0, "head.yaw": 1}], "interpolate": ["x"]}',
    "cut.json": '{"rows": [{"frame": 0, "hea',
    "table.txt": "frame,head.yaw\n0,1\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_timelines_are_refused_in_one_line(tmp_path, quantities, name):
    path = tmp_path / name
    path.write_text(HOSTILE[name])
    with pytest.raises(TalkingHeadsError) as caught:
        read_timeline(path, quantities)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_files_that_are_none_and_files_that_are_too_much(tmp_path, quantities, monkeypatch):
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00frame")
    (tmp_path / "folder.csv").mkdir()
    for name in ("bytes.csv", "folder.csv", "absent.json"):
        with pytest.raises(DataError):
            read_timeline(tmp_path / name, quantities)
    path = tmp_path / "long.csv"
    path.write_text("frame,head.yaw\n" + "\n".join(f"{i},1" for i in range(40)))
    assert len(read_timeline(path, quantities).changes[0].values) == 40
    for limit, value in (("_MAX_BYTES", 100), ("_MAX_ROWS", 39), ("_MAX_CELLS", 79)):
        with monkeypatch.context() as patch:
            patch.setattr(edit_timeline, limit, value)
            with pytest.raises(DataError, match=r"at most|1 to 39"):
                read_timeline(path, quantities)
