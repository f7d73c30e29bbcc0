"""SPADE: the fast form against the plain one, and its definition."""

import jax
import numpy as np
import pytest

from talking_heads_jax.layers.spade import Spade


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_spade_fast_equals_plain(factor: int) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 6 * factor, 5 * factor, 4))
    segmentation = jax.random.normal(jax.random.key(1), (2, 6, 5, 3))
    options = {"segmentation_features": 3, "hidden_features": 7}
    plain, fast = Spade(4, **options), Spade(4, **options, implementation="fast")
    variables = plain.init(jax.random.key(2), x, segmentation)
    ours, reference = (m.apply(variables, x, segmentation) for m in (fast, plain))
    np.testing.assert_allclose(ours, reference, atol=1e-5)  # sums of 63 products of order 1


def test_spade_with_zero_weights_is_instance_norm() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
    segmentation = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
    module = Spade(2, segmentation_features=3, hidden_features=4)
    variables = module.init(jax.random.key(2), x, segmentation)
    variables = jax.tree.map(np.zeros_like, variables)
    result = np.asarray(module.apply(variables, x, segmentation))
    np.testing.assert_allclose(result.mean((1, 2)), 0.0, atol=1e-6)
    np.testing.assert_allclose(result.std((1, 2)), 1.0, atol=1e-3)
