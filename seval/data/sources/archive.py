"""The files of a set from its folder or its archive: only those that belong there, none larger than it can be."""

import gzip
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from seval.data.sources.raw import AGAIN, Raw, in_memory, on_disk, reading, require, shown, within
from seval.errors import DataError

LARGE = 1 << 28  # an archive's larger files are unpacked anew whenever they are read, instead of kept in memory
_HEADERS = 1 << 20  # bytes between two files of an archive
_BROKEN = "is truncated or not a .tar.gz"
_APPLE = "._"  # begins the names of files in which macOS keeps what other file systems cannot


def gather(
    raw: Path, folder: str, archive: str, limits: Mapping[str, int], extra: str, optional: tuple[str, ...] = ()
) -> dict[str, Raw]:
    """The files of a set, by name, from the archive in `raw` or else from the folder in it, or from `raw` itself.

    `limits` are their names and the most bytes they can have; those in `optional` may be missing. The archive goes
    first, since --download fetches it when a folder is damaged. Raises `DataError` where there is neither, where a file
    is missing, and for a file that matches the pattern `extra` but is none of the set.
    """
    packed, unpacked = raw / archive, raw / folder
    if not unpacked.is_dir() and (raw / next(iter(limits))).is_file():
        unpacked = raw
    if packed.is_file():
        files, where = untar(packed, limits, extra), packed
    elif unpacked.is_dir():
        files, where = _listed(unpacked, limits, extra), unpacked
    else:
        what = f"{packed} is not a regular file" if packed.exists() else f"{raw} has neither {folder} nor {archive}"
        raise DataError(f"{what}; put one there, name another folder with --raw, or fetch it with --download")
    needed = [name for name in limits if name in files or name not in optional]
    return require(files, needed, where)


def _listed(folder: Path, limits: Mapping[str, int], extra: str) -> dict[str, Raw]:
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name in limits:
            files[path.name] = on_disk(path, limits[path.name])
        elif fnmatch(path.name, extra) and not path.name.startswith(_APPLE):
            raise DataError(f"{path} is no file of this set; remove it, or name another folder with --raw")
    return files


def untar(archive: Path, limits: Mapping[str, int], extra: str = "") -> dict[str, Raw]:
    """Files of a .tar.gz by the last part of their names, only those in `limits`; nothing is written to disk."""
    files: dict[str, Raw] = {}
    with reading(archive, _BROKEN, size=sum(limits.values())):
        for tar, member in _members(archive):
            name = PurePosixPath(member.name).name
            if not member.isfile() or name.startswith(_APPLE):
                continue
            where = f"{name} in {archive}"
            if name in files:
                raise DataError(f"{where} is there twice; {AGAIN}")
            if name not in limits:
                if fnmatch(name, extra):
                    raise DataError(f"{shown(name)} in {archive} is no file of this set; {AGAIN}")
            elif within(member.size, limits[name], where) > LARGE:
                files[name] = Raw(where, member.size, partial(_member, archive, member.name))
            else:
                files[name] = in_memory(_extracted(tar, member).read(), where)
    return files


def _members(archive: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """What is in the archive, one after the other, and at last whether its checksum is right."""
    with gzip.open(archive) as packed:
        metered: Any = _Metered(packed)  # tarfile only reads
        with tarfile.open(fileobj=metered, mode="r|") as opened:
            tar: Any = opened  # its `members` have no type
            while (member := tar.next()) is not None:
                metered.left = tar.offset - member.offset_data + _HEADERS
                tar.members.clear()  # there may be millions
                yield tar, member
        while packed.read(1 << 20):
            pass


class _Metered:
    """A file for tarfile, which would read headers of any length into memory."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self.file, self.left = file, _HEADERS

    def read(self, count: int) -> bytes:
        found = self.file.read(count)
        self.left -= len(found)
        if self.left < 0:
            raise tarfile.ReadError("a header is too long")
        return found


@contextmanager
def _member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    found = ((tar, member) for tar, member in _members(archive) if member.name == name and member.isfile())
    yield _extracted(*next(found))


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content: Any = tar.extractfile(member)
    assert content is not None  # it is a file
    return content
