"""Blocks: fast forms against plain ones, shapes, initial distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv, Dense, DownBlock2d, ResBlock3d, UpBlock2d

# Rounding of sums of about 100 products of order 1 in float32.
_TOLERANCE = 2e-5


@pytest.mark.parametrize(
    ("module", "shape"),
    [(UpBlock2d, (2, 5, 7, 4)), (ResBlock3d, (2, 4, 6, 5, 4))],
)
@pytest.mark.parametrize("train", [False, True])
def test_fast_block_equals_plain(module: type[nn.Module], shape: tuple, train: bool) -> None:
    x = jax.random.normal(jax.random.key(0), shape)
    arguments = (4, 6) if module is UpBlock2d else (4,)
    plain = module(*arguments, implementation="plain")
    fast = module(*arguments, implementation="fast")
    variables = plain.init(jax.random.key(1), x, train=False)
    results = [
        m.apply(variables, x, train=train, mutable=["batch_stats"])[0] for m in (plain, fast)
    ]
    np.testing.assert_allclose(results[0], results[1], atol=_TOLERANCE)


def test_conv_equals_a_sum_of_shifted_products() -> None:
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    module = Conv(2, 3)
    variables = module.init(jax.random.key(0), x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = sum(
        padded[:, i : i + 5, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(module.apply(variables, x), expected + bias, atol=_TOLERANCE)


def test_conv_with_a_stride_keeps_every_nth_pixel() -> None:
    """Both borders are padded alike, which 'SAME' would not do; without a bias there is none."""
    x = np.random.default_rng(1).normal(size=(1, 8, 11, 2)).astype(np.float32)
    options = {"kernel_size": (7, 7), "padding": 3, "use_bias": False}
    dense, strided = Conv(2, 3, **options), Conv(2, 3, stride=2, **options)
    variables = dense.init(jax.random.key(0), x)
    assert set(variables["params"]) == {"kernel"}
    every = dense.apply(variables, x)
    np.testing.assert_allclose(strided.apply(variables, x), every[:, ::2, ::2], atol=_TOLERANCE)


def test_fast_conv_without_bias_equals_plain() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 128))
    plain, fast = (
        Conv(128, 128, use_bias=False, implementation=name) for name in ("plain", "fast")
    )
    variables = plain.init(jax.random.key(1), x)
    np.testing.assert_allclose(
        jax.jit(plain.apply)(variables, x), jax.jit(fast.apply)(variables, x), atol=_TOLERANCE
    )


def test_conv_starts_uniform_within_torch_bounds() -> None:
    params = Conv(16, 32).init(jax.random.key(0), jnp.zeros((1, 4, 4, 16)))["params"]
    bound = 1 / np.sqrt(16 * 9)
    assert abs(params["kernel"]).max() <= bound
    assert float(jnp.std(params["kernel"])) == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert 0 < abs(params["bias"]).max() <= bound


def test_dense_starts_uniform_within_torch_bounds() -> None:
    params = Dense(64, 32).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    assert float(jnp.std(params["kernel"])) == pytest.approx(1 / 8 / np.sqrt(3), rel=0.05)


def test_down_block_floors_odd_sides() -> None:
    block = DownBlock2d(2, 3)
    x = jnp.ones((1, 7, 9, 2))
    assert block.apply(block.init(jax.random.key(0), x, train=False), x, train=False).shape == (
        1, 3, 4, 3,
    )  # fmt: skip
