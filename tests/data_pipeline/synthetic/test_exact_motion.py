"""The exact state of a rendered head gives the meshes that the renderer drew."""

import numpy as np
import pytest

from data_pipeline.synthetic.exact_motion import exact_track
from talking_heads_jax.inference.mesh_motion import track_vertices
from talking_heads_jax.tracking.motion_file import load_motion, save_motion


@pytest.mark.parametrize("rigid_bust", [False, True])
def test_exact_track_gives_the_drawn_mesh(heads, make_state, rigid_bust, tmp_path):
    angles = (25, -10, 8)
    state = make_state(angles, rigid_bust=rigid_bust, jaw=0.8, smile_L=0.6, gaze_yaw=0.2)
    drawn = heads.render(20_001, state)
    track = exact_track(
        heads.model,
        size=heads.size,
        shape_coeffs=drawn.coefficients.shape_coeffs,
        expression_coeffs=drawn.coefficients.expression_coeffs,
        joint_pose=drawn.coefficients.pose,
        angles=drawn.angles,
        translation=drawn.coefficients.translation,
        landmarks68_px=drawn.landmarks68_px,
        landmarks68_visible=drawn.landmarks68_visible,
    )
    np.testing.assert_allclose(np.rad2deg(track.angles[0]), angles, atol=1e-4)
    save_motion(tmp_path / "head.npz", track)
    track = load_motion(tmp_path / "head.npz")
    mesh = track_vertices(track, heads.model)[0]
    np.testing.assert_allclose(mesh[:, :2], drawn.vertices_px[:, :2], atol=2e-3)
    # The same depth from another origin, in the scale of the head's own distance: 3 % at most.
    slope, offset = np.polyfit(drawn.vertices_px[:, 2], mesh[:, 2], 1)
    np.testing.assert_allclose(mesh[:, 2], offset + slope * drawn.vertices_px[:, 2], atol=2e-3)
    assert abs(slope - 1) < 0.03
