"""Reader and writer of .safetensors: an 8-byte length, a JSON header, raw little-endian tensors.

Both sides are our own, so that every bound is checked before it is used, bfloat16 needs no extra
library, and the same tensors always give the same bytes.

Source: the format description of huggingface/safetensors.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from talking_heads_jax.errors import ArgumentError, UnsafeFileError, requirement
from talking_heads_jax.serialization.torch_tensors import decode, item_size

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
MAX_EMPTY = 2**40  # elements of an empty tensor without its empty axes: numpy multiplies them
_DTYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bfloat16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "bool",
}
_CODES = {np.dtype(code): name for name, code in _DTYPES.items() if code != "bfloat16"}


def is_safetensors(head: bytes, file_bytes: int) -> bool:
    """Whether the first bytes of a file look like a .safetensors header."""
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file_bytes


def read_safetensors(path: Path, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads all tensors of a .safetensors file.

    Args:
      path: the file.
      where: what to call it in messages.

    Returns:
      (name -> array, metadata). bfloat16 becomes float32.

    Raises:
      UnsafeFileError: if the header is malformed or claims bytes the file does not have.
    """

    def refuse(constraint: str, got: object) -> NoReturn:
        raise UnsafeFileError(
            requirement(where, constraint, got, "Download or write the file again.")
        )

    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        refuse("hold the header it announces", f"{length} bytes of header in {len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        refuse("have a JSON header", type(error).__name__)
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        refuse("have a header that maps names to tensors", "something else")
    body = memoryview(data)[8 + length :]
    arrays, spans = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _fields(entry) or refuse(
            "describe tensors by dtype, shape and data_offsets", f"{ascii(name)[:80]}: otherwise"
        )
        if dtype not in _DTYPES:
            refuse(f"use dtypes of {', '.join(_DTYPES)}", f"{dtype!a}"[:40])
        code = _DTYPES[dtype]
        if end > len(body) or end - begin != math.prod(shape) * item_size(code):
            refuse(
                f"hold the bytes that {ascii(name)[:80]} claims", f"{begin}:{end} of {len(body)}"
            )
        spans.append((begin, end))
        if not all(shape) and math.prod(size for size in shape if size) > MAX_EMPTY:
            refuse("give empty tensors sensible sizes", f"{ascii(name)[:80]}: {shape}")
        flat = decode(body[begin:end], code)
        arrays[name] = np.require(flat.reshape(shape), requirements=("C", "A")).reshape(shape)
    expected = 0
    for begin, end in sorted(spans):
        if begin != expected:
            refuse("fill its data without gaps or overlaps", f"a tensor at byte {begin}")
        expected = end
    if expected != len(body):
        refuse("fill its data without gaps or overlaps", f"{len(body) - expected} unused bytes")
    return arrays, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a repeated key")
    return result


def _fields(entry: Any) -> tuple[str, tuple[int, ...], int, int] | None:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or type(shape) is not list or type(offsets) is not list:
        return None
    numbers = [*shape, *offsets]
    if len(offsets) != 2 or len(shape) > 32:
        return None
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        return None
    return dtype, tuple(shape), offsets[0], offsets[1]


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a .safetensors file, atomically; an existing file is never replaced.

    Args:
      path: the new file.
      tensors: name -> array of a plain dtype.
      metadata: text -> text, for the header.

    Raises:
      ArgumentError: if the file exists or a dtype has no safetensors name.
    """
    path = Path(path)
    if path.exists():
        raise ArgumentError(
            requirement("the output", "be a new file", path, "Remove it, or choose another name.")
        )
    arrays = {name: np.asarray(tensors[name]) for name in tensors}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    # Widest first keeps every tensor aligned; names break ties.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    for name in order:
        dtype = arrays[name].dtype.newbyteorder("=")
        if dtype not in _CODES:
            raise ArgumentError(
                requirement(f"tensor '{name}'", "have a plain dtype", dtype, "Cast it to float32.")
            )
        end = offset + arrays[name].nbytes
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            array = arrays[name]
            yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            for chunk in chunks():
                stream.write(chunk)
        os.chmod(temporary, 0o644)
        os.link(temporary, path)  # fails, rather than replaces, if someone else was faster
    except FileExistsError as error:
        raise ArgumentError(
            requirement("the output", "be a new file", path, "Remove it, or choose another name.")
        ) from error
    finally:
        os.unlink(temporary)
