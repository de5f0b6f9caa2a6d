"""Pickles of image sets, read by a small machine: they can hold numbers, text, containers and arrays of numbers.

Python's own unpickler hands functions and types to the file, and calls them as the file says. Here a name in the file
stays a name, nothing is imported, and only lists, dictionaries and the stand-ins of `arrays` are ever changed.
"""

import codecs
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from seval.data.sources.arrays import Array, Dtype, Name, Refused, array, made, reconstruct, text

_OTHERS = {instruction.code: instruction.name for instruction in pickletools.opcodes}
_PLAIN = (type(None), bool, int, float, str, bytes, np.ndarray)
# An image takes thousands of bytes and about ten steps. Each step makes at most a small object, so that the bound keeps
# what is made below a few times the size of the file.
_STEPS, _BYTES_OF_STEP = 100_000, 64


def load(file: IO[bytes], size: int) -> dict:
    """The dictionary in a pickle of `size` bytes, of any protocol: plain values, with arrays that cannot be written to.

    Text of Python 2 is bytes, and NumPy's numbers are Python's. Raises `Refused`, and any other `Exception` where the
    file is damaged.
    """
    value = _Machine(file, size).run()
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}")
    todo: list[object] = [value]
    seen = set()
    while todo:  # not by recursion: there may be a million levels
        item = todo.pop()
        if isinstance(item, list | tuple | dict):
            if id(item) not in seen:
                seen.add(id(item))
                todo.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, _PLAIN):
            raise Refused(f"holds {item}, which no image set needs")
    return value


class _Machine:
    """The stack machine of a pickle."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size
        self.steps, self.encodable = _STEPS + size // _BYTES_OF_STEP, size
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        """What the pickle holds."""
        while (code := self.read(1)) != pickle.STOP:
            self.steps -= 1
            if self.steps < 0:
                raise Refused("makes more objects than an image set of its size has")
            if value := _VALUES.get(code):
                found = value(self)  # it may change which list the stack is
                self.stack.append(found)
            elif change := _CHANGES.get(code):
                change(self)
            elif name := _OTHERS.get(code.decode("latin1")):
                raise Refused(f"has the instruction {name}, which no image set needs")
            else:
                raise ValueError(f"{code!r} is no instruction")
        return self.stack.pop()

    def read(self, count: int) -> bytes:
        """`count` bytes, never more than the file has."""
        found = self.file.read(count) if count <= self.left else b""
        if len(found) != count:
            raise EOFError("it ends too early")
        self.left -= count
        return found

    def line(self) -> bytes:
        line = self.file.readline(self.left)
        if not line.endswith(b"\n"):
            raise EOFError("it ends too early")
        self.left -= len(line)
        return line[:-1]

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.read(count), "little", signed=signed)

    def counted(self, count: int) -> bytes:
        """Bytes that follow their number, itself of `count` bytes."""
        return self.read(self.number(count))

    def text(self, count: int) -> str:
        return self.counted(count).decode("utf-8", "surrogatepass")

    def memoized(self, index: int) -> object:
        return _resolved(self.memo[index])

    def memoize(self, index: int) -> None:
        if not 0 <= index < 1 << 32:
            raise ValueError("a negative or huge index")
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """What was put onto the stack since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def last(self, count: int) -> tuple:
        """The last values of the stack, which loses them."""
        if len(self.stack) < count:
            raise IndexError("nothing is there")
        values = self.stack[-count:]
        del self.stack[-count:]
        return tuple(values)

    def append(self, items: list | tuple) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("appends to what is no list")
        self.stack[-1].extend(items)

    def put(self, items: list | tuple) -> None:
        _put(self.stack[-1], items)

    def call(self) -> object:
        name, arguments = self.last(2)
        if not isinstance(name, Name) or name.of not in _FUNCTIONS or type(arguments) is not tuple:
            raise Refused("calls what is no function")
        made = _FUNCTIONS[name.of](*arguments)
        self.encodable -= len(made) if isinstance(made, bytes) else 0
        if self.encodable < 0:  # of one text it could make any number of copies
            raise Refused("makes more bytes than it has")
        return made

    def build(self) -> None:
        (state,) = self.last(1)
        if not isinstance(target := self.stack[-1], Dtype | Array) or type(state) is not tuple:
            raise Refused("sets the state of what has none")
        target.build(state)
        self.stack[-1] = _resolved(target)

    def drop(self) -> None:
        if self.stack:
            del self.stack[-1]
        else:
            self.items()


def _resolved(value: object) -> object:
    """The array, where its stand-in has made it."""
    return value if not isinstance(value, Array) or value.made is None else value.made


def _put(target: object, items: list | tuple) -> dict:
    if type(target) is not dict or not all(type(key) in (str, bytes) for key in items[::2]):
        raise Refused("has a key that is no text")  # others could be slow to compare, or too deep for Python to hash
    target.update(zip(items[::2], items[1::2], strict=True))
    return target


def _integer(line: bytes, boolean: bool = True) -> int:
    if boolean and line in (b"00", b"01"):
        return line == b"01"
    return int(line.removesuffix(b"L"))


def _quoted(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("text without quotes")
    return codecs.escape_decode(line[1:-1])[0]


def _named(module: object, name: object) -> Name:
    full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
    known = full.replace("numpy._core.", "numpy.core.", 1) if full.startswith("numpy.") else full  # renamed in NumPy 2
    if known != "numpy.ndarray" and known not in _FUNCTIONS:
        raise Refused(f"asks for {ascii(full)[1:-1][:80]}, which no image set needs")
    return Name(known)


def _encode(content: object, encoding: object) -> bytes:
    """Bytes, as Python 3 writes them in old protocols."""
    if not isinstance(content, str) or text(encoding) != "latin1":
        raise Refused("has bytes in another encoding than latin1")
    return content.encode("latin1")


#: What can be called in a pickle, by name: what NumPy writes of arrays, dtypes and its numbers, and Python of bytes.
_FUNCTIONS: dict[str, Callable[..., object]] = {
    "_codecs.encode": _encode,
    "numpy.dtype": lambda code, align=False, copy=True: Dtype(code),
    "numpy.core.multiarray._reconstruct": reconstruct,
    "numpy.core.multiarray.scalar": lambda dtype, raw: array(raw, made(dtype), ()).item(),
    "numpy.core.numeric._frombuffer": lambda raw, dtype, shape, order: array(raw, made(dtype), shape, text(order)),
}
#: The instructions that put a value onto the stack.
_VALUES: dict[bytes, Callable[[_Machine], object]] = {
    pickle.NONE: lambda m: None,
    pickle.NEWTRUE: lambda m: True,
    pickle.NEWFALSE: lambda m: False,
    pickle.INT: lambda m: _integer(m.line()),
    pickle.BININT: lambda m: m.number(4, signed=True),
    pickle.BININT1: lambda m: m.number(1),
    pickle.BININT2: lambda m: m.number(2),
    pickle.LONG: lambda m: _integer(m.line(), boolean=False),
    pickle.LONG1: lambda m: int.from_bytes(m.counted(1), "little", signed=True),
    pickle.LONG4: lambda m: int.from_bytes(m.counted(4), "little", signed=True),
    pickle.FLOAT: lambda m: float(m.line()),
    pickle.BINFLOAT: lambda m: struct.unpack(">d", m.read(8))[0],
    pickle.STRING: lambda m: _quoted(m.line()),
    pickle.SHORT_BINSTRING: lambda m: m.counted(1),
    pickle.BINSTRING: lambda m: m.counted(4),
    pickle.SHORT_BINBYTES: lambda m: m.counted(1),
    pickle.BINBYTES: lambda m: m.counted(4),
    pickle.BINBYTES8: lambda m: m.counted(8),
    pickle.BYTEARRAY8: lambda m: m.counted(8),
    pickle.UNICODE: lambda m: m.line().decode("raw-unicode-escape"),
    pickle.SHORT_BINUNICODE: lambda m: m.text(1),
    pickle.BINUNICODE: lambda m: m.text(4),
    pickle.BINUNICODE8: lambda m: m.text(8),
    pickle.EMPTY_TUPLE: lambda m: (),
    pickle.TUPLE1: lambda m: m.last(1),
    pickle.TUPLE2: lambda m: m.last(2),
    pickle.TUPLE3: lambda m: m.last(3),
    pickle.TUPLE: lambda m: tuple(m.items()),
    pickle.EMPTY_LIST: lambda m: [],
    pickle.LIST: lambda m: m.items(),
    pickle.EMPTY_DICT: lambda m: {},
    pickle.DICT: lambda m: _put({}, m.items()),
    pickle.DUP: lambda m: m.stack[-1],
    pickle.GET: lambda m: m.memoized(_integer(m.line())),
    pickle.BINGET: lambda m: m.memoized(m.number(1)),
    pickle.LONG_BINGET: lambda m: m.memoized(m.number(4)),
    pickle.GLOBAL: lambda m: _named(m.line().decode(), m.line().decode()),
    pickle.STACK_GLOBAL: lambda m: _named(*m.last(2)),
    pickle.REDUCE: lambda m: m.call(),
}
#: The other instructions.
_CHANGES: dict[bytes, Callable[[_Machine], object]] = {
    pickle.PROTO: lambda m: m.number(1),
    pickle.FRAME: lambda m: m.number(8),
    pickle.MARK: _Machine.mark,
    pickle.POP: _Machine.drop,
    pickle.POP_MARK: _Machine.items,
    pickle.APPEND: lambda m: m.append(m.last(1)),
    pickle.APPENDS: lambda m: m.append(m.items()),
    pickle.SETITEM: lambda m: m.put(m.last(2)),
    pickle.SETITEMS: lambda m: m.put(m.items()),
    pickle.BUILD: _Machine.build,
    pickle.PUT: lambda m: m.memoize(_integer(m.line())),
    pickle.BINPUT: lambda m: m.memoize(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.memoize(m.number(4)),
    pickle.MEMOIZE: lambda m: m.memoize(len(m.memo)),
}
