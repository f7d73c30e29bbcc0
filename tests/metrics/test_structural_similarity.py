"""SSIM against scikit-image in both recipes, and closed forms."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.metrics.structural_similarity import ssim_index, ssim_map


def _pair(shape=(2, 24, 30, 3)):
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    smooth = 0.5 + 0.3 * np.sin(rows / 5.0) * np.cos(columns / 7.0)
    target = np.broadcast_to(smooth[None, ..., None], shape).astype(np.float32)
    return np.clip(target + 0.05 * rng.standard_normal(shape), 0, 1).astype(np.float32), target


OPTIONS = {
    "gauss11": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform7": {},
}


@pytest.mark.parametrize(("window", "options"), OPTIONS.items())
def test_ssim_index_equals_scikit_image(window, options):
    prediction, target = _pair()
    expected = [
        structural_similarity(
            t.astype(np.float64), p.astype(np.float64), data_range=1.0, channel_axis=-1, **options
        )
        for p, t in zip(prediction, target, strict=True)
    ]
    np.testing.assert_allclose(ssim_index(prediction, target, window=window), expected, atol=1e-6)


def test_ssim_index_keeps_its_digits_on_flat_bright_and_dark_halves():
    # Variances of 4e-6 beside squares of 0.8: E[x²] - E[x]² would be off by 1e-5 and more.
    rng = np.random.default_rng(0)
    target = np.full((1, 40, 40, 3), 0.9)
    target[:, :, :20] = 0.05
    target = target.astype(np.float32)
    prediction = (target + 0.002 * rng.standard_normal(target.shape)).astype(np.float32)
    for window, options in OPTIONS.items():
        expected = structural_similarity(
            target[0].astype(np.float64),
            prediction[0].astype(np.float64),
            data_range=1.0,
            channel_axis=-1,
            **options,
        )
        value = float(ssim_index(prediction, target, window=window)[0])
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_ssim_index_of_equal_images_is_one():
    _, target = _pair()
    np.testing.assert_allclose(ssim_index(target, target), [1.0, 1.0], rtol=1e-6)


def test_ssim_index_of_constants_is_the_luminance_term():
    x, y, c1 = 0.25, 0.75, 0.01**2
    shape = (1, 16, 16, 3)
    value = ssim_index(np.full(shape, x, np.float32), np.full(shape, y, np.float32))
    np.testing.assert_allclose(value, [(2 * x * y + c1) / (x**2 + y**2 + c1)], rtol=1e-5)


def test_ssim_index_is_symmetric_and_falls_with_noise():
    prediction, target = _pair()
    forward, backward = ssim_index(prediction, target), ssim_index(target, prediction)
    np.testing.assert_allclose(forward, backward, rtol=1e-6)
    more = np.clip(target + 2 * (prediction - target), 0, 1)
    assert (np.asarray(ssim_index(more, target)) < np.asarray(forward)).all()


def test_ssim_index_under_a_mask_averages_the_windows_centred_in_it():
    prediction, target = _pair()
    mask = np.zeros((2, 24, 30, 1), np.float32)
    mask[:, 8:12, 10:17] = 1
    expected = np.asarray(ssim_map(prediction, target, window="gauss11"))[:, 3:7, 5:12]
    np.testing.assert_allclose(
        ssim_index(prediction, target, mask), expected.mean(axis=(1, 2, 3)), rtol=1e-5
    )


def test_ssim_map_refuses_images_smaller_than_the_window():
    with pytest.raises(ArgumentError, match="at least 11"):
        ssim_map(np.zeros((1, 10, 20, 3)), np.zeros((1, 10, 20, 3)), window="gauss11")
