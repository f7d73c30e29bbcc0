"""Our .safetensors reader and writer, against the format's own library."""

import json

import numpy as np
import pytest
import safetensors.numpy

from talking_heads_jax.errors import ArgumentError, UnsafeFileError
from talking_heads_jax.serialization.safetensors_file import read_safetensors, write_safetensors


def _tensors():
    rng = np.random.default_rng(0)
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    arrays = {f"t{kind}": (9 * rng.random((2, 3))).astype(kind) for kind in kinds}
    return arrays | {"scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32)}


def _write_raw(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_write_safetensors_is_read_by_the_library(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, _tensors(), {"format": "pt"})
    result = safetensors.numpy.load_file(path)
    assert set(result) == set(_tensors())
    for name, array in _tensors().items():
        np.testing.assert_array_equal(result[name], array)
        assert result[name].dtype == np.asarray(array).dtype


def test_read_safetensors_reads_the_library(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {name: np.asarray(array) for name, array in _tensors().items()}
    safetensors.numpy.save_file(arrays, path, metadata={"k": "v"})
    result, metadata = read_safetensors(path, "file")
    assert metadata == {"k": "v"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(result[name], array, strict=True)


def test_read_safetensors_widens_bfloat16(tmp_path):
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    path = _write_raw(tmp_path / "a", header, b"\x80\x3f\x20\xc0")
    np.testing.assert_array_equal(
        read_safetensors(path, "file")[0]["a"], np.array([1.0, -2.5], np.float32), strict=True
    )


def test_write_safetensors_is_deterministic_and_overwrites_nothing(tmp_path):
    arrays = _tensors()
    write_safetensors(tmp_path / "a", arrays, {"b": "1", "a": "2"})
    write_safetensors(tmp_path / "b", dict(reversed(arrays.items())), {"a": "2", "b": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ArgumentError, match="new file"):
        write_safetensors(tmp_path / "a", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(ArgumentError, match="plain dtype"):
        write_safetensors(tmp_path / "c", {"x": np.array(["text"])})


def _entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": _entry([2], 0, 12)},  # size and offsets disagree
        {"a": _entry([4], 0, 16)},  # beyond the data
        {"a": _entry([2], 4, 12)},  # beyond the data, with a gap
        {"a": _entry([1], 0, 4)},  # four bytes unused
        {"a": _entry([2], 0, 8), "b": _entry([1], 4, 8)},  # overlap
        {"a": _entry([-2], 0, 8)},
        {"a": _entry([2**62, 4], 0, 8)},
        {"a": _entry([True, 2], 0, 8)},
        {"a": _entry([2], 0, 8, dtype="F4")},
        {"a": _entry("2", 0, 8)},
        {"a": _entry([0, 2**61, 2**61], 0, 0)},  # empty, yet larger than numpy can count
        {"a": {"dtype": "F32"}},
        {"a": 3},
        [1],
        {"__metadata__": {"a": 1}, "a": _entry([2], 0, 8)},
        b'{"a":',
        b"{" * 100_000,
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":1}',
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}',
    ],
)
def test_read_safetensors_refuses_bad_headers(tmp_path, header):
    path = _write_raw(tmp_path / "a", header, bytes(8))
    with pytest.raises(UnsafeFileError) as caught:
        read_safetensors(path, "file 'a'")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_read_safetensors_refuses_a_header_longer_than_the_file(tmp_path):
    (tmp_path / "a").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(UnsafeFileError, match="header"):
        read_safetensors(tmp_path / "a", "file")
