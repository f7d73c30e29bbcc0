"""State dicts to variables and back: bit-exact, and audited tensor by tensor."""

import json

import jax
import numpy as np
import pytest

from talking_heads_jax.conversion.rules import LAYOUTS
from talking_heads_jax.conversion.translate import (
    Leftovers,
    convert_state_dicts,
    group_networks,
    model_table,
    target_shapes,
    to_state_dicts,
    to_variables,
)
from talking_heads_jax.errors import ArgumentError, ConversionError
from talking_heads_jax.models.registry import build_model


def _copy(states):
    return {network: dict(state) for network, state in states.items()}


def _assert_same_states(a, b):
    assert {n: set(s) for n, s in a.items()} == {n: set(s) for n, s in b.items()}
    for network, state in a.items():
        for name, array in state.items():
            other = b[network][name]
            assert (array.dtype, array.shape) == (other.dtype, other.shape), name
            assert np.asarray(array).tobytes() == np.asarray(other).tobytes(), name


def _disturbed(states):
    """What training leaves behind that closed forms do not tell."""
    states = _copy(states)
    for network, state in states.items():
        for index, name in enumerate(state):
            if name.endswith("num_batches_tracked"):
                state[name] = np.asarray(index, np.int64)
            elif name.endswith("down.weight"):
                state[name] = np.nextafter(state[name], np.float32(1))
        states[network] = dict(reversed(state.items()))
    return states


def test_conversion_and_back_is_bit_exact(system):
    states = _disturbed(system.states)
    variables, leftovers = convert_state_dicts(system.model, states)
    assert jax.tree.structure(variables) == jax.tree.structure(dict(system.variables))
    jax.tree.map(np.testing.assert_array_equal, variables, dict(system.variables))
    stored = Leftovers.read(leftovers.tensors, leftovers.metadata())
    _assert_same_states(to_state_dicts(system.model, variables, stored), states)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_conversion_gives_other_dtypes_back(fomm, dtype):
    """Half precision is widened and remembered; what float32 cannot hold is kept."""
    rng = np.random.default_rng(0)
    states = {"kp_detector": dict(fomm.states["kp_detector"])}
    for name in ("kp.weight", "kp.bias"):
        shape = states["kp_detector"][name].shape
        states["kp_detector"][name] = rng.standard_normal(shape).astype(dtype)
    variables, leftovers = convert_state_dicts(fomm.model, states)
    kernel = variables["kp_detector"]["params"]["heatmap"]["kernel"]
    expected = states["kp_detector"]["kp.weight"].transpose(2, 3, 1, 0).astype(np.float32)
    np.testing.assert_array_equal(kernel, expected, strict=True)
    assert bool(leftovers.tensors) == (dtype is np.float64)
    _assert_same_states(to_state_dicts(fomm.model, variables, leftovers), states)


def test_conversion_remembers_absent_tensors(fomm):
    """Files of torch before 0.4.1 have no call counters; the way back must not invent them."""
    states = {"kp_detector": {
        name: array for name, array in fomm.states["kp_detector"].items() if "tracked" not in name
    }}  # fmt: skip
    variables, leftovers = convert_state_dicts(fomm.model, states)
    assert leftovers.absent
    _assert_same_states(to_state_dicts(fomm.model, variables, leftovers), states)


def test_to_state_dicts_keeps_no_stale_values(fomm):
    """After the parameters changed, a kept wide original no longer applies."""
    states = {"kp_detector": dict(fomm.states["kp_detector"])}
    states["kp_detector"]["kp.bias"] = np.full(3, 1 / 3)
    variables, leftovers = convert_state_dicts(fomm.model, states)
    variables["kp_detector"]["params"]["heatmap"]["bias"] = np.ones(3, np.float32)
    back = to_state_dicts(fomm.model, variables, leftovers)["kp_detector"]["kp.bias"]
    np.testing.assert_array_equal(back, np.ones(3))


def _audit(system, change):
    states = _copy(system.states)
    change(states)
    with pytest.raises(ConversionError) as caught:
        to_variables(system.model, states)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_audit_lists_unused_unfilled_and_clashing_tensors(system):
    def change(states):
        states["generator"]["extra.weight"] = np.zeros(3, np.float32)
        del states["kp_detector"]["kp.bias"]
        states["kp_detector"]["jacobian.bias"] = np.zeros(5, np.float32)
        states["discriminator"]["discs.1.conv.bias"] = np.zeros(1, np.int64)

    message = _audit(system, change)
    assert "1 unused source tensors (generator.extra.weight)" in message
    assert "1 unfilled targets (kp_detector.params/heatmap/bias)" in message
    assert "2 shape clashes" in message and "kp_detector.jacobian.bias (5,)" in message
    assert "int64" in message


def test_audit_lists_ten_names_and_the_count(fomm):
    def change(states):
        for i in range(25):
            states["generator"][f"extra.{i}"] = np.zeros(1, np.float32)

    message = _audit(fomm, change)
    assert "25 unused" in message and message.count("extra.") == 10


def test_audit_checks_the_antialiasing_kernel(system):
    def change(states):
        states["kp_detector"]["down.weight"] = states["kp_detector"]["down.weight"] + 1e-4

    assert "closed form" in _audit(system, change)
    states = _copy(system.states)
    kernel = states["kp_detector"]["down.weight"]
    states["kp_detector"]["down.weight"] = np.full_like(kernel, np.nan)  # never used: allowed
    variables, leftovers = convert_state_dicts(system.model, states)
    _assert_same_states(to_state_dicts(system.model, variables, leftovers), states)


def test_audit_refuses_what_is_no_tensor(fomm):
    message = _audit(fomm, lambda states: states["generator"].update({"final.bias": 3}))
    assert "unused" in message and "generator.final.bias" in message


def test_audit_accepts_a_kernel_rounded_to_half_precision(fomm):
    """A checkpoint stored as float16 or bfloat16 rounds the kernel too, by its own half ulp."""
    for rounded in (np.float16, _as_bfloat16):
        states = _copy(fomm.states)
        kernel = states["kp_detector"]["down.weight"]
        states["kp_detector"]["down.weight"] = rounded(kernel)
        assert np.max(np.abs(rounded(kernel) - kernel)) > 1e-6  # it would not pass as float32
        variables, leftovers = convert_state_dicts(fomm.model, states)
        _assert_same_states(to_state_dicts(fomm.model, variables, leftovers), states)
        states["kp_detector"]["down.weight"] = rounded(kernel * np.float32(1.02))
        with pytest.raises(ConversionError, match="closed form"):
            convert_state_dicts(fomm.model, states)


def _as_bfloat16(array):
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("name", ["kp.bias", "down.weight"])
def test_audit_refuses_text(fomm, name):
    """An .npz may hold text where a tensor belongs."""
    states = _copy(fomm.states)
    states["kp_detector"][name] = np.full(states["kp_detector"][name].shape, "x")
    with pytest.raises(ConversionError, match=rf"unused.*{name}"):
        to_variables(fomm.model, states)


@pytest.mark.parametrize("name", ["a\x1b[31m\nb" * 200, "\ud800", "\u0660"])
def test_audit_prints_hostile_names_safely(fomm, name):
    """Names come from the file: one line of ASCII, whatever they are."""
    states = _copy(fomm.states)
    states["generator"][name] = np.zeros(1, np.float32)
    with pytest.raises(ConversionError) as inside:
        to_variables(fomm.model, states)
    with pytest.raises(ConversionError) as outside:
        group_networks({name: np.zeros(1)}, "fomm")
    for caught in (inside, outside):
        message = str(caught.value)
        assert message.isascii() and message.isprintable() and len(message) < 1000


def test_tensors_named_twice_are_refused(fomm):
    """Neither of two values for one name may win silently."""
    name = "final.bias"
    bias = fomm.states["generator"][name]
    prefixed = {**fomm.states["generator"], f"module.{name}": bias + 1}
    for tree in (
        {**fomm.states, "generator": prefixed},
        {**fomm.states, f"generator.{name}": bias + 1},
    ):
        with pytest.raises(ConversionError, match=r"once.*final\.bias"):
            group_networks(tree, "fomm")
    with pytest.raises(ConversionError, match=r"once.*final\.bias"):
        to_variables(fomm.model, {"generator": prefixed})


def test_audit_sees_a_discriminator_without_spectral_norm(fomm):
    def change(states):
        state = states["discriminator"]
        name = "discs.1.conv.weight"
        state[name] = state.pop(name + "_orig")

    message = _audit(fomm, change)
    assert "1 unused source tensors (discriminator.discs.1.conv.weight)" in message
    assert "1 unfilled targets (discriminator.params/scale_1/logits/kernel)" in message


def test_plain_discriminator_converts_both_ways(fomm):
    """vox-adv: no spectral norm, keypoint heatmaps beside the image."""
    options = fomm.arguments["discriminator"] | {"spectral_norm": False, "num_keypoints": 3}
    model = build_model("fomm", **fomm.arguments | {"discriminator": options})
    shapes = jax.eval_shape(lambda key: model.init(key, ["discriminator"]), jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), shapes)
    states = to_state_dicts(model, variables)
    assert "discs.1.conv.weight" in states["discriminator"]
    assert not any("_orig" in name for name in states["discriminator"])
    jax.tree.map(np.testing.assert_array_equal, to_variables(model, states), dict(variables))


def test_to_variables_tolerates_the_data_parallel_prefix(fomm):
    states = {
        network: {f"module.{name}": array for name, array in state.items()}
        for network, state in fomm.states.items()
    }
    jax.tree.map(
        np.testing.assert_array_equal, to_variables(fomm.model, states), dict(fomm.variables)
    )


def test_to_variables_by_name_and_unknown_names(fomm):
    states = {"kp_detector": fomm.states["kp_detector"]}
    variables = to_variables("fomm", states, arguments=fomm.arguments)
    np.testing.assert_array_equal(
        variables["kp_detector"]["params"]["heatmap"]["bias"], states["kp_detector"]["kp.bias"]
    )
    with pytest.raises(ArgumentError, match="fnevr"):
        to_variables("gan", states)
    with pytest.raises(ConversionError, match="belong to 'fomm'"):
        to_variables(fomm.model, {"nose": {}})


def test_to_state_dicts_refuses_parameters_without_an_official_name(fnevr):
    """An ablation that nobody published cannot be written in official names."""
    generator = {
        key: value for key, value in fnevr.arguments["generator"].items() if key != "spade_options"
    }
    arguments = fnevr.arguments | {"generator": generator | {"decoder_type": "residual"}}
    model = build_model("fnevr", **arguments)
    shapes = jax.eval_shape(lambda key: model.init(key, ["generator"]), jax.random.key(0))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with pytest.raises(ConversionError, match="official names"):
        to_state_dicts(model, variables)


def test_group_networks_reads_every_layout(fomm):
    nested = {**fomm.states, "optimizer_generator": {"state": {0: {"step": 1}}}, "epoch": 99}
    flat = {f"{n}.{name}": a for n, state in fomm.states.items() for name, a in state.items()}
    wrapped = {f"module.{name}": array for name, array in flat.items()}
    for tree in (nested, flat, wrapped, {"state_dict": wrapped, "epoch": 3}):
        networks, ignored, impossible = group_networks(tree, "fomm")
        _assert_same_states(networks, fomm.states)
        assert impossible == []
        assert ignored == (["epoch", "optimizer_generator"] if tree is nested else [])


def test_group_networks_reports_networks_of_unknown_architecture(fnevr):
    tree = {
        **fnevr.states,
        "kp_delta_predictor": {"fc.weight": np.zeros((2, 2))},
        "sigma_weight_predictor": {"conv.weight": np.zeros(3)},
    }
    _, _, impossible = group_networks(tree, "fnevr")
    assert impossible == ["kp_delta_predictor", "sigma_weight_predictor"]


def test_group_networks_lists_unknown_networks(fomm):
    tree = {**fomm.states, "kp_delta_predictor": {"fc.weight": np.zeros((2, 2))}}
    with pytest.raises(ConversionError, match=r"unused.*kp_delta_predictor"):
        group_networks(tree, "fomm")


def test_group_networks_says_which_model_a_file_looks_like(fomm, fnevr):
    vgg = {f"features.{i}.weight": np.zeros(1) for i in (0, 2, 5)}
    cases = [
        (fomm.states, "fnevr", "'fomm'"),
        (fnevr.states, "fomm", "'fnevr'"),
        (vgg, "fomm", "'vgg19'"),
        (fomm.states, "vgg19", "'fomm'"),
        ({"he_estimator": {}, "kp_detector": {}}, "fomm", "face-vid2vid"),
        ({"layer.weight": np.zeros(3)}, "fnevr", "layer.weight"),
        ([np.zeros(3)], "fnevr", "a list"),
        ({"generator": fomm.states["generator"]}, "fomm", "no kp_detector"),
    ]
    for tree, model, word in cases:
        with pytest.raises(ConversionError) as caught:
            group_networks(tree, model)
        assert word in str(caught.value) and "\n" not in str(caught.value)


def test_tables_hold_the_documented_names():
    """Names of the released files, one or two of each kind, without the shared folder."""
    names = {
        "kp_detector": [
            "predictor.encoder.down_blocks.4.conv.weight",
            "predictor.decoder.up_blocks.0.norm.running_var",
            "predictor.decoder.up_blocks.0.norm.num_batches_tracked",
            "kp.weight",
            "jacobian.bias",
            "down.weight",
        ],
        "discriminator": [
            "discs.1.down_blocks.0.conv.weight_orig",
            "discs.1.down_blocks.3.norm.bias",
            "discs.0-5.conv.weight_v",
        ],
    }
    generator = [
        "dense_motion_network.hourglass.encoder.down_blocks.0.conv.weight",
        "dense_motion_network.occlusion.bias",
        "dense_motion_network.down.weight",
        "first.norm.weight",
        "down_blocks.1.conv.bias",
    ]
    fnevr = [
        "Render_model.sigma_predict.res_conv3d.5.running_mean",
        "Render_model.sigma_predict.res_conv3d.4.conv2.weight",
        "Render_model.nerf_module.layer3_2.weight",
        "Render_model.mini_decoder.2.norm.num_batches_tracked",
        "decoder.seg_conv.0.weight",
        "decoder.SPADE_3.SPADE_1.mlp_shared.0.bias",
        "decoder.SPADE_0.conv_1.weight",
        "decoder.final.0.weight",
    ]
    fomm = ["bottleneck.r5.norm2.running_mean", "up_blocks.1.conv.weight", "final.bias"]
    for model, own, foreign in (("fomm", fomm, fnevr), ("fnevr", fnevr, fomm)):
        tables = model_table(model).networks
        for network, listed in names.items():
            assert all(tables[network].knows(name) for name in listed)
        assert all(tables["generator"].knows(name) for name in generator + own)
        assert not any(tables["generator"].knows(name) for name in foreign)


@pytest.mark.parametrize(
    ("model", "network", "case"),
    [
        ("fomm", "kp_detector", "fomm_kp_detector"),
        ("fomm", "generator", "fomm_generator"),
        ("fomm", "discriminator", "fomm_discriminator"),
        ("fnevr", "kp_detector", "fnevr_kp_detector"),
        ("fnevr", "generator", "fnevr_generator"),
        ("vgg19", "vgg19", "vgg19_features"),
    ],
)
def test_tables_cover_the_released_networks(shared_folder, model, network, case):
    """Every tensor of the official full-size network has its place, with its shape, and back."""
    path = shared_folder / "golden" / f"{case}.json"
    listed = json.loads(path.read_text())["tensors"]
    built = model if model == "vgg19" else build_model(model)
    shapes = target_shapes(built, [network])[network]
    table = model_table(model).networks[network]
    filled = {}
    for name, shape in listed.items():
        assert table.knows(name), name
        for rule in table.rules:
            if rule.path(name) in shapes:
                target = shapes[rule.path(name)]
                array = np.broadcast_to(np.float32(0), shape)
                assert LAYOUTS[rule.layout].forward(array, target.shape).shape == target.shape
                assert rule.name(rule.path(name), shapes) == name or rule.when or rule.unless
                filled[rule.path(name)] = name
    assert set(filled) == set(shapes)
