"""The Winograd form against loops and the plain form, with its rounding error bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops import winograd

conv_3x3 = jax.jit(winograd.conv_3x3, static_argnames=("implementation",))


def _arguments(h, w, c=3, o=4, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(2, h, w, c)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, c, o)) / np.sqrt(9 * c), jnp.float32)
    return x, kernel, jnp.asarray(rng.normal(size=(o,)), jnp.float32)


def _loops(x, kernel, bias):
    h, w = x.shape[1:3]
    padded = np.pad(np.asarray(x, np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    result = np.zeros((*x.shape[:3], kernel.shape[-1])) + np.asarray(bias)
    for i, j in np.ndindex(3, 3):
        result += padded[:, i : i + h, j : j + w] @ np.asarray(kernel[i, j], np.float64)
    return result


@pytest.mark.parametrize("implementation", ["plain", "winograd"])
@pytest.mark.parametrize("size", [(8, 4), (2, 9)])
def test_conv_3x3_equals_loops(implementation, size):
    arguments = _arguments(*size)
    result = conv_3x3(*arguments, implementation=implementation)
    # Results of size one to three; a few float32 roundings in each transform.
    np.testing.assert_allclose(result, _loops(*arguments), atol=1e-5)


def test_conv_3x3_winograd_loses_little_precision_over_many_channels():
    arguments = _arguments(16, 16, c=256, o=8)
    exact = _loops(*arguments)
    result = conv_3x3(*arguments, implementation="winograd")
    # Measured 2e-6 to 4e-6; the usual points 0, +-1, +-2 give 1e-5 to 2e-5 and would fail.
    assert np.abs(result - exact).max() / np.abs(exact).max() < 6e-6


def test_conv_3x3_gradients_agree():
    x, kernel, bias = _arguments(6, 7)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 7, 4)), jnp.float32)

    def gradients(implementation):
        def loss(x, kernel, bias):
            y = winograd.conv_3x3(x, kernel, bias, implementation=implementation)
            return jnp.sum(y * weights)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(x, kernel, bias)

    for plain, fast in zip(gradients("plain"), gradients("winograd"), strict=True):
        # Sums over up to 84 pixels of size one.
        np.testing.assert_allclose(fast, plain, atol=1e-4, rtol=1e-5)


def test_conv_3x3_in_bfloat16_is_always_the_plain_form():
    x, kernel, bias = _arguments(6, 6)
    x = x.astype(jnp.bfloat16)
    fast = conv_3x3(x, kernel, bias, implementation="winograd")
    assert fast.dtype == jnp.bfloat16
    np.testing.assert_array_equal(fast, conv_3x3(x, kernel, bias, implementation="plain"))


@pytest.mark.parametrize(("side", "implementation"), [(5, "winograd"), (3, "fft")])
def test_conv_3x3_refuses_what_it_cannot_do(side, implementation):
    with pytest.raises(ArgumentError, match="must"):
        conv_3x3(
            jnp.zeros((1, 4, 4, 1)),
            jnp.zeros((side, side, 1, 1)),
            None,
            implementation=implementation,
        )
