"""The container before zip: storages follow the pickles, in the listed order."""

import struct

import numpy as np
import pytest

from talking_heads_jax.errors import UnsafeFileError
from talking_heads_jax.serialization.tensors import read_tensors

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def _read(tmp_path, raw):
    path = tmp_path / "file.pth.tar"
    path.write_bytes(raw)
    return read_tensors(path)


def _body(forge):
    return forge.dictionary(
        a=forge.whole("7", ARRAY, legacy=True),
        b=forge.whole("3", ARRAY.astype(np.float16), legacy=True),
    )


def _storages():
    return {
        "3": (6, ARRAY.astype(np.float16).tobytes()),
        "7": (6, ARRAY.tobytes()),
    }


def test_read_torch_legacy_reads_storages_in_the_listed_order(tmp_path, forge):
    tree = _read(tmp_path, forge.legacy_file(_body(forge), _storages()))
    np.testing.assert_array_equal(tree["a"], ARRAY, strict=True)
    np.testing.assert_array_equal(tree["b"], ARRAY.astype(np.float16), strict=True)


def test_read_torch_legacy_refuses_every_truncation(tmp_path, forge):
    raw = forge.legacy_file(_body(forge), _storages())
    for length in range(15, len(raw), 5):  # shorter ones are not recognised at all
        with pytest.raises(UnsafeFileError) as caught:
            _read(tmp_path, raw[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [-1, 0, 5, 7, 2**62])
def test_read_torch_legacy_refuses_a_wrong_count(tmp_path, forge, count):
    storages = _storages() | {"7": (count, ARRAY.tobytes())}
    with pytest.raises(UnsafeFileError, match="claims"):
        _read(tmp_path, forge.legacy_file(_body(forge), storages))


def test_read_torch_legacy_refuses_missing_and_additional_storages(tmp_path, forge):
    for storages in ({"3": _storages()["3"]}, _storages() | {"9": (0, b"")}):
        with pytest.raises(UnsafeFileError, match="exactly"):
            _read(tmp_path, forge.legacy_file(_body(forge), storages))


def test_read_torch_legacy_refuses_another_protocol(tmp_path, forge):
    raw = forge.legacy_file(_body(forge), _storages())
    changed = raw.replace(struct.pack("<i", 1001), struct.pack("<i", 1002), 1)
    with pytest.raises(UnsafeFileError, match="1001"):
        _read(tmp_path, changed)
