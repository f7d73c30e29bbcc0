"""Reductions: padding, lazily evaluated terms, widening."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.losses.combine import (
    per_example_mean,
    total_loss,
    weighted_mean,
)


def test_weighted_mean_ignores_padding_even_when_it_is_not_finite():
    values = jnp.asarray([1.0, 3.0, jnp.nan])
    weight = jnp.asarray([1.0, 1.0, 0.0])
    assert float(weighted_mean(values, weight)) == 2
    gradient = jax.grad(lambda x: weighted_mean(x, weight))(values)
    np.testing.assert_allclose(gradient, [0.5, 0.5, 0.0])


def test_weighted_mean_of_nothing_is_zero_and_of_a_scalar_itself():
    assert float(weighted_mean(jnp.ones(2), jnp.zeros(2))) == 0
    assert float(weighted_mean(jnp.asarray(5.0), jnp.zeros(2))) == 5


def test_weighted_mean_is_the_same_however_a_batch_is_padded():
    values = jnp.asarray([1.0, 2.0, 6.0])
    padded = jnp.concatenate([values, jnp.full((4,), 9.0)])
    weight = jnp.asarray([1.0] * 3 + [0.0] * 4)
    assert float(weighted_mean(padded, weight)) == pytest.approx(float(jnp.mean(values)))


def test_per_example_mean_sums_bfloat16_in_float32():
    # 4096 ones in bfloat16 would stop growing at 256.
    values = jnp.ones((2, 64, 64), jnp.bfloat16)
    result = per_example_mean(values)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, [1.0, 1.0])


def test_total_loss_is_the_sum_of_the_means():
    total, means = total_loss({"a": jnp.asarray([1.0, 3.0]), "b": jnp.asarray(0.5)})
    assert float(total) == 2.5 and float(means["a"]) == 2
