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
from seval.files import sync

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
        for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
            with suppress(OSError):  # another user's, or already gone
                _sweep(left)
        usage = shutil.disk_usage(path.parent)
        if usage.total and usage.free < size:  # some file systems say nothing
            raise OSError(errno.ENOSPC, f"it needs {size / 1e6:.1f} MB, but {usage.free / 1e6:.1f} MB are free")
        aside, descriptor = _create(path)
    LIVE.add(aside)
    try:
        yield aside
        with writing(path):
            os.fsync(descriptor)
            os.replace(aside, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        os.close(descriptor)
        LIVE.discard(aside)


def _create(path: Path) -> tuple[Path, int]:
    while True:
        aside = path.with_name(f".{path.name}.{_machine()}.{uuid4().hex}.partial")
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)  # less the umask
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process, which sweeps, was faster
            os.close(descriptor)
            continue
        except OSError:
            pass  # a file system without locks: its age tells
        if os.fstat(descriptor).st_nlink:
            return aside, descriptor
        os.close(descriptor)


def _sweep(left: Path) -> None:
    """Remove a partial file that no process writes. Other machines may not see a lock, so their files must be old."""
    descriptor = os.open(left, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        here = f".{_machine()}." in left.name
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            here = False
        if here or time.time() - os.fstat(descriptor).st_mtime > _OLD:
            left.unlink()
    finally:
        os.close(descriptor)


def _machine() -> str:
    """The running kernel, which sees its own locks: containers on it share the name, whatever their host names."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").replace("-", "").strip()
    return socket.gethostname()
