"""Arrays from the bytes of foreign files, and what stands for NumPy's types while a pickle is read.

NumPy's own types trust the state that a pickle sets: two hundred bytes can make an array that points anywhere. Here an
array is made in one place, from bytes that are exactly as many as its shape needs, and it cannot be written to.
"""

import math
import warnings
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from seval.errors import DataError

_CODES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


class Refused(DataError):
    """What a file holds or asks for is not what image sets are made of; the message is the end of a sentence."""


def array(raw: object, dtype: np.dtype, shape: object, order: str = "C") -> np.ndarray:
    """The array in these bytes, without a copy. Raises `Refused` where they are not as many as it needs."""
    if not isinstance(raw, bytes | bytearray) or type(shape) is not tuple or len(shape) > 8 or order not in ("C", "F"):
        raise Refused("holds an array without bytes, shape or order")
    if any(type(n) is not int or not 0 <= n < 1 << 63 for n in shape):
        raise Refused("holds an array with an impossible shape")
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise Refused(f"holds an array {dtype} {shape} in {len(raw)} bytes")
    found = np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")
    found.flags.writeable = False
    return found


def text(value: object) -> str:
    """Text, also of Python 2; empty where the value is anything else."""
    return value.decode("latin1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


@dataclass(frozen=True)
class Name:
    """A function or type that a pickle names. It stays a name: nothing is imported, and nothing can be called."""

    of: str

    def __str__(self) -> str:
        return f"the name {self.of}"


class Dtype:
    """Stands for the dtype of a number; of its state only the byte order is used."""

    def __init__(self, code: object) -> None:
        if (code := text(code)) not in _CODES:
            raise Refused(f"holds an array of dtype {ascii(code[:40])}, but image sets hold plain numbers")
        self._code, self._order = code, "="

    def build(self, state: tuple) -> None:
        """Take the byte order. Raises `Refused` for a state that no plain number has, such as fields or a size."""
        _, order, *rest = state
        if (order := text(order)) not in ("|", "<", ">", "=") or rest[:6] != [None, None, None, -1, -1, 0]:
            raise Refused("holds an array of a dtype with a state that no plain number has")
        self._order = order

    @property
    def made(self) -> np.dtype:
        return np.dtype(self._order + self._code)

    def __str__(self) -> str:
        return "a dtype outside an array"


class Array:
    """Stands for an array that has not got its state yet."""

    made: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        """Make it. The first element, a version, is missing where NumPy was old."""
        shape, dtype, fortran, raw = state[-4:]
        if fortran not in (0, 1) or len(state) > 5:
            raise Refused("holds an array with another state than that of NumPy")
        self.made = array(raw, made(dtype), shape, "F" if fortran else "C")

    def __str__(self) -> str:
        return "an array without content"


def reconstruct(kind: object, shape: object, code: object) -> Array:
    """What NumPy calls to begin an array: its shape comes later."""
    if kind != Name("numpy.ndarray"):
        raise Refused("holds an array of an unknown type")
    return Array()


def made(dtype: object) -> np.dtype:
    """The dtype that `Dtype` stands for; anything else raises `Refused`."""
    if not isinstance(dtype, Dtype):
        raise Refused("holds an array without a dtype")
    return dtype.made


def read_npz(file: IO[bytes], keys: tuple[str, ...], limit: int, texts: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of numbers named `keys` and those of text named `texts` in an .npz, those that it has.

    None is larger than `limit` bytes. NumPy's own reader makes room for whatever shape the file claims. Raises any
    `Exception` where it is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        return {key: _npy(archive, f"{key}.npy", limit, key in texts) for key in keys + texts if f"{key}.npy" in names}


def _npy(archive: zipfile.ZipFile, name: str, limit: int, is_text: bool) -> np.ndarray:
    about = archive.getinfo(name)
    if about.file_size > limit or about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{name} has {about.file_size} bytes, more than {limit}, or is packed in another way than .npz"
        )
    with archive.open(name) as member:
        if np.lib.format.read_magic(member) != (1, 0):  # the headers of later versions can be of any length
            raise ValueError(f"{name} is of another version than NumPy writes for numbers")
        with warnings.catch_warnings(action="ignore"):  # that Python 2 wrote it
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.str[1:] not in _CODES and not (is_text and dtype.kind == "U" and dtype.itemsize):
            raise ValueError(f"{name} has the dtype {dtype.str}, which is no plain number{' or text' * is_text}")
        return array(_rest(member, about.file_size), dtype, shape, "F" if fortran else "C")


def _rest(member: Any, most: int) -> bytearray:
    """What is left of a file, without a second copy of it."""
    content, filled = bytearray(most), 0
    with memoryview(content) as view:
        while count := member.readinto(view[filled : filled + (1 << 20)]):
            filled += count
    del content[filled:]
    return content
