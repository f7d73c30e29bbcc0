"""DECA's vector taken apart, and where its weights come from; numbers are checked by parity."""

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import AssetNotFoundError
from talking_heads_jax.networks.deca import DECA_SIZES, load_deca, split_deca


def test_split_deca_follows_the_documented_order():
    vector = jnp.arange(2 * 236, dtype=jnp.float32).reshape(2, 236)
    parts = split_deca(vector)
    assert parts._fields == (
        "shape_coeffs", "texture_coeffs", "expression_coeffs", "pose", "camera", "light",
    )  # fmt: skip
    firsts = [float(np.ravel(part[0])[0]) for part in parts]
    assert firsts == [0, 100, 150, 200, 206, 209]
    assert [part.shape[1:] for part in parts] == [(100,), (50,), (50,), (6,), (3,), (9, 3)]
    np.testing.assert_array_equal(
        np.concatenate([np.reshape(part, (2, -1)) for part in parts], axis=1), vector
    )
    # Each of nine harmonics has its three colours side by side.
    np.testing.assert_array_equal(parts.light[0, 1], [212, 213, 214])
    assert sum(DECA_SIZES) == 236


def test_load_deca_says_where_to_get_it():
    with pytest.raises(AssetNotFoundError) as caught:
        load_deca()
    for word in ("deca_model.tar", "yfeng95", "convert --model deca", "Or use"):
        assert word in str(caught.value), word
