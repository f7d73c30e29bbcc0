"""Data sets that are damaged, foreign or made to harm, given to training, evaluation, prepare."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile.files import jpeg_of_claimed_size

NONSENSE = {
    "not json": b"{",
    "a list": b"[]",
    "not text": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "nested object": b'{"a":' * 100_000,
    "huge number": b'{"schema_version": ' + b"9" * 10_000 + b"}",
    "empty": b"",
}

# Changes of the clip table, each of which would lead outside the records or into the dark.
TABLES = {
    "newer": lambda table: table.update(schema_version=3),
    "older": lambda table: table.update(schema_version=0),
    "version of another type": lambda table: table.update(schema_version=[1]),
    "no size": lambda table: table.pop("size"),
    "size of text": lambda table: table.update(size="64"),
    "size of 20000": lambda table: table.update(size=20_000),
    "infinite size": lambda table: table.update(size=float("inf")),
    "another size": lambda table: table.update(size=128),
    "format": lambda table: table.update(image_format="webp"),
    "fields": lambda table: table.update(fields=[["image"]]),
    "no fields": lambda table: table.update(fields=[]),
    "unknown field": lambda table: table["fields"].append("payload"),
    "field without its shape": lambda table: table["fields"].append("shape_coeffs"),
    "shape of nothing": lambda table: table.update(shapes={"vertices": [5, 3]}),
    "shapes of another type": lambda table: table.update(shapes=[3]),
    "mesh elsewhere": lambda table: table.update(mesh_sha256="../../etc/passwd"),
    "no splits": lambda table: table.update(splits={}),
    "splits of another type": lambda table: table.update(splits=["train"]),
    "path as split": lambda table: table.update(splits={"../../x": table["splits"]["train"]}),
    "negative first": lambda table: table["splits"]["train"][0].update(first_record=-1),
    "gap": lambda table: table["splits"]["train"][-1].update(first_record=10**6),
    "longer than the records": lambda table: table["splits"]["train"][-1].update(length=10**6),
    "endless": lambda table: table["splits"]["train"][-1].update(length=10**30),
    "length of text": lambda table: table["splits"]["train"][0].update(length="4"),
    "fractional length": lambda table: table["splits"]["train"][0].update(length=3.5),
    "rate": lambda table: table["splits"]["train"][0].update(fps=0),
    "name": lambda table: table["splits"]["train"][0].update(clip_id=["x"]),
    "unknown key": lambda table: table["splits"]["train"][0].update(path="/etc/passwd"),
}


def train(data: Path, workdir: Path, *more: str) -> list[str]:
    return [
        "run_train.py",
        "--config=configs/fomm/vox_256.py:debug",
        f"--workdir={workdir}",
        f"--config.data.folder={data}",
        "--config.objectives.perceptual.taps=(0.0,0.0,0.0,0.0,0.0)",
        *more,
    ]


def evaluate(good, output: Path, **changes) -> list[str]:
    flags = {"checkpoint": good.checkpoint, "data": good.data, "output": output} | changes
    return ["run_eval.py", *(f"--{name}={value}" for name, value in flags.items())]


@pytest.fixture
def data(good, tmp_path: Path) -> Path:
    """A copy of the data set, to be damaged."""
    return Path(shutil.copytree(good.data, tmp_path / "data"))


def both(refused, good, data: Path, *mentioned: str) -> None:
    """Training and evaluation refuse a data set, and write nothing."""
    folder = data.parent
    refused(train(data, folder / "run"), *mentioned)
    refused(evaluate(good, folder / "scores", data=data, split="train"), *mentioned)


@pytest.mark.parametrize("case", TABLES)
def test_clip_tables_that_point_outside_are_refused(case, good, data, refused):
    table = json.loads((data / "clips.json").read_text())
    TABLES[case](table)
    (data / "clips.json").write_text(json.dumps(table))
    both(refused, good, data, "data")


@pytest.mark.parametrize("case", NONSENSE)
def test_clip_tables_of_nonsense_are_refused(case, good, data, refused):
    (data / "clips.json").write_bytes(NONSENSE[case])
    both(refused, good, data, "clips.json")


@pytest.mark.parametrize("case", NONSENSE)
def test_manifests_of_nonsense_stop_prepare_before_it_writes(case, good, data, refused):
    (data / "manifest.json").write_bytes(NONSENSE[case])
    refused(
        ["prepare", good.videos, "--output", data, "--size", "64", "--workers", "0"],
        "manifest.json",
        unchanged=data,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 3},
        {"options": []},
        {"clips": {}},
        {"clips": [1]},
        {"split": None},
        {"warnings": 3},
    ],
    ids=str,
)
def test_manifests_of_wrong_types_stop_prepare(change, good, data, refused):
    manifest = json.loads((data / "manifest.json").read_text()) | change
    (data / "manifest.json").write_text(json.dumps(manifest))
    refused(
        ["prepare", good.videos, "--output", data, "--size", "64", "--workers", "0"],
        "manifest.json",
        unchanged=data,
    )


def shard_of(data: Path) -> Path:
    (path,) = (data / "records").glob("*/*/*train*array_record*")
    return path


@pytest.mark.parametrize(
    "place", [0.0, 0.02, 0.5, -65_536], ids=["header", "first record", "payload", "footer"]
)
def test_records_that_fail_their_checksum_are_refused(place, good, data, refused):
    shard = shard_of(data)
    content = bytearray(shard.read_bytes())
    start = int(place * len(content)) if place >= 0 else len(content) + place  # its last block
    for index in range(start, min(start + 400, len(content))):
        content[index] ^= 0x5A
    shard.write_bytes(content)
    refused(evaluate(good, data.parent / "scores", data=data, split="train"), "data")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.95])
def test_records_that_are_cut_off_are_refused(kept, good, data, refused):
    shard = shard_of(data)
    content = shard.read_bytes()
    shard.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    both(refused, good, data, "data")


@pytest.mark.parametrize("case", ["no records", "a file", "a folder for a shard", "no info"])
def test_records_that_are_not_there_are_refused(case, good, data, refused):
    if case == "no records":
        shutil.rmtree(data / "records")
    elif case == "a file":
        shutil.rmtree(data / "records")
        (data / "records").write_text("x")
    elif case == "a folder for a shard":
        shard = shard_of(data)
        shard.unlink()
        shard.mkdir()
    else:
        shard_of(data).with_name("dataset_info.json").write_text("{}")
    both(refused, good, data, "data")


def test_classes_that_a_data_set_names_are_not_imported(good, data, refused, monkeypatch):
    """TFDS would import the module of a class that features.json names; ours is read before."""
    folder = data.parent / "code"
    folder.mkdir()
    (folder / "evil_features.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(folder))
    path = shard_of(data).with_name("features.json")
    text = path.read_text()
    name = "tensorflow_datasets.core.features.text_feature.Text"
    assert name in text
    path.write_text(text.replace(name, "evil_features.Text"))
    both(refused, good, data, "evil_features", "features.json")


@pytest.mark.parametrize("claimed", [(20_000, 20_000), (65, 64), (1, 1)], ids=str)
def test_records_whose_image_claims_another_size_are_not_decoded(claimed, monkeypatch):
    from data_pipeline.records import decode_record
    from talking_heads_jax.errors import DataError

    def forbidden(*_: object) -> None:
        raise AssertionError("decoded")

    example = {"schema_version": 1, "image": jpeg_of_claimed_size(*claimed)}
    monkeypatch.setattr(Image.Image, "convert", forbidden)
    monkeypatch.setattr(Image.Image, "load", forbidden)
    with pytest.raises(DataError, match="hold a 64 x 64 image"):
        decode_record(example, 64, "record 0")


def test_records_whose_image_is_another_format_are_refused():
    from data_pipeline.records import decode_record
    from talking_heads_jax.errors import DataError

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "GIF")
    for data in (buffer.getvalue(), b"", b"\xff\xd8\xff", b"P6 64 64 255\n"):
        with pytest.raises(DataError, match="hold a 64 x 64 image"):
            decode_record({"schema_version": 1, "image": data}, 64, "record 0")


TABLE_FILES = {
    "nested.json": b'{"a":' * 100_000,
    "list.json": b"[1]",
    "text.json": b"{",
    "binary.csv": b"\xff\xfe\x00" * 10,
    "short.csv": b"ann,1\n",
    "numbers.csv": b"ann,a,b,c,d\n",
    "infinite.csv": b"ann,0,0,inf,inf\n",
    "far.csv": b"ann,-1e300,0,1e300,10\n",
    "empty box.csv": b"ann,5,5,5,5\n",
    "nobody.csv": b"nobody,0,0,9,9\n",
}


@pytest.mark.parametrize("name", TABLE_FILES)
def test_tables_of_boxes_that_make_no_sense(name, good, refused, tmp_path):
    (tmp_path / name).write_bytes(TABLE_FILES[name])
    arguments = ["prepare", good.videos, "--output", tmp_path / "out", "--workers", "0"]
    refused([*arguments, "--boxes", tmp_path / name], name)


@pytest.mark.parametrize(
    "flag, path",
    [
        (flag, path)
        for flag in ("--boxes", "--identities", "--landmarks")
        for path in ("/dev/zero", "missing", "folder", "pipe")
        if (flag, path) != ("--landmarks", "folder")  # which is what it wants
    ],
)
def test_tables_that_are_no_files(flag, path, good, refused, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    arguments = ["prepare", good.videos, "--output", tmp_path / "out", "--workers", "0"]
    refused([*arguments, flag, tmp_path / path])


def test_landmark_files_that_unpack_without_end_are_refused(good, refused, tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", landmarks68_px=np.zeros(9 << 20))
    (tmp_path / "text.npz").write_text("x")
    for name in ("bomb", "text"):
        options = ["--source-landmarks", tmp_path / f"{name}.npz"]
        options += ["--driving-landmarks", tmp_path / f"{name}.npz"]
        files = ["--source", good.source, "--driving", good.driving]
        files += ["--output", tmp_path / "o.mp4", "--checkpoint", good.checkpoint]
        refused(["animate", *files, *options], f"{name}.npz")
