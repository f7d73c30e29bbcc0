"""GAN losses in closed form, at their optimum, and the R1 penalty of a known network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.losses.adversarial import (
    KINDS,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)

REAL, FAKE = (np.random.default_rng(i).normal(size=(2, 3, 3, 1)) for i in (0, 1))


def softplus(x):
    return np.log1p(np.exp(x))


@pytest.mark.parametrize(
    "kind, generator, real, fake",
    [
        ("least_squares", lambda x: (1 - x) ** 2, lambda x: (1 - x) ** 2, lambda x: x**2),
        ("hinge", lambda x: -x, lambda x: np.maximum(0, 1 - x), lambda x: np.maximum(0, 1 + x)),
        ("non_saturating", lambda x: softplus(-x), lambda x: softplus(-x), softplus),
    ],
)
def test_adversarial_losses_equal_their_formulas(kind, generator, real, fake):
    axes = (1, 2, 3)
    ours = generator_loss(jnp.asarray(FAKE), kind=kind)
    np.testing.assert_allclose(ours, generator(FAKE).mean(axes), rtol=1e-5)
    ours = discriminator_loss(jnp.asarray(REAL), jnp.asarray(FAKE), kind=kind)
    np.testing.assert_allclose(ours, real(REAL).mean(axes) + fake(FAKE).mean(axes), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_pull_logits_in_opposite_directions(kind):
    logits = jnp.zeros((1, 4))
    up = jax.grad(lambda x: generator_loss(x, kind=kind).sum())(logits)
    down = jax.grad(lambda x: discriminator_loss(logits, x, kind=kind).sum())(logits + 0.1)
    assert bool(jnp.all(up < 0)) and bool(jnp.all(down > 0))


def test_non_saturating_is_finite_for_extreme_logits():
    gradient = jax.grad(lambda x: generator_loss(x, kind="non_saturating").sum())
    assert bool(jnp.all(jnp.isfinite(gradient(jnp.asarray([[-1e4, 1e4]])))))


def test_r1_penalty_of_a_linear_discriminator_is_its_squared_weight():
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(4, 4, 3)), jnp.float32)
    images = jnp.asarray(np.random.default_rng(3).random((2, 4, 4, 3)), jnp.float32)
    penalty = r1_penalty(lambda x: jnp.einsum("bhwc,hwc->b", x, kernel), images)
    np.testing.assert_allclose(penalty, [float(jnp.sum(kernel**2))] * 2, rtol=1e-5)


def test_unknown_kind_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="'hinge'"):
        generator_loss(jnp.zeros((1, 1)), kind="wasserstein")
