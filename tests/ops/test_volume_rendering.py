"""Compositing against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops.volume_rendering import composite_weights, render


@pytest.mark.parametrize(("rule", "expected"), [("inclusive", 0.66304), ("exclusive", 3.81304)])
def test_render_equals_published_values(rule, expected):
    value = render(jnp.array([1.0, 2.0]), jnp.array([[1.0], [10.0]]), transmittance=rule)
    np.testing.assert_allclose(value, [expected], atol=1e-5)  # published with five decimals


@pytest.mark.parametrize("rule", ["inclusive", "exclusive"])
def test_render_equals_the_loop(rule):
    rng = np.random.default_rng(0)
    density = rng.exponential(size=(2, 3, 8))
    features = rng.normal(size=(2, 3, 8, 4))
    light, expected = np.ones((2, 3)), np.zeros((2, 3, 4))
    for s in range(8):
        if rule == "inclusive":
            light = light * np.exp(-density[..., s])
        expected += (light * (1 - np.exp(-density[..., s])))[..., None] * features[..., s, :]
        if rule == "exclusive":
            light = light * np.exp(-density[..., s])
    result = jax.jit(lambda d, f: render(d, f, transmittance=rule))(
        jnp.asarray(density, jnp.float32), jnp.asarray(features, jnp.float32)
    )
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_composite_weights_exclusive_sum_to_the_absorbed_light():
    density = jnp.asarray(np.random.default_rng(1).exponential(size=(5, 6)), jnp.float32)
    weights = composite_weights(density, transmittance="exclusive")
    np.testing.assert_allclose(weights.sum(-1), 1 - np.exp(-density.sum(-1)), atol=1e-6)


def test_composite_weights_inclusive_are_exclusive_dimmed_by_the_sample():
    density = jnp.asarray(np.random.default_rng(2).exponential(size=(5, 6)), jnp.float32)
    exclusive = composite_weights(density, transmittance="exclusive")
    inclusive = composite_weights(density, transmittance="inclusive")
    np.testing.assert_allclose(inclusive, exclusive * np.exp(-density), atol=1e-6)


@pytest.mark.parametrize("rule", ["inclusive", "exclusive"])
def test_composite_weights_are_finite_at_empty_and_opaque_samples(rule):
    density = jnp.array([0.0, 1e30, 0.0, 5.0])
    weights = composite_weights(density, transmittance=rule)
    gradient = jax.grad(lambda d: composite_weights(d, transmittance=rule).sum())(density)
    np.testing.assert_allclose(weights, [0, rule == "exclusive", 0, 0], atol=1e-6)
    assert np.isfinite(gradient).all()


def test_composite_weights_keeps_the_precision_of_thin_samples():
    weights = composite_weights(jnp.array([1e-6]), transmittance="exclusive")
    np.testing.assert_allclose(weights, -np.expm1(-1e-6), rtol=1e-6)


def test_composite_weights_lists_the_legal_rules():
    with pytest.raises(ArgumentError, match="'exclusive', 'inclusive'"):
        composite_weights(jnp.ones((2,)), transmittance="midpoint")
