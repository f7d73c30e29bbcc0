"""Batch and instance norm against the definitions torch documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.layers.normalization import BatchNorm, InstanceNorm


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 3.0, (2, 4, 5, 3)).astype(np.float32)


def test_batch_norm_training_moves_the_unbiased_variance(values: np.ndarray) -> None:
    module = BatchNorm(3)
    variables = module.init(jax.random.key(0), values, train=False)
    result, updated = module.apply(variables, values, train=True, mutable=["batch_stats"])
    flat = values.reshape(-1, 3).astype(np.float64)
    expected = (values - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(result, expected, atol=2e-6)  # float32 rounding of values near 3
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_without_affine_keeps_statistics_but_no_parameters(values: np.ndarray) -> None:
    plain, bare = BatchNorm(3), BatchNorm(3, affine=False)
    variables = plain.init(jax.random.key(0), values, train=False)
    assert "params" not in bare.init(jax.random.key(0), values, train=False)
    stats = {"batch_stats": variables["batch_stats"]}
    for train in (True, False):
        expected, after = plain.apply(variables, values, train=train, mutable=["batch_stats"])
        found, updated = bare.apply(stats, values, train=train, mutable=["batch_stats"])
        np.testing.assert_array_equal(found, expected)
        jax.tree.map(np.testing.assert_array_equal, updated, after)


def test_batch_norm_evaluation_uses_stored_statistics(values: np.ndarray) -> None:
    module = BatchNorm(3)
    variables = {
        "params": {"scale": jnp.asarray([1.0, 2.0, 3.0]), "bias": jnp.asarray([0.0, 1.0, -1.0])},
        "batch_stats": {"mean": jnp.asarray([1.0, 2.0, 3.0]), "var": jnp.asarray([4.0, 1.0, 9.0])},
    }
    result = module.apply(variables, values, train=False)
    expected = (values - [1, 2, 3]) / np.sqrt(np.array([4, 1, 9]) + 1e-5) * [1, 2, 3] + [0, 1, -1]
    np.testing.assert_allclose(result, expected, atol=1e-5)  # one fused multiply-add in float32


def test_batch_norm_is_two_pass_for_a_large_mean() -> None:
    values = 1000.0 + np.random.default_rng(1).normal(0, 0.01, (1, 16, 16, 1)).astype(np.float32)
    module = BatchNorm(1)
    variables = module.init(jax.random.key(0), values, train=False)
    result, _ = module.apply(variables, values, train=True, mutable=["batch_stats"])
    wide = values.astype(np.float64)
    expected = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5)
    # A one-pass variance would be off by more than the variance itself; 3e-3 is the spacing of
    # float32 numbers near 1000 (6e-5) over the standard deviation (0.01).
    np.testing.assert_allclose(result, expected, atol=2e-2)


def test_batch_norm_keeps_float32_statistics_under_bfloat16(values: np.ndarray) -> None:
    module = BatchNorm(3)
    variables = module.init(jax.random.key(0), values, train=False)
    result, updated = module.apply(
        variables, values.astype(jnp.bfloat16), train=True, mutable=["batch_stats"]
    )
    assert result.dtype == jnp.bfloat16
    assert updated["batch_stats"]["mean"].dtype == jnp.float32


def test_instance_norm_normalises_each_example(values: np.ndarray) -> None:
    module = InstanceNorm(3, affine=False)
    result = module.apply(module.init(jax.random.key(0), values), values)
    mean = values.mean((1, 2), keepdims=True)
    expected = (values - mean) / np.sqrt(values.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_instance_norm_of_a_constant_is_zero_with_finite_gradient() -> None:
    module = InstanceNorm(2, affine=False)
    constant = jnp.full((1, 4, 4, 2), 3.0)
    variables = module.init(jax.random.key(0), constant)
    np.testing.assert_array_equal(module.apply(variables, constant), 0.0)
    gradient = jax.grad(lambda x: jnp.sum(module.apply(variables, x) ** 2))(constant)
    assert np.isfinite(gradient).all()
