"""The discriminator: sizes, scales, conditioning, torch's size arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.layers.patch_discriminator import MultiScaleDiscriminator, scale_key


def test_discriminator_sizes_are_the_released_ones() -> None:
    module = MultiScaleDiscriminator()
    image = jnp.zeros((1, 256, 256, 3))

    def score(key: jax.Array) -> dict:
        variables = module.init(key, image, train=False)
        return module.apply(variables, image, train=False)

    scores = jax.eval_shape(score, jax.random.key(0))[1.0]
    assert scores.logits.shape == (1, 26, 26, 1)
    sizes = [feature.shape[1:] for feature in scores.features]
    assert sizes == [(126, 126, 64), (61, 61, 128), (29, 29, 256), (26, 26, 512)]


def test_discriminator_has_one_network_per_scale() -> None:
    module = MultiScaleDiscriminator(scales=(1.0, 0.5), block_expansion=2, num_blocks=2)
    image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    variables = module.init(jax.random.key(1), image, train=False)
    assert set(variables["params"]) == {scale_key(1.0), scale_key(0.5)} == {"scale_1", "scale_0_5"}
    scores = module.apply(variables, image, train=False)
    assert scores[0.5].logits.shape[1] < scores[1.0].logits.shape[1]


def test_discriminator_sees_its_keypoints() -> None:
    module = MultiScaleDiscriminator(
        block_expansion=2, num_blocks=2, num_keypoints=2, spectral_norm=False
    )
    image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    points = jnp.asarray([[[-0.5, 0.0], [0.5, 0.0]]])
    variables = module.init(jax.random.key(1), image, points, train=False)
    assert "spectral" not in variables
    here = module.apply(variables, image, points, train=False)[1.0].logits
    there = module.apply(variables, image, points[:, ::-1], train=False)[1.0].logits
    assert np.abs(here - there).max() > 1e-4
