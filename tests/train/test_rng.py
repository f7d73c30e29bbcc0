"""Named streams: stable, distinct, and independent of how they are asked for."""

import jax
import numpy as np

from talking_heads_jax.train.rng import run_key, stream


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_stream_differs_by_seed_name_and_every_index():
    keys = {
        data(stream(run_key(seed), name, step, index))
        for seed in (0, 1)
        for name in ("generator", "discriminator")
        for step in range(3)
        for index in range(2)
    }
    assert len(keys) == 2 * 2 * 3 * 2


def test_stream_is_the_same_traced_and_with_python_integers():
    traced = jax.jit(lambda step: stream(run_key(7), "a", step))(5)
    assert data(traced) == data(stream(run_key(7), "a", 5))


def test_stream_does_not_change_between_versions():
    """A resumed run must draw what the interrupted one would have drawn."""
    assert data(stream(run_key(0), "steps", 1)) == (3718546572, 3597740376)
