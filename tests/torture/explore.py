"""Many small cases in one process of the zygote; what it prints is judged, as it may crash or hang."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.torture.lab import Lab
from tests.torture.table import Row

SECONDS = 5  # of one case
ROOM = 1 << 30  # bytes of memory more than at the start
LONGEST = 2000  # characters of a message


class Hang(BaseException):
    """A case took longer than SECONDS."""


def explore(cases: Iterable[tuple[str, Callable[[], object]]], expected: tuple[type[BaseException], ...]) -> int:
    """Try each case, a name and a function that returns what is wrong (or nothing), or raises what is `expected`."""
    limit(ROOM)
    signal.signal(signal.SIGALRM, _late)
    for name, function in cases:
        print(json.dumps(["case", name[:1000]]), flush=True)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            problem = function()
        except Hang:
            problem = f"it takes more than {SECONDS} seconds"
        except expected as error:
            problem = impolite(str(error))
        except BaseException as error:
            problem = f"raises {type(error).__name__}: {str(error)[:100]}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        if problem:
            print(json.dumps(["problem", str(problem)]), flush=True)
    print(json.dumps(["end", ""]), flush=True)
    return 0


def _late(*_: object) -> None:
    raise Hang


def limit(room: int) -> None:
    """Allow so many bytes of memory beyond what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def impolite(message: str) -> str:
    """What is wrong with a message: more than one line, too long, or empty."""
    if "\n" in message:
        return f"a message of several lines: {message.splitlines()[0][:80]}"
    if len(message) > LONGEST:
        return f"a message of {len(message)} characters"
    return "" if message.strip() else "an empty message"


def judged(lab: Lab, row: Row, call: str, *words: object, seconds: float = 600) -> None:
    """Have the cases of `call` tried, and judge them; a crash counts for the case at which it happened."""
    done = lab.zygote.attempt(call, words, limit=seconds)
    case, problems, ended = None, [], False
    for line in done.out.splitlines():
        kind, text = json.loads(line)
        if kind == "problem":
            problems.append(text)
            continue
        if case is not None:
            row.judge(case, problems)
        case, problems, ended = text, [], kind == "end"
    if not ended:
        row.judge(case, [*problems, f"the process ends with {done.code}: {done.last}"])
