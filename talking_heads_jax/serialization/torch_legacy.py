"""Reader of the files `torch.save` wrote before version 1.6 (often named .pth.tar, not tar files).

Five pickles in a row, magic number, protocol version, system information, the object, the list of
storage keys, then each storage in that order: an 8-byte little-endian count and its elements.
"""

from pathlib import Path
from typing import Any

from talking_heads_jax.serialization.pickle_machine import PickleMachine, printable
from talking_heads_jax.serialization.torch_tensors import Storage, TorchReader, decode, item_size

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
# The first pickle, as bytes: protocol 2, LONG1 of ten bytes, stop.
MAGIC_PREFIX = b"\x80\x02\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little") + b"."


class _LegacyReader(TorchReader):
    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(where, len(data))
        self._data = data
        self._storages: dict[str, Storage] = {}

    def read(self) -> Any:
        machine = self.machine(self._data)
        return self.resolve(self.read_pending(machine))

    def read_pending(self, machine: PickleMachine) -> Any:
        """What the file holds before views become arrays."""
        magic, version, system = machine.load(), machine.load(), machine.load()
        if magic != MAGIC_NUMBER or version != _PROTOCOL_VERSION or type(system) is not dict:
            self.refuse("be a torch file of protocol 1001", printable(version))
        tree = machine.load()
        keys = machine.load()
        self._read_storages(keys, machine.position)
        return tree

    def _read_storages(self, keys: Any, position: int) -> None:
        if type(keys) is not list or not all(type(key) is str for key in keys):
            self.refuse("list its storages by name", printable(keys))
        if len(set(keys)) != len(keys) or set(keys) != set(self._storages):
            self.refuse("hold exactly the storages it refers to", f"{len(keys)} listed")
        view = memoryview(self._data)
        for key in keys:
            storage = self._storages[key]
            count = int.from_bytes(view[position : position + 8], "little", signed=True)
            position += 8
            end = position + storage.numel * item_size(storage.dtype)
            if count != storage.numel or end > len(view):
                self.refuse(
                    f"hold the {storage.numel} elements that storage {printable(key)} claims",
                    f"{max(0, len(view) - position)} bytes left",
                )
            # torch writes little-endian here on every machine.
            storage.array = decode(view[position:end], storage.dtype)
            position = end

    def storage(self, dtype: str, key: str, numel: int) -> Storage:
        stored = self._storages.setdefault(key, Storage(dtype, numel))
        if stored.dtype != dtype or stored.numel != numel:
            self.refuse("describe each storage the same way", f"storage {printable(key)} twice")
        return stored


def read_torch_legacy(path: Path, where: str) -> Any:
    """Reads a torch file of the form before zip archives.

    Args:
      path: the file.
      where: what to call it in messages.

    Returns:
      The saved structure: dictionaries, lists, tuples, plain values, numpy arrays.

    Raises:
      UnsafeFileError: if it holds anything else, or is damaged.
    """
    return _LegacyReader(path.read_bytes(), where).read()


def read_embedded_storage(data: bytes, where: str) -> Storage:
    """Reads the bytes by which other pickles hold a tensor's storage: a torch file of its own.

    Args:
      data: the file.
      where: what to call it in messages.

    Raises:
      UnsafeFileError: if it holds anything but one storage, or is damaged.
    """
    reader = _LegacyReader(data, where)
    storage = reader.read_pending(reader.machine(data))
    if type(storage) is not Storage:
        reader.refuse("hold one storage", type(storage).__name__)
    return storage
