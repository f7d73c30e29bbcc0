"""Another shape in stored meshes: the camera is found from the vertices."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.inference.mesh_motion import track_vertices
from talking_heads_jax.inference.shape_transfer import transfer_shape
from talking_heads_jax.tracking.track import PERSPECTIVE

from .toy_meshes import coefficients_of, fitted_track

FRAMES = 2


@pytest.mark.parametrize("camera", ["weak_perspective", PERSPECTIVE])
def test_shapes_are_exchanged_under_the_camera_of_the_vertices(procedural, camera):
    fields = {}
    if camera == PERSPECTIVE:
        depth = np.linspace(50, 70, FRAMES, dtype=np.float32)
        fields = {"camera": camera, "focal_px": 80.0, "depth_cm": depth}
    track = fitted_track(procedural, FRAMES, size=(64, 64), scale_px=1.8, **fields)
    other = np.random.default_rng(5).normal(size=procedural.num_shape).astype(np.float32)
    expected = track_vertices(track, procedural, shape_coeffs=other)
    stored = track_vertices(track, procedural).astype(np.float16)  # as on disk, and coarser
    own = coefficients_of(track.shape_coeffs, track)
    got = transfer_shape(stored, own, procedural, other)
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert np.abs(expected - stored).max() > 1


def test_vertices_of_other_coefficients_are_refused(procedural):
    track = fitted_track(procedural, FRAMES, size=(64, 64), scale_px=1.8)
    vertices = track_vertices(track, procedural)
    own = coefficients_of(track.shape_coeffs, track)
    wrong = own._replace(expression_coeffs=own.expression_coeffs[::-1])
    with pytest.raises(ArgumentError, match=r"those of the coefficients .* 0\.\d\d %"):
        transfer_shape(vertices, wrong, procedural, track.shape_coeffs)
    with pytest.raises(ArgumentError, match="vertices must be finite"):
        transfer_shape(vertices * np.nan, own, procedural, track.shape_coeffs)
    with pytest.raises(ArgumentError, match="records of one face model"):
        transfer_shape(vertices[:, :9], own, procedural, track.shape_coeffs)
