"""GDPW's golden cases: full ones where they are, and small ones in odd sizes."""

from pathlib import Path

import jax
import numpy as np
import pytest

from talking_heads_jax.conversion.apply import to_state_dicts, to_variables
from talking_heads_jax.models.gdpw.guidance import GuidanceMaps
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.parity import progressive_warping, runner, weights
from tests.models.toy_gdpw import random_variables, settle
from tests.parity.synthetic_cases import write_case

_NAMES = [
    "gdpw_generator_geom_disp",
    "gdpw_generator_neural_codes",
    "gdpw_generator_both",
    "gdpw_discriminator",
]
# Spectral vectors and blur kernels, as in the golden cases.
_CONSTANT = ("weight_u", "weight_v", *(f"x{2**level}.weight" for level in range(6)))


_REDUCED = Path(__file__).resolve().parents[1] / "testdata" / "golden"


def failures(report):
    return report.message or {o.name: o.failures for o in report.outputs if not o.passed}


def test_run_case_passes_the_reduced_discriminator():
    """The generators' cases need 132 million weights and large maps: they are run with `parity`."""
    found = runner.run_case(_REDUCED, "gdpw_discriminator")
    assert found.status == runner.PASSED, failures(found)


@pytest.mark.parity
@pytest.mark.parametrize("name", _NAMES)
def test_run_case_passes_full_golden_cases(shared_folder, name):
    found = runner.run_case(shared_folder / "golden", name)
    assert found.status == runner.PASSED, failures(found)


@pytest.fixture(scope="module")
def small_cases(tmp_path_factory):
    """Cases of the golden names at 16 px with odd widths, made by our own networks."""
    folder = tmp_path_factory.mktemp("golden")
    model = build_model(
        "gdpw",
        resolution=16,
        guidance="both",
        num_codes=3,
        num_vertices=7,
        generator={"num_levels": 4, "block_expansion": 3, "max_features": 10},
        discriminator={"block_expansion": 3, "max_features": 5, "num_blocks": 2},
    )
    names = ("generator", "discriminator")
    states = to_state_dicts(model, random_variables(model, names))
    variables = to_variables(model, {name: by_the_rule(states[name]) for name in names})
    for trees in variables.values():  # singular vectors of these kernels
        settle(trees["params"], trees["spectral"])
    states = to_state_dicts(model, variables)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    maps = GuidanceMaps(
        rng.normal(0, 0.1, (1, 16, 16, 2)).astype(np.float32),
        *rng.random((2, 1, 16, 16, 3)).astype(np.float32),
    )

    @jax.jit
    def run(variables, image):
        generator, score = (model.networks[name] for name in names)
        frame = generator.apply(variables["generator"], image, maps, train=False)
        return frame, score.apply(variables["discriminator"], image, train=False)[1.0]

    frame, scores = run(variables, image.astype(np.float32) / 255)
    write_case(
        folder,
        "gdpw_generator_small",
        state=states["generator"],
        constant=_CONSTANT,
        inputs={
            "source": image,
            "flow": maps.flow,
            "codes_driving": maps.driving_codes,
            "codes_source": maps.source_codes,
        },
        outputs={
            "image": frame["prediction"],
            "warped_source": frame["deformed"][:, ::2, ::2],
            **{f"flow_x{16 // flow.shape[1]}": flow for flow in frame["flows"]},
        },
    )
    write_case(
        folder,
        "gdpw_discriminator",
        state=states["discriminator"],
        constant=_CONSTANT,
        inputs={"image": image},
        outputs={
            "logits": scores.logits,
            **{f"feature_{i}": f[:, ::4, ::4] for i, f in enumerate(scores.features)},
        },
    )
    return folder


def by_the_rule(state):
    """The weight rule's values, but for what keeps its own."""
    shapes = {name: np.shape(value) for name, value in state.items()}
    constants = {name: value for name, value in state.items() if name.endswith(_CONSTANT)}
    return weights.build_state_dict(shapes, salt="s", constants=constants)


def test_run_case_reads_every_size_from_the_files(small_cases):
    for name in ("gdpw_generator_small", "gdpw_discriminator"):
        found = runner.run_case(small_cases, name)
        assert found.status == runner.PASSED, failures(found)
        assert found.outputs


def test_run_case_fails_when_the_bottleneck_is_not_resampled(small_cases, monkeypatch):
    read = progressive_warping.arguments_of_shapes

    def wrong(generator, discriminator):
        arguments = read(generator, discriminator)
        arguments["generator"]["bottleneck_warp"] = False
        return arguments

    monkeypatch.setattr(progressive_warping, "arguments_of_shapes", wrong)
    found = runner.run_case(small_cases, "gdpw_generator_small")
    assert found.status == runner.FAILED
