"""What a torch pickle may name, and how its storages and strided views become numpy arrays.

The pickle only yields `PendingTensor`s: a storage plus offset, size and stride, checked against the
storage when they are named. Arrays are made when the whole structure is known and within bounds.
Nothing here needs torch; bfloat16 comes out as float32 (exactly), all else in its own dtype.
"""

import collections
import dataclasses
import math
from typing import Any, NoReturn

import numpy as np

from talking_heads_jax.errors import UnsafeFileError, requirement
from talking_heads_jax.serialization.pickle_machine import (
    AllowList,
    Constant,
    Constructor,
    PickleMachine,
    printable,
)

MAX_DEPTH = 64  # of nested containers
MAX_NODES = 5_000_000  # values of the structure, shared containers counted at every use
MAX_AXES = 32
MAX_SHARING = 16  # all views together may be this many times the file (tied and averaged weights)
_REMEDY = "The file is damaged or hostile: get it again from its author."

# Storage type -> numpy dtype on disk. bfloat16 travels as its 16 bits.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "bool",
}
_STORAGE_TYPES = {("torch", name): Constant(f"torch.{name}") for name in _STORAGES}
_DTYPES = {
    ("torch", name): Constant(f"torch.{name}")
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"),
        *("uint8", "bool"),
    )
}


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Widens bfloat16, given as uint16 bit patterns; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def decode(buffer: bytes | memoryview, dtype: str, *, big_endian: bool = False) -> np.ndarray:
    """Interprets raw bytes as a flat array in native byte order.

    Args:
      buffer: whole elements.
      dtype: a numpy code without byte order, 'bfloat16' or 'bool'.
      big_endian: byte order of the buffer.
    """
    order = ">" if big_endian else "<"
    if dtype == "bfloat16":
        return bfloat16_to_float32(np.frombuffer(buffer, order + "u2"))
    if dtype == "bool":
        return np.frombuffer(buffer, np.uint8) != 0
    array = np.frombuffer(buffer, order + dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def item_size(dtype: str) -> int:
    """Bytes of one element on disk."""
    return {"bfloat16": 2, "bool": 1}.get(dtype) or int(dtype[1:])


@dataclasses.dataclass(eq=False)
class Storage:
    """A flat buffer that views refer to.

    Attributes:
      dtype: its dtype on disk, see `decode`.
      numel: elements; may be a claim that the owner of the bytes has yet to confirm.
      array: the elements, once they are read.
    """

    dtype: str
    numel: int
    array: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class PendingTensor:
    """A strided view of a storage, within its bounds; offset and strides in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def materialize(self) -> np.ndarray:
        """The view as a C-contiguous, aligned array; no copy where the storage has that form."""
        array = self.storage.array
        if math.prod(self.size) == 0:
            return np.zeros(self.size, array.dtype)
        flat = array[self.offset :]
        strides = tuple(step * flat.itemsize for step in self.stride)
        view = np.lib.stride_tricks.as_strided(flat, self.size, strides, writeable=False)
        return np.require(view, requirements=("C", "A")).reshape(self.size)


class TorchReader:
    """Reads the pickles of one torch file; subclass it to say where storages come from."""

    def __init__(self, where: str, file_bytes: int) -> None:
        """Starts with an empty budget.

        Args:
          where: what to call the file in messages.
          file_bytes: its size; tensors may not claim more.
        """
        self.where = where
        self._file_bytes = file_bytes
        self._claimed_bytes = 0
        self._pairs = 0

    def refuse(self, constraint: str, got: object) -> NoReturn:
        """Raises `UnsafeFileError` about this file."""
        raise UnsafeFileError(requirement(self.where, constraint, got, _REMEDY))

    def storage(self, dtype: str, key: str, numel: int) -> Storage:
        """The storage a persistent id names; `numel` is a claim to be checked.

        Args:
          dtype: as `decode`.
          key: name in the file.
          numel: elements.
        """
        raise NotImplementedError

    def allow_list(self) -> AllowList:
        """The only names a torch pickle may use, mapped to builders of ours."""
        builders = {
            ("collections", "OrderedDict"): self._build_ordered_dict,
            ("torch", "Size"): self._build_size,
            ("torch._utils", "_rebuild_tensor"): self._build_tensor_v1,
            ("torch._utils", "_rebuild_tensor_v2"): self._build_tensor,
            ("torch._utils", "_rebuild_parameter"): self._build_parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._build_parameter,
            ("torch.nn.parameter", "Parameter"): self._build_parameter,
        }
        constructors = {
            name: Constructor(".".join(name), build) for name, build in builders.items()
        }
        return {**constructors, **_STORAGE_TYPES, **_DTYPES}

    def persistent(self, identity: Any) -> Storage:
        """Resolves ('storage', type, key, location, numel[, view])."""
        if type(identity) is not tuple or not 5 <= len(identity) <= 6 or identity[0] != "storage":
            self.refuse("refer to storages only", printable(identity))
        _, kind, key, location, numel = identity[:5]
        if type(kind) is not Constant or kind.name.removeprefix("torch.") not in _STORAGES:
            self.refuse("name a known storage type", printable(getattr(kind, "name", kind)))
        if type(key) is int:  # very old files
            key = str(key)
        if type(key) is not str or type(location) is not str:
            self.refuse("name storages by strings", printable((key, location)))
        if len(identity) == 6 and identity[5] is not None:
            self.refuse("keep views in tensors, not in storages", "a storage view")
        if type(numel) is not int or numel < 0:
            self.refuse("give storages a size", printable(numel))
        dtype = _STORAGES[kind.name.removeprefix("torch.")]
        if numel * item_size(dtype) > self._file_bytes:
            self.refuse(
                f"hold the {numel} elements that storage {printable(key)} claims",
                f"{self._file_bytes} bytes in all",
            )
        return self.storage(dtype, key, numel)

    def _build_ordered_dict(self, arguments: tuple[Any, ...]) -> collections.OrderedDict:
        result = collections.OrderedDict()
        if not arguments:
            return result
        pairs = arguments[0]
        if len(arguments) != 1 or type(pairs) not in (list, tuple):
            self.refuse("build ordered dictionaries from pairs", "something else")
        self._pairs += len(pairs)  # each takes a few bytes, unless lists are used again and again
        if self._pairs > self._file_bytes:
            self.refuse("unpack to a sensible number of dictionary entries", "more")
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                self.refuse("build ordered dictionaries from pairs", "something else")
            key = pair[0]
            if type(key) is not str:
                self.refuse("use strings as keys of ordered dictionaries", type(key).__name__)
            result[key] = pair[1]
        return result

    def _build_size(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        if len(arguments) != 1:
            self.refuse("give torch.Size one tuple", f"{len(arguments)} arguments")
        return self._sizes(arguments[0])

    def _sizes(self, value: Any) -> tuple[int, ...]:
        fits = type(value) in (tuple, list) and len(value) <= MAX_AXES
        if not fits or not all(type(item) is int and 0 <= item < 2**62 for item in value):
            self.refuse("give sizes and strides as non-negative integers", printable(value))
        return tuple(value)

    def _build_tensor_v1(self, arguments: tuple[Any, ...]) -> PendingTensor:
        if len(arguments) != 4:
            self.refuse("rebuild tensors from 4 arguments", len(arguments))
        return self._tensor(*arguments)

    def _build_tensor(self, arguments: tuple[Any, ...]) -> PendingTensor:
        # storage, offset, size, stride, requires_grad, hooks[, metadata]; the last ones are inert.
        if not 6 <= len(arguments) <= 7:
            self.refuse("rebuild tensors from 6 or 7 arguments", len(arguments))
        self._check_hooks(arguments[5])
        return self._tensor(*arguments[:4])

    def _build_parameter(self, arguments: tuple[Any, ...]) -> PendingTensor:
        if not 1 <= len(arguments) <= 4 or type(arguments[0]) is not PendingTensor:
            self.refuse("wrap tensors as parameters", "something else")
        if len(arguments) > 2:
            self._check_hooks(arguments[2])
        return arguments[0]

    def _check_hooks(self, hooks: Any) -> None:
        if hooks is not None and type(hooks) not in (dict, collections.OrderedDict):
            self.refuse("give backward hooks as a dictionary", type(hooks).__name__)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> PendingTensor:
        if type(storage) is not Storage:
            self.refuse("build tensors from storages", type(storage).__name__)
        if type(offset) is not int or not 0 <= offset < 2**62:
            self.refuse("give tensors a non-negative offset", printable(offset))
        size, stride = self._sizes(size), self._sizes(stride)
        if len(size) != len(stride):
            self.refuse("give one stride per axis", f"{len(size)} sizes, {len(stride)} strides")
        numel = math.prod(size)
        if numel:
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            if last >= storage.numel:
                self.refuse(
                    f"keep tensors inside their storage of {storage.numel} elements",
                    f"a view that ends at {last + 1}",
                )
            # A stride of 0 repeats elements: bounded by the file, alone and summed over all views.
            self._claimed_bytes += numel * item_size(storage.dtype)
            if numel * item_size(storage.dtype) > self._file_bytes:
                self.refuse("hold tensors smaller than itself", f"a view of {numel} elements")
            if self._claimed_bytes > MAX_SHARING * self._file_bytes:
                self.refuse(f"unpack to at most {MAX_SHARING} times its size", "more")
        elif math.prod(n for n in size if n) > 2**40:
            self.refuse("give empty tensors sensible sizes", printable(size))
        # The stride of an axis of one element means nothing, and may be anything.
        stride = tuple(step if n > 1 else 0 for n, step in zip(size, stride, strict=True))
        return PendingTensor(storage, offset, size, stride)

    def machine(self, data: bytes, position: int = 0) -> PickleMachine:
        """An interpreter with this reader's allow-list.

        Args:
          data: holds the pickle.
          position: where it starts.
        """
        return PickleMachine(
            data,
            allowed=self.allow_list(),
            persistent=self.persistent,
            where=self.where,
            position=position,
        )

    def resolve(self, tree: Any) -> Any:
        """Turns what the pickle built into dictionaries, lists, tuples, arrays and plain values.

        Shared containers stay shared; cycles, deep nesting and exponential sharing are refused.
        """
        return self._resolve(tree, {}, set(), 0)[0]

    def _resolve(
        self, node: Any, done: dict[int, tuple[Any, int, int]], active: set[int], depth: int
    ) -> tuple[Any, int, int]:
        """Returns (value, height, number of nodes)."""
        if node is None or type(node) in (bool, int, float, str, bytes):
            return node, 0, 1
        if id(node) in done:
            return done[id(node)]
        if type(node) is PendingTensor:
            result = (node.materialize(), 0, 1)
        elif type(node) is Constant and node.name.rpartition(".")[2] not in _STORAGES:
            return node.name, 0, 1  # a dtype, as text
        elif type(node) in (dict, collections.OrderedDict, list, tuple):
            if id(node) in active or depth >= MAX_DEPTH:
                self.refuse(f"nest at most {MAX_DEPTH} containers, without cycles", "more")
            active.add(id(node))
            values = list(node.values()) if isinstance(node, dict) else list(node)
            parts = [self._resolve(value, done, active, depth + 1) for value in values]
            active.discard(id(node))
            height = 1 + max((part[1] for part in parts), default=0)
            count = 1 + sum(part[2] for part in parts)
            if height > MAX_DEPTH or count > MAX_NODES:
                self.refuse("be of a sensible size and depth", "a structure that unfolds too far")
            items = [part[0] for part in parts]
            if isinstance(node, dict):
                items = dict(zip(node, items, strict=True))
            result = (tuple(items) if type(node) is tuple else items, height, count)
        else:
            name = getattr(node, "name", type(node).__name__)
            self.refuse("hold only tensors and plain data", printable(name))
        done[id(node)] = result
        return result
