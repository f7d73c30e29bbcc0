"""Sampling against a brute-force reference that loops over points and corners."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops import coordinates
from talking_heads_jax.ops import grid_sample as sampling

OPTIONS = ("align_corners", "padding", "mode")
# Compiled as a whole: running operation by operation compiles each of them.
grid_sample = jax.jit(sampling.grid_sample, static_argnames=OPTIONS)
grid_sample_3d = jax.jit(sampling.grid_sample_3d, static_argnames=OPTIONS)

RULES = list(
    itertools.product([True, False], ["zeros", "border", "reflection"], ["bilinear", "nearest"])
)


def _fold(index, size, align_corners):
    """Mirrors step by step until the index lies inside."""
    low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    if low == high:
        return 0.0
    while index < low or index > high:
        index = 2 * low - index if index < low else 2 * high - index
    return index


def _reference(image, grid, align_corners, padding, mode):
    """float64 loops: image (b *space c), grid (b n dims) -> (b n c)."""
    batch, *space, channels = image.shape
    result = np.zeros((batch, grid.shape[1], channels))
    for b, n in itertools.product(range(batch), range(grid.shape[1])):
        indices = []
        for axis, size in enumerate(space):
            g = float(grid[b, n, len(space) - 1 - axis])
            index = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
            if padding == "reflection":
                index = _fold(index, size, align_corners)
            if padding != "zeros":
                index = min(max(index, 0.0), size - 1.0)
            indices.append(index)
        if mode == "nearest":
            corners = [([round(i) for i in indices], 1.0)]  # Python rounds halves to even
        else:
            corners = []
            for offsets in itertools.product((0, 1), repeat=len(space)):
                corner = [math.floor(i) + o for i, o in zip(indices, offsets, strict=True)]
                weights = [1 - abs(i - c) for i, c in zip(indices, corner, strict=True)]
                corners.append((corner, math.prod(weights)))
        for corner, weight in corners:
            if all(0 <= c < size for c, size in zip(corner, space, strict=True)):
                result[b, n] += weight * image[(b, *corner)]
    return result


@pytest.mark.parametrize(("align_corners", "padding", "mode"), RULES)
def test_grid_sample_equals_brute_force(align_corners, padding, mode):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    grid = rng.uniform(-3, 3, (2, 60, 2)).astype(np.float32)
    options = {"align_corners": align_corners, "padding": padding, "mode": mode}
    sampled = grid_sample(jnp.asarray(image), jnp.asarray(grid), **options)
    # Index rounding (1e-6 of a pixel) times differences of neighbours (up to 6).
    np.testing.assert_allclose(sampled, _reference(image, grid, **options), atol=1e-5)


@pytest.mark.parametrize(("align_corners", "padding", "mode"), RULES)
def test_grid_sample_3d_equals_brute_force(align_corners, padding, mode):
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(2, 3, 5, 4, 2)).astype(np.float32)
    grid = rng.uniform(-2, 2, (2, 40, 3)).astype(np.float32)
    options = {"align_corners": align_corners, "padding": padding, "mode": mode}
    sampled = grid_sample_3d(jnp.asarray(volume), jnp.asarray(grid), **options)
    np.testing.assert_allclose(sampled, _reference(volume, grid, **options), atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_nearest_rounds_halves_to_even(padding):
    image = jnp.arange(5.0).reshape(1, 1, 5, 1)
    # Corner-aligned on 5 pixels, pixel p is at p / 2 - 1: exact in binary, halves included.
    places = jnp.array([0.5, 1.5, 2.5, 3.5]) / 2 - 1
    grid = jnp.stack([places, jnp.zeros(4)], axis=-1)[None]
    sampled = grid_sample(image, grid, align_corners=True, padding=padding, mode="nearest")
    np.testing.assert_array_equal(sampled[0, :, 0], [0, 2, 2, 4])


def test_grid_sample_of_aligned_grid_is_the_image():
    image = jnp.asarray(np.random.default_rng(2).normal(size=(1, 6, 7, 2)), jnp.float32)
    sampled = grid_sample(image, coordinates.corner_grid(6, 7)[None], align_corners=True)
    np.testing.assert_allclose(sampled, image, atol=1e-5)


def test_grid_sample_of_aligned_grid_without_alignment_quarters_the_corner():
    # The published consequence of FOMM's mixed conventions: the corner lies half a pixel out in
    # both axes, so zeros take three quarters of it.
    image = jnp.ones((1, 64, 64, 1))
    sampled = grid_sample(image, coordinates.corner_grid(64, 64)[None], align_corners=False)
    np.testing.assert_allclose(sampled[0, 0, 0, 0], 0.25, atol=1e-5)
    np.testing.assert_allclose(sampled[0, 1:-1, 1:-1], 1, atol=1e-5)


def test_grid_sample_takes_grids_of_any_rank():
    rng = np.random.default_rng(3)
    image = jnp.asarray(rng.normal(size=(2, 5, 4, 3)), jnp.float32)
    grid = jnp.asarray(rng.uniform(-1, 1, (2, 3, 6, 7, 2)), jnp.float32)
    together = grid_sample(image, grid, align_corners=False)
    one_by_one = [grid_sample(image, grid[:, i], align_corners=False) for i in range(3)]
    np.testing.assert_allclose(together, jnp.stack(one_by_one, axis=1), atol=1e-6)
    assert grid_sample(image, grid[:, 0, 0, 0], align_corners=False).shape == (2, 3)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_grid_sample_gradients_equal_finite_differences(padding, align_corners):
    rng = np.random.default_rng(4)
    image = rng.normal(size=(1, 5, 4, 2))
    # Keep clear of the kinks at pixel centres (and at the mirror), where one-sided slopes differ.
    index = rng.integers(-3, 7, (1, 12, 2)) + rng.uniform(0.1, 0.4, (1, 12, 2))
    extent = np.array([4, 5])
    grid = index / (extent - 1) * 2 - 1 if align_corners else (2 * index + 1) / extent - 1
    weights = rng.normal(size=(1, 12, 2))

    def loss(image, grid):
        sampled = grid_sample(image, grid, align_corners=align_corners, padding=padding)
        return jnp.sum(sampled * weights)

    def reference(image, grid):
        return np.sum(_reference(image, grid, align_corners, padding, "bilinear") * weights)

    gradients = jax.jit(jax.grad(loss, (0, 1)))(
        jnp.asarray(image, jnp.float32), jnp.asarray(grid, jnp.float32)
    )
    step = 1e-3  # the function is piecewise bilinear: central differences are exact within a cell
    for which, array in enumerate((image, grid)):
        expected = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [image.copy(), grid.copy()]
                moved[which][place] += sign * step
                values.append(reference(*moved))
            expected[place] = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradients[which], expected, atol=2e-4)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_is_finite_for_absurd_coordinates(padding):
    image = jnp.ones((1, 4, 4, 1))
    grid = jnp.array([[[1e20, -1e20], [-3e12, 0.0], [jnp.finfo(jnp.float32).max / 8, 1.0]]])

    def total(image, grid):
        return grid_sample(image, grid, align_corners=False, padding=padding).sum()

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(image, grid)
    assert value == (0 if padding == "zeros" else 3)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_grid_sample_border_passes_no_gradient_outside():
    image = jnp.asarray(np.random.default_rng(5).normal(size=(1, 4, 4, 1)), jnp.float32)
    grid = jnp.array([[[1.0, 1.0], [1.5, -2.0]]])  # exactly on the border, and beyond it
    gradient = jax.grad(
        lambda g: grid_sample(image, g, align_corners=True, padding="border").sum()
    )(grid)
    np.testing.assert_array_equal(gradient, np.zeros((1, 2, 2)))


def test_grid_sample_nearest_passes_no_gradient_to_the_grid():
    image = jnp.asarray(np.random.default_rng(6).normal(size=(1, 4, 4, 1)), jnp.float32)
    grid = jnp.asarray(np.random.default_rng(7).uniform(-1, 1, (1, 9, 2)), jnp.float32)
    gradient = jax.grad(lambda g: grid_sample(image, g, align_corners=True, mode="nearest").sum())(
        grid
    )
    np.testing.assert_array_equal(gradient, np.zeros_like(grid))


def test_grid_sample_keeps_bfloat16_with_float32_coordinates():
    size = 512  # neighbouring pixels are closer than bfloat16 coordinates can tell
    image = (jnp.arange(size, dtype=jnp.float32) % 2)[None, None, :, None].astype(jnp.bfloat16)
    x = coordinates.corner_grid(1, size)[None]
    sampled = grid_sample(image, x, align_corners=True)
    assert sampled.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        sampled.astype(jnp.float32)[0, 0, :, 0], np.arange(size) % 2, atol=1e-2
    )


def test_grid_sample_under_jit_and_vmap_equals_eager():
    rng = np.random.default_rng(8)
    images = jnp.asarray(rng.normal(size=(3, 2, 5, 4, 3)), jnp.float32)
    grids = jnp.asarray(rng.uniform(-1.2, 1.2, (3, 2, 6, 2)), jnp.float32)

    def sample(image, grid):
        return grid_sample(image, grid, align_corners=False, padding="reflection")

    eager = jnp.stack([sample(i, g) for i, g in zip(images, grids, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(sample))(images, grids), eager, atol=1e-5)


def test_grid_sample_needs_the_corner_rule():
    with pytest.raises(TypeError, match="align_corners"):
        grid_sample(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 1, 2)))


@pytest.mark.parametrize("option", [{"padding": "wrap"}, {"mode": "bicubic"}])
def test_grid_sample_lists_the_legal_choices(option):
    with pytest.raises(ArgumentError, match="Use one of"):
        grid_sample(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 1, 2)), align_corners=True, **option)
