"""Properties of the grids, the pixel conversions and the Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops import coordinates


def test_corner_grid_holds_x_then_y():
    grid = coordinates.corner_grid(3, 5)
    assert grid.shape == (3, 5, 2)
    np.testing.assert_allclose(grid[0, :, 0], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(grid[:, 0, 1], [-1, 0, 1])
    np.testing.assert_array_equal(grid[-1, -1], [1, 1])


def test_corner_grid_of_one_pixel_is_the_middle():
    np.testing.assert_array_equal(coordinates.corner_grid(1, 1), [[[0, 0]]])


def test_corner_grid_3d_holds_x_y_z():
    grid = coordinates.corner_grid_3d(2, 3, 5)
    assert grid.shape == (2, 3, 5, 3)
    np.testing.assert_allclose(grid[1, 2], np.insert(coordinates.corner_grid(3, 5)[2], 2, 1, -1))
    np.testing.assert_array_equal(grid[0, 0, 0], [-1, -1, -1])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(7, 4), (3, 7, 4)])
def test_px_to_ndc_inverts_ndc_to_px(align_corners, size):
    points = jnp.asarray(np.random.default_rng(0).uniform(-1.5, 1.5, (6, len(size))), jnp.float32)
    pixels = coordinates.ndc_to_px(points, size, align_corners=align_corners)
    back = coordinates.px_to_ndc(pixels, size, align_corners=align_corners)
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_ndc_to_px_puts_corners_where_the_rule_says():
    corners = jnp.array([[-1.0, -1.0], [1.0, 1.0]])
    centres = coordinates.ndc_to_px(corners, (4, 6), align_corners=True)
    edges = coordinates.ndc_to_px(corners, (4, 6), align_corners=False)
    np.testing.assert_allclose(centres, [[0.5, 0.5], [5.5, 3.5]])
    np.testing.assert_allclose(edges, [[0, 0], [6, 4]])


def test_corner_grid_is_all_pixel_centres():
    pixels = coordinates.ndc_to_px(coordinates.corner_grid(4, 6), (4, 6), align_corners=True)
    np.testing.assert_allclose(
        pixels[..., 0], np.broadcast_to(np.arange(6) + 0.5, (4, 6)), atol=1e-6
    )
    np.testing.assert_allclose(pixels[:, 0, 1], np.arange(4) + 0.5, atol=1e-6)


def test_px_to_ndc_of_one_pixel_is_zero():
    converted = coordinates.px_to_ndc(jnp.array([[0.5, 0.5]]), (1, 1), align_corners=True)
    np.testing.assert_array_equal(converted, [[0, 0]])


def test_ndc_to_px_names_the_mismatch():
    with pytest.raises(ArgumentError, match="one entry per coordinate"):
        coordinates.ndc_to_px(jnp.zeros((1, 2)), (4, 4, 4), align_corners=True)


def test_keypoint_gaussians_equals_the_formula():
    points = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 3, 2)), jnp.float32)
    heat = jax.jit(
        coordinates.keypoint_gaussians, static_argnums=(1, 2), static_argnames="variance"
    )(points, 6, 5, variance=0.05)
    grid = np.asarray(coordinates.corner_grid(6, 5))[None, :, :, None]
    squared = np.square(grid - np.asarray(points)[:, None, None]).sum(-1)
    # One rounding more than the direct form: the exponential is split in two factors.
    np.testing.assert_allclose(heat, np.exp(-squared / 0.1), rtol=1e-4, atol=1e-7)


def test_keypoint_gaussians_peaks_with_one_at_the_point():
    heat = jax.jit(
        coordinates.keypoint_gaussians, static_argnums=(1, 2), static_argnames="variance"
    )(jnp.array([[[0.5, -1.0]]]), 3, 5, variance=0.01)
    assert np.unravel_index(np.argmax(heat), heat.shape) == (0, 0, 3, 0)
    np.testing.assert_allclose(heat.max(), 1, rtol=1e-6)


def test_splat_gaussians_3d_equals_the_sum_over_points():
    rng = np.random.default_rng(2)
    points = rng.uniform(-1, 1, (2, 7, 3)).astype(np.float32)
    weights = rng.uniform(0, 2, (2, 7)).astype(np.float32)
    volume = coordinates.splat_gaussians_3d(
        jnp.asarray(points), jnp.asarray(weights), (3, 4, 5), variance=0.2
    )
    grid = np.asarray(coordinates.corner_grid_3d(3, 4, 5), np.float64)
    expected = np.zeros((2, 3, 4, 5))
    for b in range(2):
        for n in range(7):
            squared = np.square(grid - points[b, n]).sum(-1)
            expected[b] += weights[b, n] * np.exp(-squared / 0.4)
    # Sums of seven float32 numbers of size one.
    np.testing.assert_allclose(volume, expected, rtol=1e-4, atol=1e-6)
