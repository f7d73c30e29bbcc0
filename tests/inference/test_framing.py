"""What the model sees of raw pictures: which part, whether it follows a face, and the way back."""

import dataclasses

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, DataError
from talking_heads_jax.inference import framing as framing_module
from talking_heads_jax.inference.animate import AnimateOptions, animate_clip
from talking_heads_jax.inference.clips import fit_frame
from talking_heads_jax.inference.framing import FramingOptions, find_framing
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.resize import crop_and_resize
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.tracking import observation
from talking_heads_jax.tracking.clip_boxes import landmark_box
from talking_heads_jax.tracking.face_crops import eg3d_512
from talking_heads_jax.tracking.face_extents import LANDMARKS_IN_BOX
from talking_heads_jax.tracking.paste import paste_back
from talking_heads_jax.tracking.track import empty_track
from tests.media.video_files import write_clip
from tests.tracking.scenes import RED, SquareDetector, face_points, scene

from .conftest import SIDE, BrightnessHead

RESOLUTION = 32


@pytest.fixture
def squares(monkeypatch):
    """Red squares are the faces."""
    for module in (observation, framing_module):
        monkeypatch.setattr(module, "find_detector", lambda name: SquareDetector())


@pytest.fixture
def no_detector(monkeypatch):
    from talking_heads_jax.tracking import detection

    monkeypatch.setattr(detection, "_installed", lambda package: False)


def still(tmp_path, left=60.0, side=30.0):
    path = tmp_path / "still.png"
    write_image(path, scene([(left, 30, side, RED)]))
    return path


def framing_of(path, size=(96, 128), resolution=RESOLUTION, **options):
    return find_framing("driving", path, size, resolution, FramingOptions(**options))


def clip_of(tmp_path, lefts, fps=25):
    frames = np.stack([scene([(left, 30, 30, RED)]) for left in lefts])
    return write_clip(tmp_path / "clip.mp4", frames, fps=fps)


def extents_box(left, top, side, height=96, width=128):
    """The crop of the recipe prepare for the landmarks that a detector's square stands for."""
    x0, y0, x1, y1 = (share * side for share in LANDMARKS_IN_BOX)
    points = np.array([[[left + x0, top + y0], [left + x1, top + y1]]])
    return landmark_box(points, height, width)


def test_frames_of_the_models_size_are_taken_as_they_are(tmp_path, squares):
    path = tmp_path / "fits.png"
    frame = scene([(10, 10, 16, RED)], height=RESOLUTION, width=RESOLUTION)
    write_image(path, frame)
    framing = framing_of(path, (RESOLUTION, RESOLUTION))
    np.testing.assert_array_equal(framing.crop(frame), frame)
    assert not framing.notes


def test_landmarks_of_frames_that_fit_are_read_but_do_not_crop(tmp_path):
    path = tmp_path / "face.npz"
    np.savez(path, landmarks68_px=face_points((16, 16), 8))
    framing = framing_of(tmp_path / "x.png", (RESOLUTION, RESOLUTION), landmarks=path)
    assert "not cropped by landmarks" in framing.notes[0]
    assert framing.alignment().box_px == pytest.approx((0, 0, RESOLUTION, RESOLUTION))
    with pytest.raises(DataError, match="readable file"):
        framing_of(tmp_path / "x.png", (RESOLUTION, RESOLUTION), landmarks=tmp_path / "absent.npz")


def test_centre_is_the_middle_square(tmp_path, squares):
    path = still(tmp_path)
    frame = read_image(path)
    framing = framing_of(path, crop="centre")
    np.testing.assert_array_equal(framing.crop(frame), fit_frame(frame, RESOLUTION))
    assert framing.alignment().box_px == pytest.approx((16, 0, 112, 96))
    assert "not square" in framing.notes[0]


def test_whole_frames_must_be_square(tmp_path):
    with pytest.raises(ArgumentError, match="driving, taken whole, must be square, got 128x96"):
        framing_of(tmp_path / "x.png", crop="none")
    framing = framing_of(tmp_path / "x.png", (64, 64), crop="none")
    assert framing.alignment().box_px == pytest.approx((0, 0, 64, 64))


def test_a_given_box_is_made_square_and_used(tmp_path):
    framing = framing_of(tmp_path / "x.png", box=(10, 20, 50, 40), crop="centre")
    assert framing.alignment().box_px == pytest.approx((10, 10, 50, 50))
    frame = scene([])
    expected = crop_and_resize(frame, (10, 10, 50, 50), RESOLUTION)
    np.testing.assert_array_equal(framing.crop(frame), expected)


def test_a_known_track_is_cropped_by_what_it_has(tmp_path):
    """A motion file may hold boxes alone."""
    size = (96, 128)
    boxes = np.tile(np.float32([60, 30, 90, 60]), (3, 1))
    known = {"face": np.ones(3, bool), "box_px": boxes}
    track = empty_track(3, fps=25.0, frame_size=size, **known)
    framing = find_framing(
        "driving", tmp_path / "x.npz", size, RESOLUTION, FramingOptions(), track=track
    )
    assert framing.alignment().box_px == pytest.approx(extents_box(60, 30, 30), abs=1e-3)
    assert "3 of 3 frames by its boxes (its track has no landmarks);" in framing.notes[0]
    points = np.tile(np.float32(face_points((75, 45), 15)), (3, 1, 1))
    track = dataclasses.replace(track, landmarks68_px=points)
    framing = find_framing(
        "driving", tmp_path / "x.npz", size, RESOLUTION, FramingOptions(), track=track
    )
    assert "by its landmarks;" in framing.notes[0]


def test_a_detected_face_is_cropped_as_its_landmarks_would_be(tmp_path, squares):
    path = still(tmp_path, left=60, side=30)
    framing = framing_of(path)
    assert framing.alignment().box_px == pytest.approx(extents_box(60, 30, 30), abs=1e-3)
    assert "face found by the detector 'squares'" in framing.notes[0]


def test_given_landmarks_come_before_a_detector(tmp_path, no_detector):
    path = still(tmp_path)
    points = face_points((75, 45), 24)
    np.savez(tmp_path / "face.npz", landmarks68_px=points)
    framing = framing_of(path, landmarks=tmp_path / "face.npz")
    assert framing.alignment().box_px == pytest.approx(landmark_box(points[None], 96, 128))
    eg3d = framing_of(path, landmarks=tmp_path / "face.npz", recipe="eg3d_512")
    expected = eg3d_512(points, (96, 128))
    assert eg3d.alignment().box_px == pytest.approx(expected.box_px)
    assert eg3d.alignment().interpolation == "lanczos" and eg3d.alignment().outside == "black"


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_face_or_detector_the_middle_is_taken_and_said(tmp_path, installed, monkeypatch):
    path = tmp_path / "nobody.png"
    write_image(path, scene([]))
    if installed:
        for module in (observation, framing_module):
            monkeypatch.setattr(module, "find_detector", lambda name: SquareDetector())
    else:
        from talking_heads_jax.tracking import detection

        monkeypatch.setattr(detection, "_installed", lambda package: False)
    framing = framing_of(path)
    assert framing.alignment().box_px == pytest.approx((16, 0, 112, 96))
    said = "no face was found" if installed else "no face was looked for"
    assert said in framing.notes[0] and "not square" in framing.notes[1]


def test_a_detector_asked_for_by_name_must_be_there(tmp_path, no_detector):
    with pytest.raises(AssetNotFoundError, match="scikit-image"):
        framing_of(still(tmp_path), detector="cascade")


def test_recipes_that_need_landmarks_say_so(tmp_path, squares):
    with pytest.raises(ArgumentError, match="eg3d_512 must be given landmarks of the driving"):
        framing_of(still(tmp_path), recipe="eg3d_512")


def test_a_face_that_keeps_its_place_has_one_crop(tmp_path, squares):
    lefts = 50 + 3 * np.sin(np.arange(20))
    framing = framing_of(clip_of(tmp_path, lefts))
    first = framing.alignment(0).box_px
    assert all(framing.alignment(index).box_px == first for index in range(25))
    assert "one crop for all frames" in framing.notes[0]
    # It holds every place of the face.
    assert first[0] < 47 and first[2] > 83


def test_a_crop_follows_a_camera_but_not_a_head(tmp_path, squares):
    """The face goes steadily from left to right, and shakes quickly on its way."""
    count, fps = 40, 10
    shake = 4 * np.sin(2 * np.pi * 2.0 * np.arange(count) / fps)
    lefts = 5 + 2.0 * np.arange(count) + shake
    framing = framing_of(clip_of(tmp_path, lefts, fps))
    boxes = np.array([framing.alignment(index).box_px for index in range(count)])
    assert "the crop follows it" in framing.notes[0]
    assert np.ptp(boxes[:, 2] - boxes[:, 0]) < 1e-6  # of one size
    moved = boxes[:, 0] - boxes[0, 0]
    # The pan of 78 px is followed to its ends; what is left of the shaking there is small.
    assert np.abs(moved - 2.0 * np.arange(count)).max() < 2.5
    seen = (np.round(lefts) - boxes[:, 0]) - np.mean(lefts - boxes[:, 0])
    assert np.corrcoef(seen, shake)[0, 1] > 0.9 and np.ptp(seen) > 5


def test_per_frame_crops_hold_where_there_is_no_face(tmp_path, no_detector):
    points = np.stack([face_points((40 + 4 * i, 45), 24) for i in range(5)])
    points[0] = points[3] = np.nan
    points[1, 5] = np.nan  # one point is missing
    np.savez(tmp_path / "clip.npz", landmarks68_px=points)
    path = clip_of(tmp_path, [30] * 5)
    framing = framing_of(path, landmarks=tmp_path / "clip.npz", recipe="eg3d_512")
    boxes = [framing.alignment(index).box_px for index in range(5)]
    assert boxes[0] == boxes[1] == boxes[2] == boxes[3] and boxes[4] != boxes[3]


# Through `animate_clip` ------------------------------------------------------------------------


class StillHead(BrightnessHead):
    """Shows the source whatever drives it."""

    def init(self, rng, names=None):
        return {"generator": {"params": {"gain": np.float32(0.0)}}}


@pytest.fixture
def whole(tmp_path):
    """Runs `animate_clip` with paste-back, to pictures."""
    head = StillHead()

    def run(source, driving, **options):
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        result = animate_clip(
            head,
            head.init(None),
            source,
            driving,
            folder,
            options=AnimateOptions(paste_back=True, best_frame="off", **options),
            log=lambda text: None,
        )
        return result, [read_image(path) for path in sorted(folder.iterdir())]

    return run


def test_paste_back_returns_the_source_in_its_own_size(tmp_path, squares, whole):
    source = still(tmp_path, left=60, side=30)
    frame = read_image(source)
    driving = clip_of(tmp_path, [30] * 3)
    result, pictures = whole(source, driving, batch_size=2)
    assert len(pictures) == 3 and any("source: face found" in note for note in result.notes)
    crop = find_framing("source", source, (96, 128), SIDE, FramingOptions())
    expected = paste_back(frame, crop.crop(frame), crop.alignment())
    for picture in pictures:
        assert picture.shape == frame.shape
        # The network's floats come back as bytes: at most one level of rounding.
        assert np.abs(picture.astype(int) - expected).max() <= 1
    x0, y0, x1, y1 = (round(value) for value in crop.alignment().box_px)
    outside = np.ones(frame.shape[:2], bool)
    outside[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = False
    np.testing.assert_array_equal(pictures[0][outside], frame[outside])
    assert np.abs(pictures[0].astype(int) - frame)[~outside].max() > 3  # SIDE px are coarse


def test_paste_back_of_a_source_video_goes_into_the_frame_it_came_from(tmp_path, squares, whole):
    lefts = [20, 30, 40, 50, 60]
    source = clip_of(tmp_path, lefts)
    frames = list(VideoReader(source))
    (tmp_path / "d").mkdir()
    driving = clip_of(tmp_path / "d", [30] * 7)
    _, pictures = whole(source, driving, batch_size=3)
    framing = find_framing("source", source, (96, 128), SIDE, FramingOptions())
    for index, picture in enumerate(pictures):
        at = min(index, 4)
        expected = paste_back(frames[at], framing.crop(frames[at], at), framing.alignment(at))
        assert np.abs(picture.astype(int) - expected).max() <= 1
    assert len(pictures) == 7


def test_animate_clip_sees_the_crops_it_speaks_of(tmp_path, squares):
    head = StillHead()
    source, driving = still(tmp_path), clip_of(tmp_path, [30] * 3)
    animate_clip(
        head,
        head.init(None),
        source,
        driving,
        tmp_path / "out",
        options=AnimateOptions(side_by_side=True, source_box=(4, 4, 36, 36)),
        log=lambda text: None,
    )
    picture = read_image(sorted((tmp_path / "out").iterdir())[0])
    expected = crop_and_resize(read_image(source), (4, 4, 36, 36), SIDE)
    np.testing.assert_array_equal(picture[:, :SIDE], expected)
    framing = find_framing("driving", driving, (96, 128), SIDE, FramingOptions())
    first = framing.crop(next(iter(VideoReader(driving))))
    np.testing.assert_array_equal(picture[:, SIDE : 2 * SIDE], first)
