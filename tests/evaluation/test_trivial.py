"""Trivial answers: copies, blurs, and moving the source as a whole."""

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


def _ellipse(centre, axes, angle, size=(48, 56)):
    """A mask of an ellipse: centre (x, y), half axes and turn of the first one, in pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    x, y = columns - centre[0], rows - centre[1]
    u = np.cos(angle) * x + np.sin(angle) * y
    v = -np.sin(angle) * x + np.cos(angle) * y
    return ((u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1).astype(np.float32)[None, ..., None]


@pytest.mark.parametrize("transposed", [False, True])
def test_move_by_silhouette_is_the_shift_and_stretch_between_ellipses(transposed):
    source_mask = _ellipse((20, 24), (8, 12), 0.0)
    driving_mask = np.concatenate(
        [_ellipse((26, 22), (8, 12), 0.0), _ellipse((28, 24), (12, 9), 0.0)]
    )
    rows, columns = np.mgrid[:48, :56] + 0.5
    source = np.stack([columns / 56, rows / 48], axis=-1)[None].astype(np.float32)
    driving = np.zeros((2, 48, 56, 2), np.float32)
    images = [source, driving, source_mask, driving_mask]
    if transposed:
        images = [image.swapaxes(1, 2) for image in images]
    moved = np.asarray(trivial.move_by_silhouette(*images))
    if transposed:
        moved = moved.swapaxes(1, 2)
    # Colours are coordinates: a pixel shows where in the source it is from.
    x, y = moved[..., 0] * 56, moved[..., 1] * 48
    inside = np.s_[14:34, 20:36]
    # Ellipses of pixels are ellipses up to a fraction of a pixel.
    np.testing.assert_allclose(x[0][inside], (columns - 6)[inside], atol=0.01)
    np.testing.assert_allclose(y[0][inside], (rows + 2)[inside], atol=0.01)
    expected = 20 + (columns - 28) * 8 / 12, 24 + (rows - 24) * 12 / 9
    np.testing.assert_allclose(x[1][inside], expected[0][inside], atol=0.2)
    np.testing.assert_allclose(y[1][inside], expected[1][inside], atol=0.2)


def test_move_by_silhouette_takes_one_covariance_to_the_other():
    # Turned ellipses: the source's mask, moved as an image, has the driving mask's moments.
    source, driving = _ellipse((22, 22), (7, 14), 0.5), _ellipse((30, 26), (8, 16), -0.4)
    moved = np.asarray(trivial.move_by_silhouette(source, driving, source, driving))[0, ..., 0]
    rows, columns = np.mgrid[:48, :56] + 0.5
    points = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    for weights, mean, covariance in (
        (moved, np.empty(2), np.empty((2, 2))),
        (driving[0, ..., 0], np.empty(2), np.empty((2, 2))),
    ):
        flat = weights.reshape(-1) / weights.sum()
        mean[:] = flat @ points
        covariance[:] = ((points - mean) * flat[:, None]).T @ (points - mean)
        if weights is moved:
            first = mean, covariance
    np.testing.assert_allclose(first[0], mean, atol=0.1)
    # Interpolating a mask's edge widens it by part of a pixel.
    np.testing.assert_allclose(first[1], covariance, atol=1.0)


def test_move_by_silhouette_leaves_the_source_where_a_mask_is_empty_or_equal():
    source, mask = _images(1), np.zeros((1, 20, 24, 1), np.float32)
    shown = mask.copy()
    shown[:, 4:9, 3:15] = 1
    for pair in ((mask, shown), (shown, mask), (mask, mask), (shown, shown)):
        moved = trivial.move_by_silhouette(source, _images(1, 1), *pair)
        np.testing.assert_allclose(moved, source, atol=2e-5)  # a sample a hair off its pixel
