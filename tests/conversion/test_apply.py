"""Files in, folders out, and back: complete certificates, nothing overwritten."""

import json

import jax
import numpy as np
import pytest

from talking_heads_jax.assets import locate_asset
from talking_heads_jax.checkpoints import load_model
from talking_heads_jax.conversion.apply import convert_checkpoint, reverse_checkpoint
from talking_heads_jax.errors import ArgumentError, ConversionError, UnsafeFileError
from talking_heads_jax.networks.vgg19 import CONVOLUTIONS
from talking_heads_jax.serialization.tensors import (
    flatten,
    read_tensors,
    unflatten,
    write_safetensors,
)


def _write(path, states):
    flat = {f"{n}.{name}": a for n, state in states.items() for name, a in state.items()}
    write_safetensors(path, flat)
    return path


def _assert_same_files(a, b):
    first, second = read_tensors(a), read_tensors(b)
    assert set(first) == set(second)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, strict=True)
        assert second[name].tobytes() == array.tobytes()


def test_convert_and_reverse_give_the_same_tensors(system, tmp_path):
    """Through files, bit for bit; counters and kernels as the file had them."""
    states = {network: dict(state) for network, state in system.states.items()}
    states["kp_detector"]["down.weight"] = np.nextafter(
        states["kp_detector"]["down.weight"], np.float32(1)
    )
    for name in states["generator"]:
        if name.endswith("num_batches_tracked"):
            states["generator"][name] = np.asarray(1234, np.int64)
    source = _write(tmp_path / "official.pth", states)
    folder = tmp_path / "converted"
    certificate = convert_checkpoint(system.name, source, folder, arguments=system.arguments)
    loaded = load_model(folder)
    assert loaded.info["certificate"] == certificate.to_dict()
    for name, tree in loaded.variables.items():
        jax.tree.map(np.testing.assert_array_equal, tree, dict(system.variables[name]))
    reverse_checkpoint(folder, tmp_path / "back.safetensors")
    _assert_same_files(tmp_path / "back.safetensors", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "back.safetensors",
        "converted",
        "official.pth",
    ]


def test_certificate_counts_and_checksums(fnevr, tmp_path):
    states = fnevr.states | {"kp_delta_predictor": {"fc.weight": np.zeros((2, 2), np.float32)}}
    source = _write(tmp_path / "official.safetensors", states)
    one, two = (
        convert_checkpoint(
            "fnevr",
            source,
            tmp_path / name,
            arguments=fnevr.arguments,
            reference=lambda model, variables: {"case": {"prediction": 1e-6}},
        )
        for name in ("one", "two")
    )
    assert one == two
    stored = json.loads((tmp_path / "one" / "certificate.json").read_text())
    assert stored == one.to_dict()
    assert stored["not_convertible"] == ["kp_delta_predictor"]
    assert stored["errors"] == {"case": {"prediction": 1e-6}}
    assert len(stored["source"]["sha256"]) == 64 and stored["source"]["file"] == source.name
    for network, entry in stored["networks"].items():
        tree = fnevr.variables[network]
        assert entry["source_tensors"] == len(fnevr.states[network])
        assert entry["parameters"] == sum(x.size for x in jax.tree.leaves(tree["params"]))
        assert entry["tensors"] == len(jax.tree.leaves(dict(tree)))
    shas = [entry["sha256"] for entry in stored["networks"].values()]
    assert len(set(shas)) == 3


def test_certificate_checksum_sees_one_bit(fomm, tmp_path):
    states = {network: dict(state) for network, state in fomm.states.items()}
    bias = states["generator"]["final.bias"]
    states["generator"]["final.bias"] = np.nextafter(bias, np.float32(9))
    shas = []
    for name, tensors in (("a", fomm.states), ("b", states)):
        source = _write(tmp_path / f"{name}.safetensors", tensors)
        certificate = convert_checkpoint("fomm", source, tmp_path / name, arguments=fomm.arguments)
        shas.append({n: entry["sha256"] for n, entry in certificate.networks.items()})
    assert shas[0]["generator"] != shas[1]["generator"]
    assert shas[0]["kp_detector"] == shas[1]["kp_detector"]


def test_convert_infers_what_shapes_tell(fomm, tmp_path):
    """The number of keypoints follows the file; explicit arguments win and may clash."""
    arguments = {key: value for key, value in fomm.arguments.items() if key != "num_keypoints"}
    source = _write(tmp_path / "a.safetensors", fomm.states)
    certificate = convert_checkpoint("fomm", source, tmp_path / "out", arguments=arguments)
    assert certificate.arguments["num_keypoints"] == 3
    with pytest.raises(ConversionError, match="shape clashes"):
        convert_checkpoint(
            "fomm", source, tmp_path / "other", arguments=arguments | {"num_keypoints": 4}
        )
    assert not (tmp_path / "other").exists()


def test_failed_conversions_leave_nothing(fomm, fnevr, tmp_path):
    source = _write(tmp_path / "fomm.safetensors", fomm.states)
    (tmp_path / "cut.pth").write_bytes(source.read_bytes()[:-8])
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    cases = [
        ("fnevr", source, tmp_path / "out", ConversionError, "looks like 'fomm'"),
        ("fomm", source, tmp_path / "out", ConversionError, "constructor arguments"),
        ("fomm", tmp_path / "cut.pth", tmp_path / "out", UnsafeFileError, "cut.pth"),
        ("fomm", tmp_path / "no.pth", tmp_path / "out", ConversionError, "exist"),
        ("fomm", source, taken, ConversionError, "new or empty"),
        ("fomm", source, None, ConversionError, "--output"),
        ("gan", source, tmp_path / "out", ArgumentError, "fnevr"),
    ]
    for model, path, output, kind, word in cases:
        with pytest.raises(kind, match=word) as caught:
            convert_checkpoint(model, path, output)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_reverse_overwrites_nothing(fomm, tmp_path):
    source = _write(tmp_path / "a.safetensors", fomm.states)
    convert_checkpoint("fomm", source, tmp_path / "out", arguments=fomm.arguments)
    with pytest.raises(ConversionError, match="new file"):
        reverse_checkpoint(tmp_path / "out", source)
    with pytest.raises(ConversionError, match="fixed network"):
        reverse_checkpoint(source, tmp_path / "b.safetensors")


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory):
    """torchvision's names and shapes, all 16 convolutions; simple values are quick to make."""
    state = {}
    for index, (inputs, outputs) in CONVOLUTIONS.items():
        values = np.arange(outputs * inputs * 9, dtype=np.float32) % 257 + index
        state[f"features.{index}.weight"] = values.reshape(outputs, inputs, 3, 3)
        state[f"features.{index}.bias"] = np.full(outputs, index, np.float32)
    path = tmp_path_factory.mktemp("vgg19") / "vgg19-dcbb9e9d.pth"
    write_safetensors(path, state)
    return path


def test_convert_vgg19_registers_and_reverses(vgg19_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    certificate = convert_checkpoint("vgg19", vgg19_file)
    asset = locate_asset("vgg19", verify=True)
    params = unflatten(read_tensors(asset))
    assert len(flatten(params)) == certificate.networks["vgg19"]["tensors"] == 26
    original = read_tensors(vgg19_file)
    np.testing.assert_array_equal(
        params["features_5"]["kernel"], original["features.5.weight"].transpose(2, 3, 1, 0)
    )
    assert (asset.parent / "vgg19.certificate.json").is_file()
    reverse_checkpoint(asset, tmp_path / "back.safetensors")
    _assert_same_files(tmp_path / "back.safetensors", vgg19_file)
    assert convert_checkpoint("vgg19", vgg19_file) == certificate  # again: nothing changes


def test_convert_vgg19_writes_where_it_is_told(vgg19_file, tmp_path, monkeypatch):
    """Classifier layers are dropped, stored statistics are checked."""
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    state = read_tensors(vgg19_file) | {
        "classifier.6.bias": np.zeros(1000, np.float32),
        "mean": np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1),
    }
    write_safetensors(tmp_path / "file.pth", state)
    certificate = convert_checkpoint("vgg19", tmp_path / "file.pth", tmp_path / "out")
    assert certificate.ignored == ["classifier.6.bias"]
    written = tmp_path / "out" / "vgg19.safetensors"
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "vgg19.certificate.json",
        "vgg19.conversion_extras.safetensors",
        "vgg19.safetensors",
    ]
    assert written.read_bytes() == locate_asset("vgg19").read_bytes()
    with pytest.raises(ConversionError, match="overwritten"):
        convert_checkpoint("vgg19", tmp_path / "file.pth", tmp_path / "out")
    state["mean"] = state["mean"] + 0.1
    write_safetensors(tmp_path / "other.pth", state)
    with pytest.raises(ConversionError, match="closed form"):
        convert_checkpoint("vgg19", tmp_path / "other.pth", tmp_path / "other")
