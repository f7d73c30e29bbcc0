"""Adam against its textbook recursion, and the rules that choose rates and freeze."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from talking_heads_jax.errors import ConfigError
from talking_heads_jax.train.optimizers import adam, match_rules

PARAMS = {
    "encoder": {"kernel": jnp.arange(4.0), "bias": jnp.ones(2)},
    "decoder": {"kernel": jnp.full((3,), 0.5)},
}


def gradients(seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), jnp.float32), PARAMS)


def test_adam_follows_the_textbook_recursion():
    b1, b2, eps, rate = 0.5, 0.9, 1e-8, 1e-2
    optimizer = adam(((".*", optax.constant_schedule(rate)),), b1=b1, b2=b2, eps=eps)
    params, state = PARAMS, optimizer.init(PARAMS)
    x = np.asarray(PARAMS["encoder"]["kernel"], np.float64)
    m = v = np.zeros(4)
    for step in range(5):
        grads = gradients(step)
        params, state = optimizer.update(grads, state, params, jnp.asarray(step))
        g = np.asarray(grads["encoder"]["kernel"], np.float64)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1 ** (step + 1)), v / (1 - b2 ** (step + 1))
        x = x - rate * m_hat / (np.sqrt(v_hat) + eps)
    np.testing.assert_allclose(params["encoder"]["kernel"], x, rtol=1e-5)


def test_rules_choose_rates_and_the_first_match_wins():
    rules = (
        ("encoder/bias", None),
        ("encoder/.*", optax.constant_schedule(1.0)),
        (".*", optax.constant_schedule(0.1)),
    )
    optimizer = adam(rules)
    params, state = optimizer.update(
        gradients(0), optimizer.init(PARAMS), PARAMS, jnp.zeros((), jnp.int32)
    )
    moved = jax.tree.map(lambda new, old: np.abs(np.asarray(new - old)), params, PARAMS)
    # The first step of Adam moves every parameter by its rate, whatever the gradient's size.
    np.testing.assert_allclose(moved["encoder"]["kernel"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(moved["decoder"]["kernel"], 0.1, rtol=1e-4)
    assert not moved["encoder"]["bias"].any()
    assert optimizer.trainable(PARAMS)["encoder"] == {"kernel": True, "bias": False}
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    assert sum(sizes) == 2 * 7 + 1  # two moments of seven numbers, and a counter: none frozen


def test_schedules_are_read_at_the_training_step():
    optimizer = adam(((".*", lambda step: jnp.where(step >= 10, 0.0, 1.0)),))
    state = optimizer.init(PARAMS)
    same, _ = optimizer.update(gradients(0), state, PARAMS, jnp.asarray(10))
    jax.tree.map(np.testing.assert_array_equal, same, PARAMS)


def test_clip_norm_bounds_what_the_moments_see():
    def second_moment(clip):
        optimizer = adam(((".*", optax.constant_schedule(1.0)),), clip_norm=clip)
        big = jax.tree.map(lambda x: 1e3 * x, gradients(0))
        _, state = optimizer.update(big, optimizer.init(PARAMS), PARAMS, jnp.asarray(0))
        return sum(float(jnp.sum(x)) for x in jax.tree.leaves(optax.tree.get(state, "nu")))

    # nu after one step is (1 - b2) g^2, and the squares of a clipped gradient sum to one.
    assert second_moment(1.0) == pytest.approx(1e-3, rel=1e-3)
    assert second_moment(None) > 1


def test_match_rules_refuses_gaps_and_rules_without_effect():
    with pytest.raises(ConfigError, match=r"decoder/kernel"):
        match_rules(PARAMS, ["encoder/.*"])
    with pytest.raises(ConfigError, match=r"'enc/\.\*' must match"):
        match_rules(PARAMS, ["enc/.*", ".*"])
