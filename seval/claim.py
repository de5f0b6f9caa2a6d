"""Who holds a folder alone, on any file system that several hosts share, without a lock server.

A claim is a file NAME.N, and the one with the largest N counts. It is taken over by the exclusive creation of NAME.N+1,
so of several takers one wins, and none touches a claim that may be alive. The largest is never deleted, not even on
release: else N would fall, and a taker who slept meanwhile could win beside one who began again from 1.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from seval.errors import RunBusy

BEAT, STALE, POLL = 15.0, 120.0, 1.0  # seconds: between signs of life; without one until dead; between looks at a claim
KERNEL = ("host", "boot", "namespace", "uid")  # where these agree, process numbers mean the same, and are shown
JOB = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID")
SAID = (*JOB, "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "USER")


class Claim:
    """A claim that this process has won."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self.folder, self.name, self.number = folder, name, number
        self.path, self.released = folder / f"{name}.{number}", threading.Event()

    def lost(self) -> bool:
        """Whether another process took over, as from one that was suspended. If not, this is a sign of life."""
        try:
            os.utime(self.path)  # asks the server, which also dates it; a listing may be told from memory
        except FileNotFoundError:
            return True
        return _numbers(self.folder, self.name)[-1:] != [self.number]

    def check(self) -> None:
        """To be called before each write. Raises `RunBusy` where the claim is lost."""
        if self.lost():
            raise RunBusy(f"{self.folder} was taken over by {_words(holder(self.folder, self.name))}")

    def beat(self) -> None:
        """Until it is released or lost."""
        while not self.released.wait(BEAT):
            with suppress(OSError):  # a server may be away for a while
                if self.lost():
                    return

    def release(self) -> None:
        """Written in place, which works on a full disk, and does nothing where a successor has deleted the file."""
        self.released.set()
        with suppress(OSError), self.path.open("r+b") as file:
            file.write(b'{"released": true}')
            file.truncate()


@contextmanager
def claim(folder: Path, name: str = "claim", wait: float = 0.0) -> Iterator[Claim]:
    """Hold a folder alone, and free of what a kill left half-written there (.FILE.PROCESS).

    Raises `RunBusy` where another process holds it, and after `wait` seconds still does.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            held = _take(folder, name)
            break
        except RunBusy:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL)
    try:
        for aside in folder.glob(".*.*"):
            with suppress(OSError):
                aside.unlink()
        threading.Thread(target=held.beat, daemon=True).start()
        yield held
    finally:
        held.release()


def holder(folder: Path, name: str = "claim") -> dict | None:
    """What the claim says of a holder that lives; None where there is none."""
    with suppress(FileNotFoundError):  # no folder, or taken over at this very moment
        if numbers := _numbers(folder, name):
            return _alive(folder / f"{name}.{numbers[-1]}")
    return None


def _take(folder: Path, name: str) -> Claim:
    folder.mkdir(parents=True, exist_ok=True)
    aside, content = folder / f".{name}.{uuid4().hex}", json.dumps(_self())
    try:
        aside.write_text(content)
        before = _numbers(folder, name)
        if before and (other := _alive(folder / f"{name}.{before[-1]}")) is not None:
            raise RunBusy(f"{folder} is held by {_words(other)}")
        held = Claim(folder, name, before[-1] + 1 if before else 1)
        try:
            os.link(aside, held.path)
        except FileExistsError:
            if aside.stat().st_nlink < 2:  # it is ours, though, where NFS repeats a request whose answer was lost
                raise
        except OSError:  # no links here: until the next line is done, the claim is alive by its age
            with held.path.open("x") as file:
                file.write(content)
        held.check()  # a number may have been used before, and deleted by a successor
        for number in before:
            (folder / f"{name}.{number}").unlink(missing_ok=True)
        return held
    except (FileExistsError, FileNotFoundError):  # another process was faster
        raise RunBusy(f"{folder} is held by {_words(holder(folder, name))}") from None
    except OSError as error:
        raise OSError(f"cannot claim {folder}: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)


def _numbers(folder: Path, name: str) -> list[int]:
    ends = (file.removeprefix(f"{name}.") for file in os.listdir(folder) if file.startswith(f"{name}."))
    return sorted(int(end) for end in ends if end.isdecimal())


def _alive(path: Path) -> dict | None:
    """What a claim says, unless it was released or its holder is dead."""
    with path.open("rb") as file:  # opening asks the server
        beat, text = os.fstat(file.fileno()).st_mtime, file.read()
    said, me = {}, _self()
    with suppress(ValueError):  # being written
        said = json.loads(text)
    if said.get("released"):
        return None
    if me["boot"] and all(said.get(key) == me[key] for key in KERNEL):
        return said if _started(said["pid"]) == said["started"] else None
    if "SLURM_JOB_ID" in me and all(said.get(key) == me.get(key) for key in JOB):
        restarts, mine = (int(each.get("SLURM_RESTART_COUNT", 0)) for each in (said, me))
        if restarts < mine:  # SLURM ends a job before it starts it once more
            return None
    return said if _clock(path.parent) - beat <= STALE else None


def _clock(folder: Path) -> float:
    """The time by the clock that signs of life are dated with, which need not agree with that of this host."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clock.") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # a reader who may not write
        return time.time()


def _self() -> dict:
    """What this process is known by."""
    pid, boot = os.getpid(), Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": platform.node(),
        "boot": boot.read_text().strip() if boot.exists() else None,
        "namespace": os.stat("/proc/self/ns/pid").st_ino if boot.exists() else None,
        "uid": os.getuid(),
        "pid": pid,
        "started": _started(pid),
        **{key: os.environ[key] for key in SAID if key in os.environ},
    }


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the kernel did; None for one that is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _words(said: dict | None) -> str:
    job = f", SLURM job {said['SLURM_JOB_ID']}" if said and "SLURM_JOB_ID" in said else ""
    return f"process {said['pid']} on {said['host']}{job}" if said else "another process"
