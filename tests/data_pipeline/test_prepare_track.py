"""`prepare --track`: what is in the records, what is reported, and what a clip may do without harm.

Coloured squares stand for faces (see `tests.tracking.scenes`); the face model is fitted only where
its fields are looked at.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.mesh import read_mesh
from data_pipeline.preprocess import prepare as prepare_module
from data_pipeline.preprocess import tracked_clips, tracked_fields
from data_pipeline.preprocess.finishing import PrepareSummary
from data_pipeline.preprocess.overlays import overlay_frames
from data_pipeline.preprocess.prepare import prepare_dataset
from data_pipeline.preprocess.quality_report import doubts
from data_pipeline.preprocess.track_request import TrackRequest, checked_request
from data_pipeline.schema import read_clip_table
from talking_heads_jax.batch import Camera, FaceCoefficients
from talking_heads_jax.cli_options import RECIPES as RECIPES_OF_THE_COMMAND
from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, DataError
from talking_heads_jax.geometry.cameras import (
    camera_from_camera25,
    camera_points,
    head_rotation_from_angles,
    pixels_from_camera_points,
)
from talking_heads_jax.geometry.eg3d_cameras import eg3d_offset, eg3d_points
from talking_heads_jax.morphable.registry import load_morphable
from talking_heads_jax.tracking import observation
from talking_heads_jax.tracking.alignment import RECIPES
from tests.data_pipeline.test_preprocess import content_of, manifest_of, records_of
from tests.media.video_files import write_clip
from tests.tracking.scenes import (
    GREEN,
    RED,
    SquareDetector,
    face_points,
    scene,
    write_timed_clip,
)

PLAIN = TrackRequest(morphable="none")


class SquareLandmarker:
    """Landmarks in the middle of the red square, 30 px a side, as far as it is seen."""

    source = "squares"

    def landmarks(self, frame: np.ndarray, box: tuple) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.nonzero((np.abs(frame.astype(int) - RED) < 60).all(-1))
        if not len(rows):
            return np.full((68, 2), np.nan, np.float32), np.zeros(68, np.uint8)
        center = (columns.min() + 15, rows.min() + 15)
        return face_points(center, 30), np.ones(68, np.uint8)


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares are found, with landmarks."""
    monkeypatch.setattr(observation, "find_detector", lambda name: SquareDetector())
    monkeypatch.setattr(tracked_clips, "load_landmarker", SquareLandmarker)


def prepare(videos: Path, output: Path, track: TrackRequest = PLAIN, **options) -> PrepareSummary:
    options = {"size": 32, "image_format": "png", "workers": 0, "progress": False} | options
    return prepare_dataset(videos, output, track=track, **options)


def quality_of(output: Path) -> dict:
    return json.loads((output / "quality.json").read_text())


def moving(count: int, *, left: float = 20, step: float = 2, side: float = 30, seed: int = 0):
    return np.stack([scene([(left + step * i, 30, side, RED)], seed=seed) for i in range(count)])


def write_points(path: Path, centers: np.ndarray, size: float = 30.0) -> None:
    np.savez(path, landmarks68_px=np.stack([face_points(center, size) for center in centers]))


def centers_of(count: int, *, left: float = 35, step: float = 2) -> np.ndarray:
    return np.stack([left + step * np.arange(count), np.full(count, 45.0)], -1)


def test_the_command_offers_every_recipe() -> None:
    assert tuple(RECIPES) == RECIPES_OF_THE_COMMAND


def test_nothing_a_clip_does_is_fatal(tmp_path: Path, faces: None) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "good.mp4", moving(8))
    write_clip(folder / "nobody.mp4", np.stack([scene([])] * 6))
    two = [scene([(20 + i, 30, 30, RED), (90, 20, 16, GREEN)]) for i in range(8)]
    write_clip(folder / "two.mp4", np.stack(two))
    write_clip(folder / "leaves.mp4", moving(20, left=60, step=5))
    cut = np.concatenate([moving(5), moving(9, left=70, step=1, seed=3)])
    write_clip(folder / "cut.mp4", cut)
    write_clip(folder / "turned.mp4", moving(6), rotation=90)
    moments = [0, 40, 80, 200, 240, 280, 320, 360]
    write_timed_clip(folder / "uneven.mp4", moving(8), moments)
    summary = prepare(folder, tmp_path / "out")
    assert set(summary.skipped) == {"nobody.mp4"}
    assert "no face was found in its 6 frames" in summary.skipped["nobody.mp4"]
    rows = {row["clip_id"]: row for row in manifest_of(tmp_path / "out")["clips"]}
    assert not any("internal" in str(row) for row in rows.values())

    def warned(name: str, text: str) -> bool:
        return any(text in warning for warning in rows[f"{name}.mp4"]["warnings"])

    assert rows["good.mp4"]["frames"] == 8 and not rows["good.mp4"]["warnings"]
    assert warned("two", "more than one face") and rows["two.mp4"]["frames"] == 8
    assert warned("leaves", "have no face and are left out")
    assert 8 <= rows["leaves.mp4"]["frames"] < 16
    assert warned("cut", "2 shots: frames 5 to 13 are kept") and rows["cut.mp4"]["frames"] == 9
    assert rows["cut.mp4"]["quality"]["cuts"] == [5]
    assert rows["turned.mp4"]["original_size"] == [128, 96] and warned("turned", "upright")
    assert warned("uneven", "variable frame rate") and rows["uneven.mp4"]["frames"] == 8
    records = records_of(tmp_path / "out")
    assert [record.frame_index for record in records["cut.mp4"]] == list(range(5, 14))
    followed = records["two.mp4"][3]  # the larger face, not the other one
    x, y = np.linalg.inv(followed.crop_matrix[:, :2]) @ (
        followed.landmarks68_px[:, :].mean(0) - followed.crop_matrix[:, 2]
    )
    expected = face_points((20 + 3 + 15, 45), 30).mean(0)
    assert (x, y) == pytest.approx(expected, abs=1.5)
    for kept in records.values():
        assert all(np.isfinite(record.landmarks68_px).all() for record in kept)

    everything = prepare(
        folder, tmp_path / "all", TrackRequest(morphable="none", shots="all"), test_fraction=0
    )
    assert everything.records["train"] == summary.records["train"] + summary.records["test"] + 5

    report = quality_of(tmp_path / "out")
    assert report["summary"]["clips"] == 7 and report["summary"]["skipped"] == 1
    found = {clip["clip_id"]: clip for clip in report["clips"]}
    assert found["nobody.mp4"]["quality"]["share_without_face"] == 1.0
    assert found["nobody.mp4"]["doubts"] == ["skipped"]
    assert found["cut.mp4"]["doubts"] == ["cuts: 1"] and not found["good.mp4"]["doubts"]
    assert found["uneven.mp4"]["quality"]["variable_frame_rate"] is True
    assert 0 < found["leaves.mp4"]["quality"]["share_without_face"] < 1
    assert any("masks" in reason for reason in report["not_written"])


def test_the_page_is_one_harmless_file(tmp_path: Path, faces: None) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    name = '<img src=x onerror=alert(1)>&"quoted".mp4'
    write_clip(tmp_path / "a.mp4", moving(6)).rename(folder / name)
    write_clip(folder / "nobody.mp4", np.stack([scene([])] * 4))
    prepare(folder, tmp_path / "out")
    page = (tmp_path / "out" / "quality.html").read_text("utf-8")
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;&amp;&quot;" in page
    assert "<script" not in page.lower() and "default-src 'none'" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(addresses) == 4 + 3  # of the tracked clip, and of the one without a face
    assert all(address.startswith("data:image/jpeg;base64,/9j/") for address in addresses)
    assert page.index("nobody.mp4") < page.index("&lt;img")  # what needs a look comes first


def test_landmarks_of_other_programs_are_found_and_wrong_ones_reported(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("ours", "openface", "short"):
        write_clip(folder / f"{name}.mp4", moving(6))
    write_points(folder / "ours_landmarks.npz", centers_of(6))
    write_points(folder / "short_landmarks.npz", centers_of(5))
    points = np.stack([face_points(center, 30.0) for center in centers_of(6)])
    header = ["frame", "face_id", "timestamp", "confidence", "success"]
    header += [f"{axis}_{i}" for axis in "xy" for i in range(68)]
    lines = [", ".join(header)]
    for index, row in enumerate(points):
        values = [index + 1, 0, index / 25, 0.98, 1, *row[:, 0], *row[:, 1]]
        lines.append(", ".join(f"{value:g}" for value in values))
    (folder / "openface.csv").write_text("\n".join(lines) + "\n")
    summary = prepare(folder, tmp_path / "out")
    assert "one row for each of the 6 frames" in summary.skipped["short.mp4"]
    records = records_of(tmp_path / "out")
    for mine, other in zip(records["ours.mp4"], records["openface.mp4"], strict=True):
        np.testing.assert_allclose(mine.landmarks68_px, other.landmarks68_px, atol=0.6)
    sources = {clip["clip_id"]: clip["quality"] for clip in quality_of(tmp_path / "out")["clips"]}
    assert sources["openface.mp4"]["landmark_source"] == "openface"


def test_without_landmarks_the_error_says_where_they_come_from(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(4))
    with pytest.raises(DataError, match=r"landmarks of a\.mp4 must be in a file.*--model fan"):
        prepare(folder, tmp_path / "out")


def test_a_clip_that_cannot_be_fitted_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(4))
    points = np.stack([face_points(center, 30.0) for center in centers_of(4)])
    hidden = np.zeros((4, 68), np.uint8)
    np.savez(folder / "a_landmarks.npz", landmarks68_px=points, visible=hidden)
    with pytest.raises(DataError, match="0 of its 4 frames can be used"):
        prepare(folder, tmp_path / "out", TrackRequest())
    assert prepare(folder, tmp_path / "out").records == {"train": 4, "test": 0}


def test_recipes_for_frames_give_every_record_its_own_crop(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(6))
    write_points(folder / "a_landmarks.npz", centers_of(6))
    prepare(folder, tmp_path / "out", TrackRequest(morphable="none", recipe="eg3d_512"))
    records = records_of(tmp_path / "out")["a.mp4"]
    boxes = np.stack([record.source_box_px for record in records])
    assert (np.diff(boxes[:, 0]) > 0.5).all()  # it goes along with the face
    original = np.load(folder / "a_landmarks.npz")["landmarks68_px"]
    for record, points, box in zip(records, original, boxes, strict=True):
        moved = points @ record.crop_matrix[:, :2].T + record.crop_matrix[:, 2]
        np.testing.assert_allclose(record.landmarks68_px, moved, atol=1e-3)
        corners = box.reshape(2, 2) @ record.crop_matrix[:, :2].T + record.crop_matrix[:, 2]
        np.testing.assert_allclose(corners, [[0, 0], [32, 32]], atol=1e-2)
    (row,) = manifest_of(tmp_path / "out")["clips"]
    assert row["crop_rule"] == "eg3d_512/1" and row["box_px"] is None


def test_frames_that_allow_no_crop_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    points = np.stack([face_points(center, 30.0) for center in centers_of(6)])
    for name, count in (("a", 2), ("b", 5)):
        write_clip(folder / f"{name}.mp4", moving(6))
        points[:count] = points[:count].mean(1, keepdims=True)  # all in one place
        np.savez(folder / f"{name}_landmarks.npz", landmarks68_px=points)
    track = TrackRequest(morphable="none", recipe="deca_224", shots="all")
    assert prepare(folder, tmp_path / "out", track).records["train"] == 4
    records = records_of(tmp_path / "out")["a.mp4"]
    assert [record.frame_index for record in records] == [2, 3, 4, 5]
    first, second = manifest_of(tmp_path / "out")["clips"]
    assert any("2 of 6 frames have landmarks that allow no crop" in w for w in first["warnings"])
    assert second["status"] == "skipped" and "1 of its 6 frames can be used" in second["reason"]


def test_a_box_comes_before_any_recipe(tmp_path: Path, faces: None) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(4))
    (tmp_path / "boxes.csv").write_text("a.mp4,10,10,74,74\n")
    prepare(folder, tmp_path / "out", boxes=tmp_path / "boxes.csv")
    record = records_of(tmp_path / "out")["a.mp4"][0]
    assert record.source_box_px.tolist() == [10, 10, 74, 74]
    points = face_points((35, 45), 30)
    np.testing.assert_allclose(record.landmarks68_px, (points - 10) / 2, atol=0.6)


def test_what_was_tracked_is_not_tracked_again(
    tmp_path: Path, faces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        write_clip(folder / f"{name}.mp4", moving(5))
        write_points(folder / f"{name}_landmarks.npz", centers_of(5))
    whole = tmp_path / "whole"
    prepare(folder, whole)

    with monkeypatch.context() as patch:  # interrupted between tracking and cropping
        patch.setattr(tracked_clips, "FieldMaker", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder, output)
    assert len(list((output / "staging").glob("*.npz"))) == 1
    tracked = []
    track = tracked_clips._tracked
    monkeypatch.setattr(
        tracked_clips, "_tracked", lambda job: tracked.append(job.source.clip_id) or track(job)
    )
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_quality", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder, output)
    assert tracked == ["b.mp4"]
    with pytest.raises(DataError, match=r"track\.recipe='prepare' instead of 'fomm_clip_box'"):
        prepare(folder, output, TrackRequest(morphable="none", recipe="fomm_clip_box"))
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder, output)
    assert tracked == ["b.mp4"]
    write_points(folder / "b_landmarks.npz", centers_of(5, left=36))  # another landmark file
    assert prepare(folder, output).reused == 1
    assert tracked == ["b.mp4", "b.mp4"]
    # Whatever happened in between, clip a is as if nothing had.
    for mine, other in zip(records_of(output)["a.mp4"], records_of(whole)["a.mp4"], strict=True):
        np.testing.assert_array_equal(mine.landmarks68_px, other.landmarks68_px)
        np.testing.assert_array_equal(mine.image, other.image)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_data_set_without_tracking_is_another_one(tmp_path: Path, faces: None) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(4))
    options = {"size": 32, "image_format": "png", "workers": 0, "progress": False}
    prepare_dataset(folder, output, **options)
    assert "track" not in manifest_of(output)["options"] and not (output / "quality.json").exists()
    with pytest.raises(DataError, match=r"track\.morphable=None instead of 'none'"):
        prepare(folder, output)


def test_workers_do_not_change_tracked_records(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        write_clip(folder / f"{name}.mp4", moving(5))
        write_points(folder / f"{name}_landmarks.npz", centers_of(5))
    prepare(folder, tmp_path / "alone")
    prepare(folder, tmp_path / "two", workers=2)
    assert content_of(tmp_path / "two" / "records") == content_of(tmp_path / "alone" / "records")
    for name in ("quality.json", "quality.html"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_broken_picture_keeps_landmarks_in_step(tmp_path: Path) -> None:
    from talking_heads_jax.media.image import write_image

    folder = tmp_path / "in" / "a"
    for index, frame in enumerate(moving(6)):
        write_image(folder / f"{index}.png", frame)
    (folder / "2.png").write_bytes(b"broken")
    write_points(tmp_path / "in" / "a_landmarks.npz", centers_of(6))
    prepare(tmp_path / "in", tmp_path / "out")
    records = records_of(tmp_path / "out")["a"]
    assert [record.frame_index for record in records] == [0, 1, 3, 4, 5]
    original = np.load(tmp_path / "in" / "a_landmarks.npz")["landmarks68_px"]
    for record in records:
        points = original[record.frame_index]
        moved = points @ record.crop_matrix[:, :2].T + record.crop_matrix[:, 2]
        np.testing.assert_allclose(record.landmarks68_px, moved, atol=1e-3)


def test_stride_and_maximum_thin_out_what_was_tracked(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(12))
    write_points(folder / "a_landmarks.npz", centers_of(12))
    prepare(folder, tmp_path / "out", frame_stride=3, max_frames=3)
    records = records_of(tmp_path / "out")["a.mp4"]
    assert [record.frame_index for record in records] == [0, 3, 6]
    (row,) = manifest_of(tmp_path / "out")["clips"]
    assert row["quality"]["frames"] == 7  # nothing behind the last one was looked at
    assert not row["warnings"]


def test_landmarks_of_another_clip_are_refused_when_only_its_beginning_is_read(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, rows in (("a", 8), ("b", 12)):
        write_clip(folder / f"{name}.mp4", moving(8))
        write_points(folder / f"{name}_landmarks.npz", centers_of(rows))
    summary = prepare(folder, tmp_path / "out", max_frames=3)
    assert set(summary.skipped) == {"b.mp4"}
    assert "one row for each of the 8 frames" in summary.skipped["b.mp4"]


def test_weights_registered_in_the_same_session_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[str] = []

    def find(name: str) -> str:
        if not registered:
            raise AssetNotFoundError("no fan")
        return registered[0]

    monkeypatch.setattr("talking_heads_jax.tracking.tracker.find_landmarker", find)
    tracked_fields._fan.cache_clear()
    assert tracked_fields.load_landmarker() is None
    registered.append("fan")
    assert tracked_fields.load_landmarker() == "fan"
    tracked_fields._fan.cache_clear()


def test_masks_come_from_the_parsing_network(
    tmp_path: Path, faces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "a.mp4", moving(4))

    def with_weights(request: TrackRequest) -> TrackRequest:
        return TrackRequest(morphable="none", assets={"face_parsing": "0" * 64})

    monkeypatch.setattr(prepare_module, "checked_request", with_weights)
    monkeypatch.setattr(
        tracked_fields, "face_parser", lambda: lambda crop: (crop[..., 0] > 180).astype(np.uint8)
    )
    prepare(folder, tmp_path / "out")
    for record in records_of(tmp_path / "out")["a.mp4"]:
        np.testing.assert_array_equal(record.mask, record.image[..., 0] > 180)
        assert 0 < record.mask.mean() < 1
    assert not any("masks" in reason for reason in quality_of(tmp_path / "out")["not_written"])


@pytest.mark.parametrize(
    "request_, error, message",
    [
        (TrackRequest(morphable="smpl"), ArgumentError, "morphable"),
        (TrackRequest(recipe="close"), ArgumentError, "recipe"),
        (TrackRequest(shots="first"), ArgumentError, "shots"),
        (TrackRequest(smooth="strongly"), ArgumentError, "smoothing"),
        (TrackRequest(detector="eyes"), ArgumentError, "detector"),
        (TrackRequest(morphable="none", vertices=True), ArgumentError, "vertices must come with"),
        (TrackRequest(morphable="flame2020"), AssetNotFoundError, "flame"),
    ],
)
def test_wrong_requests_stop_before_anything_is_read(
    tmp_path: Path, request_: TrackRequest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(tmp_path / "absent", tmp_path / "out", request_)
    assert not (tmp_path / "out").exists()


def test_checked_request_names_the_files_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path))
    assert checked_request(PLAIN).assets == {}
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "fan.safetensors").write_bytes(b"weights")
    entry = {"file": "fan.safetensors", "sha256": "ab" * 32, "bytes": 7}
    entry |= {"licence": "", "source": ""}
    (assets / "assets.json").write_text(json.dumps({"fan": entry}))
    assert checked_request(PLAIN).assets == {"fan": "ab" * 32}


def test_overlay_frames_are_spread_and_show_the_worst() -> None:
    errors = np.zeros(9)
    assert overlay_frames(range(10, 19), errors, 4) == [10, 13, 15, 18]
    errors[4] = 1.0
    assert overlay_frames(range(10, 19), errors, 4) == [10, 13, 14, 15]
    assert overlay_frames([3, 7], np.full(2, np.nan), 4) == [3, 7]
    assert overlay_frames([], np.zeros(0), 4) == []


def test_doubts_name_what_is_unusual() -> None:
    quality = {"reprojection_share": 0.02, "share_without_face": 0.0, "cuts": []}
    assert doubts({"status": "present", "quality": quality}) == []
    assert doubts({"status": "present", "quality": quality | {"reprojection_share": 0.09}})
    assert doubts({"status": "present", "quality": quality | {"share_without_face": 0.5}})
    assert doubts({"status": "present", "quality": quality | {"reprojection_share": None}}) == []


# The fit and what follows from it ----------------------------------------------------------------

ANGLES_DEG = np.stack([np.linspace(-20, 20, 8), np.linspace(5, -5, 8), np.full(8, 4.0)], -1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two clips whose landmarks are those of the built-in head, turning."""
    model = load_morphable("procedural")
    neutral = model.neutral(8)
    landmarks = np.asarray(model.landmarks68(model.vertices(neutral), neutral))
    landmarks = landmarks * model.centimetres_per_unit
    turns = np.asarray(head_rotation_from_angles(np.deg2rad(ANGLES_DEG).astype(np.float32)))
    turned = np.einsum("tij,tnj->tni", turns, landmarks)
    folder = tmp_path_factory.mktemp("fitted") / "in"
    folder.mkdir()
    for name, size in (("a", 3.0), ("b", 3.5)):
        points = np.array([64.0, 60.0]) + size * turned[..., :2] * np.array([1, -1])
        # Two frames a second: ten degrees in between are nothing the fit would smooth away.
        write_clip(folder / f"{name}.mp4", moving(8, step=1), fps=2)
        np.savez(folder / f"{name}_landmarks.npz", landmarks68_px=points.astype(np.float32))
    output = folder.parent / "out"
    prepare(folder, output, TrackRequest(vertices=True), test_fraction=0)
    shutil.rmtree(folder)
    return output


def test_fitted_clips_hold_pose_and_coefficients(fitted: Path) -> None:
    table = read_clip_table(fitted)
    model = load_morphable("procedural")
    assert table.shapes == {
        "shape_coeffs": (model.num_shape,),
        "expression_coeffs": (model.num_expression,),
        "joint_pose": (3 * len(model.joint_names),),
        "vertices": (model.num_vertices, 3),
    }
    for records in records_of(fitted).values():
        angles = np.rad2deg([record.angles for record in records])
        # The landmarks are exact; but another identity, a longer nose, looks like a slight turn.
        np.testing.assert_allclose(angles, ANGLES_DEG, atol=3)
        assert {record.morphable for record in records} == {"procedural"}
        assert np.ptp([record.shape_coeffs for record in records], axis=0).max() == 0
    summary = quality_of(fitted)["summary"]
    assert summary["doubtful"] == 0 and summary["median_reprojection_share"] < 0.02


def test_fitted_vertices_lie_on_the_landmarks(fitted: Path) -> None:
    model, mesh = load_morphable("procedural"), read_mesh(fitted)
    assert mesh.morphable == "procedural" and len(mesh.mirror) == model.num_vertices
    for records in records_of(fitted).values():
        vertices = np.stack([record.vertices for record in records])
        landmarks = np.asarray(model.landmarks68(vertices))[..., :2]
        expected = np.stack([record.landmarks68_px for record in records])
        # In crops of 32 px, where the eye corners lie 8 px apart: 0.25 px is 3 % of that.
        assert np.abs(landmarks - expected)[:, 17:].mean() < 0.25
        nose, ear = vertices[:, :, 2].min(1), np.median(vertices[:, :, 2], axis=1)
        assert (nose < ear).all()  # smaller is nearer


def test_fitted_cameras_show_the_head_where_the_crop_does(fitted: Path) -> None:
    model = load_morphable("procedural")
    for records in records_of(fitted).values():
        count = len(records)
        coefficients = FaceCoefficients(
            shape_coeffs=np.stack([record.shape_coeffs for record in records]),
            expression_coeffs=np.stack([record.expression_coeffs for record in records]),
            pose=np.stack([record.joint_pose for record in records]).reshape(count, -1, 3),
        )
        vertices = model.vertices(coefficients)
        points = np.asarray(model.landmarks68(vertices, coefficients)) * model.centimetres_per_unit
        neutral = model.neutral()
        mean = np.asarray(model.landmarks68(model.vertices(neutral), neutral))[0]
        offset = eg3d_offset(mean * model.centimetres_per_unit)
        world = eg3d_points(points, offset=offset)
        camera: Camera = camera_from_camera25(np.stack([record.camera25 for record in records]))
        pixels = pixels_from_camera_points(camera.intrinsics, camera_points(camera, world), size=32)
        expected = np.stack([record.landmarks68_px for record in records])
        # The camera is a pinhole, the fit weakly perspective: they agree in the plane through the
        # middle of the landmarks. `test_tracked_fields` bounds the difference; this is the path
        # from files to records.
        error = np.abs(np.asarray(pixels) - expected)[:, 17:]
        assert error.mean() < 0.6 and error.max() < 2.5
