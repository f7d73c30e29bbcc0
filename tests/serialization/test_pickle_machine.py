"""Hostile pickles: refused by name, and nothing of theirs runs."""

import pickle
import pickletools
import time

import pytest

from talking_heads_jax.errors import UnsafeFileError
from talking_heads_jax.serialization.pickle_machine import PickleMachine, printable
from talking_heads_jax.serialization.tensors import read_tensors


def _load(raw, **options):
    return PickleMachine(raw, allowed={}, where="file 'x'", **options).load()


def _hostile(forge, sentinel):
    """Name -> (pickle body, the word the refusal must contain)."""
    touch = f"touch {sentinel}"
    write = f"open({str(sentinel)!r}, 'w')"
    name, text, group = forge.name, forge.text, forge.group
    stack_name = text("os") + text("system") + b"\x93"
    imported = name("builtins", "__import__") + group(text("os")) + b"R"
    looked_up = name("builtins", "getattr") + group(imported, text("system")) + b"R"
    getattr_chain = looked_up + group(text(touch)) + b"R"
    return {
        "os_system": (name("os", "system") + group(text(touch)) + b"R", "os.system"),
        "posix_system": (name("posix", "system") + group(text(touch)) + b"R", "posix.system"),
        "eval": (name("builtins", "eval") + group(text(write)) + b"R", "builtins.eval"),
        "exec": (name("builtins", "exec") + group(text(write)) + b"R", "builtins.exec"),
        "python2": (name("__builtin__", "eval") + group(text(write)) + b"R", "__builtin__.eval"),
        "stack_global": (stack_name + group(text(touch)) + b"R", "os.system"),
        "dotted": (
            text("torch") + text("os.system") + b"\x93" + group(text(touch)) + b"R",
            "torch.os.system",
        ),
        "dotted_allowed_module": (
            text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93" + b")R",
            "__globals__",
        ),
        "getattr": (getattr_chain, "builtins.getattr"),
        "torch_load": (name("torch", "load") + group(text("x")) + b"R", "torch.load"),
        "rebuild_from_type": (
            name("torch._tensor", "_rebuild_from_type_v2") + b")R",
            "_rebuild_from_type_v2",
        ),
        "copyreg": (name("copyreg", "_reconstructor") + b")R", "copyreg._reconstructor"),
        "inst": (b"(" + text(touch) + b"ios\nsystem\n", "0x69"),
        "obj": (b"(" + name("os", "system") + text(touch) + b"o", "os.system"),
        "newobj": (name("subprocess", "Popen") + group(text(touch)) + b"\x81", "subprocess.Popen"),
        "newobj_allowed": (name("collections", "OrderedDict") + b")\x81", "0x81"),
        "extension": (b"\x82\x01", "0x82"),
        "build": (b"}" + forge.dictionary(items=b"K\x01") + b"b", "a dict"),
        "reduce_on_text": (text("os.system") + group(text(touch)) + b"R", "a str"),
        "reduce_storage_type": (name("torch", "FloatStorage") + b")R", "torch.FloatStorage"),
        "left_over_token": (name("torch._utils", "_rebuild_tensor_v2"), "_rebuild_tensor_v2"),
        "persistent_code": (group(text("module"), text("x")) + b"Q", "a tuple"),
        "control_characters": (name("\x1b[2J", "x"), "x1b"),
    }


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_read_tensors_refuses_hostile_pickles_by_name(tmp_path, forge, container):
    """Each attack is refused in both containers, in one line, and leaves no trace."""
    sentinel = tmp_path / "executed"
    for case, (body, word) in _hostile(forge, sentinel).items():
        path = tmp_path / f"{case}.pth"
        if container == "zip":
            path.write_bytes(forge.zip_file(forge.pickled(body, 4), {}))
        else:
            path.write_bytes(forge.legacy_file(body, {}))
        with pytest.raises(UnsafeFileError) as caught:
            read_tensors(path)
        message = str(caught.value)
        assert word in message, (case, message)
        assert "\n" not in message and "\x1b" not in message
        assert not sentinel.exists(), case


@pytest.mark.parametrize("case", ["os_system", "eval", "stack_global", "getattr"])
def test_hostile_pickles_would_run_elsewhere(tmp_path, forge, case):
    """The corpus is armed: Python's own unpickler does execute it."""
    sentinel = tmp_path / "executed"
    body = _hostile(forge, sentinel)[case][0]
    pickle.loads(forge.pickled(body, 4))
    assert sentinel.exists()


def test_read_tensors_refuses_a_bare_pickle_and_an_archive_with_code(tmp_path, forge):
    sentinel = tmp_path / "executed"
    attack = forge.pickled(forge.name("os", "system") + forge.group(forge.text("true")) + b"R")
    (tmp_path / "bare.pth").write_bytes(attack)
    script = forge.zip_file(
        forge.pickled(b"}"), {}, more={"archive/code/__torch__.py": b"import os"}
    )
    (tmp_path / "script.pth").write_bytes(script)
    nested = forge.zip_file(forge.pickled(b"}"), {}, more={"archive/inner/data.pkl": attack})
    (tmp_path / "nested.pth").write_bytes(nested)
    for name, word in (("bare.pth", "bare pickle"), ("script.pth", "TorchScript")):
        with pytest.raises(UnsafeFileError, match=word):
            read_tensors(tmp_path / name)
    assert read_tensors(tmp_path / "nested.pth") == {}  # the inner file is never opened
    assert not sentinel.exists()


def test_load_equals_python_on_plain_data():
    """Every protocol this reader knows, on plain values."""
    shared = [1.5, "x"]
    value = {
        "int": [0, 255, 65535, -1, 2**31 - 1, -(2**31), 2**63, -(2**200)],
        "float": [0.0, -1.5, 1e300],
        "text": ["", "é", "x" * 300],
        "bytes": [b"", b"abc"],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "constants": [None, True, False],
        "shared": [shared, shared],
        3: {"nested": {}},
    }
    for protocol in (3, 4, 5):  # protocol 2 writes bytes as a call of _codecs.encode
        loaded = _load(pickle.dumps(value, protocol))
        assert loaded == value
        assert loaded["shared"][0] is loaded["shared"][1]
    del value["bytes"]
    assert _load(pickle.dumps(value, 2)) == value


def test_load_stops_at_the_end_of_a_pickle():
    raw = pickle.dumps(1, 2) + pickle.dumps("two", 2)
    machine = PickleMachine(raw, allowed={}, where="file 'x'")
    assert (machine.load(), machine.load()) == (1, "two")
    assert machine.position == len(raw)


def _bombs():
    nested_key = b")" + b"".join(b"q\x00" + b"h\x00\x86" for _ in range(60))
    return {
        "string longer than the file": b"X\xff\xff\xff\xff",
        "64-bit string": b"\x8d" + b"\xff" * 8,
        "frame then nothing": b"\x95" + b"\xff" * 8,
        "4-byte integer length": b"\x8b\xff\xff\xff\x7f",
        "tuple as key": b"}" + nested_key + b"N" + b"s",
        "list as key": b"}]Ns",
        "huge integer as key": b"}\x8a\x10" + b"\x01" * 16 + b"Ns",
        "unknown memo": b"h\x07",
        "missing mark": b"t",
        "empty stack": b"R",
        "append to a tuple": b")Na",
        "set on a list": b"]NNs",
        "two values": b"NN",
        "open mark": b"N(",
        "odd items": b"}(Nu",
        "protocol 6": b"\x80\x06N",
        "endless name": b"c" + b"a" * 600,
        "bad text": b"X\x01\x00\x00\x00\xff",
        "text integer": b"I1\n",
        "set": b"\x8f",
    }


@pytest.mark.parametrize("case", list(_bombs()))
def test_load_refuses_malformed_pickles(case):
    """Bad structure and size bombs end at once, with one line."""
    start = time.perf_counter()
    with pytest.raises(UnsafeFileError) as caught:
        _load(b"\x80\x02" + _bombs()[case] + b".")
    assert time.perf_counter() - start < 1.0
    assert "\n" not in str(caught.value)


def test_load_stores_a_huge_memo_index_in_one_entry():
    """CPython's own unpickler would allocate a table of 2**32 entries here."""
    assert _load(b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff\x86.") == (None, None)


def test_load_limits_the_number_of_opcodes():
    raw = b"\x80\x02" + b"N0" * 100 + b"N."
    assert _load(raw) is None
    with pytest.raises(UnsafeFileError, match="opcode limit"):
        _load(raw, max_opcodes=100)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"]q\x00h\x00a", "cycles"),  # a list that holds itself
        (b")" + b"q\x00h\x00\x86" * 60, "unfolds"),  # 2**60 leaves
        (b"]" * 100 + b"a" * 99, "nest"),
    ],
)
def test_read_tensors_refuses_structures_that_unfold(tmp_path, forge, body, word):
    """Sharing is kept, but not cycles, depth, or sharing that grows exponentially."""
    path = tmp_path / "bomb.pth"
    path.write_bytes(forge.zip_file(forge.pickled(body), {}))
    start = time.perf_counter()
    with pytest.raises(UnsafeFileError, match=word):
        read_tensors(path)
    assert time.perf_counter() - start < 2.0


def test_printable_is_short_and_bounded():
    bomb = ()
    for _ in range(60):
        bomb = (bomb, bomb)
    assert printable(bomb) == "a tuple"
    assert len(printable("\x1b" * 10_000)) <= 120
    assert printable("a\nb") == "'a\\nb'"


def test_machine_covers_every_opcode_of_a_state_dict(shared_folder):
    """The opcodes that real torch files use are all known to pickletools as what we implement."""
    raw = (shared_folder / "golden" / "torch_files" / "nested_legacy.pth.tar").read_bytes()
    position, used = 0, set()
    for _ in range(5):
        for opcode, _argument, place in pickletools.genops(raw[position:]):
            used.add(opcode.name)
            end = place
        position += end + 1
    assert {"GLOBAL", "REDUCE", "BINPERSID", "LONG_BINPUT"} <= used
