"""Every channel of the truth against the others: two ways to the same number."""

import numpy as np
import pytest

from data_pipeline.synthetic.scene import EG3D_SCALE, PIVOT, scene_camera
from data_pipeline.synthetic.truth import camera_points_from_px, shown_in
from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.cameras import (
    EG3D_RADIUS,
    camera_from_camera25,
    camera_points,
    pixels_from_camera_points,
)
from talking_heads_jax.morphable.parts import PARTS

PERSON = 4
ALL = ["depth", "normals", "position_map", "flow"]


@pytest.fixture(scope="module")
def turned(heads, make_state):
    """A frame with everything, and another one of the same person."""
    states = (make_state((15, 5, 3), jaw=0.6), make_state((-10, -5, 0), smile_L=1.0, smile_R=1.0))
    return [heads.render(PERSON, state, fields=ALL) for state in states]


def surface_points(frame, faces):
    """(h w 3) camera-space points of the pixel centres, from triangle, place and vertices."""
    points = camera_points_from_px(frame.vertices_px, len(frame.mask))
    return np.einsum(
        "hwk,hwkc->hwc", frame.barycentric, points[faces[np.maximum(frame.face_id, 0)]]
    )


def test_triangles_and_places_lead_back_to_the_pixel_and_its_depth(heads, turned):
    frame, size = turned[0], heads.size
    points = surface_points(frame, heads.model.faces)
    seen = frame.face_id >= 0
    camera = scene_camera()
    pixels = pixels_from_camera_points(
        camera.intrinsics, points[seen][None].astype(np.float32), size=size
    )
    rows, columns = np.nonzero(seen)
    centers = np.stack([columns, rows], -1) + 0.5
    np.testing.assert_allclose(np.asarray(pixels)[0], centers, atol=5e-3)
    np.testing.assert_allclose(frame.depth[seen], points[seen, 2], atol=5e-3)
    assert (frame.depth[~seen] == 0).all() and (frame.normals[~seen] == 0).all()
    np.testing.assert_allclose(frame.barycentric[seen].sum(-1), 1, atol=1e-4)


def test_mask_is_the_part_of_the_triangle(heads, turned):
    frame = turned[0]
    part = np.where(frame.face_id >= 0, heads.model.face_part[np.maximum(frame.face_id, 0)], 0)
    # Of nine samples most agree with the middle one, except where parts are thinner than a pixel.
    assert (part == frame.mask).mean() > 0.93
    assert {"face_skin", "eyeball", "lips", "neck", "clothes"} <= {
        PARTS[i] for i in np.unique(part)
    }


def test_normals_are_unit_vectors_that_fit_the_depth(heads, turned):
    frame = turned[0]
    skin = frame.mask == PARTS.index("face_skin")
    inner = skin[1:-1, 1:-1] & skin[:-2, 1:-1] & skin[2:, 1:-1] & skin[1:-1, :-2] & skin[1:-1, 2:]
    points = surface_points(frame, heads.model.faces) * [1, -1, -1]  # camera to world axes
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    flat = np.cross(down, across)
    flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-6)
    normals = frame.normals[1:-1, 1:-1]
    np.testing.assert_allclose(np.linalg.norm(normals[inner], axis=-1), 1, atol=1e-5)
    assert np.median(np.sum(flat * normals, -1)[inner]) > 0.97


def test_position_map_is_the_place_on_the_average_head(heads, turned):
    template = np.asarray(heads.model.vertices(heads.model.neutral(1)))[0]
    first, second = turned
    corners = template[heads.model.faces[np.maximum(first.face_id, 0)]]
    expected = np.einsum("hwk,hwkc->hwc", first.barycentric, corners)
    seen = first.face_id >= 0
    np.testing.assert_allclose(first.position_map[seen], expected[seen], atol=1e-3)
    assert (second.position_map[second.face_id < 0] == 0).all()


def test_coefficients_make_the_vertices(heads, make_state):
    for rigid_bust in (False, True):
        frame = heads.render(PERSON, make_state((15, -5, 8), rigid_bust=rigid_bust, jaw=0.5))
        coefficients = FaceCoefficients(*(np.asarray(part)[None] for part in frame.coefficients))
        vertices = heads.model.vertices(coefficients) * heads.model.centimetres_per_unit
        camera = scene_camera()
        points = np.asarray(camera_points(camera, vertices))[0]
        found = camera_points_from_px(frame.vertices_px, heads.size)
        np.testing.assert_allclose(found, points, atol=2e-3)
        landmarks = heads.model.landmarks68(frame.vertices_px[None])[0, :, :2]
        # A landmark inside a triangle is projected after it was placed: a hair beside this.
        np.testing.assert_allclose(frame.landmarks68_px, landmarks, atol=0.02)


def with_camera(frame, still, size):
    """Pixels of a head at rest (its own frame `still`) under another frame's camera25."""
    camera = camera_from_camera25(frame.camera25[None])
    world = camera_points_from_px(still.vertices_px, size) * [1, -1, -1]
    world[:, 2] += scene_camera().cam2world[0, 2, 3]
    world[:, :2] += np.array(PIVOT)[:2]
    points = EG3D_SCALE * (world - PIVOT)
    seen = camera_points(camera, points[None].astype(np.float32))
    return np.asarray(pixels_from_camera_points(camera.intrinsics, seen, size=size))[0]


def test_rigid_bust_is_exactly_a_camera(heads, make_state):
    options = {"rigid_bust": True, "smile_L": 1.0, "jaw": 0.3}
    still = heads.render(PERSON, make_state(**options))
    moved = heads.render(PERSON, make_state((35, -12, 10), **options))
    pixels = with_camera(moved, still, heads.size)
    np.testing.assert_allclose(pixels, moved.vertices_px[:, :2], atol=5e-3)
    position = moved.camera25[:16].reshape(4, 4)[:3, 3]
    assert np.linalg.norm(position) == pytest.approx(EG3D_RADIUS, rel=1e-5)


def test_default_motion_has_the_camera_of_the_head(heads, make_state):
    still, moved = (heads.render(PERSON, make_state(angles)) for angles in [(0, 0, 0), (18, 8, -4)])
    pixels = with_camera(moved, still, heads.size)
    off = np.linalg.norm(pixels - moved.vertices_px[:, :2], axis=-1)
    part = heads.model.face_part
    face = np.unique(heads.model.faces[part == PARTS.index("eyelids")])
    shirt = np.unique(heads.model.faces[part == PARTS.index("clothes")])
    assert off[face].max() < 0.02  # px
    assert np.median(off[shirt]) > 1


def test_hidden_landmarks_are_marked(heads, make_state):
    frontal = heads.render(3, make_state()).landmarks68_visible
    assert frontal[17:].mean() > 0.9  # all but the jaw line, which hair may hide
    left, right = (
        heads.render(3, make_state((yaw, 0, 0))).landmarks68_visible for yaw in (-75, 75)
    )
    # Points 36 to 41 are the subject's right eye. A face turned to the picture's right shows it.
    assert right[36:42].mean() > 0.9 and right[42:48].mean() < 0.5
    assert left[42:48].mean() > 0.9 and left[36:42].mean() < 0.5


def test_flow_lands_on_the_same_point_of_the_head(heads, turned):
    source, target = turned
    flow = heads.flow_px(source, target)
    shown = shown_in(
        source.face_id,
        source.barycentric,
        target.vertices_px,
        heads.model.faces,
        target_depth=target.depth,
    )
    # Hair and glasses have no place on the average head, which wears neither.
    skin = PARTS.index("face_skin")
    part = heads.model.face_part
    head = shown & (source.face_id >= 0) & (part[source.face_id] == skin)
    assert head.sum() > 150
    rows, columns = np.nonzero(head)
    place = np.stack([columns, rows], -1) + 0.5 + flow[head]
    column, row = np.floor(place).astype(int).T
    met = part[target.face_id[row, column]] == skin
    found = target.position_map[row, column]
    difference = np.linalg.norm(found - source.position_map[head], axis=-1)[met]
    assert met.mean() > 0.9
    # The nearest pixel of the target is at most 0.7 px away: 0.5 cm at this size, more on a slope.
    assert np.median(difference) < 0.4 and np.percentile(difference, 95) < 1.5
    assert np.abs(flow[head]).mean() > 2  # px: it did move


def test_flow_of_a_frame_to_itself_is_zero(heads, turned):
    np.testing.assert_allclose(heads.flow_px(turned[0], turned[0]), 0, atol=5e-3)


def test_shown_in_tells_what_the_other_frame_hides(heads, make_state):
    left, right = (heads.render(3, make_state((yaw, 0, 0)), fields=ALL) for yaw in (-45, 45))
    arguments = (left.face_id, left.barycentric, right.vertices_px, heads.model.faces)
    shown = shown_in(*arguments, target_depth=right.depth)
    face = left.mask == PARTS.index("face_skin")
    side = left.position_map[..., 0]  # of the subject: > 0 is the left
    # Turned to the picture's left, the face shows its left side; the other frame hides that.
    assert shown[face & (side > 5.5)].mean() < 0.3
    assert shown[face & (np.abs(side) < 2)].mean() > 0.7
    with pytest.raises(ArgumentError, match="shape of face_id"):
        shown_in(*arguments, target_depth=right.depth[:4])
