"""Landmark files made by us, by MediaPipe and by OpenFace; and files that are none."""

import numpy as np
import pytest

from talking_heads_jax.errors import DataError
from talking_heads_jax.tracking import landmark_tables
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.landmarks import (
    LANDMARK_MIRROR,
    MEDIAPIPE_68,
    outer_eye_distance,
)
from tests.tracking.scenes import face_points


@pytest.fixture
def mesh():
    """(3 478 2) points; frame 1 has no face."""
    points = np.random.default_rng(0).uniform(20, 90, (3, 478, 2)).astype(np.float32)
    points[1] = np.nan
    return points


def table(points, *, start=0, columns=(), before="", number=None, spaced=False):
    """A csv of (t n 2) points, (name, values) columns after the frame; NaN is an empty cell."""
    separator = ", " if spaced else ","
    count = points.shape[1]
    names = ["frame", *(name for name, _ in columns)]
    names += [f"{axis}_{index}" for axis in "xy" for index in range(count)]
    lines = [separator.join(names)]
    for row, frame in enumerate(points):
        cells = [str(row + start if number is None else number[row])]
        cells += [str(values[row]) for _, values in columns]
        cells += ["" if np.isnan(value) else f"{value:.6f}" for value in frame.T.ravel()]
        lines.append(separator.join(cells))
    return before + "\n".join(lines) + "\n"


def test_our_file_may_be_a_clip_or_a_still(tmp_path):
    points = np.stack([face_points((50, 50), 30)] * 3)
    points[1] = np.nan
    visible = np.ones((3, 68), np.uint8)
    visible[0, 5] = 0
    angles = np.array([[90.0, 0, 0]] * 3)
    np.savez(tmp_path / "a.npz", landmarks68_px=points, visible=visible, yaw_pitch_roll_deg=angles)
    read = read_landmarks(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.points_px, points)
    np.testing.assert_allclose(read.angles[:, 0], np.pi / 2)
    assert read.source == "file" and read.visible[0].sum() == 67 and not read.visible[1].any()
    np.savez(tmp_path / "b.npz", landmarks68_px=points[0], yaw_pitch_roll_deg=angles[0])
    still = read_landmarks(tmp_path / "b.npz")
    assert still.points_px.shape == (1, 68, 2) and still.angles.shape == (1, 3)


@pytest.mark.parametrize("coordinates", [2, 3])
def test_mediapipe_archive_gives_the_68(tmp_path, mesh, coordinates):
    points = np.concatenate([mesh, mesh[..., :1]], -1)[..., :coordinates]
    np.savez(tmp_path / "a.npz", landmarks478_px=points)
    read = read_landmarks(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.points_px, mesh[:, MEDIAPIPE_68])
    assert read.source == "mediapipe" and read.visible.sum(1).tolist() == [68, 0, 68]


def test_mediapipe_points_mirror_as_landmarks_do(shared_folder):
    """The table names the same places as the 68 stored beside real clips."""
    paths = sorted((shared_folder / "media").glob("d*_landmarks.npz"))
    if not paths:
        pytest.skip(f"no clips in {shared_folder / 'media'}")
    with np.load(paths[0]) as content:
        expected = content["landmarks68_px"].astype(np.float32)
        chosen = content["landmarks478_px"][:, MEDIAPIPE_68, :2].astype(np.float32)
    np.testing.assert_array_equal(chosen, expected)
    # A frontal face is nearly symmetric: mirrored about its middle, points meet their partners.
    face = np.median(expected, axis=0)
    middle = face[27:31, 0].mean()
    mirrored = np.stack([2 * middle - face[:, 0], face[:, 1]], -1)[LANDMARK_MIRROR]
    error = np.linalg.norm(mirrored - face, axis=-1) / outer_eye_distance(face)
    assert np.median(error) < 0.1 and np.delete(error, range(17)).max() < 0.25


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("unit", ["px", "normalised"])
def test_mediapipe_table_in_pixels_or_shares(tmp_path, mesh, stated, unit):
    written = mesh / (128, 96) if unit == "normalised" else mesh
    before = f"# unit: {unit}\n" if stated else ""
    (tmp_path / "a.csv").write_text(table(written, before=before))
    read = read_landmarks(tmp_path / "a.csv", frame_size=(96, 128))
    np.testing.assert_allclose(read.points_px, mesh[:, MEDIAPIPE_68], atol=1e-3)
    assert ("pixels" if unit == "px" else "shares") in read.notes[0]
    if unit == "normalised":
        with pytest.raises(DataError, match="no frame size"):
            read_landmarks(tmp_path / "a.csv")


def test_mediapipe_table_may_leave_frames_out_and_mix_their_order(tmp_path, mesh):
    (tmp_path / "a.csv").write_text(table(mesh[[2, 0]], number=[4, 1]))
    read = read_landmarks(tmp_path / "a.csv")
    assert len(read.points_px) == 5
    np.testing.assert_allclose(read.points_px[1], mesh[0, MEDIAPIPE_68], atol=1e-4)
    np.testing.assert_allclose(read.points_px[4], mesh[2, MEDIAPIPE_68], atol=1e-4)
    assert np.isnan(read.points_px[[0, 2, 3]]).all()


def openface(points, success, face=None):
    face = [0] * len(points) if face is None else face
    seconds = [0.04 * index for index in range(len(points))]
    return (
        ("face_id", face),
        ("timestamp", seconds),
        ("confidence", success),
        ("success", success),
    )


def test_openface_table_counts_from_1_and_marks_failures(tmp_path):
    points = np.stack([face_points((50 + index, 50), 30) for index in range(3)])
    columns = openface(points, [1, 0, 1])
    (tmp_path / "a.csv").write_text(table(points, start=1, columns=columns, spaced=True))
    read = read_landmarks(tmp_path / "a.csv")
    assert read.source == "openface" and read.visible.sum(1).tolist() == [68, 0, 68]
    np.testing.assert_allclose(read.points_px[[0, 2]], points[[0, 2]], atol=1e-4)
    assert np.isnan(read.points_px[1]).all()


def test_openface_table_of_two_people_follows_the_one_seen_most(tmp_path):
    points = np.stack([face_points((50, 50), 30), face_points((90, 50), 40)])
    rows = points[[1, 0, 0, 1, 0]]
    columns = openface(rows, [1] * 5, face=[7, 0, 0, 7, 0])
    text = table(rows, columns=columns, number=[1, 1, 2, 4, 3])
    (tmp_path / "a.csv").write_text(text)
    read = read_landmarks(tmp_path / "a.csv")
    np.testing.assert_allclose(read.points_px[:3], points[[0] * 3], atol=1e-4)
    assert len(read.points_px) == 4 and np.isnan(read.points_px[3]).all()
    assert "2 faces" in read.notes[0] and "face_id 0" in read.notes[0]


def test_openface_table_of_a_picture(tmp_path):
    points = face_points((50, 50), 30)[None]
    lines = table(points, columns=(("face", [0]), ("confidence", [0.9]))).split("\n")
    text = "\n".join(line.partition(",")[2] for line in lines)  # without the frame
    (tmp_path / "a.csv").write_text(text)
    np.testing.assert_allclose(read_landmarks(tmp_path / "a.csv").points_px, points, atol=1e-4)


POINTS = np.stack([face_points((50, 50), 30)] * 2)
GOOD = table(POINTS, start=1, columns=openface(POINTS, [1, 1]))
HEADER, FIRST, SECOND = GOOD.split("\n")[:3]
BAD_TABLES = {
    "empty": "",
    "text": "hello\nworld\n",
    "a column is missing": f"{HEADER.replace('x_3,', 'z_3,')}\n{FIRST}\n",
    "a column twice": f"{HEADER.replace('x_3,', 'x_4,')}\n{FIRST}\n",
    "a cell is missing": f"{HEADER}\n{FIRST.rpartition(',')[0]}\n",
    "a cell of text": f"{HEADER}\n{FIRST}ten\n",
    "frame 0": f"{HEADER}\n0{FIRST[1:]}\n",
    "half a frame": f"{HEADER}\n1.5{FIRST[1:]}\n",
    "a frame far away": f"{HEADER}\n9999999999{FIRST[1:]}\n",
    "an infinite frame": f"{HEADER}\ninf{FIRST[1:]}\n",
    "no face at all": f"{HEADER}\n",
    "an endless line": "x" * (1 << 19),
    "a null byte": f"{HEADER}\n{FIRST[:-3]}\0{FIRST[-3:]}\n",
    "a huge number": f"{HEADER}\n{FIRST.rpartition(',')[0]},1e30\n",
    "an unknown unit": f"# unit: inches\n{GOOD}",
    "an open quote": f'{HEADER}\n"{FIRST}\n{SECOND}\n',
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_other_tables_are_refused_in_one_line(tmp_path, name):
    (tmp_path / "a.csv").write_text(BAD_TABLES[name])
    with pytest.raises(DataError) as refusal:
        read_landmarks(tmp_path / "a.csv")
    assert "\n" not in str(refusal.value) and "a.csv" in str(refusal.value)


def test_mediapipe_frames_must_not_repeat(tmp_path, mesh):
    (tmp_path / "a.csv").write_text(table(mesh, number=[0, 0, 1]))
    with pytest.raises(DataError, match="once"):
        read_landmarks(tmp_path / "a.csv")


def test_openface_tables_are_bounded_and_hold_a_face_once(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(GOOD)
    assert len(read_landmarks(tmp_path / "a.csv").points_px) == 2
    (tmp_path / "b.csv").write_text(f"{HEADER}\n{FIRST}\n{FIRST}\n")
    with pytest.raises(DataError, match=r"frame 0 twice \(line 3\)"):
        read_landmarks(tmp_path / "b.csv")
    monkeypatch.setattr(landmark_tables, "_MAX_ROWS", 1)
    with pytest.raises(DataError, match="at most 1 rows"):
        read_landmarks(tmp_path / "a.csv")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(128, 256)) * 20)
    with pytest.raises(DataError, match="text"):
        read_landmarks(tmp_path / "a.csv")


BAD_ARRAYS = {
    "another name": {"points": POINTS},
    "another shape": {"landmarks68_px": POINTS[:, :67]},
    "text": {"landmarks68_px": np.array([["a"]])},
    "objects": {"landmarks68_px": np.array([{"code": 1}], dtype=object)},
    "no face": {"landmarks68_px": np.full((2, 68, 2), np.nan)},
    "a huge number": {"landmarks68_px": POINTS * 1e9},
    "angles of another clip": {"landmarks68_px": POINTS, "yaw_pitch_roll_deg": np.zeros((3, 3))},
    "visibility of another clip": {"landmarks68_px": POINTS, "visible": np.ones((3, 68))},
    "too few points": {"landmarks478_px": POINTS},
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_other_archives_are_refused_in_one_line(tmp_path, name):
    np.savez(tmp_path / "a.npz", **BAD_ARRAYS[name])
    with pytest.raises(DataError) as refusal:
        read_landmarks(tmp_path / "a.npz")
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_archives_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("not a zip")
    for name in ("text.npz", "absent.npz", "absent.csv", "."):
        with pytest.raises(DataError):
            read_landmarks(tmp_path / name)


def test_outer_eye_distance_is_the_median_of_frames_with_a_face():
    points = np.stack([face_points((50, 50), size) for size in (20, 30, 70)])
    assert outer_eye_distance(points) == pytest.approx(30, rel=1e-5)
    points[1] = np.nan
    assert outer_eye_distance(points) == pytest.approx(45, rel=1e-5)
    assert np.isnan(outer_eye_distance(np.full((1, 68, 2), np.nan)))
    assert np.isnan(outer_eye_distance(np.ones((1, 68, 2)))), "nobody may divide by 0"
