"""L_sigma at its bounds, its invariances, and where it could divide by zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.losses.density import density_alignment

DRAW = np.random.default_rng(0)
FEATURES = jnp.asarray(DRAW.normal(size=(2, 3, 4, 4, 5)), jnp.float32)
MESH = jnp.asarray(DRAW.random((2, 3, 4, 4)), jnp.float32)


def test_density_alignment_of_equal_volumes_is_its_minimum():
    features = jnp.zeros((2, 3, 4, 4, 5)).at[..., 2].set(3 * MESH)
    loss = density_alignment(features, MESH)
    np.testing.assert_allclose(loss, np.exp(-10) - 0.9, atol=1e-5)
    assert bool(jnp.all(density_alignment(FEATURES, MESH) > loss))


def test_density_alignment_of_disjoint_volumes_is_its_maximum():
    near = jnp.zeros((1, 2, 2, 2)).at[:, 0].set(1.0)
    features = jnp.zeros((1, 2, 2, 2, 3)).at[:, 1].set(1.0)
    np.testing.assert_allclose(density_alignment(features, near), [0.1], rtol=1e-5)


def test_density_alignment_does_not_depend_on_scale():
    np.testing.assert_allclose(
        density_alignment(FEATURES, MESH), density_alignment(7 * FEATURES, 0.1 * MESH), rtol=1e-4
    )


def test_mean_reduction_is_the_cosine_of_the_channel_mean():
    volume = np.asarray(FEATURES).mean(-1).reshape(2, -1)
    mesh = np.asarray(MESH).reshape(2, -1)
    norms = np.linalg.norm(volume, axis=1) * np.linalg.norm(mesh, axis=1)
    expected = np.exp(-10 * (volume * mesh).sum(1) / norms) - 0.9
    ours = density_alignment(FEATURES, MESH, channel_reduction="mean")
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("channel_reduction", ["norm", "mean"])
def test_density_alignment_has_finite_gradients_at_empty_volumes(channel_reduction):
    def loss(features, mesh):
        return jnp.sum(density_alignment(features, mesh, channel_reduction=channel_reduction))

    for features, mesh in ((0 * FEATURES, MESH), (FEATURES, 0 * MESH)):
        gradients = jax.grad(loss, argnums=(0, 1))(features, mesh)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in gradients)


def test_unknown_reduction_is_refused():
    with pytest.raises(ArgumentError, match="'norm', 'mean'"):
        density_alignment(FEATURES, MESH, channel_reduction="max")
