"""Pickles of arrays: read as the libraries would, without them, and nothing else is read."""

import copyreg
import io
import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from talking_heads_jax.errors import UnsafeFileError
from talking_heads_jax.serialization.array_pickle import read_array_pickle


class Ch:
    """What chumpy's class looks like to a pickle."""

    def __init__(self, x):
        self.x = x
        self._dirty_vars = {"x"}


class _PlantedCommand:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


@pytest.fixture
def chumpy(monkeypatch):
    """A stand-in for the library while pickles are written; it is gone when they are read."""
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)


def _read(tmp_path, data, name="file.pkl"):
    path = tmp_path / name
    path.write_bytes(data)
    return read_array_pickle(path)


def _fields():
    rng = np.random.default_rng(0)
    return {
        "f": rng.integers(0, 9, (4, 3)).astype(np.uint32),
        "double": rng.standard_normal((3, 2)),
        "fortran": np.asfortranarray(rng.standard_normal((3, 4)).astype(np.float32)),
        "big_endian": np.arange(3, dtype=">i2"),
        "empty": np.zeros((0, 3)),
        "flag": np.array([True, False]),
        "scalar": np.float32(1.5),
        "text": "FLAME",
        "none": None,
    }


def _assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype.newbyteorder("=")
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("protocol", range(6))
def test_read_array_pickle_equals_python_for_every_protocol(tmp_path, protocol):
    _assert_same(_read(tmp_path, pickle.dumps(_fields(), protocol)), _fields())


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("form", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array"])
def test_read_array_pickle_makes_sparse_matrices_dense(tmp_path, form, protocol):
    dense = np.array([[0, 1.5, 0], [2, 0, -3], [0, 0, 0], [4, 0, 0]])
    matrix = getattr(scipy.sparse, form)(dense)
    found = _read(tmp_path, pickle.dumps({"J_regressor": matrix}, protocol))
    np.testing.assert_array_equal(found["J_regressor"], dense)


@pytest.mark.parametrize("protocol", range(6))
def test_read_array_pickle_takes_the_array_out_of_chumpy(tmp_path, chumpy, protocol):
    value = np.arange(6.0).reshape(2, 3)
    data = pickle.dumps([Ch(value), Ch(value)], protocol)
    found = _read(tmp_path, data)
    np.testing.assert_array_equal(found[0], value)
    assert found[0].shape == (2, 3)


def _python2_array(value, module="numpy.core.multiarray"):
    """The bytes Python 2 writes for an array in protocol 2: text and data are BINSTRINGs."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    data = value.tobytes()
    dtype = value.dtype.str.encode()
    shape = b"(" + b"".join(b"K" + bytes([n]) for n in value.shape) + b"t"
    head = f"c{module}\n_reconstruct\ncnumpy\nndarray\n".encode()
    kind = b"cnumpy\ndtype\n" + short(dtype[1:]) + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + short(dtype[:1]) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = b"T" + struct.pack("<i", len(data)) + data
    return head + b"K\x00\x85" + short(b"b") + b"\x87R(K\x01" + shape + kind + b"\x89" + raw + b"tb"


def test_read_array_pickle_reads_what_python_2_wrote(tmp_path):
    """Latin-1 strings, `copy_reg` objects and the old module paths, byte by byte."""
    value = np.linspace(-1, 1, 6).reshape(2, 3)
    data = _python2_array(value)
    sparse = (
        b"ccopy_reg\n_reconstructor\ncscipy.sparse.csc\ncsc_matrix\nc__builtin__\nobject\nN\x87R"
    )
    matrix = scipy.sparse.csc_matrix(np.array([[0.0, 2.0], [3.0, 0.0]]))
    sparse += b"}(U\x06_shapeK\x02K\x02\x86"
    for key in ("indices", "indptr", "data"):
        sparse += b"U" + bytes([len(key)]) + key.encode() + _python2_array(getattr(matrix, key))
    sparse += b"ub"
    chumpy = b"cchumpy.ch\nCh\n)\x81}(U\x01x" + _python2_array(value)
    chumpy += b"U\x0b_dirty_varsc__builtin__\nset\n]\x85Rub"
    body = b"\x80\x02}(U\x01a" + data + b"U\x01s" + sparse + b"U\x01c" + chumpy + b"u."
    found = _read(tmp_path, body)
    np.testing.assert_array_equal(found["a"], value)
    np.testing.assert_array_equal(found["s"], [[0, 2], [3, 0]])
    np.testing.assert_array_equal(found["c"], value)


def _torch_bytes(array):
    """The torch file in which a bare pickle embeds a storage."""
    kinds = {"<f4": "FloatStorage", "<i8": "LongStorage"}
    identity = b"(X\x07\x00\x00\x00storagectorch\n" + kinds[array.dtype.str].encode() + b"\n"
    identity += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK" + bytes([array.size]) + b"NtQ"
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    head = magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    keys = b"\x80\x02]X\x01\x00\x00\x000a."
    return (
        head
        + b"\x80\x02"
        + identity
        + b"."
        + keys
        + struct.pack("<q", array.size)
        + array.tobytes()
    )


class _Tensor:
    """Writes itself as torch tensors do."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (
            _Storage(_torch_bytes(self.array)),
            0,
            self.array.shape,
            tuple(step // self.array.itemsize for step in self.array.strides),
            False,
            None,
        )


class _Storage:
    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return sys.modules["torch.storage"]._load_from_bytes, (self.data,)


@pytest.fixture
def torch_names(monkeypatch):
    for name, function in (("_utils", "_rebuild_tensor_v2"), ("storage", "_load_from_bytes")):
        module = types.ModuleType(f"torch.{name}")

        def stand_in():
            """Only its name is pickled."""

        stand_in.__module__, stand_in.__qualname__ = f"torch.{name}", function
        stand_in.__name__ = function
        setattr(module, function, stand_in)
        monkeypatch.setitem(sys.modules, f"torch.{name}", module)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))


def test_read_array_pickle_reads_an_npy_of_one_dictionary_with_torch_tensors(tmp_path, torch_names):
    faces = np.arange(12, dtype="<i8").reshape(3, 4)
    weights = np.linspace(0, 1, 6, dtype="<f4").reshape(2, 3)
    tree = {"idx": _Tensor(faces), "coords": _Tensor(weights), "plain": np.arange(3)}
    stream = io.BytesIO()
    np.save(stream, np.array(tree, dtype=object), allow_pickle=True)
    found = _read(tmp_path, stream.getvalue(), "landmark_embedding.npy")
    np.testing.assert_array_equal(found["idx"], faces)
    np.testing.assert_array_equal(found["coords"], weights)
    np.testing.assert_array_equal(found["plain"], np.arange(3))


def test_read_array_pickle_reads_plain_npy(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.arange(4))
    np.testing.assert_array_equal(_read(tmp_path, stream.getvalue()), np.arange(4))
    with pytest.raises(UnsafeFileError, match="complete"):
        _read(tmp_path, stream.getvalue()[:-3])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["value", "array", "chumpy"])
def test_read_array_pickle_refuses_a_planted_command_by_name(tmp_path, chumpy, protocol, place):
    sentinel = tmp_path / "executed"
    command = _PlantedCommand(sentinel)
    tree = {
        "value": {"v_template": command},
        "array": {"v_template": np.array([command], dtype=object)},
        "chumpy": {"v_template": Ch(command)},
    }[place]
    data = pickle.dumps(tree, protocol)
    with pytest.raises(UnsafeFileError) as caught:
        _read(tmp_path, data)
    assert f"{os.system.__module__}.system" in str(caught.value)
    assert not sentinel.exists()
    pickle.loads(data)  # the corpus is armed
    assert sentinel.exists()


class _Record:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def _odd_pickles():
    reconstruct = np.zeros(1).__reduce__()[0]
    little = np.dtype("<f8")
    return {
        "object array": (np.array([{}, {}], dtype=object), "objects"),
        "structured": (np.zeros(2, [("a", "f4")]), "numbers or text"),
        "subclass": (_Record(reconstruct, (dict, (0,), b"b")), "dict"),
        "short data": (
            _Record(reconstruct, (np.ndarray, (0,), b"b"), (1, (9,), little, False, b"12")),
            "72",
        ),
        "negative": (
            _Record(reconstruct, (np.ndarray, (0,), b"b"), (1, (-1,), little, False, b"")),
            "sizes",
        ),
        "never filled": (_Record(reconstruct, (np.ndarray, (0,), b"b")), "fill"),
        "other class": (_Record(copyreg._reconstructor, (Ch, object, None)), "Ch"),
        "getattr": (_Record(getattr, ("x", "upper")), "getattr"),
        "eval": (_Record(eval, ("1",)), "eval"),
        "numpy load": (_Record(np.load, ("x",)), "load"),
    }


@pytest.mark.parametrize("case", list(_odd_pickles()))
def test_read_array_pickle_refuses_everything_else(tmp_path, case):
    tree, word = _odd_pickles()[case]
    with pytest.raises(UnsafeFileError, match=word) as caught:
        _read(tmp_path, pickle.dumps({"x": tree}, 2))
    assert "\n" not in str(caught.value)


def test_read_array_pickle_checks_sparse_matrices(tmp_path):
    def altered(**changes):
        matrix = scipy.sparse.csc_matrix(np.eye(3))
        matrix.__dict__.update(changes)
        return pickle.dumps({"J": matrix}, 2)

    for changes, word in (
        ({"_shape": (10**6, 10**6)}, "unpack"),
        ({"_shape": (2, 3)}, "damaged"),
        ({"indices": np.array([0, 1, 7], np.int32)}, "damaged"),
        ({"indices": np.array([0, -1, 2], np.int32)}, "damaged"),
        ({"indptr": np.array([0, 2, 1, 3], np.int32)}, "damaged"),
        ({"data": np.ones(2)}, "damaged"),
        ({"_shape": (3,)}, "two axes"),
    ):
        with pytest.raises(UnsafeFileError, match=word):
            _read(tmp_path, altered(**changes))


def test_read_array_pickle_refuses_a_truncated_file_anywhere(tmp_path):
    data = pickle.dumps(_fields(), 2)
    for end in range(1, len(data) - 1, 37):
        with pytest.raises(UnsafeFileError):
            _read(tmp_path, data[:end])


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_array_pickle_survives_altered_bytes(tmp_path, chumpy, protocol):
    """Altered files are read or refused, whatever byte was hit: no other exception leaves."""
    tree = {
        "a": np.arange(6.0).reshape(2, 3),
        "c": Ch(np.ones(2)),
        "s": scipy.sparse.csc_matrix(np.eye(3)),
        "o": scipy.sparse.coo_matrix(np.eye(2)),
    }
    data = pickle.dumps(tree, protocol)
    rng = np.random.default_rng(protocol)
    refused = 0
    for _ in range(400):
        altered = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            altered[place] = rng.integers(0, 256)
        try:
            _read(tmp_path, bytes(altered))
        except UnsafeFileError:
            refused += 1
    assert refused > 100


def test_read_array_pickle_refuses_endless_nesting(tmp_path, chumpy):
    inner = Ch(np.ones(2))
    for _ in range(100):
        inner = Ch(inner)
    with pytest.raises(UnsafeFileError, match="nest"):
        _read(tmp_path, pickle.dumps(inner, 2))
    loop = Ch(None)
    loop.x = loop
    with pytest.raises(UnsafeFileError, match="nest"):
        _read(tmp_path, pickle.dumps(loop, 2))


def _repeated_calls():
    """Pickles whose last opcodes make a builder of ours copy the same megabyte again and again."""

    def name(text):
        module, _, attribute = text.rpartition(".")
        return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"

    size = 2**20
    text = b"T" + struct.pack("<I", size) + b"a" * size
    shape = b"J" + struct.pack("<i", size) + b"\x85"
    dtype = name("numpy.dtype") + b"U\x02u1\x85R"
    again = b"h\x00h\x01R"
    empty = name("numpy.core.multiarray._reconstruct") + b"q\x00" + name("numpy.ndarray")
    empty += b"K\x00\x85U\x01b\x87q\x01R"
    filled = empty + b"(K\x01" + shape + dtype + b"\x89" + text + b"tq\x02b"
    buffer = name("numpy.core.numeric._frombuffer") + b"q\x00("
    items = b"](" + (b"U\x01k" + b"N\x86") * 100_000 + b"e"
    pickles = {
        "encode": (name("_codecs.encode") + b"q\x00" + text + b"U\x06latin1\x86q\x01R", again),
        "frombuffer": (buffer + text + dtype + shape + b"U\x01Ctq\x01R", again),
        "ndarray": (filled, again + b"h\x02b"),
        "dictionary": (
            name("collections.OrderedDict") + b"q\x00" + items + b"\x85q\x01R",
            again,
        ),
    }
    return {
        case: b"\x80\x02](" + first + more * 100_000 + b"e."
        for case, (first, more) in pickles.items()
    }


@pytest.mark.parametrize("case", list(_repeated_calls()))
def test_read_array_pickle_does_not_copy_the_same_bytes_without_end(tmp_path, case):
    with pytest.raises(UnsafeFileError, match="unpack to"):
        _read(tmp_path, _repeated_calls()[case])


def test_read_array_pickle_shares_lists_of_sets(tmp_path):
    """A set made again and again of one list costs nothing: it is that list."""
    items = b"](K\x01K\x02e\x85q\x01R"
    data = b"\x80\x02](c__builtin__\nset\nq\x00" + items + b"h\x00h\x01Re."
    first, second = _read(tmp_path, data)
    assert first == [1, 2]
    assert second is first


@pytest.mark.parametrize(
    "header",
    [
        "{'descr'",
        "{'descr': ',,,', 'fortran_order': False, 'shape': (5,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 30 + ",), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 999999999999, 999999999999), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (), }",
    ],
)
def test_read_array_pickle_refuses_damaged_npy_headers(tmp_path, header):
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with pytest.raises(UnsafeFileError, match=r"complete \.npy file"):
        _read(tmp_path, data)


def test_read_array_pickle_refuses_text_and_sizes_that_numpy_cannot_hold(tmp_path):
    begin = b"\x80\x02cnumpy.core.multiarray\n"
    text = begin + b"scalar\ncnumpy\ndtype\nU\x02U1\x85RU\x04\xff\xff\xff\xff\x86R."
    with pytest.raises(UnsafeFileError, match="valid text"):
        _read(tmp_path, text)
    huge = b"(K\x00" + 2 * (b"\x8a\x06" + struct.pack("<Q", 2**39)[:6]) + b"t"
    empty = begin + b"_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    with pytest.raises(UnsafeFileError, match="sensible sizes"):
        _read(tmp_path, empty + b"(K\x01" + huge + b"cnumpy\ndtype\nU\x02f4\x85R\x89U\x00tb.")


def test_read_array_pickle_reads_text_strings_as_single_literals(tmp_path, recwarn):
    assert _read(tmp_path, b"S'a\\'\\d\\x41'\n.") == "a'\\dA"
    assert not recwarn.list
    for line in (b"S'a' b'b'", b"S''" + b"+b''" * 100_000, b"S'a\\'", b"S'a"):
        with pytest.raises(UnsafeFileError, match="valid text"):
            _read(tmp_path, line + b"\n.")
