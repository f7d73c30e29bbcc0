"""Properties of the guarded arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.ops import numerics


def test_safe_sqrt_equals_sqrt_and_is_zero_below():
    x = jnp.array([4.0, 2.0, 0.0, -1.0])
    np.testing.assert_allclose(numerics.safe_sqrt(x), [2, np.sqrt(2), 0, 0], rtol=1e-6)


def test_safe_sqrt_gradient_is_finite_at_zero():
    gradient = jax.grad(lambda x: numerics.safe_sqrt(x).sum())(jnp.array([4.0, 0.0, -1.0]))
    np.testing.assert_allclose(gradient, [0.25, 0, 0], rtol=1e-6)


def test_safe_norm_gradient_is_the_unit_vector_or_zero():
    points = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(numerics.safe_norm(points), [5, 0], rtol=1e-6)
    assert numerics.safe_norm(points, axis=0, keepdims=True).shape == (1, 2)
    gradient = jax.grad(lambda x: numerics.safe_norm(x).sum())(points)
    np.testing.assert_allclose(gradient, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_safe_divide_is_zero_with_zero_gradient_at_zero():
    numerator, denominator = jnp.array([1.0, 6.0]), jnp.array([0.0, 3.0])
    np.testing.assert_allclose(numerics.safe_divide(numerator, denominator), [0, 2])
    gradients = jax.grad(lambda n, d: numerics.safe_divide(n, d).sum(), (0, 1))(
        numerator, denominator
    )
    np.testing.assert_allclose(gradients[0], [0, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [0, -2 / 3], rtol=1e-6)


def test_matmul_highest_equals_float64_product():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5, 7)), rng.normal(size=(3, 7, 2))
    product = numerics.matmul_highest(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    # float32 rounding of 7 terms of size one.
    np.testing.assert_allclose(product, a @ b, atol=2e-6)


def test_inverse_2x2_times_matrix_is_identity():
    rng = np.random.default_rng(1)
    matrix = jnp.asarray(np.eye(2) + 0.3 * rng.normal(size=(4, 3, 2, 2)), jnp.float32)
    product = jax.jit(numerics.inverse_2x2)(matrix) @ matrix
    # A few float32 roundings times condition numbers of a few units.
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(2), product.shape), atol=1e-5)


def test_inverse_2x2_is_exact_for_tiny_regular_matrices():
    matrix = jnp.array([[2e-5, 0.0], [0.0, 4e-5]])
    np.testing.assert_allclose(
        jax.jit(numerics.inverse_2x2)(matrix), [[5e4, 0], [0, 2.5e4]], rtol=1e-6
    )


def test_inverse_2x2_is_finite_for_singular_matrices():
    singular = jnp.array(
        [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]]
    )
    inverse = jax.jit(numerics.inverse_2x2)(singular)
    gradient = jax.jit(jax.grad(lambda m: numerics.inverse_2x2(m).sum()))(singular)
    assert np.isfinite(inverse).all()
    assert np.isfinite(gradient).all()


def test_inverse_2x2_gradient_equals_minus_inverse_dm_inverse():
    matrix = jnp.array([[1.2, 0.3], [-0.4, 0.9]])
    direction = jnp.array([[0.5, -1.0], [0.25, 2.0]])
    _, tangent = jax.jvp(numerics.inverse_2x2, (matrix,), (direction,))
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(tangent, -inverse @ direction @ inverse, rtol=1e-5, atol=1e-6)


def test_inverse_2x2_keeps_bfloat16():
    inverse = numerics.inverse_2x2(jnp.eye(2, dtype=jnp.bfloat16) * 2)
    assert inverse.dtype == jnp.bfloat16
    np.testing.assert_allclose(inverse.astype(jnp.float32), np.eye(2) / 2)
