"""Both implementations of the 3-D convolution against loops and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops.banded_convolution import conv_3d


def _arguments(depth, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(2, depth, 5, 4, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 3, 2)) / 9, jnp.float32)
    return x, kernel, jnp.asarray(rng.normal(size=(2,)), jnp.float32)


@pytest.mark.parametrize("implementation", ["plain", "banded"])
@pytest.mark.parametrize("depth", [1, 2, 6])
def test_conv_3d_equals_loops(implementation, depth):
    x, kernel, bias = _arguments(depth)
    padded = np.pad(np.asarray(x, np.float64), [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])
    expected = np.zeros((2, depth, 5, 4, 2)) + np.asarray(bias)
    for k, i, j in np.ndindex(3, 3, 3):
        window = padded[:, k : k + depth, i : i + 5, j : j + 4]
        expected += window @ np.asarray(kernel[k, i, j], np.float64)
    result = jax.jit(lambda *a: conv_3d(*a, implementation=implementation))(x, kernel, bias)
    # 81 float32 products of size one ninth.
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_conv_3d_gradients_agree():
    x, kernel, bias = _arguments(4)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 5, 4, 2)), jnp.float32)

    def gradients(implementation):
        def loss(x, kernel, bias):
            return jnp.sum(conv_3d(x, kernel, bias, implementation=implementation) * weights)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(x, kernel, bias)

    for plain, banded in zip(gradients("plain"), gradients("banded"), strict=True):
        np.testing.assert_allclose(banded, plain, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["plain", "banded"])
def test_conv_3d_keeps_bfloat16(implementation):
    x, kernel, _ = _arguments(4)
    result = conv_3d(x.astype(jnp.bfloat16), kernel, None, implementation=implementation)
    exact = conv_3d(x, kernel, None, implementation="plain")
    assert result.dtype == jnp.bfloat16
    # bfloat16 holds 8 bits; results are of size one to three.
    np.testing.assert_allclose(result.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(("side", "implementation"), [(5, "plain"), (3, "fast")])
def test_conv_3d_refuses_what_it_cannot_do(side, implementation):
    with pytest.raises(ArgumentError, match="must"):
        conv_3d(
            jnp.zeros((1, 2, 2, 2, 1)),
            jnp.zeros((3, 3, side, 1, 1)),
            None,
            implementation=implementation,
        )
