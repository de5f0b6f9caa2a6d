"""Files are read and written here: regular files, whole or not at all, with errors that name the file."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from seval.errors import ConfigError
from seval.text import json_value, printable, short, yaml_value

LARGEST_TEXT = 1 << 28  # bytes of a text file
_LARGEST_NUMBER = 1 << 63
Kind = type | tuple[type, ...]


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file; a pipe, a device or a folder is an `OSError` at once, as are `limit` + 1 bytes.

    An `OSError` keeps its type and its errno; its text is `cannot read PATH: REASON`.
    """
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise OSError(errno.EFBIG, f"it has {size} bytes, more than the {limit} that it may have")
            return file.read()
        except OSError as error:
            raise told(error, "read", path) from error


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading; a pipe, a device or a folder is an `OSError` at once."""
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file
    except OSError as error:
        raise told(error, "read", path) from error
    except ValueError as error:  # a NUL byte in the path
        raise OSError(f"cannot read {str(path)!r}: {error}") from None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark. Raises `OSError` or `ValueError`."""
    return read_bytes(path, LARGEST_TEXT).decode("utf-8-sig")


def read_json(path: Path, keys: Mapping[str, Kind]) -> dict[str, Any]:
    """The object in a JSON file; other keys than these are allowed.

    Raises `ValueError` with the reason if it is no object with these keys of these types, and `OSError`.
    """
    value = json_value(read_bytes(path, LARGEST_TEXT))
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__}, not an object")
    has(value, keys)
    return value


def has(value: Mapping[str, Any], keys: Mapping[str, Kind]) -> None:
    """Raise `ValueError` with the reason if an object lacks one of these keys, or has it with another type."""
    for key, kind in keys.items():
        if key not in value:
            raise ValueError(f"it has no {key!r}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value[key], kinds) or (isinstance(value[key], bool) and bool not in kinds):
            names = " or ".join(each.__name__ for each in kinds)
            raise ValueError(f"its {key!r} is a {type(value[key]).__name__}, not a {names}")
        if isinstance(value[key], int | float) and not abs(value[key]) < _LARGEST_NUMBER:
            raise ValueError(f"its {key!r} is {short(value[key])}")


def read_yaml(path: Path) -> Any:
    """The value in a YAML file; None if it is empty. Raises `ConfigError`; a missing file is `FileNotFoundError`."""
    try:
        return yaml_value(read_text(path), str(path))
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: it is not text in UTF-8 ({error})") from None
    except OSError as error:
        raise ConfigError(str(error)) from None


def check_replaceable(path: Path) -> None:
    """Raise `OSError` if a device, a pipe or a socket is there, whose place a rename would take, as that of /dev/null.

    Links are replaced, not what they lead to. A folder is refused by the rename itself.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is not a regular file")


def replace(path: Path, content: bytes | memoryview, check: Callable[[], object] | None = None) -> None:
    """Write a file completely or not at all, even if the disk is full or the process is killed.

    `check` is called just before the new file takes the old one's place. Raises `OSError`, also where something else
    than a file is there, and what `check` raises.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex}")  # process numbers are not unique among containers
    try:
        check_replaceable(path)
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check:
            check()
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        if check and error.errno == errno.ENOENT:  # a successor deleted it
            check()
        raise (told(error, "write", path) if error.errno else error) from error.__cause__
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: object, check: Callable[[], object] | None = None) -> None:
    """Write indented JSON in the given order. Raises `ValueError` if a number is not finite, and `OSError`."""
    replace(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode(), check)


def set_aside(folder: Path) -> Path:
    """Move a folder to the next free name in `.old` beside it, such as `.old/NAME.1`. Raises `OSError`."""
    old = folder.parent / ".old"
    old.mkdir(exist_ok=True)
    there = [path.suffix[1:] for path in old.glob(f"{folder.name}.*")]
    return folder.rename(old / f"{folder.name}.{1 + max((int(each) for each in there if each.isdecimal()), default=0)}")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with the SHA-256 of its content as its last key."""
    return {**value, "sha256": _digest(value)}


def unsealed(value: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `sealed`. Raises `ValueError` if the content is not what was sealed."""
    content = {key: inner for key, inner in value.items() if key != "sha256"}
    if value.get("sha256") != _digest(content):
        raise ValueError("its content does not have the SHA-256 that it names")
    return content


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def told(error: OSError, doing: str, path: Path) -> OSError:
    """The same error, saying what failed with which file."""
    words = type(error)(f"cannot {doing} {printable(str(path))}: {error.strerror or error}")
    words.errno = error.errno
    return words


def sync(folder: Path) -> None:
    """So that the new name survives a power cut."""
    with suppress(OSError):  # not every file system can
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
