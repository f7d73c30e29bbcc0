"""Pixel distances against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.losses.reconstruction import (
    absolute_error,
    masked_absolute_error,
    squared_error,
)

A, B = (np.random.default_rng(i).random((3, 4, 5, 3)).astype(np.float32) for i in (0, 1))


def test_errors_equal_numpy_per_example():
    np.testing.assert_allclose(absolute_error(A, B), np.abs(A - B).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(squared_error(A, B), ((A - B) ** 2).mean((1, 2, 3)), rtol=1e-5)


def test_masked_absolute_error_counts_pixels_inside_only():
    mask = np.zeros((3, 4, 5, 1), np.float32)
    mask[0, :2], mask[1] = 1, 1  # half, all, nothing
    expected = [np.abs(A - B)[0, :2].mean(), np.abs(A - B)[1].mean(), 0]
    np.testing.assert_allclose(
        masked_absolute_error(jnp.asarray(A), jnp.asarray(B), jnp.asarray(mask)),
        expected,
        rtol=1e-5,
    )
    gradient = jax.grad(
        lambda x: masked_absolute_error(x, jnp.asarray(B), jnp.asarray(mask)).sum()
    )(jnp.asarray(A))
    assert bool(jnp.all(jnp.isfinite(gradient))) and not np.asarray(gradient)[2].any()
