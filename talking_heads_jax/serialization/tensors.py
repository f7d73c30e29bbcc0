"""The one entrance for foreign tensor files: looks at the content, never at the extension."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import ConversionError, UnsafeFileError, requirement
from talking_heads_jax.serialization.npz_file import read_npz
from talking_heads_jax.serialization.safetensors_file import (
    is_safetensors,
    read_safetensors,
    write_safetensors,
)
from talking_heads_jax.serialization.torch_legacy import MAGIC_PREFIX, read_torch_legacy
from talking_heads_jax.serialization.torch_zip import ZIP_ERRORS, read_torch_zip

__all__ = ["flatten", "read_safetensors", "read_tensors", "unflatten", "write_safetensors"]

_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
# Frequent mistakes: what the first bytes say the file is.
_OTHER_HEADS = (
    (b"version https://git-lfs", "a Git LFS pointer", "Run git lfs pull, or download the file."),
    (b"<", "a web page", "Download the file itself, not the page that offers it."),
    (b"\x1f\x8b", "a gzip file", "Unpack it first."),
    (b"\x89HDF", "an HDF5 file", "Convert it to .npz or .safetensors."),
)


def read_tensors(path: Path | str) -> Any:
    """Reads a file of tensors: torch (zip or legacy), .npz or .safetensors.

    Nothing in the file is executed: names other than those of tensors, parameters, ordered
    dictionaries and plain types are refused, and no option changes that.

    Args:
      path: the file; its extension does not matter.

    Returns:
      Nested dictionaries, lists, tuples and plain values with numpy arrays (bfloat16 as float32).

    Raises:
      ConversionError: if there is no such file, or it is of another format.
      UnsafeFileError: if it is damaged, or asks for anything but data.
    """
    path = Path(path)
    shown = re.sub(r"[^\x20-\x7e]", "?", path.name)
    where = f"file '{shown}'"
    if not path.is_file():
        raise ConversionError(
            requirement(where, "exist and be a file", path, "Check the path to the checkpoint.")
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
        return _dispatch(path, head, where)
    except (UnsafeFileError, ConversionError):
        raise
    except OSError as error:
        raise ConversionError(
            requirement(where, "be readable", error.strerror or error, "Check its permissions.")
        ) from error
    except MemoryError as error:
        raise UnsafeFileError(
            requirement(where, "fit in memory", "a file that does not", "Use a larger machine.")
        ) from error


def _dispatch(path: Path, head: bytes, where: str) -> Any:
    if head.startswith(_ZIP_HEADS):
        return _read_zip(path, where)
    if head.startswith(MAGIC_PREFIX):
        return read_torch_legacy(path, where)
    if is_safetensors(head, path.stat().st_size):
        return read_safetensors(path, where)[0]
    for prefix, kind, remedy in _OTHER_HEADS:
        if head.lower().startswith(prefix.lower()):
            raise ConversionError(requirement(where, "hold tensors", kind, remedy))
    if head[:1] == b"\x80":
        raise UnsafeFileError(
            requirement(
                where,
                "be written by torch.save, numpy.savez or safetensors",
                "a bare pickle",
                "Ask its author for a state dict or a .safetensors file.",
            )
        )
    raise ConversionError(
        requirement(
            where,
            "be a torch, .npz or .safetensors file",
            f"one that starts with {head[:8]!a}" if head else "an empty file",
            "Download the file again, or check that it is a checkpoint.",
        )
    )


def _read_zip(path: Path, where: str) -> Any:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS as error:
        raise UnsafeFileError(
            requirement(
                where,
                "be a complete zip archive",
                f"a truncated or damaged one ({type(error).__name__})",
                "Download or copy the file again.",
            )
        ) from error
    if any(name.endswith("data.pkl") for name in names):
        return read_torch_zip(path, where)
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(path, where)
    raise ConversionError(
        requirement(
            where,
            "be a torch or .npz archive",
            "another kind of zip",
            "If it contains a checkpoint, unpack it and give that file.",
        )
    )


def flatten(tree: Any, separator: str = "/") -> dict[str, Any]:
    """Flattens nested dictionaries, lists and tuples: path -> leaf.

    Args:
      tree: nested containers; list positions become decimal numbers.
      separator: between the parts of a path.
    """
    result: dict[str, Any] = {}

    def visit(node: Any, prefix: str) -> None:
        if isinstance(node, Mapping):
            items = node.items()
        elif isinstance(node, list | tuple):
            items = enumerate(node)
        else:
            result[prefix] = node
            return
        for key, value in items:
            visit(value, f"{prefix}{separator}{key}" if prefix else str(key))

    visit(tree, "")
    return result


def unflatten(flat: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """Nests a flat mapping by splitting its keys; the inverse of `flatten` for dictionaries.

    Args:
      flat: path -> leaf.
      separator: between the parts of a path.
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(separator)
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def array_bytes(array: np.ndarray) -> bytes:
    """The little-endian bytes of an array in C order, as checksums see it."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
