"""Averages against their recursion."""

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ConfigError
from talking_heads_jax.train.ema import Ema, ema_decay, update_ema


def test_update_ema_is_the_weighted_mean_and_keeps_fixed_points():
    average, new = {"a": jnp.asarray([1.0, 2.0])}, {"a": jnp.asarray([3.0, 2.0])}
    result = update_ema(average, new, jnp.asarray(0.75))
    np.testing.assert_allclose(result["a"], [1.5, 2.0])


def test_ema_decay_warms_up_to_its_bound():
    ema = Ema(("net",), decay=0.9)
    decays = [float(ema_decay(ema, jnp.asarray(step))) for step in (0, 8, 80, 10**6)]
    np.testing.assert_allclose(decays, [0.1, 0.5, 0.9, 0.9], rtol=1e-6)
    assert float(ema_decay(Ema(("net",), decay=0.9, warmup=False), jnp.asarray(0))) == (
        pytest.approx(0.9)
    )


def test_decay_zero_covers_nothing_and_one_is_refused():
    assert not Ema(("net",), decay=0.0).covers("net")
    assert not Ema(("net",), decay=0.5).covers("other")
    with pytest.raises(ConfigError, match=r"ema\.decay"):
        Ema(("net",), decay=1.0)
