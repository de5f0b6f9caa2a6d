"""The fault injector: compiles shim.c, starts the zygote, and makes attempts of whole commands with one fault each."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.settings import ROOT

SOURCE = Path(__file__).with_name("shim.c")
ACTIONS = ("", "kill", "tear", "short", "fail", "fail from", "lie", "raise", "raise twice")
WRITES, READS = 1, 2
HUNG = "hung"


@dataclass(frozen=True)
class Fault:
    """What happens at the `at`-th call (from 1; 0: never) that touches `folder`.

    kill; tear: half of a write, then kill; short: half of it; fail: errno `value`; fail from: at all later calls too;
    lie: done, but says errno `value`; raise: signal `value`; raise twice: again `gap` calls later, at once for 0.
    """

    folder: Path
    at: int = 0
    action: str = "kill"
    value: int = 0
    gap: int = 0
    kinds: int = WRITES

    def __str__(self) -> str:
        name = os.strerror(self.value) if self.action in ("fail", "fail from", "lie") else ""
        name = signal.Signals(self.value).name if self.action.startswith("raise") else name
        return " ".join(filter(None, [self.action, name, f"at call {self.at}"]))


@dataclass(frozen=True)
class Attempt:
    """How a command ended: its exit code (negative: the signal; None: it hung), its texts, the calls it made."""

    code: int | None
    out: str
    err: str
    calls: tuple[str, ...] = ()
    fired: bool = False

    @property
    def last(self) -> str:
        """The last error, for reasons."""
        lines = self.err.strip().splitlines() or ["no message"]
        return next(
            (line for line in reversed(lines) if re.match(r"error: |\w+(\.\w+)*(Error|Interrupt)\b", line)), lines[-1]
        )


@dataclass
class Started:
    """An attempt under way."""

    pid: int
    folder: Path
    number: int


@dataclass
class Zygote:
    """Makes attempts; `close` ends it. `folder` takes the outputs and the compiled library."""

    folder: Path
    process: subprocess.Popen = field(init=False)
    number: int = 0

    def __post_init__(self) -> None:
        library = compiled(self.folder)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        one = {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.torture.zygote", str(library)],
            cwd=ROOT,
            env=os.environ | one,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self.process.communicate()

    def ask(self, **request: object) -> int | str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self,
        call: str,
        words: Sequence[object],
        fault: Fault | None = None,
        *,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
        memory: int = 0,
        file_size: int = 0,
        host: str = "",
    ) -> Started:
        """`python CALL WORDS`, where `call` is a module or `module:function`; `host` is the name it finds."""
        self.number += 1
        out, err, log = (str(self.folder / f"{self.number}.{end}") for end in ("out", "err", "log"))
        arm = None
        if fault:
            action = ACTIONS.index(fault.action) if fault.at else 0
            arm = [str(fault.folder), fault.kinds, action, fault.at, fault.value, fault.gap]
        facts = {"call": call, "words": list(map(str, words)), "out": out, "err": err, "env": env or {}, "log": log}
        facts |= {"cwd": str(cwd), "arm": arm, "memory": memory, "file_size": file_size, "others": host}
        pid = self.ask(start=facts)
        assert isinstance(pid, int)
        return Started(pid, self.folder, self.number)

    def wait(self, started: Started, limit: float = 60.0) -> Attempt | None:
        """The attempt once it has ended; None where it stopped itself. After `limit` seconds it is killed: it hung."""
        code = self.ask(wait=started.pid, limit=limit)
        if code == "stopped":
            return None
        if code == "late":
            os.kill(started.pid, signal.SIGKILL)
            self.ask(wait=started.pid, limit=10)
        files = [self.folder / f"{started.number}.{end}" for end in ("out", "err", "log")]
        out, err, log = (file.read_text(errors="replace") if file.exists() else "" for file in files)
        for file in files:
            file.unlink(missing_ok=True)
        lines = tuple(line.partition(" ")[2] for line in log.splitlines())
        calls = tuple(line.partition(" ")[2] for line in lines)
        fired = any(line.startswith("fault") for line in lines)
        return Attempt(code if isinstance(code, int) else None, out, err, calls, fired)

    def attempt(self, call: str, words: Sequence[object], fault: Fault | None = None, limit: float = 60.0, **facts):
        """`start` and `wait`."""
        found = self.wait(self.start(call, words, fault, **facts), limit)
        assert found is not None
        return found


def compiler() -> str | None:
    """A C compiler; None where there is none, or where this is no Linux with glibc."""
    has_glibc = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None) if has_glibc else None


def compiled(folder: Path) -> Path:
    """The library, compiled into the folder."""
    library = folder / "shim.so"
    cc = compiler()
    assert cc, "no C compiler"
    options = ["-O1", "-shared", "-fPIC", "-Wno-nonnull-compare", "-o", str(library)]
    subprocess.run([cc, *options, str(SOURCE), "-ldl"], check=True)
    return library
