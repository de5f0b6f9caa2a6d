"""Exclusive use of a folder, on any file system that several hosts share, without a lock server.

A claim is a file NAME.N; only the file with the largest N counts. A process takes a dead claim over by creating
NAME.N+1 exclusively: if several try, one wins, and no live claim is touched. The file with the largest N is never
deleted, not even on release. Otherwise N would start from 1 again, and a process that slept could win a second time.
"""

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

BEAT, STALE, POLL = 15.0, 120.0, 1.0  # seconds: between heartbeats; of silence before a claim is dead; between retries
KERNEL = ("host", "boot", "namespace", "uid")  # if these agree, both see the same process numbers
JOB = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID")
SAID = (*JOB, "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "USER")


class Claim:
    """A claim that this process holds or held."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self.folder, self.name, self.number = folder, name, number
        self.path, self.released = folder / f"{name}.{number}", threading.Event()

    def lost(self) -> bool:
        """Whether another process took the claim over, for example while this one was suspended. Also a heartbeat."""
        try:
            os.utime(self.path)  # asks the server, which sets the time; a directory listing may come from a cache
        except FileNotFoundError:
            return True
        return _numbers(self.folder, self.name)[-1:] != [self.number]

    def check(self) -> None:
        """Call this before each write. Raises `RunBusy` if the claim is lost."""
        if self.lost():
            raise RunBusy(f"{self.folder} was taken over by {_words(holder(self.folder, self.name))}")

    def beat(self) -> None:
        """Send heartbeats until the claim is released or lost."""
        while not self.released.wait(BEAT):
            with suppress(OSError):  # the server may be unreachable for a while
                if self.lost():
                    return

    def release(self) -> None:
        """Give the claim up. Writes in place, which works on a full disk; no effect if a successor deleted the file."""
        self.released.set()
        with suppress(OSError), self.path.open("r+b") as file:
            file.write(b'{"released": true}')
            file.truncate()


@contextmanager
def claim(folder: Path, name: str = "claim", wait: float = 0.0) -> Iterator[Claim]:
    """Hold a folder exclusively, and delete the half-written files (.FILE.PROCESS) that killed processes left there.

    Raises `RunBusy` if another process holds the folder and still does after `wait` seconds.
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
    """What the claim says about its live holder; None if no live process holds the folder."""
    with suppress(FileNotFoundError):  # no folder, or just being taken over
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
            if aside.stat().st_nlink < 2:  # with 2 links it is ours: NFS repeats a request if the answer is lost
                raise
        except OSError:  # no hard links here: while the file is still empty, its age shows that the claim is alive
            with held.path.open("x") as file:
                file.write(content)
        held.check()  # the number may have been used before, and its file deleted by a successor
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
    """What a claim says about its holder; None if it was released or its holder is dead."""
    with path.open("rb") as file:  # opening asks the server
        beat, text = os.fstat(file.fileno()).st_mtime, file.read()
    said, me = {}, _self()
    with suppress(ValueError):  # half-written
        said = json.loads(text)
    if said.get("released"):
        return None
    if me["boot"] and all(said.get(key) == me[key] for key in KERNEL):
        return said if _started(said["pid"]) == said["started"] else None
    if "SLURM_JOB_ID" in me and all(said.get(key) == me.get(key) for key in JOB):
        restarts, mine = (int(each.get("SLURM_RESTART_COUNT", 0)) for each in (said, me))
        if restarts < mine:  # SLURM ends a job before it restarts it
            return None
    return said if _clock(path.parent) - beat <= STALE else None


def _clock(folder: Path) -> float:
    """The time on the file server, whose clock dates the heartbeats. It may differ from the clock of this host."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clock.") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # no permission to write here
        return time.time()


def _self() -> dict:
    """What identifies this process."""
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
    """When a process started, in clock ticks since the kernel started; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _words(said: dict | None) -> str:
    job = f", SLURM job {said['SLURM_JOB_ID']}" if said and "SLURM_JOB_ID" in said else ""
    return f"process {said['pid']} on {said['host']}{job}" if said else "another process"
