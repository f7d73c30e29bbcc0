"""What an overlay draws: the mesh where its nearest triangles are, and nothing elsewhere."""

import numpy as np

from talking_heads_jax.tracking.overlay import draw_track, enlargement
from talking_heads_jax.tracking.track import empty_track

SIDE = 64


def drawn(vertices, faces):
    frame = np.full((SIDE, SIDE, 3), 100, np.uint8)
    track = empty_track(1, fps=25, frame_size=(SIDE, SIDE))
    vertices_px = None if vertices is None else np.asarray(vertices, np.float32)
    return draw_track(frame, track, 0, vertices_px=vertices_px, faces=np.asarray(faces))


def test_small_frames_are_enlarged_by_a_whole_number():
    assert enlargement((64, 64)) == 8 and enlargement((720, 1280)) == 1
    assert drawn(None, [[0, 1, 2]]).shape == (512, 512, 3)
    assert (drawn([[np.nan] * 3] * 3, [[0, 1, 2]]) == 100).all()


def test_mesh_is_drawn_where_it_is_and_the_nearest_shows():
    square = [[16, 16, 0], [48, 16, 0], [48, 48, 0], [16, 48, 0]]
    # A slanted wall behind the left half would be darker; before it, it shows.
    wall = [[16, 16, 5], [32, 16, 45], [16, 48, 5]]
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    behind = drawn([*square, *wall], faces)
    assert (behind[:120] == 100).all() and (behind[:, 400:] == 100).all()
    inside = behind[136:376, 136:376].reshape(-1, 3)
    assert (inside == inside[0]).all() and (inside[0] != 100).all()
    before = drawn([*square, *(np.array(wall) - [0, 0, 60])], faces)
    assert (before[200, 140] != behind[200, 140]).any()
    assert (before[200, 370] == behind[200, 370]).all()
