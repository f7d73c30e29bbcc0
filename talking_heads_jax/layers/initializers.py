"""Parameter initialisers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from talking_heads_jax.typing import Array

Initializer = Callable[..., Array]


def uniform_fan_in(fan_in: int) -> Initializer:
    """Torch's default for convolutions and linear layers: uniform in ±1/sqrt(fan_in).

    Source: torch `kaiming_uniform_(a=sqrt(5))` for weights, which reduces to this bound, and the
    same bound for biases.
    """
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)

    return init
