"""The random transform against loops, finite differences and golden numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.ops import thin_plate_spline as tps
from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.grid_sample import grid_sample

transform_points = jax.jit(tps.transform_points)
transform_frame = jax.jit(tps.transform_frame)
transform_jacobian = jax.jit(tps.transform_jacobian)

SIZES = {"sigma_affine": 0.05, "sigma_tps": 0.05, "points_tps": 5}


def _transform(batch=2, seed=0):
    return tps.random_transform(jax.random.key(seed), batch, **SIZES)


def _points(batch=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (batch, 4, 2)), jnp.float32)


def _reference(transform, b, point):
    """float64, one point."""
    theta = np.asarray(transform.theta[b], np.float64)
    result = theta[:, :2] @ point + theta[:, 2]
    for control, coefficient in zip(
        np.asarray(transform.control_points, np.float64), transform.control_params[b], strict=True
    ):
        distance = np.abs(point - control).sum()
        result = result + float(coefficient) * distance**2 * np.log(distance + 1e-6)
    return result


def test_random_transform_has_the_stated_spread():
    transform = tps.random_transform(
        jax.random.key(0), 4000, sigma_affine=0.05, sigma_tps=0.005, points_tps=3
    )
    noise = transform.theta - jnp.eye(2, 3)
    # 24000 and 36000 draws: the standard error of a standard deviation is below 0.5 %.
    np.testing.assert_allclose(noise.std(), 0.05, rtol=0.02)
    np.testing.assert_allclose(transform.control_params.std(), 0.005, rtol=0.02)
    np.testing.assert_allclose(noise.mean(0), 0, atol=4e-3)
    np.testing.assert_array_equal(transform.control_points, corner_grid(3, 3).reshape(-1, 2))


def test_random_transform_differs_between_examples_and_repeats_with_the_key():
    first, again = _transform(), _transform()
    np.testing.assert_array_equal(first.theta, again.theta)
    assert not np.array_equal(first.theta[0], first.theta[1])


def test_transform_points_equals_the_loop():
    transform, points = _transform(), _points()
    moved = transform_points(transform, points)
    for b, n in np.ndindex(2, 4):
        expected = _reference(transform, b, np.asarray(points[b, n], np.float64))
        np.testing.assert_allclose(moved[b, n], expected, atol=2e-6)


def test_transform_points_of_zero_noise_is_the_identity():
    transform = tps.random_transform(
        jax.random.key(0), 2, sigma_affine=0.0, sigma_tps=0.0, points_tps=5
    )
    np.testing.assert_array_equal(transform_points(transform, _points()), _points())


def test_transform_points_under_jit_equals_eager_at_any_rank():
    transform, points = _transform(), _points().reshape(2, 2, 2, 2)
    moved = transform_points(transform, points)
    flat = tps.transform_points(transform, points.reshape(2, 4, 2))
    np.testing.assert_allclose(moved.reshape(2, 4, 2), flat, atol=1e-6)


def test_transform_jacobian_equals_finite_differences():
    transform, points = _transform(), _points()
    jacobian = transform_jacobian(transform, points)
    step = 1e-5
    for b, n in np.ndindex(2, 4):
        point = np.asarray(points[b, n], np.float64)
        for axis in range(2):
            offset = step * np.eye(2)[axis]
            slope = _reference(transform, b, point + offset) - _reference(
                transform, b, point - offset
            )
            # Curvature of |d|^2 log d times the step, and float32 sums of 25 terms.
            np.testing.assert_allclose(jacobian[b, n, :, axis], slope / (2 * step), atol=1e-4)


def test_transform_jacobian_is_finite_and_differentiable_at_a_control_point():
    transform = _transform()
    on_controls = jnp.broadcast_to(transform.control_points[None], (2, 25, 2))
    jacobian = transform_jacobian(transform, on_controls)
    gradient = jax.jit(jax.grad(lambda p: transform_jacobian(transform, p).sum()))(on_controls)
    assert np.isfinite(jacobian).all()
    assert np.isfinite(gradient).all()


def test_transform_jacobian_gradient_equals_finite_differences():
    transform, points = _transform(), _points(seed=3)
    gradient = jax.jit(jax.grad(lambda p: transform_jacobian(transform, p)[..., 0, 1].sum()))(
        points
    )
    step = 1e-2
    moved = [
        transform_jacobian(transform, points.at[0, 1, 0].add(sign * step))[0, 1, 0, 1]
        for sign in (1, -1)
    ]
    assert abs(gradient[0, 1, 0]) > 1e-3
    # Third derivatives of the spline (about 1) times the squared step.
    np.testing.assert_allclose(gradient[0, 1, 0], (moved[0] - moved[1]) / (2 * step), atol=2e-3)


def test_transform_frame_samples_at_the_transformed_grid():
    transform = _transform()
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 10, 3)), jnp.float32)
    places = transform_points(transform, jnp.broadcast_to(corner_grid(8, 10), (2, 8, 10, 2)))
    expected = grid_sample(image, places, align_corners=False, padding="reflection")
    # Two compiled programs round positions near 10 px by 1e-6; neighbours differ by up to 5.
    np.testing.assert_allclose(transform_frame(transform, image), expected, atol=5e-6)


@pytest.mark.parity
def test_transform_equals_golden(shared_folder):
    with np.load(shared_folder / "golden" / "fomm_equivariance.npz") as file:
        case = {name: jnp.asarray(file[name]) for name in file.files}
    transform = tps.ThinPlateSpline(
        case["in/theta"],
        case["in/control_points"].reshape(-1, 2),
        case["in/control_params"].reshape(2, -1),
    )
    # The tolerances stated with the golden numbers.
    frame = np.abs(transform_frame(transform, case["in/image"]) - case["out/frame"])
    assert frame.max() <= 5e-5
    assert frame.mean() <= 1e-6
    points = transform_points(transform, case["in/points"])
    np.testing.assert_allclose(points, case["out/points"], atol=2e-6, rtol=0)
    jacobian = transform_jacobian(transform, case["in/points"])
    np.testing.assert_allclose(jacobian, case["out/jacobian"], atol=5e-6, rtol=0)
