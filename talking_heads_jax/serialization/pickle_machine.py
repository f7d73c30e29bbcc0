"""A pickle interpreter that can build plain data and nothing else.

Python's own unpickler calls whatever a file names. This one never imports, looks up or calls a
Python object on behalf of a file: it walks the opcodes itself, puts plain values on its stack, and
turns a global name into an inert token only if the caller's allow-list holds that very name. What
`REDUCE` may "call" is a builder of ours that checks its arguments. Every other name, and every
opcode that state dicts do not need (extension registry, instances, sets, out-of-band buffers), is
refused by name; there is no switch that relaxes this.

Work and memory are bounded by the file: strings are slices of it, the memo is a dictionary (a
huge index costs one entry), integers are at most 255 bytes, dictionary keys are scalars (a nested
tuple would be hashed in exponential time), and the number of opcodes is limited.
"""

import collections
import dataclasses
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from talking_heads_jax.errors import UnsafeFileError, requirement

MAX_OPCODES = 2_000_000  # a checkpoint with 20,000 tensors and Adam state needs about 1,500,000
MAX_NAME_BYTES = 512  # of a module or attribute name
_SCALAR_KEYS = (str, int, float, bool, bytes, type(None))
_SCALARS = {
    ord("N"): None,
    0x88: True,
    0x89: False,
}
_REMEDY = (
    "Ask its author for a plain state dict (torch.save(model.state_dict(), ...)) or a .safetensors"
    " file; there is no option to allow this."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Constructor:
    """An allow-listed callable: a name, and what we do in its place.

    Attributes:
      name: `module.attribute` as the pickle spells it.
      build: receives the argument tuple, must check it, returns plain data.
    """

    name: str
    build: Callable[[tuple[Any, ...]], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An allow-listed name that is only ever passed around, for instance a storage type.

    Attributes:
      name: `module.attribute` as the pickle spells it.
    """

    name: str


AllowList = Mapping[tuple[str, str], Constructor | Constant]


def printable(value: object) -> str:
    """Text of an untrusted value that is safe to print: ASCII, one line, short.

    Containers are named by their type only: a small pickle can hold one that prints for ever.
    """
    if type(value) in (str, bytes):
        value = value[:100]
    elif type(value) not in _SCALAR_KEYS:
        return f"a {type(value).__name__}"
    text = ascii(value)
    return text if len(text) <= 120 else text[:117] + "..."


class PickleMachine:
    """Interprets one pickle at a time out of a buffer.

    Attributes:
      position: offset of the byte after the last pickle read.
      further_operations: opcodes that a subclass adds.
      remedy: what to tell the user about a file that is refused.
    """

    further_operations: Mapping[int, Callable[["PickleMachine"], None]] = MappingProxyType({})
    remedy = _REMEDY

    def __init__(
        self,
        data: bytes,
        *,
        allowed: AllowList,
        persistent: Callable[[Any], Any] | None = None,
        where: str,
        position: int = 0,
        max_opcodes: int = MAX_OPCODES,
    ) -> None:
        """Prepares to read; touches nothing.

        Args:
          data: the file, or one entry of an archive.
          allowed: (module, attribute) -> token.
          persistent: resolves persistent ids; None refuses them.
          where: what to call the file in messages.
          position: where the first pickle starts.
          max_opcodes: limit over all pickles read by this object.
        """
        self.position = position
        self._data = data
        self._allowed = allowed
        self._persistent = persistent
        self._where = where
        self._opcodes_left = max_opcodes
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Reads the pickle at `position` and moves behind it.

        Returns:
          Plain data, and whatever the builders and `persistent` returned.

        Raises:
          UnsafeFileError: for a name, an opcode or a structure that is not allowed, or a stream
            that ends too early.
        """
        self._stack, self._marks, self._memo = [], [], {}
        while True:
            self._opcodes_left -= 1
            if self._opcodes_left < 0:
                self._refuse("stay within the opcode limit", "a longer pickle")
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                if self._marks or len(self._stack) != 1:
                    self._refuse("end with one value", f"{len(self._stack)} values")
                return self._stack.pop()
            if code in _SCALARS:
                self._stack.append(_SCALARS[code])
                continue
            operation = self.further_operations.get(code) or _OPERATIONS.get(code)
            if operation is None:
                self._refuse("use only the opcodes of plain data", f"opcode 0x{code:02x}")
            operation(self)

    def _refuse(self, constraint: str, got: str) -> NoReturn:
        raise UnsafeFileError(requirement(self._where, constraint, got, self.remedy))

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise UnsafeFileError(
                requirement(
                    self._where,
                    "be complete",
                    "a pickle that ends too early",
                    "Download or copy the file again.",
                )
            )
        chunk = self._data[self.position : end]
        self.position = end
        return chunk

    def _unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + MAX_NAME_BYTES)
        if end < 0:
            self._refuse("name things in short lines", "an unterminated name")
        text = self._text(self._take(end - self.position))
        self.position += 1
        return text

    def _text(self, raw: bytes) -> str:
        try:
            return str(raw, "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self._refuse("hold valid text", "bytes that are not UTF-8")

    def _pop(self) -> Any:
        if not self._stack:
            self._refuse("be a well-formed pickle", "an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            self._refuse("be a well-formed pickle", "an empty stack")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            self._refuse("be a well-formed pickle", "a missing mark")
        items = self._stack
        self._stack = self._marks.pop()
        return items

    # One method per opcode, in the order of the table below.

    def _proto(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            self._refuse("use pickle protocol 5 or older", f"protocol {version}")

    def _frame(self) -> None:
        self._take(8)  # a frame only announces a length, which the bounds checks do not need

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> None:
        self._pop_mark()

    def _pop_one(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _binint(self) -> None:
        self._stack.append(struct.unpack("<i", self._take(4))[0])

    def _binint1(self) -> None:
        self._stack.append(self._unsigned(1))

    def _binint2(self) -> None:
        self._stack.append(self._unsigned(2))

    def _long1(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._unsigned(1)), "little", signed=True))

    def _binfloat(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _unicode(self, size: int) -> None:
        self._stack.append(self._text(self._take(self._unsigned(size))))

    def _bytes(self, size: int) -> None:
        self._stack.append(self._take(self._unsigned(size)))

    def _string(self, size: int) -> None:  # Python 2 strings, read as Latin-1
        self._stack.append(str(self._take(self._unsigned(size)), "latin-1"))

    def _tuple(self) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def _short_tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _list(self) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _append(self) -> None:
        self._extend([self._pop()])

    def _appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            self._refuse("append only to lists", type(target).__name__)
        target.extend(items)

    def _dict(self) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set(items)

    def _setitem(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def _setitems(self) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) not in (dict, collections.OrderedDict):
            self._refuse("set items only of dictionaries", type(target).__name__)
        if len(items) % 2:
            self._refuse("be a well-formed pickle", "a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.check_key(key)] = value

    def check_key(self, key: Any) -> Any:
        """Returns `key` if it may be a dictionary key: a scalar, so that hashing it is cheap."""
        if type(key) not in _SCALAR_KEYS:
            self._refuse("use scalars as dictionary keys", f"a {type(key).__name__}")
        if type(key) is int and not -(2**63) <= key < 2**63:  # chosen integers share one hash
            self._refuse("use 64-bit dictionary keys", "a larger integer")
        return key

    def _put(self, size: int) -> None:
        index = self._unsigned(size)
        self._memo[index] = self._top()

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _get(self, size: int) -> None:
        index = self._unsigned(size)
        if index not in self._memo:
            self._refuse("be a well-formed pickle", f"an unknown memo index {index}")
        self._stack.append(self._memo[index])

    def _global(self) -> None:
        module = self._line()
        self._push_global(module, self._line())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            self._refuse("name its globals by strings", f"a {type(name).__name__}")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        token = self._allowed.get((module, name))
        if token is None:
            self._refuse("hold only tensors and plain data", printable(f"{module}.{name}"))
        self._stack.append(token)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Constructor:
            self._refuse("call only tensor builders", _kind(function))
        if type(arguments) is not tuple:
            self._refuse("pass arguments as a tuple", f"a {type(arguments).__name__}")
        self._stack.append(function.build(arguments))

    def _build(self) -> None:
        # A module's state dict carries its `_metadata` this way; it is dropped.
        state, target = self._pop(), self._top()
        if type(target) is not collections.OrderedDict or type(state) is not dict:
            self._refuse("set state only on ordered dictionaries", _kind(target))

    def _binpersid(self) -> None:
        if self._persistent is None:
            self._refuse("hold no persistent ids here", "one")
        self._stack.append(self._persistent(self._pop()))


def _kind(value: object) -> str:
    if isinstance(value, Constructor | Constant):
        return printable(value.name)
    return f"a {type(value).__name__}"


_Machine = PickleMachine
_OPERATIONS: dict[int, Callable[[PickleMachine], None]] = {
    0x80: _Machine._proto,
    0x95: _Machine._frame,
    ord("("): _Machine._mark,
    ord("0"): _Machine._pop_one,
    ord("1"): _Machine._pop_to_mark,
    ord("J"): _Machine._binint,
    ord("K"): _Machine._binint1,
    ord("M"): _Machine._binint2,
    0x8A: _Machine._long1,
    ord("G"): _Machine._binfloat,
    0x8C: lambda machine: machine._unicode(1),
    ord("X"): lambda machine: machine._unicode(4),
    0x8D: lambda machine: machine._unicode(8),
    ord("C"): lambda machine: machine._bytes(1),
    ord("B"): lambda machine: machine._bytes(4),
    0x8E: lambda machine: machine._bytes(8),
    ord("U"): lambda machine: machine._string(1),
    ord("T"): lambda machine: machine._string(4),
    ord("t"): _Machine._tuple,
    ord(")"): lambda machine: machine._stack.append(()),
    0x85: lambda machine: machine._short_tuple(1),
    0x86: lambda machine: machine._short_tuple(2),
    0x87: lambda machine: machine._short_tuple(3),
    ord("]"): lambda machine: machine._stack.append([]),
    ord("l"): _Machine._list,
    ord("a"): _Machine._append,
    ord("e"): _Machine._appends,
    ord("}"): lambda machine: machine._stack.append({}),
    ord("d"): _Machine._dict,
    ord("s"): _Machine._setitem,
    ord("u"): _Machine._setitems,
    ord("q"): lambda machine: machine._put(1),
    ord("r"): lambda machine: machine._put(4),
    0x94: _Machine._memoize,
    ord("h"): lambda machine: machine._get(1),
    ord("j"): lambda machine: machine._get(4),
    ord("c"): _Machine._global,
    0x93: _Machine._stack_global,
    ord("R"): _Machine._reduce,
    ord("b"): _Machine._build,
    ord("Q"): _Machine._binpersid,
}
