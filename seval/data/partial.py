"""A file that is written beside its final place and moved there when it is complete."""

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

from seval.data.disk import writing
from seval.files import check_replaceable, sync

_OLD = 3600  # seconds without a write after which a file of another machine counts as abandoned

LIVE: set[Path] = set()  # the partial files of this process


@contextmanager
def partial(path: Path, size: int) -> Iterator[Path]:
    """A new empty file for `path`, which takes its place at the end; after an error it is removed.

    It is locked meanwhile, so that others can tell it from one whose writer was killed; those are removed first. Raises
    `OSError`, which names `path`, also where fewer than `size` bytes are free.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(path)
        for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
            with suppress(OSError):  # another user's, or already gone
                _sweep(left)
        usage = shutil.disk_usage(path.parent)
        if usage.total and usage.free < size:  # some file systems say nothing
            raise OSError(errno.ENOSPC, f"no space for its {size / 1e6:.1f} MB, {usage.free / 1e6:.1f} MB are free")
        aside, descriptor = _create(path)
    try:
        yield aside
        with writing(path):
            os.fsync(descriptor)
            os.replace(aside, path)
            sync(path.parent)
    finally:
        _leave(aside, descriptor)


def abandon() -> None:
    """Remove the partial files of this process, which ends."""
    for aside in list(LIVE):
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _create(path: Path) -> tuple[Path, int]:
    """A new locked file, and the descriptor that holds the lock."""
    while True:
        aside = path.with_name(f".{path.name}.{_machine()}.{uuid4().hex}.partial")
        LIVE.add(aside)
        descriptor = -1
        try:
            descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)  # less the umask
            if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
                return aside, descriptor  # and not swept before it was locked
        except BaseException:
            _leave(aside, descriptor)
            raise
        _leave(aside, descriptor)


def _leave(aside: Path, descriptor: int) -> None:
    with suppress(OSError):
        aside.unlink(missing_ok=True)
    LIVE.discard(aside)
    if descriptor >= 0:
        os.close(descriptor)


def _sweep(left: Path) -> None:
    """Remove a partial file that no process writes. Other machines may not see a lock, so their files must be old."""
    descriptor = os.open(left, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        locked, here = _lock(descriptor), f".{_machine()}." in left.name
        old = time.time() - os.fstat(descriptor).st_mtime > _OLD
        if (locked and here) or (locked is not False and old):
            left.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Whether this process holds the lock now; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _machine() -> str:
    """The running kernel, which sees its own locks: containers on it share the name, whatever their host names."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").replace("-", "").strip()
    return socket.gethostname()
