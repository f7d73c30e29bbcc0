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
from talking_heads_jax.models.gdpw.discriminator import StrideDiscriminator
from talking_heads_jax.models.gdpw.guidance import GuidanceMaps
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.ops.resize import antialias_downsample
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


def _own_layout(array):
    """A kernel as ours are laid out, from (out, in, height, width)."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def test_discriminators_of_two_strides_are_converted_each_to_its_own(both):
    """The released file has stride 1 alone; the names of the others follow from the code."""
    arguments = _ARGUMENTS | {"guidance": "both"}
    arguments["discriminator"] = _ARGUMENTS["discriminator"] | {"strides": [1, 2]}
    model = build_model("gdpw", **arguments)
    state = to_state_dicts(model, random_variables(model, ("discriminator",), seed=1))
    state = state["discriminator"]
    inferred = infer_arguments({"discriminator": state})
    assert inferred["discriminator"] == arguments["discriminator"]
    # What the blur before stride 2 has in the file: deviation 1/2, radius 2.
    taps = np.exp(-2.0 * np.arange(-2, 3) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    assert state["downs.x2.weight"].shape == (3, 1, 5, 5)
    np.testing.assert_allclose(state["downs.x2.weight"][1, 0], kernel, atol=1e-6)
    # Numbers of a file, not of our own way there.
    rng = np.random.default_rng(2)
    state = {
        name: array
        if name.startswith("downs.") or not np.issubdtype(array.dtype, np.floating)
        else rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        for name, array in state.items()
    }
    states = {"generator": both[2]["generator"], "discriminator": state}
    converted, leftovers = convert_state_dicts(model, states)
    own = converted["discriminator"]
    for stride in (1, 2):
        params, theirs = own["params"][f"stride_{stride}"], f"discs.x{stride}."
        for block in range(2):
            block_params, name = params[f"blocks_{block}"], f"{theirs}layers.{block}."
            for found, expected in (
                (block_params["conv"]["kernel"], "conv.weight_orig"),
                (block_params["conv"]["bias"], "conv.bias"),
                (block_params["norm"]["scale"], "norm.weight"),
                (block_params["norm"]["bias"], "norm.bias"),
            ):
                np.testing.assert_array_equal(found, _own_layout(state[name + expected]))
            statistics = own["batch_stats"][f"stride_{stride}"][f"blocks_{block}"]["norm"]
            np.testing.assert_array_equal(statistics["mean"], state[f"{name}norm.running_mean"])
            vectors = own["spectral"][f"stride_{stride}"][f"blocks_{block}"]["conv"]
            np.testing.assert_array_equal(vectors["u"], state[f"{name}conv.weight_u"])
        kernel = _own_layout(state[f"{theirs}out_convs.0.weight"])
        np.testing.assert_array_equal(params["logits"]["kernel"], kernel)
    # Each judges its own size, the second one a picture blurred and halved.
    image = jnp.asarray(rng.random((1, 32, 32, 3)), jnp.float32)
    scores = jax.jit(lambda v: model.networks["discriminator"].apply(v, image, train=False))(own)
    alone = StrideDiscriminator(num_blocks=2, block_expansion=2, max_features=4)
    for stride, seen in ((1, image), (2, antialias_downsample(image, 0.5))):
        part = {name: trees[f"stride_{stride}"] for name, trees in own.items()}
        expected = jax.jit(lambda v, x: alone.apply(v, x, train=False))(part, seen)
        assert scores[1 / stride].logits.shape == expected.logits.shape
        np.testing.assert_allclose(scores[1 / stride].logits, expected.logits, rtol=1e-5)
    stored = Leftovers.read(leftovers.tensors, leftovers.metadata())
    assert_same_bytes(to_state_dicts(model, converted, stored)["discriminator"], state)


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
