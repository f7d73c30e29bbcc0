"""Strided views: exact inside their storage, refused outside it."""

import numpy as np
import pytest

from talking_heads_jax.errors import UnsafeFileError
from talking_heads_jax.serialization.tensors import read_tensors
from talking_heads_jax.serialization.torch_tensors import bfloat16_to_float32, decode, item_size


def _read(tmp_path, raw):
    path = tmp_path / "file.pth"
    path.write_bytes(raw)
    return read_tensors(path)


def _view(tmp_path, forge, array, size, stride, offset=0, numel=None, kind="FloatStorage"):
    numel = array.size if numel is None else numel
    body = forge.dictionary(a=forge.tensor("0", kind, numel, size, stride, offset=offset))
    return _read(tmp_path, forge.zip_file(forge.pickled(body), {"0": array.tobytes()}))["a"]


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((4, 6), (6, 1), 0),
        ((6, 4), (1, 6), 0),  # transposed
        ((2, 3), (12, 2), 1),  # strided
        ((), (), 7),
        ((0, 3), (3, 1), 0),
        ((3, 4), (0, 1), 2),  # expanded
        ((5, 3), (2, 1), 0),  # overlapping rows
        ((1, 4), (2**60, 1), 0),  # the stride of a single row means nothing
    ],
)
def test_materialize_equals_indexing(tmp_path, forge, size, stride, offset):
    """Against the definition: element i of a view is storage[offset + i · stride]."""
    array = np.arange(24, dtype=np.float32)
    view = _view(tmp_path, forge, array, size, stride, offset)
    expected = np.empty(size, np.float32)
    for index in np.ndindex(*size):
        place = offset + sum(i * s for i, s in zip(index, stride, strict=True))
        expected[index] = array[place]
    np.testing.assert_array_equal(view, expected, strict=True)
    assert view.flags.c_contiguous


@pytest.mark.parametrize(
    ("size", "stride", "offset", "numel"),
    [
        ((25,), (1,), 0, None),  # one element too many
        ((24,), (1,), 1, None),
        ((2, 3), (23, 1), 0, None),
        ((24,), (-1,), 23, None),  # negative stride
        ((-1,), (1,), 0, None),
        ((4,), (1,), -1, None),  # negative offset
        ((4, 6), (6,), 0, None),  # one stride for two axes
        ((2**40, 2**40), (0, 0), 0, None),  # expanded beyond all memory
        ((2**61,), (1,), 0, 2**61),  # a storage that claims more than the file
        ((25,), (1,), 0, 25),
        ((0, 2**61), (1, 1), 0, None),
        ((1,) * 40, (1,) * 40, 0, None),  # more axes than numpy has
    ],
)
def test_read_tensors_refuses_views_outside_their_storage(
    tmp_path, forge, size, stride, offset, numel
):
    array = np.arange(24, dtype=np.float32)
    with pytest.raises(UnsafeFileError) as caught:
        _view(tmp_path, forge, array, size, stride, offset, numel)
    assert "\n" not in str(caught.value)


def test_read_tensors_bounds_the_sum_of_expanded_views(tmp_path, forge):
    """A thousand expanded views, each smaller than the file, would need 1000 times its size."""
    array = np.zeros(2**14, np.float32)
    views = {
        f"v{i}": forge.tensor("0", "FloatStorage", array.size, (2**14,), (0,)) for i in range(1000)
    }
    raw = forge.zip_file(forge.pickled(forge.dictionary(**views)), {"0": array.tobytes()})
    with pytest.raises(UnsafeFileError, match="times its size"):
        _read(tmp_path, raw)


def test_read_tensors_refuses_one_storage_of_two_types(tmp_path, forge):
    body = forge.dictionary(
        a=forge.tensor("0", "FloatStorage", 4, (4,), (1,)),
        b=forge.tensor("0", "IntStorage", 4, (4,), (1,)),
    )
    with pytest.raises(UnsafeFileError, match="same way"):
        _read(tmp_path, forge.zip_file(forge.pickled(body), {"0": bytes(16)}))


@pytest.mark.parametrize("kind", ["QInt8Storage", "ComplexFloatStorage", "UntypedStorage"])
def test_read_tensors_refuses_other_storage_types_by_name(tmp_path, forge, kind):
    with pytest.raises(UnsafeFileError, match=kind):
        _view(tmp_path, forge, np.zeros(4, np.float32), (1,), (1,), kind=kind)


def test_read_tensors_keeps_hooks_inert(tmp_path, forge):
    """Backward hooks are dropped if they are a dictionary, refused if they are anything else."""
    for hooks, fine in ((forge.ordered_dict(), True), (b"N", True), (forge.text("x"), False)):
        body = forge.dictionary(a=forge.tensor("0", "FloatStorage", 1, (1,), (1,), hooks=hooks))
        raw = forge.zip_file(forge.pickled(body), {"0": bytes(4)})
        if fine:
            assert _read(tmp_path, raw)["a"].shape == (1,)
        else:
            with pytest.raises(UnsafeFileError, match="hooks"):
                _read(tmp_path, raw)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (("torch._utils", "_rebuild_tensor_v2", b")"), "arguments"),
        (("torch._utils", "_rebuild_tensor_v2", b"(K\x01K\x01))\x89Nt"), "storages"),
        (("torch._utils", "_rebuild_parameter", b"(K\x01\x89Nt"), "parameters"),
        (("collections", "OrderedDict", b"(](K\x01eet"), "value"),
        (("collections", "OrderedDict", b"(](K\x01et"), "pairs"),
        (("collections", "OrderedDict", b"(](]K\x01aet"), "pairs"),
        (("torch", "Size", b"(J\xff\xff\xff\xfft"), "non-negative"),
    ],
)
def test_builders_check_their_arguments(tmp_path, forge, call, word):
    """Allow-listed names called with nonsense are refused, not crashed into."""
    module, attribute, arguments = call
    body = forge.name(module, attribute) + arguments + b"R"
    with pytest.raises(UnsafeFileError) as caught:
        _read(tmp_path, forge.zip_file(forge.pickled(body), {}))
    assert "\n" not in str(caught.value)
    if word != "value":
        assert word in str(caught.value)


def test_bfloat16_to_float32_is_exact():
    """The upper half of a float32 is a bfloat16, by definition."""
    values = np.array([0.0, -0.0, 1.0, -1.5, 3.3895314e38, 1e-40, np.inf, -np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(
        bfloat16_to_float32(bits).view(np.uint32), values.view(np.uint32) & 0xFFFF0000
    )
    assert np.isnan(bfloat16_to_float32(np.array([0x7FC0], np.uint16)))[0]


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1"])
def test_decode_reads_both_byte_orders(dtype):
    values = np.array([0, 1, 2, 100], dtype)
    assert item_size(dtype) == values.itemsize
    for big in (False, True):
        raw = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
        np.testing.assert_array_equal(decode(raw, dtype, big_endian=big), values, strict=True)


def test_decode_makes_every_nonzero_byte_true():
    """A byte of 2 would be neither True nor False to numpy."""
    assert decode(b"\x00\x01\x02", "bool").tolist() == [False, True, True]
