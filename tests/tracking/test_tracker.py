"""Whole clips: what is found, and what a clip may hold without being fatal."""

import subprocess
import sys

import numpy as np
import pytest

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, DataError, MediaError
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.media.image import write_image
from talking_heads_jax.morphable.registry import load_morphable
from talking_heads_jax.tracking import observation
from talking_heads_jax.tracking.fit_input import normalised_clip
from talking_heads_jax.tracking.landmarks import Landmarks
from talking_heads_jax.tracking.track import landmark_jitter
from talking_heads_jax.tracking.tracker import TrackOptions, fit_of, track_file, track_frames
from tests.media.video_files import write_clip
from tests.tracking.scenes import GREEN, RED, SquareDetector, face_points, scene, write_timed_clip

PLAIN = TrackOptions(morphable="none")


@pytest.fixture
def detector(monkeypatch):
    found = SquareDetector()
    monkeypatch.setattr(observation, "find_detector", lambda name: found)
    return found


def moving(count, *, left=20.0, step=1.0, side=30.0, seed=0):
    return [scene([(left + step * i, 30, side, RED)], seed=seed) for i in range(count)]


def landmarks_at(centers, size=30.0):
    points = np.stack([face_points(center, size) for center in centers])
    return Landmarks(points, np.ones(points.shape[:2], np.uint8))


def noted(track, *words):
    return any(all(word in note for word in words) for note in track.notes)


def test_boxes_are_followed_between_looks(detector):
    track = track_frames(moving(12), fps=25.0, options=PLAIN)
    assert detector.asked == 3  # frames 0, 5 and 10
    np.testing.assert_allclose(track.box_px[:11, 0], 20 + np.arange(11), atol=0.01)
    assert track.face.all() and not track.has_landmarks and not track.fitted
    assert noted(track, "no landmarks", "--landmarks")
    assert track.quality()["share_without_face"] == 0


def test_no_face_is_marked_and_noted(detector):
    frames = [*moving(6), *[scene([])] * 9]
    track = track_frames(frames, fps=25.0, options=PLAIN)
    assert track.face.tolist() == [True] * 8 + [False] * 7  # the look at frame 10 finds none
    assert np.isnan(track.box_px[8:]).all() and noted(track, "no face in 7 of 15", "8-14")
    assert detector.asked == 5  # frames 0, 5, 10, and twice more
    nobody = track_frames([scene([])] * 3, fps=25.0, options=PLAIN)
    assert not nobody.face.any() and noted(nobody, "no face in 3 of 3 frames")
    assert nobody.quality()["share_without_face"] == 1


def test_a_detector_that_blinks_is_asked_again(detector):
    frames = moving(12)
    frames[5] = scene([])
    track = track_frames(frames, fps=25.0, options=PLAIN)
    assert track.face.all() and detector.asked == 4  # frames 0, 5, 6 and 10
    np.testing.assert_allclose(track.box_px[:11, 0], 20 + np.arange(11), atol=0.01)


def test_of_two_faces_one_is_followed_and_noted(detector):
    frames = [scene([(45, 30, 34, RED), (10 - i, 5, 24, GREEN)]) for i in range(6)]
    track = track_frames(frames, fps=25.0, options=PLAIN)
    np.testing.assert_allclose(track.box_px[:, 0], 45)
    assert noted(track, "more than one face", "in 2 of 2")


def test_a_face_that_leaves_the_frame_is_marked():
    centers = [(64 + 10 * i, 48) for i in range(8)]
    track = track_frames(
        moving(8), fps=25.0, options=PLAIN, landmarks=landmarks_at(centers, size=40)
    )
    # The 51 inner points reach 26 px to each side of the middle, which passes the border, x = 128,
    # before the last frame.
    assert track.face.tolist() == [True] * 7 + [False]
    assert track.visible.sum(1).tolist()[:3] == [68] * 3
    inside = (track.landmarks68_px[6, :, 0] <= 128).sum()
    assert track.visible[6].sum() == inside < 68 and not track.visible[7].any()
    assert np.isnan(track.landmarks68_px[~track.face]).all()
    assert noted(track, "has left") and noted(track, "reaches out")


def test_a_cut_divides_the_clip_and_looks_anew(detector):
    frames = [*moving(7, seed=1), *moving(7, left=80, seed=2)]
    track = track_frames(frames, fps=25.0, options=PLAIN)
    assert track.segments == ((0, 7), (7, 14)) and noted(track, "1 cut, before frame 7")
    np.testing.assert_allclose(track.box_px[6:8, 0], [25, 80], atol=1.01)
    assert detector.asked == 4  # frames 0, 5, 7 and 10


@pytest.mark.parametrize("smooth", ["one_euro", "gaussian"])
def test_smoothing_steadies_and_stops_at_cuts(smooth):
    rng = np.random.default_rng(0)
    still = landmarks_at([(40, 48)] * 10 + [(80, 48)] * 10)
    noisy = Landmarks(
        still.points_px + rng.normal(size=still.points_px.shape).astype(np.float32), still.visible
    )
    frames = [*moving(10, step=0, seed=1), *moving(10, step=0, left=70, seed=2)]
    options = TrackOptions(morphable="none", smooth=smooth)
    track = track_frames(frames, fps=25.0, options=options, landmarks=noisy)
    assert track.segments == ((0, 10), (10, 20))
    assert track.raw_jitter == pytest.approx(
        landmark_jitter(noisy.points_px, segments=track.segments), rel=1e-5
    )
    assert track.jitter() < 0.7 * track.raw_jitter
    error = np.abs(track.landmarks68_px - still.points_px).mean((1, 2))
    assert error.max() < 1, "the two places, 40 px apart, are not mixed"
    np.testing.assert_allclose(track.box_px[:, 0], track.landmarks68_px[..., 0].min(1))


def test_a_turned_phone_video_is_upright(tmp_path, detector):
    upright = [scene([(20, 60, 30, RED)], height=128, width=96) for _ in range(4)]
    stored = np.stack([np.rot90(frame, 1) for frame in upright])
    path = write_clip(tmp_path / "phone.mp4", stored, rotation=90)
    track = track_file(path, PLAIN)
    assert track.frame_size == (128, 96) and noted(track, "turned by")
    np.testing.assert_allclose(track.box_px[0], [20, 60, 50, 90], atol=1.5)


def test_a_variable_frame_rate_keeps_its_times(tmp_path, detector):
    moments = [0, 40, 80, 200, 240, 400]
    path = write_timed_clip(tmp_path / "uneven.mp4", moving(6), moments)
    track = track_file(path, PLAIN)
    np.testing.assert_allclose(track.time_s, np.array(moments) / 1000, atol=1e-3)
    assert track.variable_frame_rate and noted(track, "variable frame rate", "40 to 160 ms")


def test_times_that_cannot_be_used_are_noted(detector):
    for times, words in (([0.0, None, 0.2], "no times"), ([0.0, 0.2, 0.1], "do not increase")):
        track = track_frames(moving(3), fps=10.0, time_s=times, options=PLAIN)
        np.testing.assert_allclose(track.time_s, [0, 0.1, 0.2])
        assert noted(track, words)


def test_a_photograph_is_a_clip_of_one_frame(tmp_path, detector):
    write_image(tmp_path / "photo.png", moving(1)[0])
    track = track_file(tmp_path / "photo.png", TrackOptions(morphable="none", smooth="one_euro"))
    assert len(track) == 1 and track.face.all() and track.segments == ((0, 1),)
    assert track.quality()["jitter"] is None


def test_given_box_is_taken_and_a_guess_is_called_one(monkeypatch):
    options = TrackOptions(morphable="none", box=(10, 20, 60, 70))
    track = track_frames(moving(3), fps=25.0, options=options)
    np.testing.assert_array_equal(track.box_px, [[10, 20, 60, 70]] * 3)
    assert track.face.all()
    guess = track_frames(
        moving(3), fps=25.0, options=TrackOptions(morphable="none", detector="centre")
    )
    assert not guess.face.any() and np.isfinite(guess.box_px).all()
    assert noted(guess, "no face was looked for")


def test_landmarks_of_another_length_are_noted(tmp_path):
    marks = landmarks_at([(50, 48)] * 5)
    track = track_frames(moving(8), fps=25.0, options=PLAIN, landmarks=marks)
    assert track.face.sum() == 5 and noted(track, "landmarks are of 5 frames, the clip has 8")
    np.savez(tmp_path / "marks.npz", landmarks68_px=marks.points_px)
    options = TrackOptions(morphable="none", landmarks=tmp_path / "marks.npz")
    assert track_frames(moving(3), fps=25.0, options=options).face.all()
    with pytest.raises(DataError):
        track_frames(moving(3), fps=25.0, options=TrackOptions(landmarks=tmp_path / "no.npz"))


class SquareLandmarker:
    """Landmarks of the square in the box; what is outside the box is not seen."""

    source = "squares"

    def landmarks(self, frame, box):
        x0, y0, x1, y1 = (max(round(side), 0) for side in box[:4])
        seen = (np.abs(frame[y0:y1, x0:x1].astype(int) - RED) < 40).all(-1)
        rows, columns = np.nonzero(seen)
        if not len(rows):
            return np.full((68, 2), np.nan, np.float32), np.zeros(68, np.uint8)
        center = (x0 + columns.mean(), y0 + rows.mean())
        return face_points(center, 15), np.ones(68, np.uint8)


def test_a_landmarker_follows_the_face_between_looks(detector):
    frames = moving(9, step=2.0)
    options = TrackOptions(morphable="none", detect_every=100)
    track = track_frames(frames, fps=25.0, options=options, landmarker=SquareLandmarker())
    assert detector.asked == 1 and track.landmark_source == "squares" and track.face.all()
    middle = track.landmarks68_px[:, 36:48].mean((1, 2))
    assert np.all(np.diff(middle) > 0), "the box moves with the landmarks"


def test_a_landmarker_is_not_believed_where_no_detector_sees_a_face(detector):
    class Believer:
        source = "believer"

        def landmarks(self, frame, box):
            return face_points(box.center, 15), np.ones(68, np.uint8)

    options = TrackOptions(morphable="none", detect_every=2)
    gone = [*moving(5), *[scene([])] * 20]
    for frames in (gone, gone[:12]):  # given up within the clip, and doubtful at its end
        track = track_frames(frames, fps=25.0, options=options, landmarker=Believer())
        assert track.face.tolist() == [True] * 5 + [False] * (len(frames) - 5)
    again = [*moving(5), scene([]), *moving(6, left=26)]
    options = TrackOptions(morphable="none", detect_every=5)
    track = track_frames(again, fps=25.0, options=options, landmarker=Believer())
    assert track.face.all(), "one frame without a detection is the detector's mistake"


def test_what_is_doubtful_after_a_cut_says_nothing_about_the_shot_before(detector):
    class Believer:
        source = "believer"

        def landmarks(self, frame, box):
            return face_points(box.center, 15), np.ones(68, np.uint8)

    # The last look with success is at frame 5; frames 6 and 7 are only followed.
    frames = [*moving(8, seed=1), *[scene([], seed=2)] * 12]
    track = track_frames(frames, fps=25.0, options=PLAIN, landmarker=Believer())
    assert track.segments[-1] == (8, 20)
    assert track.face.tolist() == [True] * 8 + [False] * 12


def test_missing_points_do_not_make_a_face_leave_the_frame():
    marks = landmarks_at([(64, 48)] * 3)
    marks.points_px[:, 20:56] = np.nan
    track = track_frames(moving(3), fps=25.0, options=PLAIN, landmarks=marks)
    assert track.face.all() and not track.notes


def test_points_that_come_and_go_are_no_cut():
    marks = landmarks_at([(64, 48)] * 8)
    marks.points_px[1::2, :36] = np.nan
    marks.points_px[1::2, 48:] = np.nan  # the eyes alone
    track = track_frames(moving(8), fps=25.0, options=PLAIN, landmarks=marks)
    assert track.face.all() and track.segments == ((0, 8),)
    marks.points_px[4:] += (60, 0)
    track = track_frames(moving(8), fps=25.0, options=PLAIN, landmarks=marks)
    assert track.segments == ((0, 4), (4, 8))
    marks.points_px[1, :42] = np.nan  # one eye: all pictures alike, and nothing to measure by
    track = track_frames(moving(8), fps=25.0, options=PLAIN, landmarks=marks)
    assert track.segments == ((0, 8),)


def test_frames_must_be_pictures_of_one_size(detector):
    with pytest.raises(MediaError, match="have a frame"):
        track_frames([], fps=25.0, options=PLAIN)
    with pytest.raises(MediaError, match="size"):
        track_frames([moving(1)[0], np.zeros((8, 8, 3), np.uint8)], fps=25.0, options=PLAIN)
    with pytest.raises(MediaError, match="uint8"):
        track_frames([np.zeros((8, 8, 3))], fps=25.0, options=PLAIN)


@pytest.mark.parametrize(
    "keywords",
    [
        *({"smooth": "median"}, {"camera": "fisheye"}, {"detector": "yolo"}),
        *({"detect_every": 0}, {"detect_every": 5000}, {"sigma_frames": -1.0}),
        *({"min_cutoff_hz": 0.0}, {"speed_coefficient": float("nan")}, {"box": (5, 5, 5, 9)}),
    ],
)
def test_options_that_are_not_known_are_refused(keywords):
    with pytest.raises(ArgumentError) as refusal:
        TrackOptions(**keywords)
    assert len(str(refusal.value)) < 300


def test_the_network_asked_for_by_name_must_be_there(detector):
    with pytest.raises(AssetNotFoundError, match="fan"):
        track_frames(moving(1), fps=25.0, options=TrackOptions(landmarker="fan"))


def test_a_model_that_is_not_there_is_told_before_the_clip_is_read():
    def frames():
        raise AssertionError("the clip was read")
        yield

    with pytest.raises(AssetNotFoundError, match="flame2020"):
        marks = landmarks_at([(50, 48)])
        track_frames(
            frames(), fps=25.0, options=TrackOptions(morphable="flame2020"), landmarks=marks
        )


@pytest.fixture(scope="module")
def fitted():
    """A turning procedural head, its third frame without a face; and what it was turned by."""
    model = load_morphable("procedural")
    neutral = model.neutral(1)
    rest = model.landmarks68(model.vertices(neutral), FaceCoefficients(*neutral))
    angles = np.deg2rad(np.array([[0, 0, 0], [20, -5, 4], [25, 0, 0], [30, 8, -10]], np.float32))
    turned = np.einsum("tij,nj->tni", np.asarray(head_rotation_from_angles(angles)), rest[0])
    points = (128.0 + 7.0 * model.centimetres_per_unit * turned[..., :2] * (1, -1)).astype(
        np.float32
    )
    points[2] = np.nan
    marks = Landmarks(points, np.ones(points.shape[:2], np.uint8))
    frames = [np.full((256, 256, 3), 90, np.uint8)] * 4
    # A frame a second: twenty degrees in between are nothing the fit would smooth.
    return model, angles, track_frames(frames, fps=1.0, landmarks=marks, model=model)


def test_a_fit_finds_the_angles_and_leaves_gaps(fitted):
    _, angles, track = fitted
    known = [0, 1, 3]
    error = np.rad2deg(np.abs(track.angles - angles)[known])
    # The identity is free as well: a nose of another length looks like a slight turn.
    assert error.max() < 3, error
    assert np.isnan(track.angles[2]).all() and not track.face[2]
    assert track.morphable == "procedural" and track.quality()["reprojection_share"] < 0.02


def test_a_fit_is_used_again_from_the_track(fitted):
    from talking_heads_jax.tracking.fitting import fit_landmarks_px

    model, _, track = fitted
    seen = fit_landmarks_px(model, fit_of(track))
    error = np.linalg.norm(seen - track.landmarks68_px, axis=-1)[:, 17:]
    rms = np.sqrt((error**2).mean(1))
    np.testing.assert_allclose(
        rms[[0, 1, 3]], track.reprojection_px[[0, 1, 3]], rtol=1e-3, atol=1e-3
    )
    half = track.to_crop(np.array([[0.5, 0, 3], [0, 0.5, -2.0]]))
    np.testing.assert_allclose(
        fit_landmarks_px(model, fit_of(half)), seen * 0.5 + (3, -2), atol=1e-3
    )


def test_landmarks_in_one_place_are_not_fitted():
    """One such clip must not end the fit of the others in its batch."""
    points = np.full((2, 68, 2), 40.0, np.float32)
    points[1] += np.arange(136, dtype=np.float32).reshape(68, 2)
    points[1, 20:] = np.nan
    marks = Landmarks(points, np.ones(points.shape[:2], np.uint8))
    frames = [np.full((256, 256, 3), 90, np.uint8)] * 2
    track = track_frames(frames, fps=25.0, landmarks=marks)
    assert track.has_landmarks and not track.fitted


def test_frames_in_one_place_do_not_end_the_fit_of_others(monkeypatch):
    """Most of a clip's frames like that, and it would have no size."""
    from talking_heads_jax.tracking import fitting

    asked = []

    def record(model, points_px, **keywords):
        asked.append((points_px[0], keywords["weights"][0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit_clips", record)
    marks = landmarks_at([(64, 48)] * 5)
    marks.points_px[2:] = 40
    with pytest.raises(KeyboardInterrupt):
        track_frames(moving(5), fps=25.0, landmarks=marks)
    ((points, weights),) = asked
    chosen = np.arange(17, 68)
    clip = normalised_clip(points, weights, None, (96, 128), chosen, fitting.FitOptions())
    assert clip.face.tolist() == [True, True, False, False, False] and clip.unit > 10
    with pytest.raises(ArgumentError, match="different places"):
        ones = np.ones_like(weights)
        normalised_clip(points, ones, None, (96, 128), chosen, fitting.FitOptions())


def test_workers_import_the_tracker_without_jax(tmp_path, monkeypatch):
    """And learn without it that there is no landmark network."""
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path))
    command = (
        "import sys, talking_heads_jax.tracking.motion_file;"
        "from talking_heads_jax.tracking.tracker import find_landmarker;"
        "sys.exit('jax' in sys.modules or find_landmarker() or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
