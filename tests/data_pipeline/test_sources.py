"""Random access to records: any order, many threads, and damage that is named."""

import concurrent.futures
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.schema import FIELDS, ClipTable, read_clip_table, write_clip_table
from data_pipeline.sources import FrameSource
from talking_heads_jax.errors import DataError


def damaged_copy(dataset: Path, folder: Path) -> Path:
    shutil.copytree(dataset, folder)
    return folder


def test_frame_source_agrees_with_the_clip_table(dataset: Path) -> None:
    for split in ("train", "test"):
        source = FrameSource(dataset, split)
        assert len(source) == sum(clip.length for clip in source.clips)
        for clip in source.clips:
            for index in range(clip.length):
                record = source[clip.first_record + index]
                assert (record.clip_id, record.identity_id) == (clip.clip_id, clip.identity_id)


def test_frame_source_may_be_read_by_many_threads(dataset: Path) -> None:
    source = FrameSource(dataset)
    alone = [source[index].image for index in range(len(source))]
    order = np.random.default_rng(0).integers(0, len(source), 200).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: source[index].image, order))
    assert all(np.array_equal(image, alone[i]) for i, image in zip(order, together, strict=True))


def test_frame_source_shrinks_image_matrix_and_landmarks(dataset: Path) -> None:
    large, small = FrameSource(dataset, "train"), FrameSource(dataset, "train", resolution=16)
    for index in range(len(large)):
        one, half = large[index], small[index]
        assert half.image.shape == (16, 16, 3)
        np.testing.assert_allclose(half.crop_matrix * 2, one.crop_matrix, rtol=1e-6)
        np.testing.assert_allclose(half.landmarks68_px * 2, one.landmarks68_px, rtol=1e-6)
        # A triangle filter over 4 x 4 pixels: close to the mean of 2 x 2, not to a single pixel.
        means = one.image.reshape(16, 2, 16, 2, 3).mean((1, 3))
        assert np.abs(half.image - means).mean() < 6
    with pytest.raises(DataError, match="--size 64"):
        FrameSource(dataset, "train", resolution=64)


def test_frame_source_refuses_what_is_not_there(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(DataError, match="talking-heads prepare"):
        FrameSource(tmp_path)
    with pytest.raises(DataError, match="split 'val'"):
        FrameSource(dataset, "val")
    with pytest.raises(IndexError):
        FrameSource(dataset)[10_000]
    copy = damaged_copy(dataset, tmp_path / "no_records")
    shutil.rmtree(copy / "records")
    with pytest.raises(DataError, match="Prepare the data again"):
        FrameSource(copy)


def test_frame_source_refuses_other_schema_versions(tmp_path: Path, dataset: Path) -> None:
    copy = damaged_copy(dataset, tmp_path / "copy")
    table = json.loads((copy / "clips.json").read_text())
    for version, remedy in ((3, "Update"), (0, "Prepare the data again"), (None, "Prepare")):
        (copy / "clips.json").write_text(json.dumps(table | {"schema_version": version}))
        with pytest.raises(DataError, match=f"schema_version 1 or 2, got {version}.*{remedy}"):
            FrameSource(copy)


def test_frame_source_notices_a_damaged_shard(tmp_path: Path, dataset: Path) -> None:
    original = next(dataset.glob("records/*/*/*-train.*")).read_bytes()
    copy = damaged_copy(dataset, tmp_path / "copy")
    shard = next(copy.glob("records/*/*/*-train.*"))
    random = np.random.default_rng(0)
    for _ in range(30):
        data = bytearray(original)
        place = int(random.integers(len(data)))
        data[place] ^= 0x55
        shard.write_bytes(data)
        try:
            source = FrameSource(copy)
            images = [source[index].image for index in range(len(source))]
        except DataError as error:
            assert "\n" not in str(error)
            continue
        # A byte of padding or of the unused header: nothing that was read may have changed.
        whole = FrameSource(dataset)
        assert all(np.array_equal(whole[i].image, image) for i, image in enumerate(images))
    shard.write_bytes(original[: len(original) // 2])
    with pytest.raises(DataError, match="be whole"):
        FrameSource(copy)


def test_clip_table_round_trip_and_gaps(tmp_path: Path, dataset: Path) -> None:
    table = read_clip_table(dataset)
    write_clip_table(tmp_path, table)
    assert read_clip_table(tmp_path) == table
    rows = table.splits["train"]
    broken = ClipTable(table.size, table.image_format, table.fields, {"train": rows[1:]})
    write_clip_table(tmp_path, broken)
    with pytest.raises(DataError, match="gaps"):
        read_clip_table(tmp_path)
    (tmp_path / "clips.json").write_text("{")
    with pytest.raises(DataError, match="readable JSON"):
        read_clip_table(tmp_path)
    assert set(table.fields) <= set(FIELDS)


def test_reading_never_imports_tensorflow(dataset: Path) -> None:
    code = (
        "import sys\n"
        "from data_pipeline.sources import FrameSource\n"
        f"FrameSource({str(dataset)!r})[0]\n"
        "print('tensorflow' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
