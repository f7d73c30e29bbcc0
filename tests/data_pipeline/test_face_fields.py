"""Masks, vertices, coefficients and the dense fields: on disk, through the loader, mirrored."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.loaders import count_vertices, make_eval_pairs, make_train_loader
from data_pipeline.mesh import Mesh, read_mesh, write_mesh
from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from data_pipeline.records import Record, decode_record, round_for_storage
from data_pipeline.schema import FIELDS, OPTIONAL_FIELDS, read_clip_table
from data_pipeline.sources import FrameSource
from data_pipeline.transforms import MIRROR68, mirror_record
from talking_heads_jax.errors import ArgumentError, DataError
from tests.media.video_files import moving_frames

SIZE, FRAMES, VERTICES = 32, 4, 10
MESH = Mesh(
    morphable="toy",
    faces=np.array([[0, 1, 2], [5, 6, 9]], np.int32),
    mirror=np.roll(np.arange(VERTICES, dtype=np.int32), 5),
    face_part=np.array([1, 4], np.uint8),
    landmark_mirror=MIRROR68.astype(np.int32),
)


def clip(name: str, **changes) -> ClipFrames:
    """A clip with every field there is."""
    rng = np.random.default_rng(len(name))
    values = {
        "landmarks68_px": rng.uniform(0, SIZE, (FRAMES, 68, 2)),
        "landmarks68_visible": rng.integers(0, 2, (FRAMES, 68)),
        "angles": rng.normal(size=(FRAMES, 3)),
        "mask": rng.integers(0, 13, (FRAMES, SIZE, SIZE)),
        "morphable": "toy",
        "shape_coeffs": rng.normal(size=(FRAMES, 3)),
        "expression_coeffs": rng.normal(size=(FRAMES, 4)),
        "joint_pose": rng.normal(size=(FRAMES, 6)),
        "vertices": rng.uniform(0, SIZE, (FRAMES, VERTICES, 3)),
        "camera25": rng.normal(size=(FRAMES, 25)),
        "depth": rng.uniform(90, 130, (FRAMES, SIZE, SIZE)),
        "normals": rng.uniform(-1, 1, (FRAMES, SIZE, SIZE, 3)),
        "flow_to_next_px": rng.normal(size=(FRAMES, SIZE, SIZE, 2)) * 3,
    }
    frames = np.roll(moving_frames(FRAMES, SIZE, SIZE), len(name), axis=2)
    return ClipFrames(name, frames, **(values | {"split": "train"} | changes))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with all fields, and one with none."""
    folder = tmp_path_factory.mktemp("faces") / "data"
    bare = ClipFrames("bare", moving_frames(FRAMES, SIZE, SIZE), split="train")
    clips = [clip("a"), clip("bb"), clip("ccc", split="probe"), bare]
    write_clips(folder, clips, size=SIZE, recipe={}, mesh=MESH, progress=False)
    return folder


def config(folder: Path, **changes) -> dict:
    values = {"folder": str(folder), "balance": "clip", "num_threads": 2}
    return values | {"masks": True, "vertices": True, "angles": True} | changes


def test_all_fields_come_back(faces: Path) -> None:
    table = read_clip_table(faces)
    assert set(OPTIONAL_FIELDS) <= set(table.fields) and set(table.splits) >= {"train", "probe"}
    assert table.shapes["vertices"] == (VERTICES, 3) and table.shapes["joint_pose"] == (6,)
    given = clip("a")
    # Rounding: half a unit in the last of float16's 11 bits or of the 16 kept ones of float32, at
    # the largest value; vertices are stored from the centre, but for z, which goes to 32 here.
    slack = {"vertices": 2**-7, "normals": 2**-12, "flow_to_next_px": 2**-8, "depth": 2**-9}
    source = FrameSource(faces)
    for index in range(FRAMES):
        record = source[index]
        assert record.clip_id == "a" and record.morphable == "toy"
        for name in OPTIONAL_FIELDS:
            if name == "morphable":
                continue
            stored, wanted = getattr(record, name), getattr(given, name)[index]
            assert stored.dtype == (
                np.uint8 if FIELDS[name].dtype == "mask" else FIELDS[name].dtype
            )
            np.testing.assert_allclose(stored, wanted, atol=slack.get(name, 1e-6), err_msg=name)


def test_a_clip_without_the_fields_holds_nothing(faces: Path) -> None:
    source = FrameSource(faces)
    (bare,) = [entry for entry in source.clips if entry.clip_id == "bare"]
    record = source[bare.first_record]
    assert record.morphable == "" and not record.mask.any()
    for name in ("vertices", "shape_coeffs", "camera25", "depth", "flow_to_next_px", "angles"):
        assert np.isnan(getattr(record, name)).all(), name


def test_only_the_wanted_fields_are_decoded(faces: Path) -> None:
    record = FrameSource(faces, optional=("mask", "angles"))[0]
    assert record.mask is not None and record.angles is not None
    assert record.vertices is None and record.depth is None and record.landmarks68_px is None
    ((_, frames),) = make_eval_pairs({"folder": str(faces)}, split="probe", optional=["mask"])
    assert frames.column("mask")[1].shape == (SIZE, SIZE)


def test_resolution_moves_pixels_and_picks_the_nearest(faces: Path) -> None:
    large, small = FrameSource(faces)[1], FrameSource(faces, resolution=SIZE // 2)[1]
    np.testing.assert_allclose(small.vertices * 2, large.vertices, rtol=1e-6)
    np.testing.assert_allclose(small.camera25, large.camera25)
    np.testing.assert_allclose(small.flow_to_next_px * 2, large.flow_to_next_px[1::2, 1::2])
    for name in ("mask", "depth", "normals"):
        assert np.array_equal(getattr(small, name), getattr(large, name)[1::2, 1::2]), name


def test_large_values_survive_rounding() -> None:
    values = np.array([0.0, 1e-3, 1e6, -1e6, np.inf, np.nan], np.float32)
    np.testing.assert_allclose(round_for_storage("depth", values, 8), values, rtol=2**-16)
    halves = round_for_storage("normals", values, 8).astype(np.float32)
    np.testing.assert_allclose(halves[2:4], [65504.0, -65504.0])  # the largest float16, not inf
    assert halves[4] == np.inf and np.isnan(halves[5])


def test_batches_carry_what_the_options_ask_for(faces: Path) -> None:
    with make_train_loader(config(faces, augmentation={}), batch_size=3, seed=0) as loader:
        batch = loader.batch(0)
    source = FrameSource(faces)
    assert batch.source.mask.shape == (3, SIZE, SIZE, 1) and batch.source.mask.dtype == np.uint8
    assert batch.driving.vertices.shape == (3, VERTICES, 3)
    assert batch.driving.vertices.dtype == np.float32
    for row, (_, driving) in enumerate(batch.record_ids):
        record = source[int(driving)]
        assert np.array_equal(batch.driving.mask[row, ..., 0], record.mask)
        assert np.array_equal(batch.driving.vertices[row], record.vertices, equal_nan=True)
        assert np.array_equal(batch.driving.angles[row], record.angles, equal_nan=True)
    plain = config(faces, masks=False, vertices=False, angles=False)
    with make_train_loader(plain, batch_size=2, seed=0) as loader:
        inputs = loader.batch(0).source
    assert (inputs.mask, inputs.vertices, inputs.angles) == (None, None, None)
    assert count_vertices(config(faces)) == VERTICES


def test_a_flip_mirrors_everything_together(faces: Path) -> None:
    batches = []
    for probability in (0.0, 1.0):
        flips = config(faces, augmentation={"horizontal_flip": probability})
        with make_train_loader(flips, batch_size=6, seed=0) as loader:
            batches.append(loader.batch(0).driving)
    plain, mirrored = batches
    assert np.array_equal(mirrored.image, plain.image[:, :, ::-1])
    assert np.array_equal(mirrored.mask, plain.mask[:, :, ::-1])
    np.testing.assert_allclose(mirrored.angles, plain.angles * [-1, 1, -1])
    expected = plain.vertices[:, MESH.mirror] * [-1, 1, 1] + [SIZE, 0, 0]
    np.testing.assert_allclose(mirrored.vertices, expected, rtol=1e-6)


def test_workers_deliver_the_same_fields(faces: Path) -> None:
    batches = []
    for workers in (0, 1):
        with make_train_loader(config(faces, num_workers=workers), batch_size=2, seed=0) as loader:
            batches.append(next(loader.iterate(0)))
    for name in ("mask", "vertices", "angles"):
        here, there = (getattr(batch.source, name) for batch in batches)
        assert np.array_equal(here, there, equal_nan=True)


def test_fingerprint_covers_the_new_options_once_they_are_set(faces: Path) -> None:
    def fingerprint(**changes: object) -> str:
        with make_train_loader(config(faces, **changes), batch_size=2, seed=0) as loader:
            return loader.fingerprint

    assert len({fingerprint(), fingerprint(masks=False), fingerprint(vertices=False)}) == 3


def test_fingerprint_tells_sets_apart_that_differ_only_in_their_recipe(
    faces: Path, tmp_path: Path
) -> None:
    digests = set()
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        shutil.copytree(faces, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["options"]["recipe"] = {"seed": seed}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with make_train_loader(config(folder), batch_size=2, seed=0) as loader:
            digests.add(loader.fingerprint)
    assert len(digests) == 2


def test_mirrored_record_agrees_with_its_own_geometry() -> None:
    """A camera sees the mirrored point of the mirrored world in the mirrored pixel."""
    rng = np.random.default_rng(0)
    pose = np.eye(4)
    pose[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pose[:3, 3] = [0.2, 0.1, -2.7]
    intrinsics = np.array([[4.2, 0.01, 0.45], [0, 4.3, 0.55], [0, 0, 1]])
    record = Record(
        image=np.zeros((8, 8, 3), np.uint8),
        clip_id="",
        identity_id="",
        frame_index=0,
        source_box_px=np.zeros(4),
        crop_matrix=np.zeros((2, 3)),
        camera25=np.concatenate([pose.reshape(16), intrinsics.reshape(9)]),
        normals=np.tile([0.6, 0.0, 0.8], (8, 8, 1)),
        depth=np.arange(64.0).reshape(8, 8),
        flow_to_next_px=np.tile([3.0, 1.0], (8, 8, 1)),
        vertices=np.array([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]),
        shape_coeffs=np.zeros(3),
    )
    mirrored = mirror_record(record, np.array([1, 0]))

    def seen(camera25: np.ndarray, point: np.ndarray) -> np.ndarray:
        world_to_camera = np.linalg.inv(camera25[:16].reshape(4, 4))
        place = camera25[16:].reshape(3, 3) @ (world_to_camera @ [*point, 1])[:3]
        return place[:2] / place[2]

    point = np.array([0.1, -0.2, 0.3])
    x, y = seen(record.camera25, point)
    np.testing.assert_allclose(seen(mirrored.camera25, point * [-1, 1, 1]), [1 - x, y])
    np.testing.assert_allclose(mirrored.normals[0, 0], [-0.6, 0, 0.8])
    np.testing.assert_allclose(mirrored.flow_to_next_px[0, 0], [-3, 1])
    assert np.array_equal(mirrored.depth, record.depth[:, ::-1])
    np.testing.assert_allclose(mirrored.vertices, [[3, 6, 7], [7, 2, 3]])
    assert mirrored.shape_coeffs is None  # only the model could tell
    with pytest.raises(ArgumentError, match="vertex_mirror"):
        mirror_record(record)


@pytest.mark.parametrize("option", ["masks", "vertices", "angles"])
def test_a_missing_field_names_its_option(option: str, tmp_path: Path) -> None:
    frames = ClipFrames("a", moving_frames(FRAMES, SIZE, SIZE), split="train")
    write_clips(tmp_path / "data", [frames], size=SIZE, recipe={}, progress=False)
    plain = {"folder": str(tmp_path / "data"), "num_threads": 1, option: True}
    with pytest.raises(DataError, match=rf"data\.{option}.*Set data\.{option}=False, or"):
        make_train_loader(plain, batch_size=2, seed=0)
    if option == "vertices":
        with pytest.raises(DataError, match="synthesize"):
            count_vertices(plain)


def test_data_of_version_1_stay_readable(faces: Path, dataset: Path, tmp_path: Path) -> None:
    """Such a table has neither shapes nor mesh, and says 1; its records too."""
    copy = shutil.copytree(dataset, tmp_path / "old")
    table = json.loads((copy / "clips.json").read_text())
    assert "shapes" not in table and "mesh_sha256" not in table
    (copy / "clips.json").write_text(json.dumps(table | {"schema_version": 1}))
    assert read_clip_table(copy).schema_version == 1
    assert len(FrameSource(copy)) == len(FrameSource(dataset))
    example = {"schema_version": 1, "crop_matrix": np.zeros((2, 3)), "image": b""}
    with pytest.raises(DataError, match="hold a 8 x 8 image"):  # not the version is refused
        decode_record(example, 8, "record 0")


def test_mesh_is_checked(faces: Path, tmp_path: Path) -> None:
    mesh = read_mesh(faces)
    assert mesh.morphable == "toy" and np.array_equal(mesh.mirror, MESH.mirror)
    copy = shutil.copytree(faces, tmp_path / "copy")
    content = (copy / "mesh.npz").read_bytes()
    for damaged in (content[:-20], content + b"x", b""):
        (copy / "mesh.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"mesh\.npz must have its checksum"):
            make_train_loader(config(copy), batch_size=2, seed=0)
    (copy / "mesh.npz").unlink()
    with pytest.raises(DataError, match=r"hold mesh\.npz"):
        make_train_loader(config(copy), batch_size=2, seed=0)
    # A consistent checksum, but another number of vertices than the records have.
    smaller = MESH._replace(mirror=np.arange(8, dtype=np.int32), faces=np.zeros((2, 3), np.int32))
    table = json.loads((copy / "clips.json").read_text())
    table["mesh_sha256"] = write_mesh(copy, smaller)
    (copy / "clips.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match="8 vertices"):
        make_train_loader(config(copy), batch_size=2, seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {"faces": np.array([[0, 1, VERTICES]] * 2, np.int32)},
        {"faces": np.array([[-1, 1, 2]] * 2, np.int32)},
        {"faces": MESH.faces.astype(np.int64)},
        {"mirror": MESH.mirror + 1},
        {"face_part": np.zeros(3, np.uint8)},
        {"landmark_mirror": np.zeros(68, np.int32)},
        {"morphable": ""},
    ],
    ids=str,
)
def test_meshes_that_do_not_fit_are_refused(change: dict, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="mesh"):
        write_mesh(tmp_path, MESH._replace(**change))


def test_tables_with_wrong_shapes_are_refused(faces: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(faces, tmp_path / "copy")
    table = json.loads((copy / "clips.json").read_text())
    for shapes in (
        {},
        table["shapes"] | {"vertices": [VERTICES, 2]},
        table["shapes"] | {"vertices": [1 << 40, 3]},
        table["shapes"] | {"shape_coeffs": ["3"]},
        table["shapes"] | {"depth": [SIZE, SIZE]},
        [],
    ):
        (copy / "clips.json").write_text(json.dumps(table | {"shapes": shapes}))
        with pytest.raises(DataError, match="clip table"):
            FrameSource(copy)
    other = table["shapes"] | {"vertices": [VERTICES + 1, 3]}
    (copy / "clips.json").write_text(json.dumps(table | {"shapes": other}))
    with pytest.raises(DataError, match="vertices must hold 66 bytes, got 60 bytes"):
        FrameSource(copy)


@pytest.mark.parametrize("data", [b"", b"nonsense", zlib.compress(bytes(1 << 24))], ids=len)
def test_packed_bytes_of_another_length_are_refused(data: bytes) -> None:
    """The last one would inflate to 16 MB where 256 bytes are due."""
    example = {"schema_version": 2, "clip_id": b"", "identity_id": b"", "frame_index": 0}
    example |= {"crop_matrix": np.zeros((2, 3)), "source_box_px": np.zeros(4), "depth": data}
    with pytest.raises(DataError, match="depth must hold 256 bytes"):
        decode_record(example | {"image": b""}, 8, "record 0")


def test_write_clips_refuses_faces_that_do_not_fit(tmp_path: Path) -> None:
    wrong = [
        ([clip("a")], None, "be those of the mesh"),
        ([clip("a", morphable="flame2020")], MESH, "be those of the mesh"),
        ([clip("a", vertices=np.zeros((FRAMES, 9, 3)))], MESH, "be those of the mesh"),
        ([clip("a", depth=np.zeros((FRAMES, SIZE, SIZE + 1)))], MESH, "depth of a"),
        ([clip("a", normals=np.zeros((FRAMES - 1, SIZE, SIZE, 3)))], MESH, "normals of a"),
        ([clip("a"), clip("bb", shape_coeffs=np.zeros((FRAMES, 5)))], MESH, "one face model"),
        ([clip("a"), clip("bb", split=None)], MESH, "by all clips of a data set or by none"),
        ([clip("a", split="training")], MESH, "split"),
    ]
    for number, (clips, mesh, message) in enumerate(wrong):
        with pytest.raises(ArgumentError, match=message):
            write_clips(
                tmp_path / f"{number}", clips, size=SIZE, recipe={}, mesh=mesh, progress=False
            )


def test_vertices_follow_the_crop(tmp_path: Path) -> None:
    wide = np.zeros((FRAMES, 2 * SIZE, 4 * SIZE, 3), np.uint8)
    points = np.full((FRAMES, VERTICES, 3), [2 * SIZE, SIZE, 10.0])  # the middle of the frame
    given = ClipFrames("a", wide, split="train", morphable="toy", vertices=points)
    write_clips(tmp_path / "data", [given], size=SIZE, recipe={}, mesh=MESH, progress=False)
    vertices = FrameSource(tmp_path / "data")[0].vertices
    np.testing.assert_allclose(vertices[0], [SIZE / 2, SIZE / 2, 5.0])
