"""Pyramid and gradient differences against numpy, their weights, and what blur does to them."""

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.losses.pyramid import gradient_error, pyramid_absolute_error
from talking_heads_jax.ops.resize import antialias_downsample

DRAW = np.random.default_rng(0)
A, B = (jnp.asarray(DRAW.random((2, 8, 8, 3)), jnp.float32) for _ in range(2))
WEIGHTS = jnp.asarray(DRAW.random((2, 8, 8, 1)), jnp.float32)


def test_pyramid_is_the_mean_over_scales_of_weighted_means():
    expected = 0
    for scale in (1.0, 0.5):
        error = np.abs(antialias_downsample(A, scale) - antialias_downsample(B, scale)).mean(-1)
        weights = np.asarray(WEIGHTS)[..., 0]
        if scale == 0.5:
            weights = weights.reshape(2, 4, 2, 4, 2).mean((2, 4))
        expected += (error * weights).sum((1, 2)) / weights.sum((1, 2)) / 2
    ours = pyramid_absolute_error(A, B, scales=(1.0, 0.5), weights=WEIGHTS)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    even = pyramid_absolute_error(A, B, scales=(1.0,))
    np.testing.assert_allclose(even, np.abs(A - B).mean((1, 2, 3)), rtol=1e-5)
    same = pyramid_absolute_error(A, B, scales=(1.0, 0.5), weights=jnp.full_like(WEIGHTS, 7.0))
    np.testing.assert_allclose(same, pyramid_absolute_error(A, B, scales=(1.0, 0.5)), rtol=1e-5)


def test_gradient_error_equals_numpy_and_ignores_brightness():
    difference = np.asarray(A - B)
    across, down = np.diff(difference, axis=2), np.diff(difference, axis=1)
    expected = (np.abs(across).mean((1, 2, 3)) + np.abs(down).mean((1, 2, 3))) / 2
    np.testing.assert_allclose(gradient_error(A, B), expected, rtol=1e-5)
    np.testing.assert_allclose(gradient_error(A + 0.3, B), expected, rtol=1e-4)


def test_gradient_error_looks_only_where_there_is_weight():
    changed = B.at[:, :3].add(1.0)
    below = jnp.zeros((2, 8, 8, 1)).at[:, 4:].set(1.0)
    np.testing.assert_allclose(
        gradient_error(A, changed, weights=below),
        gradient_error(A, B, weights=below),
        rtol=1e-5,
    )
    assert float(jnp.abs(gradient_error(A, changed) - gradient_error(A, B)).min()) > 1e-3
