"""Who holds a run: suspended holders that wake up after a successor, and many processes that race for the same runs."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

from tests.torture import small
from tests.torture.lab import Lab
from tests.torture.shim import Attempt, Fault, Started
from tests.torture.table import Row
from tests.torture.training import CODES, disturb

OLD = 3600.0  # seconds of silence, after which every holder counts as dead


def silence(runs: Path) -> None:
    """Let every claim look as if its holder had given no sign of life for long."""
    for path in runs.glob("*/claim.*"):
        os.utime(path, (time.time() - OLD,) * 2)


def contents(runs: Path) -> dict[str, str]:
    """By name, what no late writer may change."""
    files = [path for path in runs.glob("*/*") if not path.name.startswith((".", "claim."))]
    return {path.relative_to(runs).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def suspend(lab: Lab, at: int) -> Started | None:
    """A holder that stops itself before its call `at`; None where it ended earlier."""
    first = lab.zygote.start("main", small.words(lab.data, lab.runs), Fault(lab.runs, at, "raise", signal.SIGSTOP))
    return first if lab.zygote.wait(first) is None else None


def wake(lab: Lab, first: Started) -> Attempt:
    disturb(first.pid, signal.SIGCONT)
    done = lab.zygote.wait(first)
    assert done is not None
    return done


def suspended(lab: Lab) -> Row:
    """A holder is suspended at a call; another host's process takes over and ends or is killed; the first wakes."""
    expected, calls = lab.trained()
    row = Row("main.py: a holder suspended at a file call, a successor of another host, the holder wakes")
    rng = random.Random("successor")
    plan = [(at, rng.choice((0, rng.randint(8, 40), rng.randint(8, 60)))) for at in range(1, len(calls) + 1)]
    for at, end in lab.some("suspended", plan, 8):
        lab.put(None)
        first = suspend(lab, at)
        if first is None:
            row.judge(at, ["it was not suspended"])
            continue
        silence(lab.runs)
        second = lab.train(Fault(lab.runs, end), host="another")
        problems = [f"successor: {each}" for each in small.manners(second, (-9,) if second.fired else (0,))]
        before = contents(lab.runs)
        third = wake(lab, first)
        problems += [f"on waking: {each}" for each in small.manners(third, (0, 4))]
        under_way = calls[at - 1].split()[-1]  # no lock can hold back a call that had begun
        late = [name for name, content in contents(lab.runs).items() if before.get(name) not in (None, content)]
        problems += [f"late write: {Path(name).name}" for name in late if not under_way.endswith(name)]
        silence(lab.runs)
        again = lab.train(host="another")
        problems += [f"restart: {each}" for each in small.manners(again, (0,))]
        problems += [f"restart: {each}" for each in small.differences(small.state(lab.runs), expected)]
        row.judge(
            f"suspended at call {at} ({calls[at - 1].split()[0]} {Path(under_way).name}), successor {end}", problems
        )
    return row


def races(lab: Lab) -> Row:
    """Processes of two hosts start at once, some are killed; each run is trained to the same end."""
    expected, _ = lab.trained()
    row = Row("main.py: five processes race for the same runs, some are killed")
    for number in range(12 if lab.full else 2):
        rng, problems = random.Random(f"race {number}"), []
        lab.put(None)
        for _ in range(2):
            words = small.words(lab.data, lab.runs)
            going = [lab.zygote.start("main", words) for _ in range(5)]
            time.sleep(rng.uniform(0.1, 1.2))
            for each in rng.sample(going, 2):
                disturb(each.pid, signal.SIGKILL)
            for each in going:
                done = lab.zygote.wait(each)
                problems += small.manners(done, CODES) if done else ["it is suspended"]
        row.judge(f"race {number}", problems + lab.restarted(expected))
    return row


CAMPAIGNS = (suspended, races)
