"""The random stand-in and the size arithmetic of VGG19; its numbers are checked by parity."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.networks.vgg19 import Vgg19Features, random_parameters


def test_vgg19_taps_have_the_known_shapes() -> None:
    module = Vgg19Features()
    shapes = jax.eval_shape(
        lambda key: module.init_with_output(key, jnp.zeros((1, 64, 48, 3))), jax.random.key(0)
    )[0]
    assert [tap.shape for tap in shapes] == [
        (1, 64, 48, 64), (1, 32, 24, 128), (1, 16, 12, 256), (1, 8, 6, 512), (1, 4, 3, 512),
    ]  # fmt: skip


def test_random_parameters_fit_the_module_and_repeat() -> None:
    module = Vgg19Features()
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, 32, 32, 3))), jax.random.key(0)
    )["params"]
    first, again, other = random_parameters(0), random_parameters(0), random_parameters(1)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.abs(first["features_0"]["kernel"] - other["features_0"]["kernel"]).max() > 0.1


def test_random_features_keep_their_scale_through_the_depth() -> None:
    params = random_parameters(0)
    image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    taps = Vgg19Features().apply({"params": params}, image)
    spreads = [float(jnp.std(tap)) for tap in taps]
    assert all(0.05 < spread < 20 for spread in spreads), spreads
