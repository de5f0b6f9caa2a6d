"""main.py, both phases of SEVAL: killed, torn, stopped and failed at every file call; then all is as undisturbed."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from itertools import product
from pathlib import Path

from tests.torture import small
from tests.torture.lab import Lab
from tests.torture.shim import READS, WRITES, Fault
from tests.torture.table import Row

CODES = (0, 2, 4, 75, 130, -9)
MOVING = ("write", "pwrite", "pwrite64", "pwritev", "writev")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EACCES, errno.EROFS)
LIES = (errno.EEXIST, errno.ESTALE, errno.ENOENT)


def kills(lab: Lab) -> Row:
    """kill -9 before each call, and in the middle of each write."""
    expected, calls = lab.trained()
    plan = [Fault(lab.runs, n) for n in range(1, len(calls) + 1)]
    plan += [Fault(lab.runs, n, "tear") for n, call in enumerate(calls, 1) if call.split()[0] in MOVING]
    row = Row("main.py: kill -9 at each file call, torn writes")
    for fault in lab.some("kills", plan, 12):
        lab.put(None)
        done = lab.train(fault)
        problems = small.manners(done, (-9,) if done.fired else (0,))
        row.judge(fault, problems + lab.restarted(expected), done.fired)
    return row


def signals(lab: Lab) -> Row:
    """SIGTERM and Ctrl-C at each call; Ctrl-C twice, at once and some calls later."""
    expected, calls = lab.trained()
    plan = []
    for n in range(1, len(calls) + 1):
        plan += [Fault(lab.runs, n, "raise", number) for number in (signal.SIGTERM, signal.SIGINT)]
        plan += [Fault(lab.runs, n, "raise twice", signal.SIGINT, gap) for gap in (0, 1 + n % 7)]
    row = Row("main.py: SIGTERM, Ctrl-C, two Ctrl-C at each file call")
    for fault in lab.some("signals", plan, 12, 300):
        lab.put(None)
        done = lab.train(fault)
        asked = 75 if fault.value == signal.SIGTERM else 130
        row.judge(fault, small.manners(done, (0, asked)) + lab.restarted(expected), done.fired)
    return row


def errors(lab: Lab) -> Row:
    """Reads and writes that fail once or from then on, and short writes: before, amid and after training."""
    expected, calls = lab.trained()
    middle = next(n for n in range(len(calls), 0, -1) if calls[n - 1].endswith("checkpoint.pt")) - 2
    templates: dict[str, Path | None] = {"fresh": None}
    for name, fault in (("half-way", Fault(lab.runs, middle)), ("done", None)):
        lab.put(None)
        lab.train(fault)
        templates[name] = lab.runs.rename(lab.folder / f"template {name}")
    kinds = [(action, value) for action in ("fail", "fail from") for value in ERRORS] + [("short", 0)]
    plan = []
    for name, template in templates.items():
        lab.put(template)
        made = lab.train(Fault(lab.folder, kinds=READS | WRITES)).calls
        plan += [(name, Fault(lab.folder, n, *kind, kinds=READS | WRITES)) for n, kind in product(span(made), kinds)]
    row = Row("main.py: EIO, ENOSPC, EDQUOT, ESTALE, EACCES, EROFS, once and from then on, short reads and writes")
    for name, fault in lab.some("errors", plan, 24, 500):
        lab.put(templates[name])
        done = lab.train(fault)
        row.judge(f"{name}, {fault}", small.manners(done, (0, 2)) + lab.restarted(expected), done.fired)
    return row


def lies(lab: Lab) -> Row:
    """link, rename, utime and mkdir that succeed but say that they failed, as NFS does when it repeats a request."""
    expected, calls = lab.trained()
    telling = ("link", "rename", "utimensat", "mkdir", "unlink")
    places = [n for n, call in enumerate(calls, 1) if call.split()[0] in telling]
    row = Row("main.py: link, rename, utime, mkdir, unlink done but said to fail")
    for n, value in lab.some("lies", list(product(places, LIES)), 8, 90):
        lab.put(None)
        done = lab.train(fault := Fault(lab.runs, n, "lie", value))
        row.judge(f"{fault} ({calls[n - 1]})", small.manners(done, (0, 2, 4)) + lab.restarted(expected), done.fired)
    return row


def chains(lab: Lab) -> Row:
    """One or two processes at once, signals at random times, until the runs are done."""
    expected, _ = lab.trained()
    row = Row("main.py: random signals to one or two processes, chains of starts")
    numbers = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGSTOP)
    for number in range(30 if lab.full else 2):
        rng = random.Random(f"chain {number}")
        lab.put(None)
        problems: list[str] = []
        for _ in range(6):
            going = [lab.zygote.start("main", small.words(lab.data, lab.runs)) for _ in range(rng.randint(1, 2))]
            for each in going:
                time.sleep(rng.uniform(0, 0.6))
                disturb(each.pid, rng.choice(numbers))
            for each in going:
                done = lab.zygote.wait(each)
                if done is None:  # it was suspended
                    disturb(each.pid, signal.SIGCONT)
                    done = lab.zygote.wait(each)
                problems += small.manners(done, (*CODES, -15, -12, -2)) if done else ["it is suspended"]
        row.judge(f"chain {number}", problems + lab.restarted(expected))
    return row


def disturb(pid: int, number: int) -> None:
    """A signal to a child of the zygote, which may have ended but has not been waited for."""
    os.kill(pid, number)


def span(calls: tuple[str, ...]) -> range:
    return range(1, len(calls) + 1)


CAMPAIGNS = (kills, signals, errors, lies, chains)
