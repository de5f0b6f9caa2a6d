"""Images that are files, in folders of parts and classes."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from seval.data.pictures import examined
from seval.data.sources.own import PARTS, Item, Listing, class_name
from seval.errors import DataError
from seval.files import read_bytes
from seval.text import short

_LARGEST = 1 << 28  # bytes of a file
_IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # in lower case, besides names that begin with a dot


class Files:
    """Reads images by their path below `base`; see `own.Reader`."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def version(self, where: str) -> tuple[int, int]:
        try:
            about = os.stat(self.base / where)
        except FileNotFoundError:
            raise ValueError(f"it is {'a broken link' if (self.base / where).is_symlink() else 'missing'}") from None
        except OSError as error:
            raise ValueError(f"it cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is a folder" if stat.S_ISDIR(about.st_mode) else "it is no regular file")
        return about.st_size, about.st_mtime_ns

    def content(self, where: str) -> bytes:
        try:
            return read_bytes(self.base / where, _LARGEST)
        except OSError as error:
            raise ValueError(str(error)) from None

    def picture(self, where: str) -> tuple[Image.Image, bool]:
        return examined(self.content(where))


def read_folder(folder: Path) -> Listing:
    """train/CLASS/*, valid/CLASS/*, test/CLASS/* and unlabeled/** below a folder. Raises `DataError`, `OSError`."""
    problems: list[tuple[str, str]] = []
    items: list[Item] = []
    notes: list[str] = []
    found = {entry.name: entry for entry in _entries(folder)}
    if unknown := sorted(name for name, entry in found.items() if entry.is_dir() and name not in PARTS):
        raise DataError(f"{folder / unknown[0]} is none of {', '.join(PARTS)}; rename it, or move it away")
    if "train" not in found:
        raise DataError(f"{folder} has no folder train, with a folder of images for each class")
    if others := sorted(name for name in found if name not in PARTS):
        notes.append(f"note: {len(others)} files directly in {folder} are ignored, such as {short(others[0])}")
    spellings: dict[str, set[str]] = defaultdict(set)
    for part in (part for part in PARTS if part in found):
        if not _is_folder(found[part], part, problems):
            continue
        if part == "unlabeled":
            items += [Item(part, "", where) for where in _below(folder, part, problems)]
            continue
        for entry in _entries(folder / part):
            items += _of_class(folder, part, entry, problems, notes, spellings)
    for name, written in sorted(spellings.items()):
        if len(written) > 1:
            notes.append(f"note: {len(written)} folders spell the class {short(name)} in different Unicode: one class")
    return Listing(Files(folder), items, problems, notes, f"folder {folder.resolve().name}")


def _of_class(
    folder: Path,
    part: str,
    entry: os.DirEntry,
    problems: list[tuple[str, str]],
    notes: list[str],
    spellings: dict[str, set[str]],
) -> list[Item]:
    where = f"{part}/{entry.name}"
    if not entry.is_dir() and entry.is_file():
        problems.append((where, "it lies in no folder of a class"))
        return []
    if not _is_folder(entry, where, problems):
        return []
    try:
        name = class_name(entry.name)
    except ValueError as error:
        problems.append((where, str(error)))
        return []
    spellings[name].add(entry.name)
    items = []
    for inner in _entries(folder / where):
        place = f"{where}/{inner.name}"
        if inner.is_dir():
            kind = "a link to a folder" if inner.is_symlink() else "a folder"
            problems.append((place, f"it is {kind} inside the folder of a class; move its images up"))
        else:
            items.append(Item(part, name, place))
    if not items:
        notes.append(f"note: {where} is empty, and so is no class")
    return items


def _below(folder: Path, where: str, problems: list[tuple[str, str]]) -> Iterator[str]:
    """All files below, in folders of any depth."""
    for entry in _entries(folder / where):
        place = f"{where}/{entry.name}"
        if not entry.is_dir():
            yield place
        elif _is_folder(entry, place, problems):
            yield from _below(folder, place, problems)


def _is_folder(entry: os.DirEntry, where: str, problems: list[tuple[str, str]]) -> bool:
    """Whether it is a folder itself; anything else is a problem."""
    if entry.is_dir(follow_symlinks=False):
        return True
    link = "a link to a folder, which is not followed; move the folder here" if entry.is_dir() else "a broken link"
    problems.append((where, f"it is {link if entry.is_symlink() else 'no folder'}"))
    return False


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is in a folder, in order, without hidden files and those of file managers."""
    try:
        with os.scandir(folder) as found:
            return sorted(
                (each for each in found if not each.name.startswith(".") and each.name.lower() not in _IGNORED),
                key=lambda each: each.name,
            )
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder} is no folder; --raw names that with the folders train, unlabeled and test") from None
