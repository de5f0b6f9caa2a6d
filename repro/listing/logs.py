"""The log of a run: where it is, and its last lines."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from seval.files import open_regular
from seval.text import printable

_BEGIN, _END = 1 << 12, 1 << 14  # bytes that are read of a log: to see whose it is, and for its last lines
_MOST = 3000  # logs that are looked into


def log_of(folder: Path) -> Path | None:
    """The newest log of the run in a folder: of a process on one machine or of a job of SLURM; None if there is none.

    What is printed on a terminal is kept nowhere.
    """
    own = folder.parent / "submitit" / folder.name
    written = [[path for path in own.glob(f"*.{end}") if _read(path, 1)] for end in ("err", "out")]
    jobs = sorted((folder.parent / "slurm" / "logs").glob("*_log.out"), key=_age)[:_MOST]
    of_job = next((path for path in jobs if f"run {folder.name}".encode() in _read(path, _BEGIN)), None)
    logs: list[Path] = [*(written[0] or written[1]), *([of_job] if of_job else [])]  # a run writes to .err
    found = sorted(logs, key=_age)
    return found[0] if found else None


def last_lines(log: Path, number: int = 5) -> list[str]:
    """The last lines of a log as a terminal shows them: of a bar that was drawn again and again, the last state."""
    texts = _read(log, -_END).decode("utf-8", "replace").split("\n")
    lines = [printable(text.rstrip("\r").rpartition("\r")[2].rstrip().expandtabs()) for text in texts]
    return [line for line in lines if line][-number:]


def _age(path: Path) -> float:
    with suppress(OSError):
        return -path.stat().st_mtime
    return 0.0


def _read(path: Path, size: int) -> bytes:
    """The first bytes of a file or, where `size` is negative, the last ones; none where it cannot be read."""
    with suppress(OSError), open_regular(path) as file:
        if size < 0:
            file.seek(max(0, file.seek(0, os.SEEK_END) + size))
        return file.read(abs(size))
    return b""
