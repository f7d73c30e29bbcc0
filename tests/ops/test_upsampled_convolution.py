"""The collapsed form against upsample-then-convolve, and that against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops.upsampled_convolution import conv_after_nearest_upsample

# Compiled as a whole: running operation by operation compiles each of them.
compiled = jax.jit(conv_after_nearest_upsample, static_argnames=("factor", "implementation"))

SIZES = [(5, 7), (1, 4), (4, 1), (1, 1), (6, 6)]


def _arguments(h, w, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(2, h, w, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)) / 5, jnp.float32)
    return x, kernel, jnp.asarray(rng.normal(size=(4,)), jnp.float32)


@pytest.mark.parametrize("implementation", ["plain", "collapsed"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_conv_after_nearest_upsample_equals_loops(implementation, factor, size):
    x, kernel, bias = _arguments(*size)
    large = np.asarray(x, np.float64).repeat(factor, 1).repeat(factor, 2)
    h, w = large.shape[1:3]
    padded = np.pad(large, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = np.zeros((2, h, w, 4)) + np.asarray(bias)
    for i, j in np.ndindex(3, 3):
        expected += padded[:, i : i + h, j : j + w] @ np.asarray(kernel[i, j], np.float64)
    result = compiled(x, kernel, bias, factor=factor, implementation=implementation)
    # 27 float32 products of size one fifth; the collapsed kernels round once more.
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_conv_after_nearest_upsample_gradients_agree(factor):
    x, kernel, bias = _arguments(5, 3)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5 * factor, 3 * factor, 4)))

    def gradients(implementation):
        def loss(x, kernel, bias):
            y = conv_after_nearest_upsample(
                x, kernel, bias, factor=factor, implementation=implementation
            )
            return jnp.sum(y * weights)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(x, kernel, bias)

    for plain, collapsed in zip(gradients("plain"), gradients("collapsed"), strict=True):
        # Sums over up to 480 pixels of size one.
        np.testing.assert_allclose(collapsed, plain, atol=1e-4, rtol=1e-5)


def test_conv_after_nearest_upsample_gradients_keep_to_the_fast_convolutions():
    """A convolution with a reversed kernel runs as plain loops on CPUs, ten times as long."""

    def loss(x, kernel):
        y = conv_after_nearest_upsample(x, kernel, None, factor=2, implementation="collapsed")
        return jnp.sum(jnp.square(y))

    x, kernel, _ = _arguments(8, 8)
    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text()
    assert "convolution" in program
    assert "rhs_reversal" not in program


@pytest.mark.parametrize("implementation", ["plain", "collapsed"])
def test_conv_after_nearest_upsample_keeps_bfloat16(implementation):
    x, kernel, _ = _arguments(4, 4)
    result = compiled(x.astype(jnp.bfloat16), kernel, None, factor=2, implementation=implementation)
    exact = compiled(x, kernel, None, factor=2, implementation="plain")
    assert result.dtype == jnp.bfloat16
    # bfloat16 holds 8 bits; results are of size one to three.
    np.testing.assert_allclose(result.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(
    ("factor", "side", "implementation"), [(0, 3, "plain"), (2, 5, "plain"), (2, 3, "fast")]
)
def test_conv_after_nearest_upsample_refuses_what_it_cannot_do(factor, side, implementation):
    with pytest.raises(ArgumentError, match="must"):
        conv_after_nearest_upsample(
            jnp.zeros((1, 2, 2, 1)),
            jnp.zeros((side, side, 1, 1)),
            None,
            factor=factor,
            implementation=implementation,
        )
