"""Interpolation against direct formulas, and the pyramid against blur-then-subsample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops import resize

# Compiled as a whole: running operation by operation compiles each of them.
resize_bilinear = jax.jit(resize.resize_bilinear, static_argnames=("size", "align_corners"))
antialias_downsample = jax.jit(resize.antialias_downsample, static_argnames=("scale",))


def _image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_resize_bilinear_aligned_equals_published_values():
    # 4 -> 8 with aligned corners: steps of 3/7.
    x = jnp.arange(4.0).reshape(1, 1, 4, 1)
    result = resize_bilinear(x, (1, 8), align_corners=True)
    np.testing.assert_allclose(result[0, 0, :, 0], np.arange(8) * 3 / 7, atol=1e-6)


def test_resize_bilinear_edges_equals_quarter_steps():
    x = jnp.arange(4.0).reshape(1, 1, 4, 1)
    result = resize_bilinear(x, (1, 8), align_corners=False)
    np.testing.assert_allclose(
        result[0, 0, :, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6
    )


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (3, 5), (7, 1), (1, 9), (4, 20)])
def test_resize_bilinear_equals_interp(align_corners, size):
    x = _image(2, 4, 6, 3)

    def axis(array, new, dim):
        old = array.shape[dim]
        if align_corners:
            place = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
        else:
            place = (np.arange(new) + 0.5) * old / new - 0.5
        return np.apply_along_axis(lambda v: np.interp(place, np.arange(old), v), dim, array)

    expected = axis(axis(np.asarray(x, np.float64), size[0], 1), size[1], 2)
    result = resize_bilinear(x, size, align_corners=align_corners)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_resize_bilinear_returns_input_of_the_same_size():
    x = _image(1, 4, 5, 2)
    assert resize.resize_bilinear(x, (4, 5), align_corners=False) is x


def test_resize_bilinear_gradient_sums_to_the_number_of_outputs():
    # Every output is a convex combination: the weights it hands back sum to one.
    x = _image(1, 5, 4, 1)
    gradient = jax.grad(lambda x: resize.resize_bilinear(x, (9, 7), align_corners=False).sum())(x)
    np.testing.assert_allclose(gradient.sum(), 63, rtol=1e-5)


def test_resize_bilinear_keeps_bfloat16():
    x = _image(1, 4, 4, 2).astype(jnp.bfloat16)
    result = resize_bilinear(x, (8, 8), align_corners=True)
    assert result.dtype == jnp.bfloat16
    wide = resize_bilinear(x.astype(jnp.float32), (8, 8), align_corners=True)
    np.testing.assert_array_equal(result, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize("size", [(8, 12), (2, 3), (5, 7), (12, 6)])
def test_resize_nearest_shows_the_floor_pixel(size):
    x = _image(2, 4, 6, 3)
    rows = [i * 4 // size[0] for i in range(size[0])]
    columns = [j * 6 // size[1] for j in range(size[1])]
    np.testing.assert_array_equal(
        resize.resize_nearest(x, size), np.asarray(x)[:, rows][:, :, columns]
    )


def test_resize_nearest_gradient_counts_repeats():
    gradient = jax.grad(lambda x: resize.resize_nearest(x, (6, 9)).sum())(_image(1, 2, 3, 1))
    np.testing.assert_array_equal(gradient, np.full((1, 2, 3, 1), 9))


@pytest.mark.parametrize(
    ("scale", "length", "centre"), [(0.5, 5, 0.61869), (0.25, 13, 0.07074), (0.125, 29, 0.01299)]
)
def test_antialias_kernel_equals_published_centre_weights(scale, length, centre):
    taps = resize.antialias_kernel(scale)
    assert taps.shape == (length,)
    np.testing.assert_allclose(taps.sum(), 1)
    # Five decimals are published, for the 2-D kernel.
    np.testing.assert_allclose(np.outer(taps, taps).max(), centre, atol=6e-6)


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("size", [(16, 24), (17, 9)])
def test_antialias_downsample_equals_blur_then_subsample(scale, size):
    x = np.asarray(_image(2, *size, 3), np.float64)
    taps = resize.antialias_kernel(scale)
    radius, stride = len(taps) // 2, round(1 / scale)
    padded = np.pad(x, [(0, 0), (radius, radius), (radius, radius), (0, 0)])
    blurred = np.zeros_like(x)
    for i, row in enumerate(taps):
        for j, column in enumerate(taps):
            blurred += row * column * padded[:, i : i + size[0], j : j + size[1]]
    result = antialias_downsample(jnp.asarray(x, jnp.float32), scale)
    np.testing.assert_allclose(result, blurred[:, ::stride, ::stride], atol=1e-6)


def test_antialias_downsample_keeps_a_constant_inside():
    result = antialias_downsample(jnp.ones((1, 32, 32, 1)), 0.25)
    np.testing.assert_allclose(result[0, 2:-2, 2:-2], 1, atol=1e-6)
    assert result[0, 0, 0, 0] < 0.5  # zeros outside darken the corner


def test_antialias_downsample_under_jit_and_vmap_equals_eager():
    x = _image(3, 2, 16, 16, 3)

    def shrink(image):
        return resize.antialias_downsample(image, 0.5)

    eager = jnp.stack([shrink(image) for image in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(shrink))(x), eager, atol=1e-6)


@pytest.mark.parametrize("scale", [0.3, 2.0, 0.0, -0.5])
def test_antialias_downsample_names_the_legal_scales(scale):
    with pytest.raises(ArgumentError, match="1 over an integer"):
        resize.antialias_downsample(jnp.ones((1, 8, 8, 1)), scale)


def test_image_pyramid_starts_every_scale_from_the_full_image():
    x = _image(1, 16, 16, 3)
    pyramid = resize.image_pyramid(x, (1, 0.5, 0.25))
    assert list(pyramid) == [1.0, 0.5, 0.25]
    assert pyramid[1.0] is x
    np.testing.assert_array_equal(pyramid[0.25], resize.antialias_downsample(x, 0.25))


@pytest.mark.parity
def test_image_pyramid_equals_golden(shared_folder):
    with np.load(shared_folder / "golden" / "fomm_equivariance.npz") as case:
        pyramid = resize.image_pyramid(jnp.asarray(case["in/image"]), (0.5, 0.25, 0.125))
        for scale, image in pyramid.items():
            # The tolerance stated with the golden numbers.
            np.testing.assert_allclose(image, case[f"out/pyramid_{scale}"], atol=1e-5, rtol=0)


def test_average_pool_equals_block_means_and_drops_the_rest():
    x = _image(2, 5, 7, 3)
    result = resize.average_pool(x, 2)
    assert result.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(result[1, 1, 2], np.asarray(x)[1, 2:4, 4:6].mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_max_pool_equals_the_largest_of_each_window(size, stride, padding):
    x = _image(2, 5, 8, 3) - 5  # below zero: a padding of zeros would win
    result = np.asarray(resize.max_pool(x, size, stride=stride, padding=padding))
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (5, 8))
    assert result.shape == (2, rows, columns, 3)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride - padding, column * stride - padding
            window = np.asarray(x)[:, max(top, 0) : top + size, max(left, 0) : left + size]
            np.testing.assert_array_equal(result[:, row, column], window.max(axis=(1, 2)))
