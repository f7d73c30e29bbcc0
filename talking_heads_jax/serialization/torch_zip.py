"""Reader of the zip files that `torch.save` has written since version 1.6.

An archive `<root>/data.pkl`, `<root>/data/<key>` (raw storages), `<root>/byteorder`. torch stores
its entries uncompressed, so a compressed, encrypted, duplicated or overlapping entry is refused
before anything is read.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

from talking_heads_jax.errors import UnsafeFileError, requirement
from talking_heads_jax.serialization.torch_tensors import Storage, TorchReader, decode, item_size

MAX_PICKLE_BYTES = 2**26  # data.pkl; a checkpoint of 20,000 tensors needs 2 MB
MAX_ENTRIES = 1_000_000
# What zipfile raises on damaged archives.
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError,
    KeyError, IndexError, ValueError, OverflowError, MemoryError, OSError,
)  # fmt: skip


class _ZipReader(TorchReader):
    def __init__(self, archive: zipfile.ZipFile, where: str, file_bytes: int) -> None:
        super().__init__(where, file_bytes)
        self._archive = archive
        self._entries = self._check_entries(file_bytes)
        pickles = [name for name in self._entries if name.endswith("/data.pkl")]
        pickles = [name for name in pickles if name.count("/") == 1]
        if len(pickles) != 1:
            self.refuse("be a torch archive with one data.pkl", f"{len(pickles)}")
        self._root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(self._root + "code/") for name in self._entries):
            raise UnsafeFileError(
                requirement(
                    where,
                    "hold data only",
                    "a TorchScript archive, which holds code",
                    "Ask for the state dict (torch.save(module.state_dict(), ...)).",
                )
            )
        order = self._read("byteorder", 16) if self._root + "byteorder" in self._entries else b""
        if order.strip() not in (b"", b"little", b"big"):
            self.refuse("state its byte order as little or big", ascii(order))
        self._big_endian = order.strip() == b"big"
        self._storages: dict[str, Storage] = {}

    def _check_entries(self, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
        listed = self._archive.infolist()
        if len(listed) > MAX_ENTRIES:
            self.refuse(f"hold at most {MAX_ENTRIES} entries", len(listed))
        entries = {entry.filename: entry for entry in listed}
        if len(entries) != len(listed):
            self.refuse("name each entry once", "a repeated name")
        for entry in listed:
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                self.refuse("store its entries uncompressed, as torch does", ascii(entry.filename))
            if entry.flag_bits & 0x1:
                self.refuse("hold no encrypted entries", ascii(entry.filename))
        if sum(entry.file_size for entry in listed) > file_bytes:
            self.refuse("hold as many bytes as its entries claim", f"only {file_bytes}")
        return entries

    def _read(self, name: str, most: int) -> bytes:
        entry = self._entries.get(self._root + name)
        if entry is None:
            self._damaged(f"no entry {name!a}")
        if entry.file_size > most:
            self.refuse(f"keep {name!a} under {most} bytes", entry.file_size)
        try:
            data = self._archive.read(entry)  # also verifies the checksum
        except ZIP_ERRORS as error:
            self._damaged(f"unreadable entry {name!a} ({type(error).__name__})")
        if len(data) != entry.file_size:
            self._damaged(f"a short entry {name!a}")
        return data

    def _damaged(self, got: str) -> NoReturn:
        raise UnsafeFileError(
            requirement(self.where, "be complete", got, "Download or copy the file again.")
        )

    def read(self) -> Any:
        """The contents of data.pkl with its tensors."""
        return self.resolve(self.machine(self._read("data.pkl", MAX_PICKLE_BYTES)).load())

    def storage(self, dtype: str, key: str, numel: int) -> Storage:
        stored = self._storages.get(key)
        if stored is None:
            data = self._read(f"data/{key}", self._entry_limit())
            if numel * item_size(dtype) > len(data):
                self.refuse(
                    f"hold the {numel} elements that storage {key!a} claims",
                    f"{len(data)} bytes",
                )
            data = memoryview(data)[: numel * item_size(dtype)]
            stored = Storage(dtype, numel, decode(data, dtype, big_endian=self._big_endian))
            self._storages[key] = stored
        if stored.dtype != dtype or stored.numel != numel:
            self.refuse("describe each storage the same way", f"storage {key!a} twice")
        return stored

    def _entry_limit(self) -> int:
        return self._file_bytes


def read_torch_zip(path: Path, where: str) -> Any:
    """Reads a torch zip file.

    Args:
      path: the file.
      where: what to call it in messages.

    Returns:
      The saved structure: dictionaries, lists, tuples, plain values, numpy arrays.

    Raises:
      UnsafeFileError: if it holds anything else, or is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise UnsafeFileError(
            requirement(
                where,
                "be a complete zip archive",
                f"one that cannot be opened ({type(error).__name__})",
                "Download or copy the file again.",
            )
        ) from error
    with archive:
        return _ZipReader(archive, where, path.stat().st_size).read()
