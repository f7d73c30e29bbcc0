"""GDPW's decoder against its order of execution, step by step (spec section 1.6).

The golden cases guard the same order, but need files that not every machine has.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.models.gdpw.decoder import resize_flow
from talking_heads_jax.models.gdpw.encoder import SourcePyramid
from talking_heads_jax.models.gdpw.guidance import GuidanceMaps
from talking_heads_jax.models.gdpw.warping_module import warp_by_flow
from talking_heads_jax.ops.resize import image_pyramid
from tests.models.toy_gdpw import random_variables, tiny_gdpw

_SIDE, _COARSEST = 16, 4
_CODES = 4


def _system(guidance, *, single_scale=False):
    """A system of two warping modules, bound to its variables; no mesh is ever drawn."""
    model = tiny_gdpw(
        "unread.npz",
        resolution=_SIDE,
        guidance=guidance,
        num_codes=_CODES,
        num_vertices=5,
        single_scale=single_scale,
        generator={"num_levels": 3, "bottleneck_warp": True, "align_corners": False},
    )
    return model.networks["generator"], random_variables(model)["generator"]


@pytest.fixture(scope="module")
def given():
    """Noise: a displacement of some pixels everywhere, codes, features of the source, the source.

    The codes are as large as the displacement: a mistaken channel is a mistaken place.
    """
    rng = np.random.default_rng(3)

    def noise(side, channels, mean=0.0, deviation=1.0):
        values = rng.normal(mean, deviation, (1, side, side, channels))
        return jnp.asarray(values, jnp.float32)

    source = SourcePyramid(noise(4, 16), {1: noise(16, 4), 2: noise(8, 8)})
    flow, codes = noise(_SIDE, 2, 0.3, 0.3), noise(_SIDE, _CODES, -0.3, 0.5)
    return source, flow, codes, jax.nn.sigmoid(noise(_SIDE, 3))


def _warped(x, flow):
    return warp_by_flow(x, flow, align_corners=False)


def _beside(x, other):
    return jnp.concatenate([x, other], axis=-1)


def _in_released_order(decoder, source, guidance, mesh_flow):
    """Colours, alpha and flows."""
    x, flows = _beside(source.bottleneck, _warped(source.bottleneck, mesh_flow)), []
    for stride in (4, 2):
        level = getattr(decoder, f"level_{stride}")
        x = level.spade(x, guidance[1 / stride], train=False)
        flows.append(level.flow(x, train=False))
        x = level.up(x, train=False)
        x = _beside(x, _warped(source.shortcuts[stride // 2], flows[-1]))
    y = jax.nn.sigmoid(decoder.output(x, train=False))
    return y[..., :3], y[..., 3:], flows


def _with_one_flow(decoder, source, guidance, mesh_flow):
    """The control: one flow, predicted beforehand, of the coarsest level as nothing is above it."""
    x = _beside(source.bottleneck, _warped(source.bottleneck, mesh_flow))
    one = decoder.displacement
    x = one.spade(x, guidance[1 / 4], train=False)
    flow = one.flow(x, train=False)

    def moved(features):
        return _warped(features, resize_flow(flow, features.shape[1], align_corners=False))

    x = _beside(source.bottleneck, moved(source.bottleneck))
    for stride in (4, 2):
        level = getattr(decoder, f"level_{stride}")
        x = level.up(level.spade(x, guidance[1 / stride], train=False), train=False)
        x = _beside(x, moved(source.shortcuts[stride // 2]))
    y = jax.nn.sigmoid(decoder.output(x, train=False))
    return y[..., :3], y[..., 3:], [resize_flow(flow, _SIDE, align_corners=False)]


@pytest.mark.parametrize(
    ("guidance", "single_scale"),
    [("geometry", False), ("codes", False), ("both", False), ("both", True)],
)
def test_decoder_works_in_the_released_order(given, guidance, single_scale):
    """The mesh moves the bottleneck's copy; codes have no displacement to give, so a flow of zero.

    Guidance is the same throughout: the modulation sees the displacement too.
    """
    source, flow, codes, image = given
    with_flow, with_codes = guidance != "codes", guidance != "geometry"
    maps = GuidanceMaps(flow if with_flow else None, codes if with_codes else None)
    parts = [part for part, used in ((codes, with_codes), (flow, with_flow)) if used]
    generator, variables = _system(guidance, single_scale=single_scale)
    written = _with_one_flow if single_scale else _in_released_order

    @jax.jit
    def both_ways(variables):
        bound = generator.bind(variables)
        decoded = bound.decode(source, image, maps, train=False, with_intermediates=True)
        pyramid = image_pyramid(jnp.concatenate(parts, axis=-1), (1.0, 0.5, 0.25))
        still = jnp.zeros((1, _COARSEST, _COARSEST, 2))
        moving = image_pyramid(flow, (0.25,))[0.25]
        right, wrong = (moving, still) if with_flow else (still, moving)
        return (
            decoded,
            written(bound.decoder, source, pyramid, right),
            written(bound.decoder, source, pyramid, wrong),
        )

    decoded, expected, other = both_ways(variables)
    found = (decoded["prediction"], decoded["alpha"], decoded["flows"])
    compare = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), list(found), list(expected))
    assert max(jax.tree.leaves(compare)) < 2e-5, compare
    # Another displacement of the bottleneck, at the same guidance, shows in everything.
    compare = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), list(found), list(other))
    assert min(jax.tree.leaves(compare)) > 1e-3, compare
