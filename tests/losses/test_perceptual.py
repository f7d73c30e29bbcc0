"""The pyramid feature distance with extractors simple enough to compute by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.losses.perceptual import perceptual_loss
from talking_heads_jax.ops.resize import image_pyramid

DRAW = np.random.default_rng(0)
PREDICTION, TARGET = (jnp.asarray(DRAW.random((2, 16, 16, 3)), jnp.float32) for _ in range(2))


def extractor(images):
    return [images, 2 * images[..., :1]]


def test_perceptual_loss_is_the_weighted_sum_over_scales_and_maps():
    ours = perceptual_loss(extractor, PREDICTION, TARGET, scales=(1, 0.5), weights=(10.0, 3.0))
    expected = np.zeros(2)
    for scale in (1, 0.5):
        pair = [np.asarray(image_pyramid(x, (scale,))[scale]) for x in (PREDICTION, TARGET)]
        difference = np.abs(pair[0] - pair[1])
        expected += 10 * difference.mean((1, 2, 3)) + 3 * 2 * difference[..., :1].mean((1, 2, 3))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_perceptual_loss_is_zero_at_the_target_and_leaves_it_alone():
    def loss(prediction, target):
        values = perceptual_loss(extractor, prediction, target, scales=(1,), weights=(1.0, 1.0))
        return jnp.sum(values)

    assert float(loss(TARGET, TARGET)) == 0
    to_prediction, to_target = jax.grad(loss, argnums=(0, 1))(PREDICTION, TARGET)
    assert float(jnp.abs(to_prediction).max()) > 0 and float(jnp.abs(to_target).max()) == 0


def test_maps_of_weight_zero_leave_the_graph():
    """What makes shallow features cheap: nothing of a deeper map remains after compilation."""

    def deep(images):
        return [images, jnp.sin(images)]

    def compiled(weights):
        function = jax.jit(lambda a, b: perceptual_loss(deep, a, b, scales=(1,), weights=weights))
        return function.lower(PREDICTION, TARGET).compile().as_text()

    assert "sine" in compiled((1.0, 1.0)) and "sine" not in compiled((1.0, 0.0))


def test_weights_must_match_the_maps():
    with pytest.raises(ArgumentError, match=r"feature map \(2\)"):
        perceptual_loss(extractor, PREDICTION, TARGET, scales=(1,), weights=(1.0,))
