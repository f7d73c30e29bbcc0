"""The cameras of `prepare --track`: what they show lies where the fitted head is in each crop."""

import numpy as np
import pytest

from data_pipeline.preprocess.tracked_fields import crop_cameras
from talking_heads_jax.geometry.cameras import (
    camera_from_camera25,
    camera_points,
    head_rotation_from_angles,
    pixels_from_camera_points,
)
from talking_heads_jax.geometry.eg3d_cameras import EG3D_FOCAL, eg3d_offset, eg3d_points
from talking_heads_jax.morphable.registry import load_morphable
from talking_heads_jax.tracking.alignment import alignment_from_box
from talking_heads_jax.tracking.fit_result import fit_landmarks_px
from talking_heads_jax.tracking.track import ClipTrack, empty_track
from talking_heads_jax.tracking.tracker import fit_of

SIZE = 256
ANGLES = np.deg2rad([[0, 0, 0], [35, -10, 5], [-25, 15, -20]]).astype(np.float32)
SCALE_PX = np.array([12.0, 10.0, 15.0], np.float32)
# One crop per frame, of other sizes, none about the head's middle.
BOXES = ((200.0, 80.0, 520.0, 400.0), (150.0, 60.0, 410.0, 320.0), (180.0, 40.0, 580.0, 440.0))


def _track(model, focal_px: float) -> ClipTrack:
    """A head at rest, turned; focal length 0 for weak perspective."""
    count = len(ANGLES)
    return empty_track(
        count,
        fps=25,
        frame_size=(480, 720),
        morphable=model.name,
        shape_coeffs=np.zeros(model.num_shape, np.float32),
        expression_coeffs=np.zeros((count, model.num_expression), np.float32),
        joint_pose=np.zeros((count, 3 * len(model.joint_names)), np.float32),
        angles=ANGLES,
        scale_px=SCALE_PX,
        offset_px=np.array([[330, 230], [300, 170], [390, 250]], np.float32),
        camera="perspective" if focal_px else "weak_perspective",
        focal_px=focal_px,
        depth_cm=focal_px / SCALE_PX if focal_px else np.full(count, np.nan, np.float32),
    )


@pytest.mark.parametrize("focal_px", [0.0, 700.0, 2500.0])
def test_cameras_show_the_head_where_its_landmarks_lie_in_the_crop(focal_px: float) -> None:
    model = load_morphable("procedural")
    neutral = model.neutral()
    head = np.asarray(model.landmarks68(model.vertices(neutral), neutral))[0]
    head = head * model.centimetres_per_unit
    track = _track(model, focal_px)
    crops = [alignment_from_box("box", 1, box, SIZE) for box in BOXES]

    camera = camera_from_camera25(crop_cameras(model, track, crops))
    # The middle of the landmarks goes along as one more point: there both pictures are the same.
    middle = head.mean(0, keepdims=True)
    points = np.tile(np.concatenate([head, middle]), (len(crops), 1, 1))
    world = eg3d_points(points, offset=eg3d_offset(head))
    seen = np.asarray(
        pixels_from_camera_points(camera.intrinsics, camera_points(camera, world), size=SIZE)
    )

    turns = np.asarray(head_rotation_from_angles(ANGLES))
    turned = np.einsum("tij,tnj->tni", turns, points)
    flat = track.offset_px[:, None] + SCALE_PX[:, None, None] * turned[..., :2] * (1, -1)
    principal = np.asarray(track.principal_px)
    near = 1 - turned[..., 2:] / track.depth_cm[:, None, None] if focal_px else 1.0
    original = principal + (flat - principal) / near
    landmarks = fit_landmarks_px(model, fit_of(track))
    np.testing.assert_allclose(original[:, :-1], landmarks, atol=2e-3)

    for index, crop in enumerate(crops):
        expected, zoom = crop.to_crop(original[index]), crop.matrix[0, 0]
        np.testing.assert_allclose(seen[index, -1], expected[-1], atol=0.02)
        # Elsewhere either camera draws a point dz nearer by dz / (depth - dz) farther from its own
        # axis; no two cameras differ by more than both do from no perspective at all.
        before = turned[index, :-1, 2] - turned[index, -1, 2]
        at_middle = SCALE_PX[index] * zoom
        bound = np.zeros(len(head))
        if focal_px:
            depth = track.depth_cm[index] - turned[index, -1, 2]
            at_middle = zoom * focal_px / depth
            off_axis = np.linalg.norm(expected[:-1] - crop.to_crop(principal), axis=-1)
            bound += off_axis * np.abs(before) / depth
        depth = EG3D_FOCAL * SIZE / at_middle
        off_axis = np.linalg.norm(seen[index, :-1] - SIZE / 2, axis=-1)
        bound += off_axis * np.abs(before) / depth
        error = np.linalg.norm(seen[index, :-1] - expected[:-1], axis=-1)
        assert (error <= bound + 0.02).all()


def test_cameras_of_the_same_lens_are_exact() -> None:
    """A crop about the picture's middle, and EG3D's focal length: not one pixel need differ."""
    model = load_morphable("procedural")
    side = 320.0
    track = _track(model, EG3D_FOCAL * side)
    crop = alignment_from_box("box", 1, (200.0, 80.0, 200.0 + side, 80.0 + side), SIZE)
    neutral = model.neutral()
    head = np.asarray(model.landmarks68(model.vertices(neutral), neutral))
    head = head * model.centimetres_per_unit
    camera = camera_from_camera25(crop_cameras(model, track, [crop] * len(track)))
    world = eg3d_points(np.tile(head, (len(track), 1, 1)), offset=eg3d_offset(head[0]))
    seen = pixels_from_camera_points(camera.intrinsics, camera_points(camera, world), size=SIZE)
    expected = crop.to_crop(fit_landmarks_px(model, fit_of(track)))
    np.testing.assert_allclose(np.asarray(seen), expected, atol=0.02)
