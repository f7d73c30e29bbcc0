"""Ways to damage a file or a folder, all drawn from one random generator.

A mutation takes bytes (or a folder that it may change) and returns what it did in a few words. All
randomness comes from the generator it is given: the same generator does the same damage.
"""

import io
import json
import os
import pickletools
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutation = Callable[[bytearray, bytes, np.random.Generator], bytes | bytearray]

# Numbers at which length fields break.
_LENGTHS = (0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, -1, -2)
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**20, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "..",
    "../../outside", "/dev/zero", "x" * 5000, "\x00", "\ud800", [], {}, [[[[]]]], {"a": {"a": {}}},
)  # fmt: skip
_GLOBALS = (
    "os system", "posix system", "builtins eval", "builtins exec", "builtins getattr",
    "subprocess Popen", "builtins __import__", "torch.storage _load_from_bytes", "numpy load",
    "torch.jit load", "_codecs encode", "collections OrderedDict", "torch._utils x",
)  # fmt: skip
_ENTRIES = ("../../outside", "/outside", "archive/data.pkl", "archive/code/x.py", "", "a/" * 400)
_NESTED = 100_000  # brackets of a json that no parser should follow


def mutate_bytes(data: bytes, other: bytes, name: str, rng: np.random.Generator) -> tuple:
    """Damages a file in one to three ways.

    Args:
      data: the file.
      other: another file of the same kind, to splice with.
      name: of the file; decides which formats are understood.
      rng: of the case.

    Returns:
      (damaged bytes, what was done).
    """
    choices: list[Mutation] = [flip_bits, overwrite, truncate, splice, edit_length, move_block]
    if name.endswith((".pth.tar", ".npz")) and data[:2] == b"PK":
        choices += [edit_zip_fields, edit_zip_entries, edit_zip_entries]
    if name.endswith(".pth.tar"):
        choices += [edit_pickle, edit_pickle, edit_pickle]
    if name.endswith(".safetensors"):
        choices += [edit_header, edit_header, edit_header]
    if name.endswith(".json") or data[:1] == b"{":
        choices += [edit_json] * 6
    done = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        mutation = choices[int(rng.integers(len(choices)))]
        data = bytes(mutation(bytearray(data), other, rng))
        done.append(mutation.__name__)
    return data, "+".join(done)


def flip_bits(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Inverts up to 16 single bits."""
    for _ in range(int(rng.integers(1, 17)) if data else 0):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def overwrite(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Writes random bytes, zeros or ones over a stretch."""
    start, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 65))
    fill = (rng.bytes(size), bytes(size), b"\xff" * size)[int(rng.integers(3))]
    data[start : start + size] = fill
    return data


def truncate(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Cuts the end off, or adds one."""
    if rng.random() < 0.2:
        return data + rng.bytes(int(rng.integers(1, 4096)))
    return data[: int(rng.integers(len(data) + 1))]


def splice(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Puts a piece of another file of the same kind in."""
    start = int(rng.integers(len(data) + 1))
    if rng.random() < 0.5:
        return data[:start] + other[start:]
    begin, size = int(rng.integers(len(other) + 1)), int(rng.integers(1, 2048))
    data[start : start + size] = other[begin : begin + size]
    return data


def edit_length(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Replaces 1 to 8 bytes by a number that a length field should not hold."""
    width = int(rng.choice([1, 2, 4, 8]))
    number = int(rng.choice(np.array(_LENGTHS, object))) % (1 << (8 * width))
    start = int(rng.integers(max(1, len(data) - width + 1)))
    order = "little" if rng.random() < 0.7 else "big"
    data[start : start + width] = number.to_bytes(width, order)
    return data


def move_block(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Removes a stretch, repeats it, or puts it elsewhere."""
    start, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 1024))
    block = data[start : start + size]
    if rng.random() < 0.7:
        del data[start : start + size]
    if rng.random() < 0.6:
        place = int(rng.integers(len(data) + 1))
        data[place:place] = block
    return data


def edit_zip_fields(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """Changes a field of a local header, of the central directory or of its end record."""
    signature = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")[int(rng.integers(3))]
    places = [i for i in range(len(data)) if data[i : i + 4] == signature]
    if not places:
        return data
    start = places[int(rng.integers(len(places)))] + 4 + int(rng.integers(42))
    width = int(rng.choice([2, 4]))
    number = int(rng.choice(np.array(_LENGTHS, object))) % (1 << (8 * width))
    data[start : start + width] = number.to_bytes(width, "little")
    return data


def edit_zip_entries(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """Writes the archive anew: an entry renamed, repeated, emptied, compressed or dropped."""
    entries = _unzipped(data)
    if not entries:
        return bytes(data)
    index = int(rng.integers(len(entries)))
    name, content = entries[index]
    compression, choice = zipfile.ZIP_STORED, int(rng.integers(6))
    if choice == 0:
        entries[index] = (_ENTRIES[int(rng.integers(len(_ENTRIES)))], content)
    elif choice == 1:
        entries.append((name, content[::-1]))
    elif choice == 2:
        entries[index] = (name, content[: int(rng.integers(len(content) + 1))])
    elif choice == 3:
        compression = zipfile.ZIP_DEFLATED
    elif choice == 4:
        entries[index], compression = (name, bytes(1 << 27)), zipfile.ZIP_DEFLATED
    else:
        del entries[index]
    return _zipped(entries, compression)


def edit_pickle(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """Changes opcodes of the pickle: one dropped, repeated, exchanged or slipped in."""
    entries = _unzipped(data)
    if not entries:
        return _edited_opcodes(bytes(data), rng)
    result = [
        (name, _edited_opcodes(content, rng) if name.endswith("data.pkl") else content)
        for name, content in entries
    ]
    return _zipped(result, zipfile.ZIP_STORED)


def edit_header(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """Changes a value of a safetensors header and keeps the length right."""
    size = int.from_bytes(data[:8], "little")
    header = edit_json(data[8 : 8 + size], other, rng)
    return len(header).to_bytes(8, "little") + header + bytes(data[8 + size :])


def edit_json(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """Replaces, removes, renames or nests a value of a JSON document."""
    if rng.random() < 0.03:
        return (b"[" if rng.random() < 0.5 else b'{"a":') * _NESTED
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError):
        return bytes(data)
    places: list[tuple[Any, Any]] = []
    waiting = [document] if isinstance(document, dict | list) else []
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], dict | list) and node[key]]
    if not places:
        return json.dumps(_value(rng)).encode()
    node, key = places[int(rng.integers(len(places)))]
    choice = rng.random()
    if choice < 0.6:
        old = node[key]
        near = isinstance(old, int) and not isinstance(old, bool) and rng.random() < 0.4
        node[key] = old + int(rng.choice([-1, 1, 2, 100])) if near else _value(rng)
    elif choice < 0.75:
        del node[key]
    elif choice < 0.9 and isinstance(node, dict):
        node[str(_value(rng))] = node.pop(key)
    else:
        container, name = places[int(rng.integers(len(places)))]
        node[key] = json.loads(json.dumps(container[name]))
    return json.dumps(document).encode("utf-8", "surrogatepass")


def mutate_folder(folder: Path, rng: np.random.Generator) -> str:
    """Damages a checkpoint folder in place.

    Args:
      folder: a copy.
      rng: of the case.

    Returns:
      What was done.
    """
    done = []
    for _ in range(int(rng.choice([1, 1, 1, 2]))):
        paths = sorted(path for path in folder.rglob("*") if not path.is_symlink())
        files = [path for path in paths if path.is_file()]
        if not files:
            break
        # Small descriptions are as likely as any of the many files of arrays.
        named = [path for path in files if path.suffix == ".json" or path.name.startswith("_")]
        pool = named if named and rng.random() < 0.5 else files
        path = pool[int(rng.integers(len(pool)))]
        action = ("bytes", "structure")[int(rng.random() < 0.25)]
        if action == "bytes":
            other = files[int(rng.integers(len(files)))].read_bytes()
            name = "x.json" if path.name.startswith("_") else path.name
            data, what = mutate_bytes(path.read_bytes(), other, name, rng)
            path.write_bytes(data)
        else:
            what = _restructure(folder, paths, path, rng)
        done.append(f"{path.relative_to(folder)}: {what}")
    return (done and "; ".join(done)) or "nothing"


def _restructure(folder: Path, paths: list[Path], path: Path, rng: np.random.Generator) -> str:
    """Deletes, renames, exchanges or replaces something of a folder."""
    other = paths[int(rng.integers(len(paths)))]
    choice = int(rng.integers(8))
    if choice == 0:
        path.unlink()
        return "deleted"
    if choice == 1:
        path.rename(path.with_name(f"{path.name}x"))
        return "renamed"
    if choice == 2 and other.is_file() and other != path:
        content = other.read_bytes()
        other.write_bytes(path.read_bytes())
        path.write_bytes(content)
        return f"exchanged with {other.relative_to(folder)}"
    if choice == 3:
        path.unlink()
        path.mkdir()
        return "replaced by a folder"
    if choice == 4 and other.is_dir():
        shutil.rmtree(other)
        if rng.random() < 0.5:
            other.write_bytes(b"x")
        return f"folder {other.relative_to(folder)} removed"
    if choice == 5:
        path.unlink()
        targets = ("/dev/zero", "/dev/null", "loop", str(folder))
        path.symlink_to(targets[int(rng.integers(len(targets)))])
        return "replaced by a link"
    if choice == 6:
        path.unlink()
        os.mkfifo(path)
        return "replaced by a pipe"
    path.write_bytes(b"")
    return "emptied"


def _value(rng: np.random.Generator) -> Any:
    return json.loads(json.dumps(_VALUES[int(rng.integers(len(_VALUES)))]))


def _unzipped(data: bytes | bytearray) -> list[tuple[str, bytes]]:
    """Entries of an archive; none where it is damaged already."""
    try:
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # damaged by an earlier mutation of the same case
        return []


def _zipped(entries: list[tuple[str, bytes]], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)  # of a fixed date: the same case gives the same bytes
            archive.NameToInfo.pop(name, None)  # else a repeated name is warned about
            archive.writestr(info, content, compression)
    return buffer.getvalue()


def _edited_opcodes(data: bytes, rng: np.random.Generator) -> bytes:
    """One pickle of a file (the legacy form holds five in a row) with changed opcodes."""
    spans, position = [], 0
    try:
        while position < len(data) and data[position : position + 1] == b"\x80":
            stream = io.BytesIO(data[position:])
            starts = [where for _, _, where in pickletools.genops(stream)]
            ends = [*starts[1:], starts[-1] + 1]
            spans += [(position + a, position + b) for a, b in zip(starts, ends, strict=True)]
            position += ends[-1]
    except Exception:  # what follows is no pickle, or was damaged before
        pass
    if not spans:
        return data
    begin, end = spans[int(rng.integers(len(spans)))]
    piece, choice = data[begin:end], int(rng.integers(6))
    if choice == 0:
        piece = b""
    elif choice == 1:
        piece *= int(rng.choice([2, 3, 1000]))
    elif choice == 2:
        first, last = spans[int(rng.integers(len(spans)))]
        piece = data[first:last]
    elif choice == 3:
        piece = bytes([int(rng.integers(256))]) + piece[1:]
    elif choice == 4 and len(piece) > 1:
        number = int(rng.choice(np.array(_LENGTHS, object))) % (1 << 32)
        piece = piece[:1] + struct.pack("<I", number) + piece[5:]
    else:
        module, name = _GLOBALS[int(rng.integers(len(_GLOBALS)))].split()
        call = b"X\x0c\x00\x00\x00touch outsid" + b"\x85R"
        piece = f"c{module}\n{name}\n".encode() + (call if rng.random() < 0.7 else b"") + piece
    return data[:begin] + piece + data[end:]
