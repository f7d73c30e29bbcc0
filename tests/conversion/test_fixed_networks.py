"""The estimators' tables: every released name has its place and its way back."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from talking_heads_jax.assets import locate_asset
from talking_heads_jax.conversion import apply, translate
from talking_heads_jax.conversion.apply import convert_checkpoint, reverse_checkpoint
from talking_heads_jax.conversion.rules import LAYOUTS
from talking_heads_jax.conversion.translate import (
    convert_state_dicts,
    group_networks,
    model_table,
    target_shapes,
    to_state_dicts,
)
from talking_heads_jax.errors import ConversionError
from talking_heads_jax.networks.deca import DecaEncoder
from talking_heads_jax.networks.deep3d import Deep3DRegressor
from talking_heads_jax.networks.face_parsing import FaceParsingNetwork
from talking_heads_jax.networks.fan import FaceAlignmentNetwork
from talking_heads_jax.networks.weights import load_variables, variable_shapes
from talking_heads_jax.serialization.tensors import flatten, read_tensors, write_safetensors

_REDUCED = Path(__file__).resolve().parents[1] / "testdata" / "golden"
_NARROW = {
    "fan": FaceAlignmentNetwork(num_stacks=2, features=8, num_landmarks=3),
    "face_parsing": FaceParsingNetwork(features=4),
    "deca": DecaEncoder(features=2, depths=(2, 1, 1, 1), hidden=5),
    "deep3d": Deep3DRegressor(features=2, depths=(2, 1, 1, 1)),
}
_WRAPPERS = {"fan": None, "face_parsing": None, "deca": "E_flame", "deep3d": "net_recon"}
_RELEASED = {
    "fan": ("fan_2d", 23_820_176),
    "face_parsing": ("bisenet_face_parsing", 13_300_416),
    "deca": ("deca_regressor", 25_848_108),
    "deep3d": ("deep3d_regressor", 24_034_625),
}


@pytest.mark.parametrize("model", _RELEASED)
def test_tables_cover_the_released_networks(model):
    """Every tensor of the official full-size network has its place, with its shape, and back."""
    case, parameters = _RELEASED[model]
    listed = json.loads((_REDUCED / f"{case}.json").read_text())["tensors"]
    shapes = target_shapes(model, [model])[model]
    table = model_table(model).networks[model]
    filled = {}
    for name, shape in listed.items():
        assert table.knows(name), name
        placed = [rule for rule in table.rules if rule.path(name) in shapes]
        assert len(placed) == (0 if name.endswith("num_batches_tracked") else 1), name
        for rule in placed:
            path = rule.path(name)
            array = np.broadcast_to(np.float32(0), shape)
            assert LAYOUTS[rule.layout].forward(array, ()).shape == shapes[path].shape
            assert rule.name(path, shapes) == name
            filled[path] = name
    assert set(filled) == set(shapes)
    params = [leaf.size for path, leaf in shapes.items() if path.startswith("params/")]
    assert sum(params) == parameters


@pytest.fixture(params=_NARROW)
def narrow(request, monkeypatch):
    """A narrow network of the released kind, its variables and its official state dict."""
    name, module = request.param, _NARROW[request.param]
    shapes = variable_shapes(module, 64)
    monkeypatch.setattr(translate, "_fixed_shapes", lambda model: flatten(shapes))
    rng = np.random.default_rng(len(name))
    variables = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype("f4"), shapes)
    state = to_state_dicts(name, {name: variables})[name]
    return SimpleNamespace(name=name, module=module, variables=dict(variables), state=state)


def _assert_same(first, second):
    assert set(first) == set(second)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, strict=True)


def test_conversion_and_back_is_bit_exact(narrow):
    """With counters as training leaves them, and without, as old files are."""
    counted = dict(narrow.state)
    for index, name in enumerate(counted):
        if name.endswith("num_batches_tracked"):
            counted[name] = np.asarray(index, np.int64)
    bare = {key: value for key, value in counted.items() if "tracked" not in key}
    assert len(bare) < len(counted)
    for state in (counted, bare):
        variables, leftovers = convert_state_dicts(narrow.name, {narrow.name: state})
        jax.tree.map(np.testing.assert_array_equal, variables[narrow.name], narrow.variables)
        _assert_same(to_state_dicts(narrow.name, variables, leftovers)[narrow.name], state)


def test_files_convert_register_and_reverse(narrow, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    wrapper = _WRAPPERS[narrow.name]
    prefix = "" if wrapper is None else f"{wrapper}."
    wrapped = {prefix + key: array for key, array in narrow.state.items()}
    source = tmp_path / "official.pth"
    write_safetensors(source, wrapped)
    certificate = convert_checkpoint(narrow.name, source)
    network = certificate.networks[narrow.name]
    assert network["source_tensors"] == len(narrow.state)
    assert network["tensors"] == len(flatten(narrow.variables))
    asset = locate_asset(narrow.name, verify=True)
    loaded = load_variables(narrow.name, narrow.module, 64)
    jax.tree.map(np.testing.assert_array_equal, loaded, narrow.variables)
    reverse_checkpoint(asset, tmp_path / "back.safetensors")
    _assert_same(read_tensors(tmp_path / "back.safetensors"), wrapped)
    shutil.rmtree(tmp_path / "home")
    convert_checkpoint(narrow.name, tmp_path / "back.safetensors", tmp_path / "out")
    loaded = load_variables(narrow.name, narrow.module, 64)
    jax.tree.map(np.testing.assert_array_equal, loaded, narrow.variables)


@pytest.mark.parametrize(
    ("narrow", "others"),
    [
        (
            "deca",
            {
                "E_detail": {"encoder.conv1.weight": np.zeros(3, np.float32)},
                "D_detail": {"l1.0.weight": np.zeros(3, np.float32)},
                "opt": {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}},
                "global_step": 7,
            },
        ),
        (
            "deep3d",
            {
                "opt_00": {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}},
                "sched_00": {"last_epoch": 20},
            },
        ),
    ],
    indirect=["narrow"],
)
def test_the_rest_of_a_release_is_left_out_and_listed(narrow, others, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    tree = {_WRAPPERS[narrow.name]: narrow.state, **others}
    networks, ignored, impossible = group_networks(tree, narrow.name)
    _assert_same(networks[narrow.name], narrow.state)
    assert ignored == sorted(others) and impossible == []
    (tmp_path / "release").write_bytes(b"read below")
    monkeypatch.setattr(apply, "read_tensors", lambda path: tree)
    assert convert_checkpoint(narrow.name, tmp_path / "release").ignored == sorted(others)
    # The network alone, as people extract it.
    assert group_networks(narrow.state, narrow.name)[0].keys() == {narrow.name}
    strange = {**tree, "E_expression": {"weight": np.zeros(2)}}
    with pytest.raises(ConversionError, match=r"unused source tensors.*E_expression"):
        group_networks(strange, narrow.name)


@pytest.mark.parametrize("narrow", ["deca"], indirect=True)
def test_files_of_other_networks_are_named(narrow):
    wrapped = {"E_flame": narrow.state}
    for tree, model in ((wrapped, "deep3d"), (narrow.state, "deep3d"), (wrapped, "fomm")):
        with pytest.raises(ConversionError, match="looks like 'deca'"):
            group_networks(tree, model)
    damaged = dict(narrow.state)
    del damaged["encoder.bn1.running_var"]
    damaged["layers.2.bias"] = damaged["layers.2.bias"][:-1]
    with pytest.raises(ConversionError) as caught:
        convert_state_dicts("deca", {"deca": damaged})
    assert "1 unfilled targets (batch_stats/trunk/norm_1/var)" in str(caught.value)
    assert "1 shape clashes (layers.2.bias (235,) float32, model (236,))" in str(caught.value)
