"""Signs of the angles, looked at on the nose; and the inverse."""

import jax
import numpy as np
import pytest

from talking_heads_jax.geometry.rotations import angles_from_matrix, matrix_from_angles

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
