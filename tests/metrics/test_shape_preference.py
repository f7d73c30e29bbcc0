"""Whose face shape a prediction shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.metrics.recipes import RECIPES, Comparison
from talking_heads_jax.metrics.shape_preference import shape_preference

OWN, OTHER = (jax.random.uniform(jax.random.key(seed), (1, 8, 8, 3)) for seed in range(2))


@pytest.mark.parametrize(
    ("prediction", "value"),
    [(OWN, 1.0), (OTHER, -1.0), ((OWN + OTHER) / 2, 0.0), (0.75 * OWN + 0.25 * OTHER, 0.5)],
)
def test_it_is_the_place_between_the_two_pictures(prediction: jax.Array, value: float) -> None:
    np.testing.assert_allclose(shape_preference(prediction, OWN, OTHER), [value], atol=1e-6)


def test_pixels_where_the_two_agree_do_not_count() -> None:
    other = OWN.at[:, :4].set(OTHER[:, :4])
    prediction = other.at[:, 4:].set(0.0)
    np.testing.assert_allclose(shape_preference(prediction, OWN, other), [-1.0], atol=1e-6)


def test_one_picture_has_no_rival() -> None:
    both, other = jnp.concatenate([OWN, OWN]), jnp.concatenate([OTHER, OWN])
    values, known = RECIPES["shape_kept"].compare(both, Comparison(both, {}, rival=other), None)
    assert known.tolist() == [True, False]
    assert values[0] == 1.0
