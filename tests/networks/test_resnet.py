"""Sizes of the residual trunks; their numbers are checked by the estimators' parity cases."""

import jax
import jax.numpy as jnp
import pytest

from talking_heads_jax.networks.resnet import RESNET_18, RESNET_50, ResidualTrunk


@pytest.mark.parametrize(
    ("module", "widths", "parameters"),
    [
        (ResidualTrunk(RESNET_18, bottleneck=False), (64, 128, 256, 512), 11_176_512),
        (ResidualTrunk(RESNET_50), (256, 512, 1024, 2048), 23_508_032),
    ],
)
def test_trunks_have_torchvisions_sizes(module, widths, parameters):
    """Parameters: torchvision's totals without the classifier of 1000 classes."""
    maps, variables = jax.eval_shape(
        lambda key: module.init_with_output(key, jnp.zeros((1, 224, 192, 3))), jax.random.key(0)
    )
    sides = [(56, 48), (28, 24), (14, 12), (7, 6)]
    assert [leaf.shape for leaf in maps] == [
        (1, *side, width) for side, width in zip(sides, widths, strict=True)
    ]
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert module.out_features == widths[-1]
