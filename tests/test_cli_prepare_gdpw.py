"""`prepare --layout gdpw`: options arrive, a stopped run goes on, mistakes are one line."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.preprocess import gdpw_layout
from data_pipeline.preprocess.gdpw_layout import official_from_pixels, write_official_vertices
from data_pipeline.sources import FrameSource
from talking_heads_jax.cli import main
from talking_heads_jax.errors import DataError
from talking_heads_jax.morphable import registry
from talking_heads_jax.morphable.registry import load_morphable

CLIPS = ("id1/a/00#09", "id2/b/10#19")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Two people's clips of two frames, with meshes of the built-in head in place of FLAME's."""
    pytest.importorskip("lz4.frame", reason="the extra 'gdpw' (lz4) is not installed")
    for number, name in enumerate(CLIPS):
        clip = tmp_path / "official" / name
        clip.mkdir(parents=True)
        for frame in (0, 1):
            color = (200, 100 * number, 50)
            Image.new("RGB", (256, 256), color).save(clip / f"{frame:07d}_img.jpg", quality=95)
            write_official_vertices(clip / f"{frame:07d}_posed_vertx.lz4", mesh(number, frame))
    return tmp_path / "official"


def mesh(number: int, frame: int) -> np.ndarray:
    head = load_morphable("procedural").attributes("nmfc")
    return official_from_pixels(head * [100, 100, 50] + [60 + 10 * number + 5 * frame, 80, -25])


def prepare(*arguments: object) -> int:
    return main(["prepare", *map(str, arguments)])


def test_official_data_become_records_also_after_a_stop(official, tmp_path, capsys, monkeypatch):
    output = tmp_path / "data"
    flags = ("--layout", "gdpw", "--morphable", "procedural", "--size", 64)
    good = (official / CLIPS[1] / "0000001_posed_vertx.lz4").read_bytes()
    (official / CLIPS[1] / "0000001_posed_vertx.lz4").write_bytes(good[:-9])
    assert prepare(official, "--output", output, *flags) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("error: ") and "be a whole LZ4 frame" in complaint
    assert str(official / CLIPS[1] / "0000001_posed_vertx.lz4") in complaint
    with pytest.raises(DataError, match="did not finish: run the same command again"):
        FrameSource(output)

    (official / CLIPS[1] / "0000001_posed_vertx.lz4").write_bytes(good)
    read, begun = gdpw_layout._read_clip, []

    def record(name: str, *arguments: object) -> object:
        begun.append(name)
        return read(name, *arguments)

    monkeypatch.setattr(gdpw_layout, "_read_clip", record)
    assert prepare(official, "--output", output, *flags) == 0
    assert begun == [CLIPS[1]], "the clip that was finished is not read again"
    source = FrameSource(output)
    assert [clip.identity_id for clip in source.clips] == ["id1", "id2"]
    record_of_last = source[source.clips[1].first_record + 1]
    expected = gdpw_layout.pixels_from_official(mesh(1, 1)) / 4
    np.testing.assert_allclose(record_of_last.vertices, expected, atol=1 / 32)
    manifest = (output / "manifest.json").read_bytes()
    assert prepare(official, "--output", output, *flags) == 0
    assert (output / "manifest.json").read_bytes() == manifest
    assert prepare(official, "--output", output, *flags[:-1], 32) == 2, "other options, same folder"


def test_official_layout_takes_its_options_and_refuses_others(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(gdpw_layout, "import_gdpw", lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr(registry, "load_morphable", lambda name: types.SimpleNamespace(name=name))
    start = ("folder", "--output", "data", "--layout", "gdpw")
    assert prepare(*start) == 0
    assert prepare(*start, "--test-fraction", 0.1, "--split-seed", 3, "--quality", 90) == 0
    assert [keywords.pop("model").name for _, keywords in calls] == ["flame2020"] * 2
    rest = {"size": 256, "image_format": "jpeg", "quality": 95, "test_fraction": 0.0}
    changed = {"quality": 90, "test_fraction": 0.1, "split_seed": 3}
    assert calls[0] == ((Path("folder"), Path("data")), {**rest, "split_seed": 0})
    assert calls[1] == ((Path("folder"), Path("data")), {**rest, **changed})
    for extra in (("--track",), ("--boxes", "b.csv"), ("--max-frames", 3), ("--max-pixels", 9)):
        assert prepare(*start, *extra) == 2
        complaint = capsys.readouterr().err
        assert complaint.startswith(f"error: {extra[0]} must come with --layout videos")
        assert complaint.count("\n") == 1
    assert prepare(*start, "--morphable", "none") == 2
    assert len(calls) == 2


def test_what_is_missing_is_named(official, tmp_path, capsys, monkeypatch):
    start = ("--output", tmp_path / "data", "--layout", "gdpw")
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "nothing"))
    assert prepare(official, *start) == 2
    assert "talking-heads assets add" in capsys.readouterr().err
    head = ("--morphable", "procedural")
    assert prepare(tmp_path / "absent", *start, *head) == 2
    assert "must hold PERSON/VIDEO/CLIP/NNNNNNN_img.jpg" in capsys.readouterr().err
    Image.new("RGB", (128, 128)).save(official / CLIPS[0] / "0000000_img.jpg")
    assert prepare(official, *start, *head) == 2
    assert "must have 256 x 256 pixels, got (128, 128)" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "lz4.frame", None)
    assert prepare(official, *start, *head) == 2
    complaint = capsys.readouterr().err
    assert "pip install 'talking_heads_jax[gdpw]'" in complaint and complaint.count("\n") == 1
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["state"] == "preparing"
