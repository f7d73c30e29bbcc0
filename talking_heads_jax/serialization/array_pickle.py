"""Reader of pickles of arrays, as face models are published: numpy, scipy.sparse, chumpy, torch.

The names of those libraries' classes stand for inert stand-ins of ours; their states are checked
and turned into plain arrays. Nothing of the libraries is imported or called on behalf of a file,
and every other name is refused by name. Text protocols and Python 2 strings (read as Latin-1) are
understood. Refused are object and structured arrays, except the one object that `numpy.save` wraps.
"""

import ast
import collections
import dataclasses
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from talking_heads_jax.errors import ConversionError, UnsafeFileError, requirement
from talking_heads_jax.serialization.pickle_machine import (
    AllowList,
    Constant,
    Constructor,
    PickleMachine,
    printable,
)
from talking_heads_jax.serialization.torch_legacy import MAGIC_PREFIX, read_embedded_storage
from talking_heads_jax.serialization.torch_tensors import (
    MAX_DEPTH,
    MAX_SHARING,
    Storage,
    TorchReader,
)

MAX_DENSE_ELEMENTS = 2**24  # of a sparse matrix, once it is dense
_REMEDY = "Get the file again from its publisher; there is no option to allow this."
_DTYPE = re.compile(r"[<>=|]?(b1|b|[iu][1248]|f[248]|[SU][1-9][0-9]{0,3}|\?)")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")  # one literal, not a sum of them
_MAX_EMPTY = 2**40  # product of the axes of an array without elements, the empty ones left out
_LAST_CHARACTER = 0x10FFFF
_NPY_MAGIC = b"\x93NUMPY"
_ROOTS = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")
_OBJECT, _NDARRAY = "object", "numpy.ndarray"


@dataclasses.dataclass(eq=False)
class StandIn:
    """An object that a pickle makes first and fills in later.

    Attributes:
      kind: 'ndarray', 'dtype', 'sparse' or 'chumpy'.
      name: `module.attribute` as the pickle spells it.
      state: what it was filled with; None until then.
    """

    kind: str
    name: str
    state: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Class(Constructor):
    """A class that may be instantiated without arguments, by NEWOBJ or `_reconstructor`."""

    kind: str = ""


class _ArrayMachine(PickleMachine):
    """Adds what Python 2, text protocols and plain objects need to the opcodes of state dicts."""

    remedy = _REMEDY

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if type(target) is StandIn:
            if target.state is not None and target.kind != "dtype":
                self._refuse("fill each object once", target.name)
            target.state = state
        elif type(target) is not collections.OrderedDict or type(state) is not dict:
            self._refuse("set state only on arrays", printable(getattr(target, "name", target)))

    def _newobj(self) -> None:
        arguments, kind = self._pop(), self._pop()
        if type(kind) is not _Class or arguments != ():
            name = getattr(kind, "name", f"a {type(kind).__name__}")
            self._refuse("make only empty arrays, sparse matrices and chumpy objects", name)
        self._stack.append(kind.build(()))

    def _text_line(self, limit: int) -> bytes:
        end = self._data.find(b"\n", self.position, self.position + limit)
        if end < 0:
            self._refuse("end its lines", "an unterminated one")
        line = self._take(end - self.position)
        self.position += 1
        return line

    def _number_line(self, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(self._text_line(400).decode("ascii").removesuffix("L"))
        except ValueError:
            self._refuse("hold valid numbers", "something else")

    def _text_int(self) -> None:
        value = self._number_line(str)
        constants = {"00": False, "01": True}
        try:
            self._stack.append(constants[value] if value in constants else int(value))
        except ValueError:
            self._refuse("hold valid numbers", printable(value))

    def _text_float(self) -> None:
        self._stack.append(self._number_line(float))

    def _text_string(self) -> None:
        raw = self._text_line(len(self._data)).decode("latin-1")
        quoted = raw.isascii() and _QUOTED.fullmatch(raw)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of unknown escapes, which stand for themselves
                value = ast.literal_eval("b" + raw) if quoted else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        if type(value) is not bytes:
            self._refuse("hold valid text", "a malformed string")
        self._stack.append(value.decode("latin-1"))

    def _text_unicode(self) -> None:
        try:
            self._stack.append(self._text_line(len(self._data)).decode("raw-unicode-escape"))
        except UnicodeDecodeError:
            self._refuse("hold valid text", "a malformed string")

    def _text_put(self) -> None:
        self._memo[self._number_line(int)] = self._top()

    def _text_get(self) -> None:
        index = self._number_line(int)
        if index not in self._memo:
            self._refuse("be a well-formed pickle", "an unknown memo index")
        self._stack.append(self._memo[index])

    def _duplicate(self) -> None:
        self._stack.append(self._top())

    def _empty_set(self) -> None:
        self._stack.append([])

    further_operations = {
        0x81: _newobj,
        0x8F: _empty_set,
        0x90: PickleMachine._appends,
        0x96: lambda machine: machine._bytes(8),  # a mutable byte array
        ord("I"): _text_int,
        ord("L"): _text_int,
        ord("F"): _text_float,
        ord("S"): _text_string,
        ord("V"): _text_unicode,
        ord("p"): _text_put,
        ord("g"): _text_get,
        ord("2"): _duplicate,
        ord("b"): _build,
    }


class _ArrayReader(TorchReader):
    """Allow-list and stand-ins; storages come embedded, as bytes of torch files of their own."""

    def __init__(self, where: str, data: bytes) -> None:
        super().__init__(where, len(data))
        self._data = data
        self._elements_left = MAX_DENSE_ELEMENTS
        self._unpacked_bytes = 0

    def read(self, position: int = 0) -> Any:
        machine = _ArrayMachine(
            self._data, allowed=self.allow_list(), where=self.where, position=position
        )
        return self.resolve(machine.load())

    def refuse(self, constraint: str, got: object) -> NoReturn:
        raise UnsafeFileError(requirement(self.where, constraint, got, _REMEDY))

    def _unpack(self, count: int) -> None:
        """Counts bytes that are copied or read again: a few opcodes can ask for them many times."""
        self._unpacked_bytes += count
        if self._unpacked_bytes > MAX_SHARING * len(self._data):
            self.refuse(f"unpack to at most {MAX_SHARING} times its size", "more")

    def storage(self, dtype: str, key: str, numel: int) -> Storage:
        del dtype, key, numel
        self.refuse("embed its tensors", "a reference to another file")

    def allow_list(self) -> AllowList:
        """The names of a state dict, and those of arrays."""
        calls: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
            ("numpy", "dtype"): self._make_dtype,
            ("_codecs", "encode"): self._encode,
            ("torch.storage", "_load_from_bytes"): self._load_storage,
        }
        for module in _BUILTINS:
            calls[module, "set"] = calls[module, "frozenset"] = self._make_set
        for module in ("copy_reg", "copyreg"):
            calls[module, "_reconstructor"] = self._reconstruct_object
        for root in _ROOTS:
            calls[f"{root}.multiarray", "_reconstruct"] = self._reconstruct_array
            calls[f"{root}.multiarray", "scalar"] = self._make_scalar
            calls[f"{root}.numeric", "_frombuffer"] = self._from_buffer
        names: dict[tuple[str, str], Constructor | Constant] = {
            name: Constructor(".".join(name), build) for name, build in calls.items()
        }
        names["numpy", "ndarray"] = Constant(_NDARRAY)
        for module in _BUILTINS:
            names[module, "object"] = Constant(_OBJECT)
            names[module, "bytes"] = Constructor(f"{module}.bytes", self._make_bytes)
        for form in ("csc", "csr", "coo"):
            for kind in ("matrix", "array"):
                for module in (f"scipy.sparse.{form}", f"scipy.sparse._{form}"):
                    self._add_class(names, module, f"{form}_{kind}", "sparse")
        for module in ("chumpy.ch", "chumpy"):
            self._add_class(names, module, "Ch", "chumpy")
        return {**super().allow_list(), **names}

    def _add_class(
        self, names: dict[tuple[str, str], Any], module: str, name: str, kind: str
    ) -> None:
        full = f"{module}.{name}"

        def make(arguments: tuple[Any, ...]) -> StandIn:
            if arguments:
                self.refuse("make its objects without arguments", full)
            return StandIn(kind, full)

        names[module, name] = _Class(full, make, kind)

    # What the pickle "calls": each checks its arguments and returns plain data or a stand-in.

    def _make_dtype(self, arguments: tuple[Any, ...]) -> StandIn:
        text = arguments[0] if arguments else None
        if text in ("O", "O8", "|O", "O4"):
            return StandIn("dtype", "O")
        if len(arguments) > 3 or type(text) is not str or not _DTYPE.fullmatch(text):
            self.refuse("hold arrays of numbers or text", printable(text))
        return StandIn("dtype", text)

    def _encode(self, arguments: tuple[Any, ...]) -> bytes:
        if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] != "latin1":
            self.refuse("encode text as latin1", "something else")
        return self._as_bytes(arguments[0])

    def _make_bytes(self, arguments: tuple[Any, ...]) -> bytes:
        if arguments:
            self.refuse("write bytes plainly", "a call of bytes")
        return b""

    def _make_set(self, arguments: tuple[Any, ...]) -> list[Any]:
        if len(arguments) != 1 or type(arguments[0]) is not list:
            self.refuse("make sets from lists", "something else")
        return arguments[0]

    def _load_storage(self, arguments: tuple[Any, ...]) -> Storage:
        data = arguments[0] if len(arguments) == 1 else None
        if type(data) is not bytes or not data.startswith(MAGIC_PREFIX):
            self.refuse("embed torch storages as torch files", printable(data))
        self._unpack(len(data))
        return read_embedded_storage(data, self.where)

    def _reconstruct_object(self, arguments: tuple[Any, ...]) -> StandIn:
        if len(arguments) != 3 or type(arguments[0]) is not _Class or arguments[2] is not None:
            name = getattr(arguments[0], "name", "something else") if arguments else "nothing"
            self.refuse("rebuild only sparse matrices and chumpy objects", printable(name))
        base = arguments[1]
        if type(base) is not Constant or base.name != _OBJECT:
            self.refuse("rebuild plain objects", printable(getattr(base, "name", base)))
        return arguments[0].build(())

    def _reconstruct_array(self, arguments: tuple[Any, ...]) -> StandIn:
        kind = arguments[0] if arguments else None
        if type(kind) is not Constant or kind.name != _NDARRAY or len(arguments) != 3:
            self.refuse("rebuild numpy.ndarray only", printable(getattr(kind, "name", kind)))
        return StandIn("ndarray", _NDARRAY)

    def _make_scalar(self, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 2:
            self.refuse("make scalars from a dtype and bytes", f"{len(arguments)} arguments")
        return self._array((), arguments[0], False, arguments[1])[()]

    def _from_buffer(self, arguments: tuple[Any, ...]) -> np.ndarray:
        if len(arguments) != 4 or arguments[3] not in ("C", "F"):
            self.refuse("make arrays from bytes, dtype, shape and order", "something else")
        data, dtype, shape, order = arguments
        return self._array(shape, dtype, order == "F", data)

    def _as_bytes(self, data: Any) -> bytes:
        if type(data) is bytes:
            return data
        try:
            if type(data) is str:  # a Python 2 string
                self._unpack(len(data))
                return data.encode("latin-1")
        except UnicodeEncodeError:
            pass
        self.refuse("hold arrays as bytes", f"a {type(data).__name__}")

    def _dtype(self, stand_in: Any) -> np.dtype:
        if type(stand_in) is not StandIn or stand_in.kind != "dtype":
            self.refuse("give arrays a dtype", f"a {type(stand_in).__name__}")
        state = stand_in.state
        order = ""
        if state is not None:
            if type(state) is not tuple or not 8 <= len(state) <= 9:
                self.refuse("describe dtypes as numpy does", "something else")
            if any(part is not None for part in state[2:5]):
                self.refuse("hold arrays of numbers or text", "a structured dtype")
            order = state[1] if type(state[1]) is str and state[1] in ("<", ">") else ""
        if stand_in.name == "O":
            self.refuse("hold arrays of numbers or text", "an array of objects")
        return np.dtype(order + stand_in.name.lstrip("<>=|"))

    def _shape(self, shape: Any) -> tuple[int, ...]:
        if type(shape) is not tuple or len(shape) > 32:
            self.refuse("give shapes as tuples", printable(shape))
        if not all(type(size) is int and 0 <= size < 2**40 for size in shape):
            self.refuse("give sizes as non-negative integers", printable(shape))
        return shape

    def _array(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> np.ndarray:
        shape, kind, raw = self._shape(shape), self._dtype(dtype), self._as_bytes(data)
        if len(raw) != math.prod(shape) * kind.itemsize:
            claimed = math.prod(shape) * kind.itemsize
            self.refuse(f"hold the {claimed} bytes an array claims", f"{len(raw)} bytes")
        if math.prod(size for size in shape if size) > _MAX_EMPTY:
            self.refuse("give empty arrays sensible sizes", printable(shape))
        self._unpack(len(raw))
        order = "F" if fortran else "C"
        flat = np.frombuffer(raw, kind) if raw else np.zeros(math.prod(shape), kind)
        if kind.kind == "U" and (flat.view(kind.byteorder + "u4") > _LAST_CHARACTER).any():
            self.refuse("hold valid text", "an array of other numbers")
        array = flat.reshape(shape, order=order)
        return np.ascontiguousarray(array.astype(kind.newbyteorder("="))).reshape(shape)

    def _resolve(
        self, node: Any, done: dict[int, tuple[Any, int, int]], active: set[int], depth: int
    ) -> tuple[Any, int, int]:
        if type(node) is StandIn:
            if id(node) not in done:
                if id(node) in active or depth >= MAX_DEPTH:
                    self.refuse(f"nest at most {MAX_DEPTH} objects, without cycles", node.name)
                active.add(id(node))
                done[id(node)] = (self._fill(node, done, active, depth), 0, 1)
                active.discard(id(node))
            return done[id(node)]
        if isinstance(node, np.ndarray | np.generic):
            return node, 0, 1
        if type(node) is Storage:
            self.refuse("hold tensors, not bare storages", "one")
        return super()._resolve(node, done, active, depth)

    def _fill(self, node: StandIn, done: Any, active: set[int], depth: int) -> Any:
        state = node.state
        if node.kind == "ndarray":
            if type(state) is not tuple or len(state) not in (4, 5):
                self.refuse("fill its arrays", "an array without content")
            shape, dtype, fortran, data = state[-4:]
            if type(dtype) is StandIn and dtype.name == "O" and shape == () and depth == 0:
                if type(data) is not list or len(data) != 1:
                    self.refuse("wrap one object", "something else")
                return self._resolve(data[0], done, active, depth + 1)[0]
            return self._array(shape, dtype, fortran, data)
        if type(state) is not dict:
            self.refuse("fill its objects", f"an empty {node.name}")
        if node.kind == "chumpy":
            if "x" not in state:
                self.refuse(
                    "hold chumpy objects that are plain arrays", ", ".join(map(printable, state))
                )
            value = self._resolve(state["x"], done, active, depth + 1)[0]
            if not isinstance(value, np.ndarray):
                self.refuse("hold chumpy objects that are plain arrays", type(value).__name__)
            return value
        if node.kind != "sparse":
            self.refuse("hold only arrays and plain data", node.name)
        parts = {
            key: self._resolve(state[key], done, active, depth + 1)[0]
            for key in ("data", "indices", "indptr", "row", "col", "coords", "_shape", "shape")
            if key in state
        }
        return self._dense(node.name, parts)

    def _dense(self, name: str, parts: dict[str, Any]) -> np.ndarray:
        """The dense form of a sparse matrix, whose state is only a claim."""
        shape = parts.get("_shape", parts.get("shape"))
        if type(shape) not in (tuple, list):
            self.refuse("hold sparse matrices of two axes", printable(shape))
        shape = tuple(int(size) if isinstance(size, np.integer) else size for size in shape)
        shape = self._shape(shape)
        if len(shape) != 2:
            self.refuse("hold sparse matrices of two axes", printable(shape))
        self._elements_left -= math.prod(shape)
        if self._elements_left < 0:
            self.refuse(f"unpack to at most {MAX_DENSE_ELEMENTS} elements", f"{name} of {shape}")
        data = parts.get("data")
        if ".coo" in name or "._coo" in name:
            coords = parts.get("coords", (parts.get("row"), parts.get("col")))
            if type(coords) is not tuple or len(coords) != 2:
                self.refuse("hold sparse matrices as three vectors", f"a damaged {name}")
            row, column = coords
        else:
            by_row = "csr" in name
            indices, ends = parts.get("indices"), parts.get("indptr")
            self._check_vectors(name, data, indices, ends)
            counts = np.diff(ends.astype(np.int64))
            outer = shape[0] if by_row else shape[1]
            fits = len(ends) == outer + 1 and ends[0] == 0 and ends[-1] == len(indices)
            if not fits or (counts < 0).any():
                self.refuse("hold consistent sparse matrices", f"a damaged {name}")
            expanded = np.repeat(np.arange(outer), counts)
            row, column = (expanded, indices) if by_row else (indices, expanded)
        self._check_vectors(name, data, row, column)
        same = len(row) == len(column) == len(data)
        if not same or (len(row) and not self._inside(row, column, shape)):
            self.refuse("hold consistent sparse matrices", f"a damaged {name}")
        self._unpack(data.nbytes)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (row, column), data)
        return dense

    def _inside(self, row: np.ndarray, column: np.ndarray, shape: tuple[int, ...]) -> bool:
        low = min(int(row.min()), int(column.min()))
        return low >= 0 and int(row.max()) < shape[0] and int(column.max()) < shape[1]

    def _check_vectors(self, name: str, data: Any, *indices: Any) -> None:
        vectors = [value for value in (data, *indices) if isinstance(value, np.ndarray)]
        plain = len(vectors) == len(indices) + 1 and all(value.ndim == 1 for value in vectors)
        if (
            not plain
            or data.dtype.kind not in "fiu"
            or any(i.dtype.kind not in "iu" for i in indices)
        ):
            self.refuse("hold sparse matrices as three vectors", f"a damaged {name}")


def read_array_pickle(path: Path | str) -> Any:
    """Reads a bare pickle of arrays, or an .npy file that wraps one object.

    Args:
      path: the file; its extension does not matter.

    Returns:
      Dictionaries, lists, tuples and plain values with numpy arrays: sparse matrices dense, chumpy
      objects and torch tensors as the arrays they hold.

    Raises:
      ConversionError: if it is neither.
      UnsafeFileError: if it is damaged, or names anything but those arrays.
    """
    path = Path(path)
    where = f"file '{re.sub(r'[^ -~]', '?', path.name)}'"
    data = path.read_bytes()
    position = 0
    if data.startswith(_NPY_MAGIC):
        size = {1: 2, 2: 4, 3: 4}.get(data[6] if len(data) > 6 else 0, 4)
        position = 8 + size + int.from_bytes(data[8 : 8 + size], "little")
        if b"'descr': '|O'" not in data[8 + size : min(position, 65_536)]:
            with path.open("rb") as stream:
                return _plain_npy(stream, where)
    if not data:
        raise ConversionError(
            requirement(where, "hold a pickle", "an empty file", "Download the file again.")
        )
    return _ArrayReader(where, data).read(position)


def _plain_npy(stream: Any, where: str) -> np.ndarray:
    try:
        return np.load(stream, allow_pickle=False)
    except Exception as error:  # its parser of headers raises half a dozen different ones
        raise UnsafeFileError(
            requirement(where, "be a complete .npy file", type(error).__name__, _REMEDY)
        ) from error
