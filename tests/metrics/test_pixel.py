"""L1 and PSNR against closed forms and scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.metrics.pixel import l1_error, psnr_decibels


def _pair(seed=0, shape=(2, 16, 20, 3)):
    rng = np.random.default_rng(seed)
    target = rng.uniform(size=shape).astype(np.float32)
    noise = 0.1 * rng.standard_normal(shape)
    return np.clip(target + noise, 0, 1).astype(np.float32), target


def test_l1_error_of_a_constant_shift_is_the_shift():
    target = np.full((2, 8, 8, 3), 0.25, np.float32)
    np.testing.assert_array_equal(l1_error(target + 0.5, target), [0.5, 0.5])
    np.testing.assert_array_equal(l1_error(target + 0.5, target, peak=255.0), [127.5, 127.5])


def test_l1_error_under_a_mask_sees_only_the_mask():
    prediction, target = _pair()
    mask = np.zeros((2, 16, 20, 1), np.float32)
    mask[:, 3:9, 5:11] = 1
    spoiled = np.where(mask > 0, prediction, np.nan)
    expected = np.abs(prediction - target)[:, 3:9, 5:11].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(l1_error(spoiled, target, mask), expected, rtol=1e-6)


def test_psnr_decibels_of_a_tenth_is_twenty():
    target = np.zeros((1, 8, 8, 3), np.float32)
    np.testing.assert_allclose(psnr_decibels(target + 0.1, target), [20.0], rtol=1e-6)


def test_psnr_decibels_equals_scikit_image():
    prediction, target = _pair()
    expected = [
        peak_signal_noise_ratio(t, p, data_range=1.0)
        for p, t in zip(prediction, target, strict=True)
    ]
    # Relative: 20 dB have no digit beyond 2e-6 in float32.
    np.testing.assert_allclose(psnr_decibels(prediction, target), expected, rtol=1e-6)


def test_psnr_decibels_of_equal_images_is_finite():
    image = np.ones((1, 4, 4, 3), np.float32)
    np.testing.assert_allclose(psnr_decibels(image, image), [100.0], rtol=1e-6)


def test_psnr_decibels_under_a_mask_divides_by_the_mask():
    target = np.zeros((1, 8, 8, 3), np.float32)
    prediction = target.copy()
    prediction[:, :2] = 0.1
    mask = np.zeros((1, 8, 8, 1), np.float32)
    mask[:, :2] = 1
    np.testing.assert_allclose(psnr_decibels(prediction, target, mask), [20.0], rtol=1e-6)


def test_pixel_metrics_refuse_images_that_broadcast():
    with pytest.raises(ArgumentError, match="have shape"):
        l1_error(jnp.zeros((1, 4, 4, 3)), jnp.zeros((2, 4, 4, 3)))
