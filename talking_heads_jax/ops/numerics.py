"""Arithmetic that stays finite, in value and gradient, where the textbook form does not.

A `where` around a singular operation is not enough: its gradient multiplies the infinite branch by
zero and gives NaN. Each function below therefore replaces the *argument* of the singular operation
first and selects the result afterwards.
"""

import jax
import jax.numpy as jnp

from talking_heads_jax.typing import Array, Float, FloatArray, typechecked

# Below this a 2x2 determinant counts as zero. Its square, which the gradient divides by, is still
# a normal float32 number.
_SMALLEST_DETERMINANT = 1e-12


@typechecked
def safe_sqrt(x: FloatArray) -> FloatArray:
    """Square root that is zero, with zero gradient, wherever `x` is not positive.

    Args:
      x: any shape.

    Returns:
      The same shape and dtype.
    """
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


@typechecked
def safe_norm(x: FloatArray, *, axis: int = -1, keepdims: bool = False) -> FloatArray:
    """Euclidean norm along one axis, with zero gradient at the zero vector.

    Args:
      x: any shape.
      axis: the axis that holds the vector's components.
      keepdims: whether that axis stays, with size 1.

    Returns:
      Non-negative lengths.
    """
    return safe_sqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=keepdims))


@typechecked
def safe_divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient that is zero, with zero gradient, wherever the denominator is zero.

    Args:
      numerator: any shape.
      denominator: a shape that broadcasts with it.

    Returns:
      The broadcast shape.
    """
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1), 0)


@typechecked
def matmul_highest(a: FloatArray, b: FloatArray) -> FloatArray:
    """Matrix product in full precision, for geometry: accelerators round operands by default.

    Args:
      a: (... n m).
      b: (... m p).

    Returns:
      (... n p).
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@typechecked
def inverse_2x2(matrix: Float[Array, "*batch 2 2"]) -> Float[Array, "*batch 2 2"]:
    """Inverse by adjugate over determinant; finite for singular matrices.

    Args:
      matrix: keypoint Jacobians, or any stack of 2x2 matrices. Computed in float32 or wider.

    Returns:
      The inverses. Where the determinant is smaller in size than 1e-12 it is replaced by 1e-12 of
      the same sign (positive for zero) and passes no gradient: the result is large but finite.
    """
    wide = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    a, b = wide[..., 0, 0], wide[..., 0, 1]
    c, d = wide[..., 1, 0], wide[..., 1, 1]
    determinant = a * d - b * c
    regular = jnp.abs(determinant) >= _SMALLEST_DETERMINANT
    stand_in = jnp.where(determinant < 0, -_SMALLEST_DETERMINANT, _SMALLEST_DETERMINANT)
    determinant = jnp.where(regular, determinant, stand_in)
    adjugate = jnp.stack([jnp.stack([d, -b], axis=-1), jnp.stack([-c, a], axis=-1)], axis=-2)
    return (adjugate / determinant[..., None, None]).astype(matrix.dtype)
