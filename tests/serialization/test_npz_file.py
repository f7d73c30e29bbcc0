"""Archives of numpy arrays: exact, and never unpickled."""

import io
import zipfile

import numpy as np
import pytest

from talking_heads_jax.errors import UnsafeFileError
from talking_heads_jax.serialization.tensors import read_tensors


def _archive(tmp_path, entries, compression=zipfile.ZIP_STORED):
    path = tmp_path / "file.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in entries.items():
            archive.writestr(name, raw)
    return path


def _npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_npz_equals_numpy(tmp_path, save):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 4), np.float32),
        "flag": np.array([True, False]),
        "big": np.arange(3, dtype=">i4"),
        "text": np.array(["x", "yz"]),
    }
    save(tmp_path / "file.npz", **arrays)
    result = read_tensors(tmp_path / "file.npz")
    assert set(result) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(result[name], array)
        assert result[name].shape == array.shape
        assert result[name].dtype == array.dtype.newbyteorder("=")


def test_read_npz_refuses_objects(tmp_path):
    raw = _npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UnsafeFileError, match="not pickles"):
        read_tensors(_archive(tmp_path, {"a.npy": raw}))


def test_read_npz_refuses_claims_beyond_the_data(tmp_path):
    raw = _npy(np.zeros(4, np.float32))
    for claim in (b"(5,), }", b"(99999999999999,), }", b"(-4,), }", b"(3,), }"):
        changed = raw.replace(b"(4,), }".ljust(len(claim)), claim)
        header = changed[: changed.index(b"\n")].rstrip()
        padding = 127 - len(header)  # numpy pads the header to 128 bytes
        changed = header + b" " * padding + b"\n" + raw[-16:]
        with pytest.raises(UnsafeFileError):
            read_tensors(_archive(tmp_path, {"a.npy": changed}))


def test_read_npz_refuses_a_compression_bomb(tmp_path):
    """1 GB of zeros in about 1 MB; refused from its directory, before anything is unpacked."""
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w") as stream,
    ):
        for _ in range(256):
            stream.write(bytes(2**20))
    with path.open("r+b") as stream:  # the claim alone is enough: pretend 4 times as much
        raw = bytearray(path.read_bytes())
        at = raw.rfind(b"PK\x01\x02")
        raw[at + 24 : at + 28] = (2**30).to_bytes(4, "little")
        stream.write(raw)
    with pytest.raises(UnsafeFileError, match="unpack"):
        read_tensors(path)


@pytest.mark.parametrize(
    "header",
    [
        "{[]: 1}",  # a key that cannot be hashed
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4,)",  # never closed
        "(" * 3000,
        "'''",
        "  x\n y",
        "{'descr': (), 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775808)}",
    ],
)
def test_read_npz_refuses_damaged_headers(tmp_path, header):
    """numpy evaluates the header as a literal; whatever that raises is one line here."""
    text = header.encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    with pytest.raises(UnsafeFileError) as caught:
        read_tensors(_archive(tmp_path, {"a.npy": raw}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_read_npz_refuses_compressions_numpy_does_not_write(tmp_path, compression):
    path = _archive(tmp_path, {"a.npy": _npy(np.zeros(4))}, compression)
    with pytest.raises(UnsafeFileError, match="stored or deflated"):
        read_tensors(path)


def test_read_npz_refuses_truncation(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, a=np.arange(100))
    raw = path.read_bytes()
    for length in range(4, len(raw) - 1, 53):
        path.write_bytes(raw[:length])
        with pytest.raises(UnsafeFileError):
            read_tensors(path)
