"""The zip container: what torch writes is read, every lie about sizes is refused unread."""

import io
import struct
import zipfile

import numpy as np
import pytest

from talking_heads_jax.errors import ConversionError, UnsafeFileError
from talking_heads_jax.serialization.tensors import read_tensors

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def _read(tmp_path, raw):
    path = tmp_path / "file.pth"
    path.write_bytes(raw)
    return read_tensors(path)


def _archive(forge, **options):
    body = forge.pickled(forge.dictionary(a=forge.whole("0", ARRAY)))
    return forge.zip_file(body, {"0": ARRAY.tobytes()}, **options)


@pytest.mark.parametrize("order", ["little", "big"])
def test_read_torch_zip_honours_the_byte_order(tmp_path, forge, order):
    body = forge.pickled(forge.dictionary(a=forge.whole("0", ARRAY)))
    raw = ARRAY.astype("<f4" if order == "little" else ">f4").tobytes()
    tree = _read(tmp_path, forge.zip_file(body, {"0": raw}, byteorder=order.encode()))
    np.testing.assert_array_equal(tree["a"], ARRAY, strict=True)


def test_read_torch_zip_refuses_an_unknown_byte_order(tmp_path, forge):
    with pytest.raises(UnsafeFileError, match="byte order"):
        _read(tmp_path, _archive(forge, byteorder=b"middle"))


def test_read_torch_zip_refuses_every_truncation(tmp_path, forge):
    """A download that stopped anywhere is a one-line error."""
    raw = _archive(forge)
    for length in range(4, len(raw) - 1, 7):
        with pytest.raises(UnsafeFileError, match=r"truncated|complete|damaged"):
            _read(tmp_path, raw[:length])


def test_read_torch_zip_refuses_compressed_entries(tmp_path, forge):
    with pytest.raises(UnsafeFileError, match="uncompressed"):
        _read(tmp_path, _archive(forge, compression=zipfile.ZIP_DEFLATED))


def test_read_torch_zip_refuses_repeated_names(tmp_path, forge):
    with pytest.warns(UserWarning, match="Duplicate name"):
        raw = _archive(forge, more={"archive/data/0": bytes(24)})
    with pytest.raises(UnsafeFileError, match="once"):
        _read(tmp_path, raw)


def test_read_torch_zip_refuses_entries_that_claim_more_than_the_file(tmp_path, forge):
    """Sizes in the central directory are claims: here 2 GB in a file of a few hundred bytes."""
    raw = bytearray(_archive(forge))
    at = raw.rfind(b"archive/data/0") - 46  # its record of the central directory
    assert raw[at : at + 4] == b"PK\x01\x02"
    struct.pack_into("<II", raw, at + 20, 2**31, 2**31)
    with pytest.raises(UnsafeFileError, match="claim"):
        _read(tmp_path, bytes(raw))


def test_read_torch_zip_refuses_a_missing_storage(tmp_path, forge):
    body = forge.pickled(forge.dictionary(a=forge.whole("1", ARRAY)))
    with pytest.raises(UnsafeFileError, match="no entry"):
        _read(tmp_path, forge.zip_file(body, {"0": ARRAY.tobytes()}))


def test_read_torch_zip_refuses_a_storage_name_that_climbs(tmp_path, forge):
    """Names are looked up in the archive, never on the disk."""
    (tmp_path / "0").write_bytes(ARRAY.tobytes())
    body = forge.pickled(forge.dictionary(a=forge.whole("../../0", ARRAY)))
    with pytest.raises(UnsafeFileError, match="no entry"):
        _read(tmp_path, forge.zip_file(body, {}))


def test_read_torch_zip_notices_a_changed_storage(tmp_path, forge):
    raw = _archive(forge).replace(ARRAY.tobytes(), (ARRAY + 1).tobytes())
    with pytest.raises(UnsafeFileError, match="unreadable"):
        _read(tmp_path, raw)


def test_read_tensors_refuses_other_archives(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ConversionError, match="another kind of zip"):
        _read(tmp_path, buffer.getvalue())


def test_read_torch_zip_drops_the_metadata_of_a_state_dict(tmp_path, forge):
    """A module's state dict is an ordered dictionary with an attribute; optimiser and epoch beside.

    The attribute may be named like a method: it must not shadow anything.
    """
    state = (
        forge.ordered_dict()
        + b"("
        + forge.text("a")
        + forge.whole("0", ARRAY)
        + forge.text("n")
        + forge.whole("1", np.asarray(7, np.int64))
        + b"u"
        + forge.dictionary(_metadata=forge.ordered_dict(), items=forge.number(1))
        + b"b"
    )
    body = forge.dictionary(generator=state, optimizer=forge.dictionary(state=b"}"), epoch=b"K\x63")
    storages = {"0": ARRAY.tobytes(), "1": np.asarray(7, np.int64).tobytes()}
    tree = _read(tmp_path, forge.zip_file(forge.pickled(body), storages))
    assert set(tree) == {"generator", "optimizer", "epoch"} and tree["epoch"] == 99
    assert set(tree["generator"]) == {"a", "n"} and type(tree["generator"]) is dict
    np.testing.assert_array_equal(tree["generator"]["a"], ARRAY, strict=True)
    assert tree["generator"]["n"] == 7 and tree["generator"]["n"].shape == ()
