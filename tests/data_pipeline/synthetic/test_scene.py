"""The scene's light, backgrounds and shading against closed forms."""

import numpy as np
import pytest

from data_pipeline.synthetic.backgrounds import PAINTERS, draw_background
from data_pipeline.synthetic.scene import (
    FRAME_HEIGHT,
    PIVOT,
    PIXELS_PER_CM,
    draw_light,
    harmonic_basis,
    lamp_harmonics,
    scene_camera,
)
from data_pipeline.synthetic.shading import pack_texture, sample_texture, shade
from talking_heads_jax.geometry.cameras import camera_points, pixels_from_camera_points


def directions(count=4000):
    """Evenly spread over the sphere (a spiral), so that means are integrals over 4 pi."""
    z = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], -1).astype(np.float32)


def test_harmonic_basis_is_orthonormal():
    basis = np.asarray(harmonic_basis(directions()))
    np.testing.assert_allclose(4 * np.pi * basis.T @ basis / len(basis), np.eye(9), atol=2e-3)


def test_lamp_harmonics_are_lamberts_law():
    lamp = np.array([0.48, 0.6, 0.64])
    normals = directions()
    seen = np.asarray(harmonic_basis(normals)) @ lamp_harmonics(lamp)
    # Cut off after the second order, 1/4 + c/2 + 5/32 (3c² − 1) is 3/32 too high at the terminator.
    cosine = normals @ lamp
    np.testing.assert_allclose(seen, np.maximum(cosine, 0), atol=3 / 32 + 1e-3)
    np.testing.assert_allclose(seen, 0.25 + 0.5 * cosine + 5 / 32 * (3 * cosine**2 - 1), atol=1e-5)


def test_draw_light_keeps_faces_lit_and_unclipped():
    for number in range(30):
        light = draw_light(np.random.default_rng(number))
        irradiance = np.asarray(harmonic_basis(directions(500))) @ light.harmonics
        front = irradiance[directions(500)[:, 2] > 0.5]
        assert front.min() > 0.25 and front.max() < 1.5
        assert np.linalg.norm(light.direction) == pytest.approx(1, abs=1e-6)


def test_scene_camera_frames_the_pivot():
    camera = scene_camera()
    pivot = np.array(PIVOT, np.float32)
    offsets = np.array([[0, 0, 0], [0, FRAME_HEIGHT / 2, 0], [1, 0, 0]])
    points = (pivot + offsets)[None]
    seen = camera_points(camera, points.astype(np.float32))
    pixels = np.asarray(pixels_from_camera_points(camera.intrinsics, seen, size=100))[0]
    np.testing.assert_allclose(pixels[0], [50, 50], atol=1e-4)
    np.testing.assert_allclose(pixels[1], [50, 0], atol=1e-4)  # the frame's upper edge
    assert pixels[2, 0] - 50 == pytest.approx(100 * PIXELS_PER_CM, rel=1e-5)


@pytest.mark.parametrize("family", PAINTERS)
def test_backgrounds_are_the_same_at_every_size_and_textured(family):
    large = draw_background(np.random.default_rng(3), 128, family=family)
    small = draw_background(np.random.default_rng(3), 64, family=family)
    assert large.dtype == np.float32 and large.min() >= 0 and large.max() <= 1
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    # Sharp edges are sampled twice as densely in the larger one.
    assert np.abs(halved - small).mean() < 0.012
    assert large.std((0, 1)).max() > 0.03
    other = draw_background(np.random.default_rng(4), 64, family=family)
    assert np.abs(other - small).mean() > 0.03


def test_draw_background_draws_every_family():
    pictures = [draw_background(np.random.default_rng([1, n]), 32) for n in range(40)]
    for family in PAINTERS:
        drawn = [
            draw_background(np.random.default_rng([1, n]), 32, family=family) for n in range(40)
        ]
        assert any(np.array_equal(a, b) for a, b in zip(pictures, drawn, strict=True)), family


def test_sample_texture_is_bilinear_and_clamped():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (5, 5, 4), np.uint8)
    u, v = rng.uniform(-0.2, 1.2, (2, 50)).astype(np.float32)
    found = np.stack(sample_texture(np.asarray(pack_texture(texture)), u, v), -1)
    x, y = np.clip(u * 5 - 0.5, 0, 4), np.clip(v * 5 - 0.5, 0, 4)
    c, r = np.minimum(x.astype(int), 3), np.minimum(y.astype(int), 3)
    s, t = (x - c)[:, None], (y - r)[:, None]
    expected = (1 - t) * ((1 - s) * texture[r, c] + s * texture[r, c + 1])
    expected = expected + t * ((1 - s) * texture[r + 1, c] + s * texture[r + 1, c + 1])
    np.testing.assert_allclose(found, expected / 255, atol=1e-5)


def test_shade_adds_a_highlight_where_the_surface_mirrors_the_lamp():
    light = draw_light(np.random.default_rng(0))
    half = light.direction + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    normals = np.stack([half, light.direction * [-1, -1, 1]]).astype(np.float32)
    options = {
        "harmonics": light.harmonics,
        "direction": light.direction,
        "highlight": light.highlight,
    }
    grey = [np.full(2, 0.3, np.float32)] * 3

    def shaded(strength, cornea):
        albedo = [*grey, np.full(2, strength, np.float32)]
        return np.stack(shade(albedo, list(normals.T), np.full(2, cornea, np.float32), **options))

    matt, skin, cornea = shaded(0.0, 0.0), shaded(1.0, 0.0), shaded(1.0, 1.0)
    expected = np.clip(0.3 * np.asarray(harmonic_basis(normals)) @ light.harmonics, 0, 1).T
    np.testing.assert_allclose(matt, expected, atol=1e-5)
    np.testing.assert_allclose((skin - matt)[:, 0], 0.3 * light.highlight, atol=1e-4)
    assert (cornea[:, 0] > skin[:, 0]).all()
    np.testing.assert_allclose(cornea[:, 1], matt[:, 1], atol=1e-4)  # small: gone off the axis
