"""Boxes of detectors and of landmarks, one from the other."""

import numpy as np

from talking_heads_jax.tracking.face_extents import detector_boxes, landmark_extents
from talking_heads_jax.tracking.observation import landmark_boxes
from talking_heads_jax.tracking.track import empty_track
from tests.tracking.scenes import face_points


def test_detected_boxes_become_smaller_ones_and_back():
    boxes = np.array([[10, 20, 110, 120], [np.nan] * 4], np.float32)
    face = np.array([True, False])
    track = empty_track(2, fps=25, frame_size=(200, 200), box_px=boxes, face=face)
    extents = landmark_extents(track)
    np.testing.assert_allclose(extents[0], [20, 42, 100, 124])
    assert np.isnan(extents[1]).all()
    np.testing.assert_allclose(detector_boxes(track)[0], boxes[0])


def test_landmarks_are_believed_where_there_are_some():
    points = np.stack([face_points((100, 100), 40), np.full((68, 2), np.nan)]).astype(np.float32)
    around = landmark_boxes(points)
    boxes = np.where(np.isfinite(around), around, [10, 20, 110, 120]).astype(np.float32)
    track = empty_track(
        2,
        fps=25,
        frame_size=(200, 200),
        landmarks68_px=points,
        box_px=boxes,
        face=np.ones(2, bool),
    )
    extents, detected = landmark_extents(track), detector_boxes(track)
    np.testing.assert_allclose(extents, [around[0], [20, 42, 100, 124]], atol=1e-3)
    # The box a detector would draw begins above the brows.
    assert detected[0, 1] < extents[0, 1] and detected[0, 0] < extents[0, 0]
    again = detected[0, :2] + (detected[0, 2:] - detected[0, :2]) * [0.1, 0.22]
    np.testing.assert_allclose(again, extents[0, :2], atol=1e-4)
