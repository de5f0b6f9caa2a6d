"""submit.py and aggregate.py: every file call fails, is killed or interrupted; nothing is done or queued twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import yaml

from repro.launch.queue import Submission, submissions
from tests.launch.fake_slurm import Fake
from tests.torture import small
from tests.torture.lab import Lab
from tests.torture.shim import READS, WRITES, Attempt, Fault
from tests.torture.table import Row
from tests.torture.training import ERRORS, MOVING, span

TOOLS = ("awk", "bash", "cat", "cp", "git", "grep", "rm", "sed", "seq", "sleep", "touch")


def write_table(lab: Lab) -> Path:
    """Two rows of one seed, three runs with the prerequisite of one."""
    keys = small.KEYS | {"DATASET.ROOT": str(lab.data), "RUNTIME.TENSORBOARD": False}
    content = {"title": "T", "folder": "tiny", "seeds": [0], "columns": {"LT": {}}, "protocol": "last"}
    content["set"] = [word for pair in keys.items() for word in pair]
    content["rows"] = {"FixMatch": {"config": "fixmatch"}, "SEVAL": {"config": "fixmatch_seval_load"}}
    (path := lab.folder / "t.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class Launching:
    """The commands on one table, with `runs` and `out` of the lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.table, self.out = lab, write_table(lab), lab.folder / "out"

    def submit(self, *words: object, fault: Fault | None = None, **facts) -> Attempt:
        asked = ["--table", self.table, "--output-dir", self.lab.runs, *words]
        return self.lab.zygote.attempt("repro.submit", asked, fault, limit=120, **facts)

    def status(self) -> Attempt:
        return self.lab.zygote.attempt("repro.status", ["--table", self.table, "--output-dir", self.lab.runs], limit=20)

    def aggregate(self, fault: Fault | None = None, out: Path | None = None, **facts) -> Attempt:
        words = ["--table", self.table, "--output-dir", self.lab.runs, "--out", out or self.out, "--strict"]
        return self.lab.zygote.attempt("repro.aggregate", words, fault, **facts)


def faults(folder: Path, calls: Sequence[str], kinds: int = WRITES) -> list[Fault]:
    """Of every kind, at each call."""
    make = partial(Fault, folder, kinds=kinds)
    plan = [make(n, *kind) for n, kind in product(span(calls), [("kill",), ("raise", signal.SIGINT)])]
    plan += [make(n, action, value) for n in span(calls) for action in ("fail", "fail from") for value in ERRORS]
    return plan + [
        make(n, kind) for n in span(calls) for kind in ("tear", "short") if calls[n - 1].split()[0] in MOVING
    ]


def codes_of(done: Attempt, fault: Fault, ended: tuple[int, ...]) -> tuple[int, ...]:
    """The exit codes that are promised after a fault."""
    if not done.fired:
        return (0,)
    return {"kill": (-9,), "tear": (-9,), "raise": (130,)}.get(fault.action, ended)


def debug(lab: Lab) -> Row:
    """submit.py --cluster debug, whose runs are done in its process."""
    launch, row = Launching(lab), Row("submit.py --cluster debug: kill -9, Ctrl-C, I/O errors, torn writes")
    small.clear(lab.runs)
    done = launch.submit("--cluster", "debug", fault=Fault(lab.runs))
    assert done.code == 0, done.err
    expected = small.state(lab.runs)
    for fault in lab.some("debug", faults(lab.runs, done.calls), 6, 100):
        small.clear(lab.runs)
        done = launch.submit("--cluster", "debug", fault=fault)
        problems = small.manners(done, codes_of(done, fault, (0, 1)))
        again = launch.submit("--cluster", "debug")
        problems += small.manners(again, (0,)) + small.differences(small.state(lab.runs), expected)
        row.judge(fault, problems, done.fired)
    return row


def local(lab: Lab) -> Row:
    """submit.py --cluster local, whose runs are done by processes of their own, ended again and again."""
    launch, row = Launching(lab), Row("submit.py --cluster local: submitters ended at random times")
    small.clear(lab.runs)
    assert launch.submit("--cluster", "debug").code == 0
    expected = small.state(lab.runs)
    words = ["--table", launch.table, "--output-dir", lab.runs, "--cluster", "local", "--jobs", 2]
    for number in range(4 if lab.full else 1):
        rng, problems = random.Random(f"local {number}"), []
        small.clear(lab.runs)
        for signum in rng.sample((signal.SIGKILL, signal.SIGINT, signal.SIGTERM), 3 if lab.full else 1):
            submitter = lab.zygote.start("repro.submit", words)
            time.sleep(rng.uniform(1, 15))
            os.kill(submitter.pid, signum)
            done = lab.zygote.wait(submitter, 120)
            problems += small.manners(done, (0, 130, -9)) if done else ["it is suspended"]
        again = lab.zygote.attempt("repro.submit", words, limit=300)
        problems += [f"again: {each}" for each in small.manners(again, (0,))]
        found = small.differences(small.state(lab.runs), expected)
        problems += [each for each in found if each != "config.yaml differs"]  # it says RUNTIME.THREADS 1
        deadline = time.monotonic() + 30
        while (left := processes(lab.runs)) and time.monotonic() < deadline:
            time.sleep(0.5)
        row.judge(f"round {number}", problems + [f"a process is left: {each}" for each in left])
    return row


def processes(folder: Path) -> list[str]:
    """The commands that are running and name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in found if str(folder) in command]


class Slurm:
    """A pretended SLURM of programs on PATH, and a site for it."""

    def __init__(self, lab: Lab) -> None:
        self.folder, self.site, self.tools = lab.folder / "fake", lab.folder / "site.yaml", lab.folder / "tools"
        self.site.write_text("{gres: '', tries: 2, patience: 5, resources: {default: {minutes: 60, memory_gb: 4}}}")
        self.tools.mkdir()
        for name in filter(shutil.which, TOOLS):
            (self.tools / name).symlink_to(str(shutil.which(name)))
        self.fresh()

    def fresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.fake = Fake(self.folder)

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.fake.bin}:{self.tools}", "SEVAL_SITE": str(self.site)}

    def queued(self, folder: Path) -> Counter[str]:
        """How often each run is in the queue, by the ledgers."""
        found: Counter[str] = Counter()
        ledgers: dict[str, Submission] = {made.name: made for made in submissions(folder)}
        for id, (name, *_) in self.fake.queue().items():
            ledger = ledgers.get(name)
            found.update(ledger.elements[int(id.partition("_")[2] or 0)] if ledger else [f"{name} has no ledger"])
        return found


def slurm(lab: Lab) -> Row:
    """submit.py on a pretended SLURM; afterwards every run is in the queue exactly once."""
    launch, pretended = Launching(lab), Slurm(lab)
    row = Row("submit.py on a pretended SLURM: kill -9, Ctrl-C, I/O errors, torn writes, lost answers")
    small.clear(lab.runs)
    done = launch.submit(fault=Fault(lab.runs), env=pretended.env)
    assert done.code == 0, done.err
    once = pretended.queued(lab.runs / "slurm")
    assert len(once) == 3 and set(once.values()) == {1}, once
    plan: list[Fault | str] = [*faults(lab.runs, done.calls), "lost slurm is busy, try again", "lost Unspecified error"]
    for fault in lab.some("slurm", plan[:-2], 20, 200) + plan[-2:]:
        small.clear(lab.runs)
        pretended.fresh()
        if isinstance(fault, str):
            pretended.fake.plan("sbatch", fault)
            done = launch.submit(env=pretended.env)
            problems = small.manners(done, (0, 1))
        else:
            done = launch.submit(fault=fault, env=pretended.env)
            problems = small.manners(done, codes_of(done, fault, (0, 1, 2)))
        again = launch.submit(env=pretended.env)
        problems += [f"again: {each}" for each in small.manners(again, (0,))]
        if (found := pretended.queued(lab.runs / "slurm")) != once:
            problems.append(f"again: not every run is queued once, but {sorted(found.values())}")
        if left := [path.name for path in (lab.runs / "slurm").glob(".*")]:
            problems.append(f"again: {len(left)} temporary file is left over")
        row.judge(fault, problems)
    return row


def aggregate(lab: Lab) -> Row:
    """aggregate.py over finished runs; each of its files is whole, old or new."""
    launch, row = Launching(lab), Row("aggregate.py: kill -9, Ctrl-C, I/O errors on reads and writes, torn writes")
    small.clear(lab.runs)
    assert launch.submit("--cluster", "debug").code == 0
    small.clear(launch.out)
    assert launch.aggregate().code == 0
    expected = {path.name: path.read_bytes() for path in launch.out.iterdir()}
    calls = launch.aggregate(Fault(lab.folder, kinds=READS | WRITES)).calls
    for fault in lab.some("aggregate", faults(lab.folder, calls, READS | WRITES), 60, 500):
        small.clear(launch.out)
        done = launch.aggregate(fault)
        problems = small.manners(done, codes_of(done, fault, (0, 2)))
        for path in launch.out.iterdir():
            if expected.get(path.name) not in (None, path.read_bytes()):
                problems.append(f"{path.suffix} is not whole")
        for path in launch.out.glob(".*"):  # a young one may be a living writer's
            os.utime(path, (0, 0))
        problems += [f"again: {each}" for each in small.manners(launch.aggregate(), (0,))]
        if {path.name: path.read_bytes() for path in launch.out.iterdir()} != expected:
            problems.append(f"again: {sorted(os.listdir(launch.out))} are not the same files")
        row.judge(fault, problems, done.fired)
    return row


CAMPAIGNS = (debug, local, slurm, aggregate)
