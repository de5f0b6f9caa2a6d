"""What every source needs: raw files from a folder or an archive, their checksums, pickles that cannot run anything."""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np

from seval.data.image_set import ImageSet
from seval.data.sources.fetch import Archive, fetch
from seval.errors import DataError, one_line

T = TypeVar("T")
AGAIN = "fetch it again from its publisher (--download does, where it may)"  # how most errors end
LARGE = 1 << 28  # an archive's larger files are unpacked anew whenever they are read, instead of kept in memory


class Source(NamedTuple):
    """How a set is made: `read(raw)` takes the folder of raw files.

    It raises `DataError` for a file that is missing, truncated or of another format. Files that are not the published
    ones but have their format are read too: the set's attribute `official` says whether all are the published ones.
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
    """A raw file, unpacked. `open()` gives it from its start."""

    where: str  # for people
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    def content(self) -> bytes:
        with self.open() as file:
            return file.read()


def on_disk(path: Path) -> Raw:
    return Raw(str(path), path.stat().st_size, partial(open, path, "rb"))


def in_memory(content: bytes, where: str) -> Raw:
    return Raw(where, len(content), partial(io.BytesIO, content))


def gather(
    raw: Path, folder: str, archive: str, names: tuple[str, ...], extra: str, optional: tuple[str, ...] = ()
) -> dict[str, Raw]:
    """The files `names`, by name, from the archive in `raw` or else from the folder in it, or from `raw` itself.

    The archive goes first, since --download fetches it when a folder is damaged. Raises `DataError` where there is
    neither, where a file is missing, and for a file that matches the pattern `extra` but is none of `names`.
    """
    packed, unpacked = raw / archive, raw / folder
    if not unpacked.is_dir() and (raw / names[0]).is_file():
        unpacked = raw
    if packed.is_file():
        files, where = untar(packed), packed
    elif unpacked.is_dir():
        files, where = {path.name: on_disk(path) for path in sorted(unpacked.iterdir()) if path.is_file()}, unpacked
    else:
        raise DataError(
            f"{raw} has neither {folder} nor {archive}; put one there, name another folder with --raw, or fetch it "
            "with --download"
        )
    for name, file in files.items():
        if fnmatch(name, extra) and name not in names:
            raise DataError(f"{file.where} is no file of this set: {where} holds something else; {AGAIN}")
    return require(files, names, where) | {name: files[name] for name in optional if name in files}


def require(files: Mapping[str, T], names: Iterable[str], where: Path) -> dict[str, T]:
    """The files in the order of `names`; raises `DataError` where one is missing."""
    if missing := [name for name in names if name not in files]:
        raise DataError(f"{where} has no {', '.join(missing)}; {AGAIN}")
    return {name: files[name] for name in names}


def untar(archive: Path) -> dict[str, Raw]:
    """The files of a .tar.gz by the last part of their names; nothing is written to disk."""
    files = {}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and member.size > LARGE:
                    files[name] = Raw(f"{name} in {archive}", member.size, partial(_member, archive, member.name))
                elif member.isfile():
                    files[name] = in_memory(_extracted(tar, member).read(), f"{name} in {archive}")
        return files
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is truncated or not a .tar.gz ({one_line(error)}); {AGAIN}") from None


@contextmanager
def _member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    with tarfile.open(archive, "r|gz") as tar:
        yield next(_extracted(tar, member) for member in tar if member.name == name)


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # it is a file
    return content


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


# Python's own implementation: unlike the one in C, it reads a gigabyte of pixels without a second copy of it.
class _ArraysOnly(pickle._Unpickler):
    """Unpickles numbers, text, containers and NumPy arrays; any other name in the file is refused, so nothing runs."""

    # What NumPy names in the pickle of an array, by the old and by the new protocol; NumPy 2 renamed `core`.
    _allowed = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for _core in ("numpy.core", "numpy._core"):
        _allowed[f"{_core}.multiarray._reconstruct"] = np.empty(1).__reduce__()[0]
        _allowed[f"{_core}.numeric._frombuffer"] = np.empty(1).__reduce_ex__(5)[0]

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):  # Python 3 writes bytes so in protocol 2
            return lambda text, encoding: text.encode("latin1")
        if (allowed := self._allowed.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image set needs")
        return allowed


def unpickle(file: Raw) -> dict[str, object]:
    """The dictionary in a pickle; its keys are text, but text of Python 2 in its values is bytes."""
    try:
        with file.open() as opened:
            found = _ArraysOnly(opened, encoding="bytes").load()
        return {str(decode_text(key)): value for key, value in found.items()}
    except Exception as error:  # damaged pickles raise anything
        raise DataError(f"{file.where} is truncated or not a pickled dictionary ({one_line(error)}); {AGAIN}") from None


def decode_text(value: object) -> object:
    """Python 2's text as text, anything else as it is."""
    return value.decode("latin1") if isinstance(value, bytes) else value


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
    try:
        labels = np.asarray(batch.get(key))
    except ValueError:  # lists within the list
        labels = np.empty(0)
    if labels.dtype.kind not in "iu" or labels.shape != (count,) or labels.min() < low or labels.max() > high:
        raise DataError(f"{where} must hold {key}, a list of {count} labels in {low}..{high}; {AGAIN}")
    return labels.astype(np.int64)


def frequency_rank(counts: np.ndarray) -> np.ndarray:
    """New class of each old one: by falling count, ties by the old number."""
    return np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
