"""Trivial answers."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.evaluation import trivial


def _images(count, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, 20, 24, 3)).astype(np.float32)


def test_copies_have_one_image_per_driving_frame():
    source, driving = _images(1), _images(3, 1)
    copies = np.asarray(trivial.copy_source(source, driving))
    assert copies.shape == driving.shape
    np.testing.assert_array_equal(copies[2], source[0])
    np.testing.assert_array_equal(trivial.copy_driving(source, driving), driving)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_blur_source_equals_scipy(sigma):
    source = _images(1)
    expected = gaussian_filter(
        source[0].astype(np.float64), (sigma, sigma, 0), mode="nearest", truncate=4.0
    )
    blurred = np.asarray(trivial.blur_source(source, _images(2), sigma_px=sigma))
    assert blurred.shape == (2, 20, 24, 3)
    np.testing.assert_allclose(blurred[1], expected, atol=2e-6)  # 25 float32 additions per axis


def test_blur_source_keeps_constants_and_refuses_zero():
    flat = np.full((1, 16, 16, 3), 0.3, np.float32)
    np.testing.assert_allclose(trivial.blur_source(flat, flat, sigma_px=2.0), flat, rtol=1e-6)
    with pytest.raises(ArgumentError, match="sigma_px"):
        trivial.blur_source(flat, flat, sigma_px=0.0)
