"""Feature matching by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.losses.feature_matching import feature_matching


def test_feature_matching_sums_weighted_means_of_maps_of_different_sizes():
    real = [jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 2, 2, 8))]
    fake = [jnp.ones((2, 4, 4, 3)), jnp.full((2, 2, 2, 8), -2.0)]
    np.testing.assert_allclose(feature_matching(real, fake, weights=(10.0, 1.0)), [12.0, 12.0])
    np.testing.assert_allclose(feature_matching(real, fake, weights=(0.0, 0.0)), [0.0, 0.0])


def test_feature_matching_is_differentiable_on_both_sides():
    a, b = jnp.ones((1, 2)), jnp.zeros((1, 2))
    gradients = jax.grad(
        lambda real, fake: feature_matching([real], [fake], weights=(1.0,)).sum(), argnums=(0, 1)
    )(a, b)
    np.testing.assert_allclose(gradients[0], -gradients[1])
    assert float(jnp.abs(gradients[0]).sum()) > 0


def test_feature_matching_refuses_lists_of_different_lengths():
    with pytest.raises(ArgumentError, match="2 weights for 1 and 1 maps"):
        feature_matching([jnp.ones((1, 2))], [jnp.ones((1, 2))], weights=(1.0, 1.0))
