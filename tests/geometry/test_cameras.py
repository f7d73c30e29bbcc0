"""Cameras: where the nose lands, and that every form of a camera draws the same picture."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.cameras import (
    EG3D_RADIUS,
    angles_from_head_rotation,
    camera25_from_camera,
    camera_from_camera25,
    camera_points,
    camera_relative_to,
    clip_from_camera_points,
    depth_from_clip,
    frontal_camera,
    head_rotation_from_angles,
    opengl_from_opencv,
    pixels_from_camera_points,
)

SIZE = 100
CAMERA = frontal_camera(110.0, 3.4)
POINTS = np.random.default_rng(0).uniform(-12, 12, (1, 40, 3)).astype(np.float32)


def pixels(camera, points):
    seen = camera_points(camera, points)
    return np.asarray(pixels_from_camera_points(camera.intrinsics, seen, size=SIZE))


@pytest.mark.parametrize(
    ("angles", "point", "axis", "sign"),
    [
        ((0.3, 0, 0), (0, 0, 10), 0, 1),  # yaw > 0: the nose goes to the right edge
        ((0, 0.3, 0), (0, 0, 10), 1, -1),  # pitch > 0: the nose rises
        ((0, 0, 0.3), (0, 10, 0), 0, 1),  # roll > 0: clockwise, the crown goes to the right
    ],
)
def test_head_rotation_moves_the_nose_as_the_angles_say(angles, point, axis, sign):
    rotation = np.asarray(head_rotation_from_angles(np.array(angles, np.float32)))
    still, moved = (
        pixels(CAMERA, np.array(p, np.float32).reshape(1, 1, 3)) for p in (point, rotation @ point)
    )
    assert sign * (moved - still)[0, 0, axis] > 5
    np.testing.assert_allclose(angles_from_head_rotation(rotation), angles, atol=1e-6)


def test_frontal_camera_is_eg3ds():
    """Rotation diag(1, -1, -1), position (0, 0, 2.7); +x of the world is at the picture's right."""
    camera25 = np.asarray(camera25_from_camera(frontal_camera(EG3D_RADIUS, 4.2647)))[0]
    np.testing.assert_array_equal(
        camera25[:16].reshape(4, 4),
        np.float32([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]]),
    )
    np.testing.assert_allclose(camera25[16:], [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1])
    seen = pixels(CAMERA, np.float32([[[5, 0, 0], [0, 5, 0], [0, 0, 0]]]))[0]
    assert seen[0, 0] > 60 and seen[1, 1] < 40  # right of, and above, the middle
    np.testing.assert_allclose(seen[2], [50, 50])


def test_camera_relative_to_draws_the_same_picture():
    angles = np.float32([[0.4, -0.2, 0.3]])
    rotation = head_rotation_from_angles(angles)
    translation = np.float32([[1.0, -2.0, 3.0]])
    moved = POINTS @ np.asarray(rotation[0]).T + translation
    scale = EG3D_RADIUS / 110.0
    camera = camera_relative_to(CAMERA, rotation, translation, scale=scale)
    np.testing.assert_allclose(pixels(camera, scale * POINTS), pixels(CAMERA, moved), atol=1e-3)
    again = camera_from_camera25(camera25_from_camera(camera))
    np.testing.assert_array_equal(again.cam2world, camera.cam2world)
    np.testing.assert_array_equal(again.intrinsics, camera.intrinsics)


def test_camera_relative_to_keeps_the_radius_of_a_turned_head():
    camera = camera_relative_to(
        CAMERA,
        head_rotation_from_angles(np.float32([[0.7, 0.3, -0.2]])),
        np.zeros((1, 3), np.float32),
        scale=EG3D_RADIUS / 110.0,
    )
    np.testing.assert_allclose(np.linalg.norm(camera.cam2world[0, :3, 3]), EG3D_RADIUS, rtol=1e-6)


def test_clip_positions_are_the_pixels_and_the_depth():
    seen = camera_points(CAMERA, POINTS)
    clip = np.asarray(clip_from_camera_points(CAMERA.intrinsics, seen, near=60.0, far=200.0))
    plane = clip[..., :2] / clip[..., 3:]
    np.testing.assert_allclose((plane + 1) * SIZE / 2, pixels(CAMERA, POINTS), atol=1e-3)
    depth = depth_from_clip(clip[..., 2] / clip[..., 3], near=60.0, far=200.0)
    np.testing.assert_allclose(depth, 110 - POINTS[..., 2], rtol=1e-5)
    ends = np.float32([[[0, 0, 60], [0, 0, 200]]])
    ends = np.asarray(clip_from_camera_points(CAMERA.intrinsics, ends, near=60.0, far=200.0))
    np.testing.assert_allclose(ends[0, :, 2] / ends[0, :, 3], [0, 1], atol=1e-6)


def test_opengl_camera_looks_backward_along_its_own_axis():
    opengl = np.asarray(opengl_from_opencv(CAMERA.cam2world))[0]
    np.testing.assert_array_equal(opengl[:3, :3], np.eye(3))  # world axes: y up, z to the viewer
    np.testing.assert_array_equal(opengl_from_opencv(opengl[None]), CAMERA.cam2world)


@pytest.mark.parametrize(("distance", "focal"), [(0.0, 3.0), (110.0, -1.0), (float("nan"), 3.0)])
def test_frontal_camera_refuses(distance, focal):
    with pytest.raises(ArgumentError, match="be positive"):
        frontal_camera(distance, focal)


def test_clip_from_camera_points_refuses_swapped_planes():
    with pytest.raises(ArgumentError, match="near < far"):
        clip_from_camera_points(CAMERA.intrinsics, POINTS, near=200.0, far=60.0)
