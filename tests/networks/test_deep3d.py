"""Deep3D's heads in their order, and where its weights come from; numbers are checked by parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import AssetNotFoundError
from talking_heads_jax.morphable.bfm import DEEP3D_SIZES, split_deep3d
from talking_heads_jax.networks.deep3d import DEEP3D_HEADS, Deep3DRegressor, load_deep3d


def test_heads_come_in_the_order_that_the_face_model_expects():
    """With zero kernels the output is the heads' biases: each number tells its head."""
    module = Deep3DRegressor(features=1, depths=(1, 1, 1, 1))
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    for index, name in enumerate(DEEP3D_HEADS):
        variables["params"][name]["bias"] += index
    parts = split_deep3d(jax.jit(module.apply)(variables, images))
    assert tuple(np.ravel(part).size for part in parts) == DEEP3D_SIZES
    for index, part in enumerate(parts[:-1]):
        np.testing.assert_array_equal(part, np.full(part.shape, index))
    np.testing.assert_array_equal(parts.translation, [[5, 5, 6]])


def test_load_deep3d_says_where_to_get_it():
    with pytest.raises(AssetNotFoundError) as caught:
        load_deep3d()
    for word in ("epoch_20.pth", "sicxu", "convert --model deep3d", "Or use"):
        assert word in str(caught.value), word
