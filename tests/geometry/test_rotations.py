"""Signs of the angles, looked at on the nose; and the inverse."""

import jax
import numpy as np
import pytest
import scipy.linalg

from talking_heads_jax.geometry.rotations import (
    angles_from_matrix,
    axis_angle_from_matrix,
    matrix_from_angles,
    matrix_from_axis_angle,
)

_NOSE = np.array([0.0, 0.0, -1.0])  # towards the viewer; x right, y down
_RIGHT_EYE = np.array([1.0, 0.0, 0.0])  # at the image's right


@pytest.mark.parametrize(
    ("angles", "point", "axis", "sign"),
    [
        ((0.3, 0, 0), _NOSE, 0, 1),  # yaw > 0: the nose goes to the right edge
        ((0, 0.3, 0), _NOSE, 1, -1),  # pitch > 0: the nose rises
        ((0, 0, 0.3), _RIGHT_EYE, 1, 1),  # roll > 0: clockwise, the image-right side goes down
    ],
)
def test_matrix_from_angles_signs(angles: tuple, point: np.ndarray, axis: int, sign: int) -> None:
    moved = np.asarray(matrix_from_angles(np.array(angles, np.float32))) @ point
    assert moved[axis] == pytest.approx(sign * np.sin(0.3), abs=1e-6)


def test_matrix_from_angles_is_a_rotation_and_inverts() -> None:
    angles = np.random.default_rng(0).uniform(-1.2, 1.2, (50, 3)).astype(np.float32)
    matrices = np.asarray(matrix_from_angles(angles))
    np.testing.assert_allclose(
        matrices @ matrices.swapaxes(1, 2), np.tile(np.eye(3), (50, 1, 1)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-6)
    np.testing.assert_allclose(angles_from_matrix(matrices), angles, atol=1e-5)


def test_matrix_from_angles_has_finite_gradients_at_rest() -> None:
    gradient = jax.jacobian(matrix_from_angles)(np.zeros(3, np.float32))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 5e-3, 1.1e-2, 0.5, 3.0])
def test_matrix_from_axis_angle_equals_the_exponential(scale: float) -> None:
    """scipy's exponential of the cross-product matrix, on both sides of the series' limit."""
    axis = np.array([0.48, -0.6, 0.64])
    x, y, z = scale * axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    found = jax.jit(matrix_from_axis_angle)(np.array([x, y, z], np.float32))
    np.testing.assert_allclose(found, scipy.linalg.expm(cross), atol=3e-7)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.019, 0.021, 1.0, 2.5, 3.1])
def test_axis_angle_from_matrix_inverts(scale: float) -> None:
    axes = np.random.default_rng(0).standard_normal((20, 3))
    turns = (scale * axes / np.linalg.norm(axes, axis=1, keepdims=True)).astype(np.float32)
    found = jax.jit(lambda x: axis_angle_from_matrix(matrix_from_axis_angle(x)))(turns)
    np.testing.assert_allclose(found, turns, atol=2e-6)


def test_axis_angle_gradient_is_finite_at_zero() -> None:
    gradient = jax.jit(jax.jacobian(matrix_from_axis_angle))(np.zeros(3, np.float32))
    expected = np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        expected[i, j, k], expected[j, i, k] = -1, 1
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
