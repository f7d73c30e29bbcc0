"""The hourglass: widths, the raw input in the last concatenation, sizes it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.layers.hourglass import Hourglass


def test_hourglass_ends_with_its_raw_input() -> None:
    module = Hourglass(4, 3, num_blocks=2, max_features=12)
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    result = module.apply(module.init(jax.random.key(1), x, train=False), x, train=False)
    assert result.shape == (2, 8, 12, module.out_features)
    np.testing.assert_array_equal(result[..., -3:], x)


def test_hourglass_widths_follow_the_released_rule() -> None:
    module = Hourglass(64, 44, num_blocks=5, max_features=1024)
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, 64, 64, 44)), train=False), jax.random.key(0)
    )["params"]
    down = [shapes["encoder"][f"down_blocks_{i}"]["conv"]["kernel"].shape[2:] for i in range(5)]
    up = [shapes["decoder"][f"up_blocks_{i}"]["conv"]["kernel"].shape[2:] for i in range(5)]
    assert down == [(44, 128), (128, 256), (256, 512), (512, 1024), (1024, 1024)]
    assert up == [(1024, 1024), (2048, 512), (1024, 256), (512, 128), (256, 64)]


def test_hourglass_refuses_sides_it_cannot_halve() -> None:
    module = Hourglass(4, 3, num_blocks=3)
    with pytest.raises(ArgumentError, match="divisible by 8"):
        module.init(jax.random.key(0), jnp.zeros((1, 12, 16, 3)), train=False)
