"""The streaming mean: exact under padding, any grouping, and long streams."""

import clu.metrics
import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.metrics.pixel import MeanAbsoluteError
from talking_heads_jax.metrics.streaming import WeightedMean


def test_weighted_mean_ignores_padding_even_when_it_is_nan():
    values = jnp.asarray([1.0, 3.0, np.nan])
    mean = WeightedMean.empty().update(values, jnp.asarray([1.0, 1.0, 0.0]))
    assert float(mean.compute()) == 2.0


def test_weighted_mean_of_a_padded_last_batch_equals_the_mean_of_all():
    values = np.random.default_rng(0).uniform(size=10).astype(np.float32)
    mean = WeightedMean.empty()
    for start in range(0, 12, 4):
        batch = values[start : start + 4]
        weight = np.zeros(4, np.float32)
        weight[: len(batch)] = 1
        mean = mean.update(np.pad(batch, (0, 4 - len(batch)), constant_values=7.0), weight)
    # Sums of ten numbers in another order: a few ulp.
    np.testing.assert_allclose(mean.compute(), values.mean(dtype=np.float64), rtol=3e-7)


def test_weighted_mean_merge_is_the_mean_of_both_streams():
    left = WeightedMean.empty().update(jnp.asarray([1.0, 2.0]))
    right = WeightedMean.empty().update(jnp.asarray([6.0]), jnp.asarray([0.5]))
    assert float(left.merge(right).compute()) == float(right.merge(left).compute())
    np.testing.assert_allclose(left.merge(right).compute(), 6.0 / 2.5, rtol=1e-7)
    assert float(left.merge(WeightedMean.empty()).compute()) == 1.5


def test_weighted_mean_of_nothing_is_nan():
    assert np.isnan(WeightedMean.empty().compute())


def test_weighted_mean_keeps_its_digits_over_a_long_stream():
    # A plain float32 sum of 1e5 times 0.1 is off by 1.4e-4 of it; the compensation is itself a
    # float32 sum, of numbers a thousand times smaller.
    def body(mean, _):
        return mean.update(jnp.full(1, 0.1)), None

    mean, _ = jax.lax.scan(body, WeightedMean.empty(), length=100_000)
    np.testing.assert_allclose(mean.compute(), np.float32(0.1), rtol=1e-6)


def test_weighted_mean_is_a_clu_metric_with_its_own_type():
    mean = MeanAbsoluteError.empty().update(jnp.ones(2))
    assert isinstance(mean, clu.metrics.Metric)
    assert isinstance(mean, MeanAbsoluteError)
    assert len(jax.tree.leaves(mean)) == 3
    assert float(jax.jit(lambda m: m.merge(m).compute())(mean)) == 1.0
