"""Reader of .npz archives that never unpickles and checks every claim before it allocates."""

import math
import zipfile
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import UnsafeFileError, requirement
from talking_heads_jax.serialization.torch_zip import ZIP_ERRORS

MAX_EXPANSION = 100  # bytes unpacked per byte of the file, beyond the first 64 MiB
_FREE_BYTES = 2**26
_KINDS = "biufUS"  # bool, integers, floats, text: nothing that holds objects or records
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, where: str, *, max_bytes: int | None = None) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz file.

    Args:
      path: the file.
      where: what to call it in messages.
      max_bytes: of all arrays together, where a kind of file has a natural size; a hundred times
        the file, and 64 MiB at least, is the limit in any case.

    Returns:
      Name -> array.

    Raises:
      UnsafeFileError: if it holds objects, claims more than it has, or is damaged.
    """
    limit = max(_FREE_BYTES, MAX_EXPANSION * path.stat().st_size)
    limit = limit if max_bytes is None else min(limit, max_bytes)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > limit:
                raise _refused(where, f"unpack to at most {limit} bytes", "more")
            arrays = {}
            for entry in entries:
                name = entry.filename
                if not name.endswith(".npy") or name[:-4] in arrays:
                    raise _refused(where, "hold .npy entries, each once", ascii(name))
                if entry.compress_type not in _COMPRESSIONS:  # what numpy writes
                    raise _refused(where, "be stored or deflated", f"otherwise: {name!a}")
                arrays[name[:-4]] = _read_entry(archive, entry, where)
            return arrays
    except ZIP_ERRORS as error:
        raise UnsafeFileError(
            requirement(
                where,
                "be a complete .npz archive",
                f"a damaged one ({type(error).__name__})",
                "Download or copy the file again.",
            )
        ) from error


def _refused(where: str, constraint: str, got: object) -> UnsafeFileError:
    return UnsafeFileError(
        requirement(where, constraint, got, "Save plain arrays with numpy.savez.")
    )


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> np.ndarray:
    name = ascii(entry.filename)
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise _refused(where, "use .npy version 1 or 2", f"{name} of version {version}")
        try:
            shape, fortran, dtype = _HEADERS[version](stream)
        except (
            Exception
        ) as error:  # a literal: tokenize, ast and numpy raise a dozen different ones
            got = f"{name} with a damaged header ({type(error).__name__})"
            raise _refused(where, "describe its arrays as numpy does", got) from error
        if dtype.hasobject or dtype.kind not in _KINDS or dtype.names:
            raise _refused(where, "hold plain arrays, not pickles", f"{name} of dtype {dtype}")
        if any(type(size) is not int or size < 0 for size in shape):
            raise _refused(where, "give sizes as non-negative integers", f"{name} {shape}")
        data = stream.read(entry.file_size + 1)
        claimed = math.prod(shape) * dtype.itemsize
        if len(data) != claimed:
            raise _refused(where, f"hold the {claimed} bytes {name} claims", f"{len(data)} bytes")
    flat = np.frombuffer(data, dtype) if claimed else np.zeros(math.prod(shape), dtype)
    flat = flat.astype(dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C")).reshape(shape)
