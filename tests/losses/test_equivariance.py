"""Equivariance vanishes exactly for keypoints that do follow the transform."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.losses.equivariance import equivariance_jacobian, equivariance_value
from talking_heads_jax.ops.thin_plate_spline import (
    random_transform,
    transform_jacobian,
    transform_points,
)

POINTS = jnp.asarray(np.random.default_rng(0).uniform(-0.8, 0.8, (2, 5, 2)), jnp.float32)
TRANSFORM = random_transform(jax.random.key(0), 2, sigma_affine=0.05, sigma_tps=0.005, points_tps=5)


def test_equivariance_value_of_points_that_follow_is_zero_and_else_their_distance():
    mapped = transform_points(TRANSFORM, POINTS)
    np.testing.assert_array_equal(equivariance_value(mapped, mapped), [0.0, 0.0])
    np.testing.assert_allclose(equivariance_value(mapped + 0.25, mapped), [0.25] * 2, rtol=1e-5)


def test_equivariance_jacobian_vanishes_for_frames_that_follow():
    """J = (dT/dp) J' is what a perfect detector reports."""
    theirs = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 2, 2)), jnp.float32)
    slope = transform_jacobian(TRANSFORM, POINTS)
    ours = jnp.einsum("bkij,bkjl->bkil", slope, theirs, precision="highest")
    # Float32 inverse of 2x2 matrices of condition number up to about a hundred.
    np.testing.assert_allclose(equivariance_jacobian(ours, slope, theirs), 0.0, atol=1e-4)


def test_equivariance_jacobian_equals_numpy():
    draw = np.random.default_rng(2)
    a, b, c = (draw.normal(size=(2, 5, 2, 2)) for _ in range(3))
    expected = np.abs(np.eye(2) - np.linalg.inv(a) @ b @ c).mean((1, 2, 3))
    ours = equivariance_jacobian(*(jnp.asarray(x, jnp.float32) for x in (a, b, c)))
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_equivariance_jacobian_stays_finite_for_a_singular_frame():
    gradient = jax.grad(
        lambda j: equivariance_jacobian(j, jnp.eye(2)[None, None], jnp.eye(2)[None, None]).sum()
    )(jnp.zeros((1, 1, 2, 2)))
    assert bool(jnp.all(jnp.isfinite(gradient)))
