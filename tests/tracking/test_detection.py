"""Which detector is used, what its boxes mean, whom it follows, and where shots end."""

import sys
import tracemalloc
import types

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError
from talking_heads_jax.tracking import detection
from talking_heads_jax.tracking.cuts import CutFinder
from talking_heads_jax.tracking.detection import FaceBox, FixedBox, find_detector
from talking_heads_jax.tracking.following import PATIENCE, FaceFollower, fill_boxes, overlap
from tests.tracking.scenes import RED, background, scene

SIZE = (96, 128)


def test_auto_takes_what_is_installed_and_else_says_that_it_guesses(monkeypatch):
    monkeypatch.setattr(detection, "_installed", lambda package: False)
    detector = find_detector("auto")
    assert detector.name == "centre" and "no face was looked for" in detector.note
    (box,) = detector.detect(background())
    assert box.score == 0 and box.center == (64, 48)
    for name in ("dlib", "cascade"):
        with pytest.raises(AssetNotFoundError, match="pip install"):
            find_detector(name)
    with pytest.raises(ArgumentError, match="one of"):
        find_detector("yolo")


def test_dlib_boxes_are_in_pixels_of_the_frame(monkeypatch):
    """Its rectangles name the last pixel inside, in the shrunk frame."""
    seen = []

    class Rectangle:
        left, top, right, bottom = (lambda self, v=v: v for v in (10, 20, 49, 59))

    class Finder:
        def run(self, image, upsample, threshold):
            seen.append(image.shape)
            return [Rectangle()], [0.7], [0]

    fake = types.ModuleType("dlib")
    fake.get_frontal_face_detector = Finder
    monkeypatch.setitem(sys.modules, "dlib", fake)
    monkeypatch.setattr(detection, "_installed", lambda package: True)
    (box,) = find_detector("auto").detect(np.zeros((640, 1280, 3), np.uint8))
    assert seen == [(320, 640, 3)] and box == FaceBox(20, 40, 100, 120, 0.7)


@pytest.fixture(scope="module")
def astronaut():
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    return np.asarray(data.astronaut())


FACE = FaceBox(173, 65, 277, 171)  # looked at: from the hairline to the chin


def test_cascade_finds_the_astronaut(astronaut):
    boxes = find_detector("cascade").detect(astronaut)
    chosen = FaceFollower().choose(boxes, astronaut.shape[:2])
    assert overlap(chosen, FACE) > 0.6


def test_cascade_finds_a_face_in_a_large_frame_and_none_in_a_waste(astronaut):
    frame = np.full((900, 1200, 3), 90, np.uint8)
    frame[200:712, 400:912] = astronaut
    boxes = find_detector("cascade").detect(frame)
    moved = FaceBox(FACE.x0 + 400, FACE.y0 + 200, FACE.x1 + 400, FACE.y1 + 200)
    assert max(overlap(box, moved) for box in boxes) > 0.6
    assert find_detector("cascade").detect(background()) == []
    assert find_detector("cascade").detect(np.zeros((9, 300, 3), np.uint8)) == []


def test_fixed_box_is_checked():
    assert FixedBox((1, 2, 30, 40)).detect(background()) == [FaceBox(1, 2, 30, 40)]
    for box in ((5, 5, 5, 9), (0, 0, float("nan"), 4)):
        with pytest.raises(ArgumentError, match="box"):
            FixedBox(box)


def test_overlap_is_intersection_over_union():
    assert overlap(FaceBox(0, 0, 10, 10), FaceBox(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap(FaceBox(0, 0, 10, 10), FaceBox(10, 0, 20, 10)) == 0


def test_follower_takes_the_large_central_face_and_stays_with_it():
    center, corner = FaceBox(50, 30, 80, 60), FaceBox(0, 0, 32, 32)
    follower = FaceFollower()
    assert follower.choose([corner, center], SIZE) == center
    grown = FaceBox(0, 0, 60, 60)
    moved = FaceBox(56, 30, 86, 60)
    assert follower.choose([grown, moved], SIZE) == moved
    assert follower.crowded == 2 and follower.looks == 2
    inside, speck = FaceBox(60, 40, 70, 50), FaceBox(0, 0, 5, 5)
    assert follower.choose([moved, inside, speck], SIZE) == moved and follower.crowded == 2


def test_follower_waits_before_it_takes_another_face():
    first, other = FaceBox(50, 30, 80, 60), FaceBox(0, 0, 30, 30)
    follower = FaceFollower()
    follower.choose([first], SIZE)
    for _ in range(PATIENCE):
        assert follower.choose([other], SIZE) is None
    assert follower.choose([other], SIZE) == other and follower.changes == 1
    follower.forget()
    assert follower.choose([first], SIZE) == first and follower.changes == 1
    assert follower.choose([], SIZE) is None


def test_fill_boxes_interpolates_holds_and_marks():
    looks = {0: FaceBox(0, 0, 10, 10), 4: FaceBox(8, 0, 18, 10), 8: None, 12: None}
    looks[14] = FaceBox(50, 50, 60, 60)
    boxes = fill_boxes(looks, 20, ((0, 13), (13, 20)))
    np.testing.assert_allclose(boxes[:5, 0], [0, 2, 4, 6, 8])
    np.testing.assert_allclose(boxes[5:7, 0], [8, 8])  # nearer to the look that found it
    assert np.isnan(boxes[7:13]).all()
    np.testing.assert_allclose(boxes[13:, 0], 50)


def test_fill_boxes_of_a_long_clip_needs_no_table_of_all_looks():
    count = 20_000
    looks = {frame: FaceBox(frame, 0, frame + 9, 9) for frame in range(0, count, 2)}
    segments = ((0, 200), (200, count))
    tracemalloc.start()
    boxes = fill_boxes(looks, count, segments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    last = [199, count - 1]  # frames after the last look of a shot
    np.testing.assert_array_equal(boxes[:, 0], np.arange(count) - np.isin(np.arange(count), last))
    assert peak < 2**26  # frames by looks, each 8 bytes, would be 1.6 GB


def cuts_of(frames, boxes=None):
    finder = CutFinder()
    for frame in frames:
        finder.add(frame)
    boxes = np.full((len(frames), 4), np.nan) if boxes is None else boxes
    return [start for start, _ in finder.segments(boxes)[1:]]


def shot(count, seed, left=20.0, step=1.0):
    return [scene([(left + step * i, 30, 30, RED)], seed=seed) for i in range(count)]


def test_a_cut_is_found_at_its_frame():
    assert cuts_of([*shot(9, 1), *shot(7, 2), *shot(5, 3)]) == [9, 16]
    finder = CutFinder()
    looks_new = [finder.add(frame) for frame in [*shot(4, 1), *shot(4, 2)]]
    assert np.flatnonzero(looks_new).tolist() == [4]


def test_movement_pans_and_flashes_are_no_cuts():
    assert cuts_of(shot(12, 1, step=5.0)) == []
    wide = background(96, 400, seed=4)
    assert cuts_of([wide[:, 8 * i : 8 * i + 128] for i in range(20)]) == []
    flash = shot(12, 1)
    flash[6] = np.full_like(flash[6], 250)
    assert cuts_of(flash) == []
    assert cuts_of(shot(1, 1)) == []


def test_a_jump_of_the_face_is_a_cut():
    frames = shot(10, 1)
    boxes = np.array([[20.0 + i, 30, 50 + i, 60] for i in range(10)])
    assert cuts_of(frames, boxes) == []
    jumped = boxes.copy()
    jumped[6:, [0, 2]] += 40
    assert cuts_of(frames, jumped) == [6]
    zoomed = boxes.copy()
    zoomed[6:, 2:] += 30
    assert cuts_of(frames, zoomed) == [6]
    boxes[4] = np.nan
    assert cuts_of(frames, boxes) == []


def test_a_picture_that_grows_dark_is_no_cut():
    frames = [
        np.rint(frame * (1 - 0.03 * i)).astype(np.uint8) for i, frame in enumerate(shot(12, 1))
    ]
    assert cuts_of(frames) == []
