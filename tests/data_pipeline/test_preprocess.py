"""`prepare` end to end: what is in the data set, what is reported, and what happens on a rerun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.preprocess import staging
from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from data_pipeline.preprocess.prepare import prepare_dataset
from data_pipeline.preprocess.staged_clips import ClipStage, staged_row
from data_pipeline.schema import read_clip_table
from data_pipeline.sources import FrameSource
from talking_heads_jax.errors import ArgumentError, DataError
from talking_heads_jax.media.resize import crop_and_resize
from talking_heads_jax.media.video import VideoReader
from tests.data_pipeline.conftest import make_broken, make_videos, write_landmarks
from tests.media.video_files import moving_frames, write_clip


def prepare(videos: Path, output: Path, **options):
    options = {"size": 32, "image_format": "png", "workers": 0, "progress": False} | options
    return prepare_dataset(videos, output, **options)


def manifest_of(output: Path) -> dict:
    return json.loads((output / "manifest.json").read_text())


def records_of(output: Path) -> dict[str, list]:
    """Clip to its records, over both splits."""
    found = {}
    for split, clips in read_clip_table(output).splits.items():
        if not clips:
            continue
        source = FrameSource(output, split)
        for clip in clips:
            found[clip.clip_id] = [source[clip.first_record + i] for i in range(clip.length)]
    return found


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_prepare_writes_every_frame_of_every_kind_of_clip(dataset: Path) -> None:
    records = records_of(dataset)
    assert {clip: len(frames) for clip, frames in records.items()} == {
        "ann#one#000.mp4": 8,
        "ann#two#000.mp4": 6,
        "bob#1.webm": 7,
        "cat#1.avi": 5,
        "dan#1.gif": 5,
        "eve.mov": 9,
        "fay#1.mp4": 10,  # one of eleven pictures is broken
    }
    assert {records[clip][0].identity_id for clip in records} == {
        "ann", "bob", "cat", "dan", "eve", "fay",
    }  # fmt: skip
    for frames in records.values():
        indices = [record.frame_index for record in frames]
        assert indices == sorted(indices) and frames[0].image.shape == (32, 32, 3)
    # Natural order: 10.png comes last, and the broken 5.png is left out.
    assert [record.frame_index for record in records["fay#1.mp4"]] == [
        0,
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        10,
    ]


def test_prepare_crops_what_it_says(videos: Path, dataset: Path) -> None:
    for clip, records in records_of(dataset).items():
        if not (videos / clip).is_file():
            continue
        frames = list(VideoReader(videos / clip))
        for record in (records[0], records[-1]):
            box = tuple(float(value) for value in record.source_box_px)
            expected = crop_and_resize(frames[record.frame_index], box, 32)
            # The box in the record is float32; png is exact.
            assert np.abs(expected.astype(int) - record.image).max() <= 1
            corner = record.crop_matrix @ np.array([box[2], box[3], 1.0])
            np.testing.assert_allclose(corner, [32, 32], atol=1e-4)


def test_prepare_uses_landmarks_for_the_crop_and_moves_them_along(dataset: Path) -> None:
    rows = {row["clip_id"]: row for row in manifest_of(dataset)["clips"]}
    assert rows["eve.mov"]["crop_rule"] == "landmarks" and not rows["eve.mov"]["warnings"]
    record = records_of(dataset)["eve.mov"][4]
    points = np.concatenate([record.landmarks68_px, np.ones((68, 1))], 1)
    matrix = np.linalg.inv(np.vstack([record.crop_matrix, [0, 0, 1]]))
    original = (points @ matrix.T)[:, :2]
    assert original[0] == pytest.approx([41.0, 27.0], abs=1e-3)  # 30 + 10 + 4 * 0.25, 26 + 1
    np.testing.assert_allclose(np.rad2deg(record.angles), [10, -5, 3], atol=1e-4)
    assert record.landmarks68_visible.sum() == 68
    other = records_of(dataset)["bob#1.webm"][0]
    assert np.isnan(other.landmarks68_px).all() and np.isnan(other.angles).all()
    assert other.landmarks68_visible.sum() == 0


def test_prepare_writes_a_manifest_of_every_clip(videos: Path, dataset: Path) -> None:
    manifest = manifest_of(dataset)
    assert manifest["state"] == "complete" and manifest["split"]["rule"] == "identity"
    rows = {row["clip_id"]: row for row in manifest["clips"]}
    assert len(rows) == 7 and all(row["status"] == "present" for row in rows.values())
    assert all(len(row["sha256"]) == 64 and row["frames"] >= 5 for row in rows.values())
    assert rows["bob#1.webm"]["crop_rule"] == "centre"
    assert any("5.png" in text for text in rows["fay#1.mp4"]["warnings"])
    assert any("6 of 7 clips" in text for text in manifest["warnings"])
    assert not (dataset / "staging").exists() and not (dataset / ".lock").exists()


def test_split_keeps_identities_apart(dataset: Path) -> None:
    splits = read_clip_table(dataset).splits
    people = {name: {clip.identity_id for clip in clips} for name, clips in splits.items()}
    assert people["train"] and people["test"] and not people["train"] & people["test"]


def test_prepare_reports_and_skips_what_is_broken(tmp_path: Path) -> None:
    folder = make_videos(tmp_path / "in")
    make_broken(folder)
    summary = prepare(folder, tmp_path / "out")
    assert summary.clips == 7
    assert {name: reason for name, reason in summary.skipped.items() if not reason} == {}
    assert sorted(summary.skipped) == [
        "x_cut.mp4", "x_empty_images", "x_one.mp4", "x_single", "x_sizes", "x_text.mp4",
        "x_wrong_landmarks.mp4", "x_zero.mp4",
    ]  # fmt: skip
    assert "truncated" in summary.skipped["x_cut.mp4"]
    assert "empty file" in summary.skipped["x_zero.mp4"]
    assert "at least 2 frames" in summary.skipped["x_one.mp4"]
    assert "internal" not in " ".join(summary.skipped.values())
    manifest = manifest_of(tmp_path / "out")
    assert manifest["ignored"] == ["loose.png"]
    assert all(row.get("reason") or row["status"] == "present" for row in manifest["clips"])


def test_no_usable_clip_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_text("text")
    with pytest.raises(DataError, match=r"at least one usable clip.*a\.mp4"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()  # nothing to continue, and other options stay possible
    # The same call works once the file is repaired.
    write_clip(tmp_path / "in" / "a.mp4", moving_frames(4))
    assert prepare(tmp_path / "in", tmp_path / "out").clips == 1
    for wrong in (tmp_path / "none", tmp_path / "out" / "records"):
        with pytest.raises(DataError):
            prepare(wrong, tmp_path / "other")


def test_workers_do_not_change_a_byte(tmp_path: Path, videos: Path, dataset: Path) -> None:
    prepare(videos, tmp_path / "out", workers=2)
    assert content_of(tmp_path / "out" / "records") == content_of(dataset / "records")
    assert (tmp_path / "out" / "clips.json").read_bytes() == (dataset / "clips.json").read_bytes()


def test_prepare_reuses_finished_clips(
    tmp_path: Path, videos: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipeline.preprocess import finishing
    from data_pipeline.preprocess import prepare as module

    output = tmp_path / "out"
    monkeypatch.setattr(module, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(videos, output)
    assert len(list((output / "staging").iterdir())) == 7
    monkeypatch.setattr(module, "finish", finishing.finish)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(staging, "open_frames", refuse)
    summary = prepare(videos, output)
    assert summary.reused == 7
    assert content_of(output / "records") == content_of(dataset / "records")


def test_prepare_stages_a_changed_clip_again(tmp_path: Path, monkeypatch) -> None:
    from data_pipeline.preprocess import finishing
    from data_pipeline.preprocess import prepare as module

    folder, output = make_videos(tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(module, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, output)
    monkeypatch.setattr(module, "finish", finishing.finish)
    write_clip(folder / "bob#1.webm", moving_frames(4)[::-1].copy(), codec="libvpx")
    write_landmarks(folder / "eve_landmarks.npz", 9, shift=5)
    assert prepare(folder, output).reused == 5
    assert len(records_of(output)["bob#1.webm"]) == 4


def test_clips_that_an_earlier_version_staged_are_staged_again(tmp_path: Path) -> None:
    with ClipStage(tmp_path, "a") as stage:
        stage.add(b"picture", 0)
        stage.finish({"clip_id": "a", "status": "present"}, {})
    assert staged_row(stage.folder)["clip_id"] == "a"
    (stage.folder / "image.bin").rename(stage.folder / "frames.bin")
    assert staged_row(stage.folder) is None


@pytest.mark.integration
def test_prepare_continues_after_kill(tmp_path: Path, videos: Path, dataset: Path) -> None:
    output = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\n"
        "from data_pipeline.preprocess.prepare import prepare_dataset\n"
        "if __name__ == '__main__':\n"
        f"    prepare_dataset(Path({str(videos)!r}), Path({str(output)!r}), size=32,\n"
        "                    image_format='png', workers=0, progress=False)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        done = output / "staging"
        if done.is_dir() and len([p for p in done.iterdir() if p.suffix != ".partial"]) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    prepare(videos, output)
    assert content_of(output / "records") == content_of(dataset / "records")


def test_prepare_recovers_from_records_that_were_cut_off(
    tmp_path: Path, videos: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipeline.preprocess.output import OutputFolder

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            OutputFolder, "complete_with", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            prepare(videos, output)
    shard = next(output.glob("records/*/*/*train*"))
    shard.write_bytes(shard.read_bytes()[:100])
    (output / "records" / "video_clips" / "1.0.0.incompleteXYZ").mkdir()
    with pytest.raises(DataError, match="did not finish"):
        read_clip_table(output)
    prepare(videos, output)
    assert content_of(output / "records") == content_of(dataset / "records")


def test_rerun_of_a_complete_data_set_changes_nothing(videos: Path, dataset: Path) -> None:
    before = content_of(dataset)
    summary = prepare(videos, dataset)
    assert summary.clips == 7 and sum(summary.records.values()) == 50
    assert content_of(dataset) == before


def test_other_options_are_refused_and_nothing_is_overwritten(
    tmp_path: Path, videos: Path, dataset: Path
) -> None:
    before = content_of(dataset)
    for options in ({"size": 64}, {"image_format": "jpeg"}, {"split_seed": 1}, {"max_frames": 3}):
        with pytest.raises(DataError, match=r"instead of.*Choose another --output"):
            prepare(videos, dataset, **options)
    with pytest.raises(DataError, match="same clips"):
        prepare(make_videos(tmp_path / "more").parent, dataset)
    assert content_of(dataset) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="new or empty"):
        prepare(videos, tmp_path / "full")
    assert content_of(tmp_path / "full") == {"thesis.txt": b"mine"}


def test_a_second_writer_is_refused(tmp_path: Path, videos: Path) -> None:
    from data_pipeline.preprocess.output import OutputFolder

    with OutputFolder(tmp_path / "out", {}), pytest.raises(DataError, match="another process"):
        OutputFolder(tmp_path / "out", {}).__enter__()


def test_boxes_are_squared_and_used(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving_frames(4))
    write_clip(folder / "b.mp4", moving_frames(4))
    write_clip(folder / "c.mp4", moving_frames(4))
    (tmp_path / "boxes.csv").write_text("clip,x0,y0,x1,y1\na.mp4,10,8,30,24\nb,200,200,300,300\n")
    summary = prepare(folder, tmp_path / "out", boxes=tmp_path / "boxes.csv")
    assert "overlap" in summary.skipped["b.mp4"]
    rows = {row["clip_id"]: row for row in manifest_of(tmp_path / "out")["clips"]}
    assert rows["a.mp4"]["crop_rule"] == "box" and rows["a.mp4"]["box_px"] == [10, 6, 30, 26]
    assert rows["c.mp4"]["crop_rule"] == "centre"
    (tmp_path / "boxes.json").write_text('{"nobody.mp4": [0, 0, 5, 5]}')
    with pytest.raises(DataError, match=r"nobody\.mp4"):
        prepare(folder, tmp_path / "out2", boxes=tmp_path / "boxes.json")
    for text in ("a,1,2,3\n", "a,5,5,1,9\n", "a,x,5,9,9\n"):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=r"bad\.csv"):
            prepare(folder, tmp_path / "out3", boxes=tmp_path / "bad.csv")


def test_stride_and_maximum_thin_out_frames_landmarks_and_rate(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving_frames(12))
    write_landmarks(folder / "a.npz", 12)
    prepare(folder, tmp_path / "out", frame_stride=3, max_frames=3, test_fraction=0)
    records = records_of(tmp_path / "out")["a.mp4"]
    assert [record.frame_index for record in records] == [0, 3, 6]
    assert read_clip_table(tmp_path / "out").splits["train"][0].fps == pytest.approx(25 / 3)
    step = records[1].landmarks68_px - records[0].landmarks68_px
    scale = records[0].crop_matrix[0, 0]
    np.testing.assert_allclose(step, 3 * 0.25 * scale, atol=1e-4)


def test_output_may_lie_below_the_source(tmp_path: Path) -> None:
    folder = make_videos(tmp_path / "in")
    first = prepare(folder, folder / "data")
    assert first.clips == 7 and prepare(folder, folder / "data").clips == 7


def test_prepare_refuses_options_without_sense(tmp_path: Path, videos: Path) -> None:
    for options in (
        {"size": 0},
        {"quality": 101},
        {"frame_stride": 0},
        {"max_frames": 1},
        {"image_format": "gif"},
        {"workers": -1},
        {"test_fraction": 1.0},
    ):
        with pytest.raises(ArgumentError):
            prepare(videos, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists(), options  # nothing was begun


def test_workers_never_import_jax() -> None:
    modules = "data_pipeline.preprocess.staging, data_pipeline.preprocess.tracked_clips"
    code = f"import {modules}, sys; print('jax' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def clips(count: int, **options):
    for index in range(count):
        frames = moving_frames(5, 32, 32) if index else moving_frames(5, 32, 40)
        yield ClipFrames(f"p{index}#0", np.roll(frames, index, axis=2), **options)


def test_write_clips_stores_arrays_exactly(tmp_path: Path) -> None:
    summary = write_clips(tmp_path / "out", clips(4), size=32, recipe={"k": 1}, progress=False)
    assert summary.clips == 4 and sum(summary.records.values()) == 20
    records = records_of(tmp_path / "out")
    for index in range(1, 4):
        expected = np.roll(moving_frames(5, 32, 32), index, axis=2)
        assert np.array_equal(np.stack([r.image for r in records[f"p{index}#0"]]), expected)
    # The wide one is cropped to its centre square.
    assert np.array_equal(records["p0#0"][0].image, moving_frames(5, 32, 40)[0][:, 4:36])


def test_write_clips_with_the_same_recipe_is_done_already(tmp_path: Path) -> None:
    def forbidden():
        raise AssertionError("consumed")
        yield

    write_clips(tmp_path / "out", clips(2), size=32, recipe={"k": 1}, progress=False)
    again = write_clips(tmp_path / "out", forbidden(), size=32, recipe={"k": 1}, progress=False)
    assert again.clips == 2
    with pytest.raises(DataError, match="instead of"):
        write_clips(tmp_path / "out", clips(2), size=32, recipe={"k": 2}, progress=False)


def test_write_clips_keeps_stated_splits_and_landmarks(tmp_path: Path) -> None:
    points = np.full((5, 68, 2), 16.0, np.float32)
    given = [
        ClipFrames("a", moving_frames(5, 64, 64), split="test", landmarks68_px=points),
        ClipFrames("b", list(moving_frames(5, 64, 64)), identity_id="x", split="train", fps=10),
    ]
    write_clips(tmp_path / "out", given, size=32, recipe={}, progress=False)
    table = read_clip_table(tmp_path / "out")
    assert [clip.clip_id for clip in table.splits["test"]] == ["a"]
    assert table.splits["train"][0].identity_id == "x" and table.splits["train"][0].fps == 10
    np.testing.assert_allclose(FrameSource(tmp_path / "out", "test")[0].landmarks68_px, 8.0)


def test_write_clips_refuses_arrays_that_do_not_fit(tmp_path: Path) -> None:
    wrong = [
        ClipFrames("a", moving_frames(3, 32, 32).astype(np.float32)),
        ClipFrames("a", [np.zeros((32, 32, 3), np.uint8), np.zeros((30, 32, 3), np.uint8)]),
        ClipFrames("a", moving_frames(3, 32, 32), angles=np.zeros((2, 3))),
        ClipFrames("a", moving_frames(3, 32, 32), split="training"),
    ]
    for number, clip in enumerate(wrong):
        with pytest.raises(ArgumentError):
            write_clips(tmp_path / f"{number}", [clip], size=32, recipe={}, progress=False)
    with pytest.raises(ArgumentError, match="unique"):
        write_clips(tmp_path / "twice", [*clips(1), *clips(1)], size=32, recipe={}, progress=False)
    with pytest.raises(DataError, match="usable"):
        write_clips(tmp_path / "none", [], size=32, recipe={}, progress=False)
