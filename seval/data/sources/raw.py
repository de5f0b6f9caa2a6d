"""What every source needs: raw files and their checksums, and batches of images and labels."""

import errno
import hashlib
import io
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np

from seval.data.image_set import ImageSet
from seval.data.sources.arrays import Refused, text
from seval.data.sources.fetch import Archive, fetch
from seval.data.sources.pickles import load
from seval.errors import DataError
from seval.files import told
from seval.text import short, short_line

T = TypeVar("T")
AGAIN = "fetch it again from its publisher (--download does, where it may)"  # how most errors end


class Source(NamedTuple):
    """How a set is made: `read(raw)` takes the folder of raw files.

    It raises `DataError` for a file that is missing, truncated or of another format, `OSError` for one that cannot be
    read just now, and `MemoryError`. Files that are not the published ones but have their format are read too: the
    set's attribute `official` says whether all are the published ones.
    """

    read: Callable[[Path], ImageSet]
    files: str  # the official files, for people
    archives: tuple[Archive, ...] = ()  # what --download fetches
    closed: str = ""  # where a license forbids that: what people must fetch themselves, and where it belongs
    folder: str = "raw"  # of the raw files, below ROOT
    packaged: Path | None = None  # where an operating system's package puts them
    compress: bool = False

    def download(self, raw: Path) -> None:
        """Fetch the raw files into the folder. Raises `DataError` where that fails or is not allowed."""
        if self.closed:
            raise DataError(f"this set cannot be fetched: {self.closed}")
        fetch(self.archives, raw)


class Raw(NamedTuple):
    """A raw file, unpacked."""

    where: str  # for people
    size: int
    start: Callable[[], AbstractContextManager[IO[bytes]]]

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file from its start; reading it fails as `reading` says."""
        with reading(self.where, "changed while it was read, or is damaged", size=self.size), self.start() as file:
            yield file

    def content(self) -> bytes:
        with self.open() as file:
            return file.read()

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines of a list and their numbers, from 1; UTF-8 with or without a byte order mark, any ends of lines."""
        try:
            yield from enumerate(io.TextIOWrapper(io.BytesIO(self.content()), "utf-8-sig"), start=1)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where} is not text in UTF-8 ({error}); save it in that encoding") from None


@contextmanager
def reading(where: str | Path, wrong: str, todo: str = AGAIN, size: int = 0) -> Iterator[None]:
    """Whatever a damaged file makes other libraries raise becomes the `DataError` "`where` `wrong`".

    Only that: what was refused says why, an `OSError` of the system is "cannot read `where`", and a `MemoryError` stays
    one, with the size.
    """
    try:
        yield
    except Refused as error:
        raise DataError(f"{where} {error}; {todo}") from None
    except DataError:
        raise
    except MemoryError:
        raise MemoryError(f"memory is too short for {where} ({size / 1e6:.0f} MB)") from None
    except Exception as error:
        # Damage makes libraries seek to where no file can be, which is EINVAL; what else has a number is the machine's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise (told(error, "read", Path(where)) if error.strerror else error) from None
        raise DataError(f"{where} {wrong} ({short_line(error)}); {todo}") from None


def on_disk(path: Path, limit: int) -> Raw:
    """A file of at most `limit` bytes. Raises `DataError` for a larger one and for what is no regular file."""
    try:
        about = path.stat()
    except OSError as error:
        raise told(error, "read", path) from None
    if not stat.S_ISREG(about.st_mode):
        what = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe, a device or a socket"
        raise DataError(f"{path} is {what}, but a file is expected there")
    return Raw(str(path), within(about.st_size, limit, str(path)), partial(open, path, "rb"))


def in_memory(content: bytes, where: str) -> Raw:
    return Raw(where, len(content), partial(io.BytesIO, content))


def within(size: int, limit: int, where: str) -> int:
    """The size; raises `DataError` where no file of that name can be so large."""
    if not 0 <= size <= limit:
        raise DataError(f"{where} has {size} bytes, but may have {limit} at most; {AGAIN}")
    return size


def shown(found: str) -> str:
    """Text of a file for a message: not long, and without control characters."""
    return short(found)[1:-1]


def require(files: Mapping[str, T], names: Iterable[str], where: Path) -> dict[str, T]:
    """The files in the order of `names`; raises `DataError` where one is missing."""
    if missing := [name for name in names if name not in files]:
        raise DataError(f"{where} has no {', '.join(missing)}; {AGAIN}")
    return {name: files[name] for name in names}


def provenance(files: Mapping[str, Raw], md5: Mapping[str, str] | None = None) -> dict[str, object]:
    """The attributes `sources_sha256` and `official`: whether the files with a published `md5` are the published ones.

    The SHA-256 are those of the unpacked files, so that it does not matter how they were packed.
    """
    sha256, official = {}, None if md5 is None else True
    for name, file in files.items():
        strong, weak = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with file.open() as opened:
            while block := opened.read(1 << 20):
                strong.update(block)
                weak.update(block)
        sha256[name] = strong.hexdigest()
        if md5 is not None and name in md5 and md5[name] != weak.hexdigest():
            official = False
    return {"sources_sha256": sha256, "official": official}


def unpickle(file: Raw) -> dict[str, object]:
    """The dictionary in a pickle; its keys are text, but text of Python 2 in its values is bytes."""
    with reading(file.where, "is truncated or not a pickled dictionary", size=file.size), file.start() as opened:
        found = load(opened, file.size)
    batch = {text(key): value for key, value in found.items()}
    if len(batch) != len(found):
        raise DataError(f"{file.where} has a key twice, as text and as bytes; {AGAIN}")
    return batch


def pixels_in(batch: Mapping[str, object], side: int, where: str) -> np.ndarray:
    """`data` of a batch, uint8 (N, 3 * side * side) in planes, as (N, 3, side, side); raises `DataError`."""
    pixels, width = batch.get("data"), 3 * side * side
    if not isinstance(pixels, np.ndarray):
        raise DataError(f"{where} must hold data uint8 (N, {width}), but holds none; {AGAIN}")
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (width,) or not len(pixels):
        raise DataError(f"{where} must hold data uint8 (N, {width}), but has {pixels.dtype} {pixels.shape}; {AGAIN}")
    return pixels.reshape(-1, 3, side, side)


def labels_in(batch: Mapping[str, object], key: str, where: str, *, count: int, low: int, high: int) -> np.ndarray:
    """The labels of a batch, a list or array, as int64 (count,); raises `DataError`."""
    found = batch.get(key)
    if isinstance(found, list | tuple):
        found = np.array([label if type(label) is int and low <= label <= high else low - 1 for label in found])
    labels = found if isinstance(found, np.ndarray) else np.empty(0)
    if labels.dtype.kind not in "iu" or labels.shape != (count,) or labels.min() < low or labels.max() > high:
        raise DataError(f"{where} must hold {key}, a list of {count} labels in {low}..{high}; {AGAIN}")
    return labels.astype(np.int64)


def frequency_rank(counts: np.ndarray) -> np.ndarray:
    """New class of each old one: by falling count, ties by the old number."""
    return np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
