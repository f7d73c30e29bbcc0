"""GDPW's official files: three variants, what they hold besides the network, spectral norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.conversion.apply import convert_checkpoint, reverse_checkpoint
from talking_heads_jax.conversion.gdpw import infer_arguments
from talking_heads_jax.conversion.translate import (
    Leftovers,
    convert_state_dicts,
    group_networks,
    to_state_dicts,
)
from talking_heads_jax.errors import ConversionError
from talking_heads_jax.models.gdpw.guidance import GuidanceMaps
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.serialization.tensors import read_tensors, write_safetensors
from tests.models.toy_gdpw import random_variables

_ARGUMENTS = {
    "resolution": 32,
    "num_codes": 4,
    "num_vertices": 50,
    "generator": {"num_levels": 6, "block_expansion": 2, "max_features": 8},
    "discriminator": {"num_blocks": 2, "block_expansion": 2, "max_features": 4, "strides": [1]},
}


def official(guidance):
    """A tiny system, its variables, and a file as the official trainer saves it."""
    arguments = _ARGUMENTS | {"guidance": guidance}
    if guidance == "geometry":  # it has no codes, so a file cannot tell how many
        del arguments["num_vertices"], arguments["num_codes"]
    model = build_model("gdpw", **arguments)
    variables = random_variables(model, ("generator", "discriminator"))
    states = to_state_dicts(model, variables)
    rng = np.random.default_rng(0)
    generator = states["generator"]
    generator["mesh_renderer.tri"] = rng.integers(0, 50, (90, 3)).astype(np.int32)
    # The shortcut of the coarsest level: as wide as the level, used by nothing.
    for name in [name for name in generator if name.startswith("shortcut_layers.x16.")]:
        idle = generator[name]
        fresh = rng.standard_normal(idle.shape).astype(idle.dtype)
        generator[name.replace("x16", "x32")] = fresh
    tree = {**states, "global_step": np.int64(270000)}
    return model, variables, states, tree


@pytest.fixture(scope="module")
def both():
    return official("both")


def assert_same_bytes(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        other = found[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        assert np.asarray(other).tobytes() == np.asarray(array).tobytes(), name


@pytest.mark.parametrize("guidance", ["geometry", "codes", "both"])
def test_conversion_of_every_variant_and_back_is_bit_exact(guidance):
    model, variables, states, tree = official(guidance)
    grouped, ignored, impossible = group_networks(tree, "gdpw")
    assert (ignored, impossible) == (["global_step"], [])
    inferred = infer_arguments(grouped)
    assert inferred["guidance"] == guidance
    assert inferred["generator"] == _ARGUMENTS["generator"]
    assert inferred["discriminator"] == _ARGUMENTS["discriminator"]
    assert inferred.get("num_vertices") == (None if guidance == "geometry" else 50)
    copy = build_model("gdpw", **{"resolution": 32, **inferred})
    assert dict(copy.networks) == dict(model.networks)
    converted, leftovers = convert_state_dicts(model, grouped)
    jax.tree.map(np.testing.assert_array_equal, converted, dict(variables))
    stored = Leftovers.read(leftovers.tensors, leftovers.metadata())
    back = to_state_dicts(model, converted, stored)
    for network, state in states.items():
        assert_same_bytes(back[network], state)


def test_unused_tensors_are_kept_and_nothing_else_is_missing(both):
    model, variables, states, _ = both
    _, leftovers = convert_state_dicts(model, states)
    kept = {name.removeprefix("generator.") for name in leftovers.tensors}
    assert "mesh_renderer.tri" in kept
    assert {name for name in kept if not name.startswith("shortcut_layers.x32.")} == {
        "mesh_renderer.tri"
    }
    # Of our own weights the way back invents what the official loader insists on.
    own = to_state_dicts(model, variables)
    kernel = own["generator"]["downsamples.x1.weight"]
    assert kernel.shape == (6, 1, 1, 1) and np.isnan(kernel).all()
    assert own["generator"]["downsamples.x32.weight"].shape == (6, 1, 125, 125)
    assert own["discriminator"]["downs.x1.weight"].shape == (3, 1, 1, 1)


def test_wrong_blur_kernels_and_strange_tensors_are_refused(both):
    model, _, states, _ = both
    for name, array, message in (
        ("downsamples.x4.weight", np.full((6, 1, 13, 13), 1 / 169, np.float32), "closed form"),
        ("shortcut_layers.x64.conv.bias", np.zeros(8, np.float32), "unused source tensors"),
        ("embeds", np.zeros((51, 4), np.float32), "shape clashes"),
    ):
        broken = {"generator": states["generator"] | {name: array}}
        with pytest.raises(ConversionError, match=message):
            convert_state_dicts(model, broken)


def test_files_of_other_systems_are_named():
    fomm = {"generator": {"first.conv.weight": np.zeros((4, 3, 7, 7), np.float32)}}
    with pytest.raises(ConversionError, match="unused source tensors"):
        grouped, _, _ = group_networks(fomm, "gdpw")
        convert_state_dicts(build_model("gdpw", **_ARGUMENTS), grouped)
    with pytest.raises(ConversionError, match="looks like 'gdpw'"):
        group_networks({"generator": {"embeds": np.zeros((5, 4), np.float32)}}, "fomm")


def test_spectral_norm_is_kept_or_folded(both):
    model, variables, states, _ = both
    folded = build_model("gdpw", **model.arguments() | {"spectral_norm": False})
    converted, leftovers = convert_state_dicts(folded, states)
    assert all("spectral" not in trees for trees in converted.values())
    rng = np.random.default_rng(1)
    image = jnp.asarray(rng.random((1, 32, 32, 3)), jnp.float32)
    codes = rng.random((2, 1, 32, 32, 4)).astype(np.float32)
    flow = rng.normal(0, 0.1, (1, 32, 32, 2)).astype(np.float32)
    maps = GuidanceMaps(flow, *codes)
    results = []
    for system, own in ((model, variables), (folded, converted)):
        generator, score = (system.networks[n] for n in ("generator", "discriminator"))
        frame, scores = jax.jit(
            lambda v, g=generator, d=score: (
                g.apply(v["generator"], image, maps, train=False),
                d.apply(v["discriminator"], image, train=False),
            )
        )(own)
        results.append((frame["prediction"], scores[1.0].logits))
    for kept, divided in zip(*results, strict=True):
        np.testing.assert_allclose(kept, divided, atol=2e-5)  # float32 against float64 divisors
    # The way back gives the folded form, as torch saves it once the norm is removed.
    back = to_state_dicts(folded, converted, leftovers)["generator"]
    name = "down_layers.x2.conv.weight"
    assert name in back and name + "_orig" not in back
    again = infer_arguments({"generator": back})
    assert again["spectral_norm"] is False


def test_converted_folder_goes_back_to_the_official_file(both, tmp_path):
    _, _, states, _ = both
    flat = {f"{n}.{key}": array for n, state in states.items() for key, array in state.items()}
    write_safetensors(tmp_path / "PWM_both.safetensors", flat, {})
    certificate = convert_checkpoint(
        "gdpw",
        tmp_path / "PWM_both.safetensors",
        tmp_path / "converted",
        arguments={"resolution": 32},
    )
    assert certificate.arguments["guidance"] == "both"
    assert certificate.networks["generator"]["source_tensors"] == len(states["generator"])
    reverse_checkpoint(tmp_path / "converted", tmp_path / "back.safetensors")
    assert_same_bytes(read_tensors(tmp_path / "back.safetensors"), flat)


@pytest.mark.parametrize(
    "changes",
    [
        {"generator": {"residual": True}},
        {"generator": {"align_corners": True, "vertex_shift_px": 0.0}},
        {"generator": {"spectral_heads": True}},
        {"guidance": "nmfc", "num_vertices": None},
        {"discriminator": {"spectral_heads": True}},
    ],
)
def test_what_the_official_code_would_misread_has_no_way_back(changes):
    """The tensors are the same, or nearly, and the picture is another."""
    nested = {
        key: _ARGUMENTS[key] | value for key, value in changes.items() if isinstance(value, dict)
    }
    model = build_model("gdpw", **_ARGUMENTS | changes | nested)
    name = next(iter(next((v for v in changes.values() if isinstance(v, dict)), changes)))
    with pytest.raises(ConversionError, match=f"be one that the official code can run.*{name}"):
        to_state_dicts(model, random_variables(model, ("discriminator",)))
