"""HDF5 files on disks that fail: what HDF5 reads from and writes to, and what an error there means."""

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from seval.defaults import DEFAULTS
from seval.errors import DamagedData, DataError, memory_short, one_line
from seval.files import told
from seval.places import called, found

_LEAST_MEMORY = 1 << 22  # bytes; HDF5 crashes where it cannot open a file for lack of less


class Steady:
    """A file for HDF5 that never fails.

    HDF5 does not survive a write that fails, and takes a read that fails for damage. So the first error is kept for
    `check`, and what is written after it is held in memory: HDF5 may read it again before it is closed. The descriptor
    is closed with the last reference, which HDF5 may hold.
    """

    def __init__(self, file: Path, doing: str, path: Path) -> None:
        """Open `file` to read or to write (`doing`); errors name `path`. A pipe, a device or a folder is an error."""
        self.doing, self.path = doing, path
        flags = os.O_RDONLY if doing == "read" else os.O_RDWR
        try:
            self.descriptor = os.open(file, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
            if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            bytes(_LEAST_MEMORY)
        except OSError as error:
            raise told(error, doing, path) from None
        except MemoryError:
            raise MemoryError(f"not enough memory to {doing} {path}") from None
        self.position = 0
        self.error: BaseException | None = None
        self.lost: list[tuple[int, bytes]] = []

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):  # it may not have been opened
            os.close(self.descriptor)

    def check(self) -> None:
        """Raise the first error, if there was one: an `OSError` that names the file, or a Ctrl-C."""
        if isinstance(self.error, OSError):
            raise told(self.error, self.doing, self.path) from None
        if self.error:
            raise self.error

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # also a Ctrl-C, which HDF5 would take for a failure
            self.error = self.error or error

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            size = 0
            with self._keeping():
                size = os.fstat(self.descriptor).st_size
            offset += max([size, *(start + len(content) for start, content in self.lost)])
        self.position = offset
        return offset

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: memoryview | bytearray) -> int:
        """Fill all of the buffer, with zeros where the file has ended or cannot be read."""
        view, done = memoryview(buffer).cast("B"), 0
        with self._keeping():
            while done < len(view) and (count := os.preadv(self.descriptor, [view[done:]], self.position + done)):
                done += count
        view[done:] = bytes(len(view) - done)
        for start, content in self.lost:
            first, last = max(start, self.position), min(start + len(content), self.position + len(view))
            if first < last:
                view[first - self.position : last - self.position] = content[first - start : last - start]
        self.position += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:
        view, done = memoryview(data).cast("B"), 0
        with self._keeping():
            while done < len(view) and self.error is None:
                if not (count := os.pwrite(self.descriptor, view[done:], self.position + done)):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                done += count
        if done < len(view):
            self.lost.append((self.position + done, bytes(view[done:])))
        self.position += len(view)
        return len(view)

    def truncate(self, size: int) -> None:
        with self._keeping():
            if self.error is None:
                os.ftruncate(self.descriptor, size)

    def flush(self) -> None:
        """Nothing is buffered here."""


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A prepared file, to be read inside the `with`.

    Whatever HDF5, JSON and NumPy raise inside on altered bytes becomes a `DamagedData` that says how to write the file
    again. An error of the system stays an `OSError`, and a lack of memory a `MemoryError`.
    """
    steady = Steady(path, "read", path)
    with explained(steady), h5py.File(steady, "r") as file:
        yield file


@contextmanager
def explained(steady: Steady, what: str = "") -> Iterator[None]:
    """What an error while HDF5 reads `steady` means; see `opened`. `what` is what could not be read."""
    path, of = steady.path, f"{what}: " if what else ""
    try:
        yield
    except Exception as error:
        steady.check()
        said = one_line(error)
        if isinstance(error, DataError):
            raise
        if memory_short(error):
            size = os.fstat(steady.descriptor).st_size / 1e6
            raise MemoryError(f"not enough memory to read {path} of {size:.1f} MB: {of}{said}") from None
        damaged = f"{path} is damaged, incomplete or not HDF5 ({of}{said})"
        raise DamagedData(f"{damaged}; write it again: {remedy(path)}") from None
    steady.check()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system inside say which file cannot be written."""
    try:
        yield
    except OSError as error:
        raise told(error, "write", path) from None


def data_file(name: str, root: str | Path | None = None, written: bool = False) -> Path:
    """ROOT/NAME.h5, where the environment variable SEVAL_DATA replaces the default root.

    Below the default root a file that is missing is that of the code's own `data`, to be read, not `written`.
    """
    if root is None or str(root) == DEFAULTS.DATASET.ROOT:
        root = os.environ.get("SEVAL_DATA") or DEFAULTS.DATASET.ROOT
    path = Path(root) / f"{name}.h5"
    return path if written or root != DEFAULTS.DATASET.ROOT else found(path)


def remedy(path: Path) -> str:
    """The command that writes `path`."""
    here = [] if path == data_file(path.stem) else ["--root", str(path.parent)]
    return shlex.join([*called("repro/prepare.py"), path.stem, *here])
