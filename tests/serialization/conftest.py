"""Torch files assembled by hand, byte by byte: the tests need no torch, and can lie at will."""

import io
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

_TYPES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "bf": "BFloat16Storage"}
_MAGIC = 0x1950A86A20F9469CFC6C


def name(module: str, attribute: str) -> bytes:
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def storage(key: str, kind: str, numel: int, *more: bytes) -> bytes:
    identity = (text("storage"), name("torch", kind), text(key), text("cpu"), number(numel))
    return group(*identity, *more) + b"Q"


def ordered_dict() -> bytes:
    return name("collections", "OrderedDict") + b")R"


def tensor(
    key: str, kind: str, numel: int, size, stride, *, offset: int = 0, hooks: bytes | None = None,
    legacy: bool = False,
) -> bytes:  # fmt: skip
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    view = group(*map(number, size)), group(*map(number, stride))
    more = (b"N",) if legacy else ()
    return (
        rebuild
        + group(
            storage(key, kind, numel, *more),
            number(offset),
            *view,
            b"\x89",
            ordered_dict() if hooks is None else hooks,
        )
        + b"R"
    )


def whole(key: str, array: np.ndarray, legacy: bool = False) -> bytes:
    strides = [step // array.itemsize for step in array.copy(order="C").strides]
    kind = _TYPES[array.dtype.str[1:]]
    return tensor(key, kind, array.size, array.shape, strides, legacy=legacy)


def dictionary(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def zip_file(
    pickle: bytes, storages: dict[str, bytes], *, compression=zipfile.ZIP_STORED,
    byteorder=b"little", more: dict[str, bytes] | None = None,
) -> bytes:  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", byteorder)
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
        for key, raw in (more or {}).items():
            archive.writestr(key, raw)
    return buffer.getvalue()


def legacy_file(body: bytes, storages: dict[str, tuple[int, bytes]]) -> bytes:
    parts = [
        pickled(b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")),
        pickled(number(1001)),
        pickled(dictionary(protocol_version=number(1001), little_endian=b"\x88")),
        pickled(body),
        pickled(b"](" + b"".join(text(key) for key in storages) + b"e"),
    ]
    parts += [struct.pack("<q", count) + raw for count, raw in storages.values()]
    return b"".join(parts)


@pytest.fixture(scope="session")
def forge() -> SimpleNamespace:
    """The assembler: pickle pieces, and whole files out of them."""
    return SimpleNamespace(
        name=name, text=text, number=number, group=group, storage=storage, tensor=tensor,
        whole=whole, dictionary=dictionary, ordered_dict=ordered_dict, pickled=pickled,
        zip_file=zip_file, legacy_file=legacy_file,
    )  # fmt: skip
