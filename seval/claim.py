"""Exclusive use of a folder, on any file system that several hosts share, without a lock server.

A claim is a file NAME.N; only the file with the largest N counts. A process takes a dead claim over by creating
NAME.N+1 exclusively: if several try, one wins, and no live claim is touched. The file with the largest N is never
deleted, not even on release. Otherwise N would start from 1 again, and a process that slept could win a second time.
"""

import errno
import json
import os
import platform
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from seval.errors import RunBusy
from seval.files import open_regular, sealed, told, unsealed
from seval.text import json_value, printable

NUMBER = re.compile("[1-9][0-9]*")
BEAT, STALE, POLL = 15.0, 120.0, 1.0  # seconds: between heartbeats; of silence before a claim is dead; between retries
KERNEL = ("host", "boot", "namespace", "uid")  # if these agree, both see the same process numbers
JOB = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID")
RELEASED = b'{"released": true}'
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
        """Call this before each write. Raises `RunBusy` if the claim is lost, `OSError` if the folder is gone."""
        if self.lost():
            if not self.folder.is_dir():
                raise FileNotFoundError(f"{self.folder} was deleted or renamed while this process used it")
            raise RunBusy(f"{self.folder} was taken over by {_words(holder(self.folder, self.name))}")

    def beat(self) -> None:
        """Send heartbeats until the claim is released or lost."""
        while not self.released.wait(BEAT):
            with suppress(OSError):  # the server may be unreachable for a while
                if self.lost():
                    return

    def release(self) -> None:
        """Give the claim up, by one write in place, which works on a full disk; no effect if a successor deleted it."""
        self.released.set()
        with suppress(OSError), self.path.open("r+b", buffering=0) as file:
            file.write(RELEASED.ljust(os.fstat(file.fileno()).st_size))


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
        _start(held)
        yield held
    finally:
        held.release()


def _start(held: Claim) -> None:
    """Begin the heartbeats. Raises `OSError` where the user has as many processes and threads as the system allows."""
    try:
        threading.Thread(target=held.beat, daemon=True).start()
    except RuntimeError as error:
        raise told(OSError(errno.EAGAIN, str(error)), "claim", held.folder) from None


def holder(folder: Path, name: str = "claim") -> dict | None:
    """What the claim says about its live holder; None if no live process holds the folder."""
    with suppress(FileNotFoundError):  # no folder, or just being taken over
        if numbers := _numbers(folder, name):
            return _alive(folder / f"{name}.{numbers[-1]}")
    return None


def _take(folder: Path, name: str) -> Claim:
    folder.mkdir(parents=True, exist_ok=True)
    aside, content = folder / f".{name}.{uuid4().hex}", json.dumps(sealed(_self(folder)))
    try:
        aside.write_text(content, encoding="utf-8")
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
            with held.path.open("x", encoding="utf-8") as file:
                file.write(content)
        try:
            held.check()  # the number may have been used before, and its file deleted by a successor
        except BaseException:
            held.release()
            raise
        for number in before:
            with suppress(OSError):  # another user's, in a folder where each deletes only the own files
                (folder / f"{name}.{number}").unlink(missing_ok=True)
        return held
    except (FileExistsError, FileNotFoundError):  # another process was faster
        raise RunBusy(f"{folder} is held by {_words(holder(folder, name))}") from None
    except OSError as error:
        raise told(error, "claim", folder) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _numbers(folder: Path, name: str) -> list[int]:
    ends = (file.removeprefix(f"{name}.") for file in os.listdir(folder) if file.startswith(f"{name}."))
    return sorted(int(end) for end in ends if NUMBER.fullmatch(end))  # of any length: each has a next one


def _alive(path: Path) -> dict | None:
    """What a claim says about its holder; None if it was released or its holder is dead."""
    with open_regular(path) as file:  # opening asks the server
        beat, text = os.fstat(file.fileno()).st_mtime, file.read(1 << 16)
    if text.startswith(RELEASED[:11]):  # also where only a part of it was written
        return None
    said, me = _said(text), _self(path.parent)
    if me["boot"] and all(said.get(key) == me[key] for key in KERNEL):
        return said if said["folder"] == me["folder"] and _started(said["pid"]) == said["started"] else None
    if "SLURM_JOB_ID" in me and all(said.get(key) == me.get(key) for key in JOB) and _restarts(said) < _restarts(me):
        return None  # SLURM ends a job before it restarts it
    return said if abs(_clock(path.parent) - beat) <= STALE else None


def _said(text: bytes) -> dict:
    """What a claim says; if it is half-written or damaged, its age alone tells whether it is alive."""
    with suppress(ValueError):
        said = json_value(text)
        if isinstance(said, dict):
            return unsealed(said)
    return {"unreadable": True}


def _restarts(said: dict) -> int:
    count = str(said.get("SLURM_RESTART_COUNT", 0))
    return int(count) if NUMBER.fullmatch(count[:18]) and len(count) <= 18 else 0


def _clock(folder: Path) -> float:
    """The time on the file server, whose clock dates the heartbeats. It may differ from the clock of this host."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clock.") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # no permission to write here
        return time.time()


def _self(folder: Path) -> dict:
    """What identifies this process and the folder: a copy of a claim in another folder claims nothing."""
    pid, boot = os.getpid(), Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": platform.node(),
        "boot": boot.read_text(encoding="ascii").strip() if boot.exists() else None,
        "namespace": os.stat("/proc/self/ns/pid").st_ino if boot.exists() else None,
        "uid": os.getuid(),
        "pid": pid,
        "started": _started(pid),
        "folder": folder.stat().st_ino,
        **{key: os.environ[key] for key in SAID if key in os.environ},
    }


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since the kernel started; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _words(said: dict | None) -> str:
    job = f", SLURM job {said['SLURM_JOB_ID']}" if said and "SLURM_JOB_ID" in said else ""
    return printable(f"process {said['pid']} on {said['host']}{job}") if said and "pid" in said else "another process"
