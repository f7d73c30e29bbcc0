"""GDPW's official files: the pixel rule there and back, what is refused, and a whole import."""

import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_pipeline.loaders import make_train_loader
from data_pipeline.mesh import read_mesh
from data_pipeline.preprocess import gdpw_layout
from data_pipeline.preprocess.gdpw_layout import (
    find_official_clips,
    import_gdpw,
    official_from_pixels,
    pixels_from_official,
    read_official_vertices,
    write_official_vertices,
)
from data_pipeline.sources import FrameSource
from talking_heads_jax.errors import ArgumentError, DataError

VERTICES = 6
MODEL = SimpleNamespace(
    name="flame2020",
    num_vertices=VERTICES,
    faces=np.array([[0, 1, 2], [3, 4, 5]], np.int32),
    mirror=np.array([3, 4, 5, 0, 1, 2], np.int32),
    face_part=np.array([1, 1], np.uint8),
)


def official_mesh(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.uniform(-20, 280, (VERTICES, 3)) * [1, 1, 1 / 200]).astype(np.float32)


@pytest.fixture(scope="module")
def lz4() -> object:
    return pytest.importorskip("lz4.frame", reason="the extra 'gdpw' (lz4) is not installed")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory, lz4: object) -> Path:
    """Two people with three frames each; of a third one a mesh is missing, of a fourth all."""
    folder = tmp_path_factory.mktemp("official")
    for person, numbers in (("id1", (2, 10, 9)), ("id2", (0, 1, 2)), ("id3", (0,))):
        clip = folder / person / "video" / "00#99"
        clip.mkdir(parents=True)
        for number in numbers:
            color = (10 * number, int(person[-1]) * 60, 0)
            Image.new("RGB", (256, 256), color).save(clip / f"{number:07d}_img.jpg", quality=95)
            vertices = official_mesh(number + 100 * int(person[-1]))
            write_official_vertices(clip / f"{number:07d}_posed_vertx.lz4", vertices)
    (folder / "id4" / "video" / "00#99").mkdir(parents=True)
    for person in ("id3", "id4"):
        path = folder / person / "video" / "00#99" / "0000005_img.jpg"
        Image.new("RGB", (256, 256)).save(path)
    return folder


def test_official_pixels_go_there_and_back_exactly() -> None:
    vertices = np.concatenate([official_mesh(seed) for seed in range(2000)])
    ours = pixels_from_official(vertices)
    assert np.array_equal(official_from_pixels(ours), vertices)
    np.testing.assert_array_equal(ours[:, :2], vertices[:, :2].astype(np.float64) + 0.5)
    # A vertex at the centre of the first pixel; and one of depth s z with s = 1, which the fitter's
    # 224 px crop shows 112 px, 255 / 224 * 1.25 / 1.35 of them in the final crop.
    np.testing.assert_allclose(
        pixels_from_official([[0, 0, -1]]), [[0.5, 0.5, -112 * 255 / 224 * 1.25 / 1.35]], rtol=1e-12
    )


def test_official_files_survive_writing_in_every_float(lz4: object, tmp_path: Path) -> None:
    path = tmp_path / "x.lz4"
    for code, dtype in ((11, "float32"), (12, "float64"), (23, "float16")):
        vertices = official_mesh(code).astype(dtype)
        write_official_vertices(path, vertices)
        found = read_official_vertices(path)
        assert found.dtype == dtype and np.array_equal(found, vertices)
        head = struct.unpack("<4i", lz4.decompress(path.read_bytes())[:16])
        assert head == (code, 2, VERTICES, 3)
    with pytest.raises(ArgumentError, match=r"be floats \(v, 3\)"):
        write_official_vertices(path, np.zeros((3, 2), np.float32))


def test_damaged_and_hostile_files_are_refused(lz4: object, tmp_path: Path) -> None:
    path = tmp_path / "x.lz4"
    body = official_mesh(0).tobytes()
    contents = {
        "hold finite floats": (
            b"",
            struct.pack("<4i", 11, 2, VERTICES, 3),  # no array
            struct.pack("<4i", 11, 2, -VERTICES, 3) + body,
            struct.pack("<4i", 11, 2, 2**30, 3) + body,
            struct.pack("<4i", 11, 3, VERTICES, 3) + body,
            struct.pack("<4i", 7, 2, VERTICES, 3) + body,  # int64, say
            struct.pack("<4i", 11, 2, VERTICES, 3) + np.full(18, np.nan, np.float32).tobytes(),
            struct.pack("<4i", 12, 2, VERTICES, 3) + np.full(18, -1e300).tobytes(),
        ),
        "at most": (bytes(gdpw_layout._MAX_BYTES + 100),),  # a bomb: 60 kB on disk
    }
    for message, variants in contents.items():
        for content in variants:
            path.write_bytes(lz4.compress(content))
            with pytest.raises(DataError, match=message):
                read_official_vertices(path)
    whole = lz4.compress(struct.pack("<4i", 11, 2, VERTICES, 3) + body)
    for content, message in ((whole[:-9], "whole LZ4 frame"), (b"no lz4 at all", "LZ4 frame")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_official_vertices(path)


def test_import_writes_records_that_training_reads(official: Path, tmp_path: Path) -> None:
    found = find_official_clips(official)
    assert [len(images) for images in found.images.values()] == [3, 3, 1, 0]
    assert found.without_mesh == 2
    output = tmp_path / "data"
    options = {"model": MODEL, "size": 64, "image_format": "png", "progress": False}
    summary = import_gdpw(official, output, **options)
    # What is not in the records is told: now, in the manifest, and by a further run.
    for told in (summary, import_gdpw(official, output, **options)):
        assert told.warnings == ("2 of 9 images have no mesh (_posed_vertx.lz4)",)
        assert told.skipped == {
            f"id{person}/video/00#99": f"{count} frames: a pair needs 2"
            for person, count in ((3, 1), (4, 0))
        }
    mesh = read_mesh(output)
    assert mesh.morphable == "flame2020" and np.array_equal(mesh.mirror, MODEL.mirror)
    source = FrameSource(output)
    assert {clip.identity_id for clip in source.clips} == {"id1", "id2"}
    (clip,) = [clip for clip in source.clips if clip.identity_id == "id1"]
    # 2 before 9 before 10, at a quarter of the official size.
    for place, number in enumerate((2, 9, 10)):
        record = source[clip.first_record + place]
        assert abs(int(record.image[0, 0, 0]) - 10 * number) <= 2  # jpeg
        expected = pixels_from_official(official_mesh(number + 100)) / 4
        np.testing.assert_allclose(record.vertices, expected, atol=1 / 32)
    config = {"folder": str(output), "vertices": True, "augmentation": {"horizontal_flip": 1.0}}
    with make_train_loader({**config, "num_threads": 1}, batch_size=2, seed=0) as loader:
        batch = loader.batch(0)
    (_, index) = batch.record_ids[0]
    stored = source[int(index)].vertices
    np.testing.assert_allclose(
        batch.driving.vertices[0], stored[MODEL.mirror] * [-1, 1, 1] + [64, 0, 0], rtol=1e-6
    )


def test_import_names_what_does_not_fit(official: Path, tmp_path: Path) -> None:
    other = SimpleNamespace(**{**vars(MODEL), "num_vertices": 5023, "name": "flame2023"})
    with pytest.raises(DataError, match=r"5023 vertices of flame2023, got 6"):
        import_gdpw(official, tmp_path / "a", model=other, progress=False)
    with pytest.raises(ArgumentError, match="256 px"):
        import_gdpw(official, tmp_path / "b", model=MODEL, size=512, progress=False)
    with pytest.raises(DataError, match="PERSON/VIDEO/CLIP"):
        import_gdpw(tmp_path, tmp_path / "c", model=MODEL, progress=False)


def test_import_notices_a_folder_that_has_grown(official: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(official, grown)
    output = tmp_path / "data"
    options = {"model": MODEL, "size": 64, "progress": False}
    import_gdpw(grown, output, **options)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    clip = grown / "id1" / "video" / "00#99"
    for name in ("img.jpg", "posed_vertx.lz4"):
        shutil.copy(clip / f"0000002_{name}", clip / f"0000011_{name}")
    with pytest.raises(DataError, match=r"id1/video/00#99=3 instead of 4.*nothing was changed"):
        import_gdpw(grown, output, **options)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert import_gdpw(grown, tmp_path / "anew", **options).records["train"] == 7


def test_missing_lz4_says_what_to_install(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lz4.frame", None)
    with pytest.raises(ArgumentError, match=r"pip install 'talking_heads_jax\[gdpw\]'"):
        import_gdpw(official, tmp_path / "d", model=MODEL, progress=False)
