"""What SLURM reports about what was submitted.

SLURM is asked a limited number of times; no answer is an error, never "nothing is queued".
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repro.launch.answers import ENDED, Answer, Row
from repro.launch.environment import slurm_environment
from repro.launch.ledger import Submission, submissions
from seval.text import short, shown

#: The state of an element about which SLURM says something that cannot be read.
UNREAD = "?"


class SlurmError(RuntimeError):
    """SLURM does not answer, or refuses a request."""


@dataclass(frozen=True)
class Job:
    """One element of an array, as SLURM last knew it."""

    id: str  # 12_3, or 12 where the array had one element
    state: str  # in SLURM's words; "" where squeue no longer knows the element; `UNREAD`
    submission: Submission
    reason: str = ""  # of "" what sacct still says, of `UNREAD` the line that cannot be read
    exit_code: int | None = None  # known to accounting only
    signal: int = 0

    @property
    def live(self) -> bool:
        """Whether it is queued or running; an element whose dependency can never be met is neither."""
        never = self.state == "PENDING" and self.reason == "DependencyNeverSatisfied"
        return not never and self.state not in {"", UNREAD, *ENDED}


class Queue:
    """The few questions that SLURM is asked, each with `tries` attempts of `patience` seconds."""

    def __init__(self, tries: int = 3, patience: int = 30) -> None:
        self.tries, self.patience = tries, patience

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One attempt, in the environment of every command of SLURM."""
        clean = slurm_environment() | {"SLURM_BITSTR_LEN": "0"}  # or long lists end in ...
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=self.patience, env=clean
        )

    def ask(self, *command: str) -> str:
        """The output of a command. Raises `SlurmError`."""
        if shutil.which(command[0]) is None:
            raise SlurmError(f"there is no {command[0]} on PATH")
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(2**attempt, self.patience))
            try:
                done = self.call(*command)
            except subprocess.TimeoutExpired:
                error = f"no answer within {self.patience} s"
                continue
            if done.returncode == 0:
                return done.stdout
            error = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            error = error[0]
        raise SlurmError(f"`{command[0]}` failed {self.tries} times: {error}")

    def jobs(self, made: Sequence[Submission]) -> dict[tuple[str, int], Job]:
        """By name and index, the elements that SLURM still knows. Raises `SlurmError` if it does not answer.

        An element about which a line cannot be read is neither live nor ended, unless another line says so.
        """
        by_name = {each.name: each for each in made}
        answer = self._answer("squeue", by_name, "--array", "--states=all", "--format=%j|%i|%T|%r")
        found = {key: Job(row.id, row.state, by_name[row.name], row.more) for key, row in answer.rows.items()}
        _unread("squeue", answer, by_name, found)
        ended = {name for (name, _), job in found.items() if not job.live}
        missing = {
            name: each
            for name, each in by_name.items()
            if name in ended or any(key not in found for key in each.keys())
        }
        for key, job in self._accounts(missing).items():  # which may learn of an end late, or never
            before = found.get(key)
            if before is None or (job.state in ENDED and not before.live and before.state != UNREAD):
                found[key] = job
        for name in {name for (name, _), job in found.items() if not job.state and "PENDING" not in job.reason}:
            warn(f"sacct calls elements of {name} running that squeue does not know; they are taken for ended")
        silent = (key not in found or not found[key].state for each in missing.values() for key in each.keys())
        if answer.foreign and not (answer.rows or answer.unreadable) and any(silent):  # it may be no answer at all
            raise SlurmError(f"`squeue` gave an answer that cannot be read: {short(answer.foreign)}")
        return found

    def _accounts(self, missing: Mapping[str, Submission]) -> dict[tuple[str, int], Job]:
        """Elements by what accounting knows; none where a site has no accounting or it does not answer."""
        if not missing or shutil.which("sacct") is None:
            return {}
        since = min(time.time(), *(each.created for each in missing.values())) - 86400
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(max(0, since)))
        what = ("--parsable2", "--allocations", "--allusers", f"--starttime={start}")
        try:
            answer = self._answer("sacct", missing, *what, "--format=JobName,JobID,State,ExitCode")
        except SlurmError as error:
            if "disabled" not in str(error):
                warn(f"how jobs ended is not known: {error}")
            return {}
        if answer.foreign and not (answer.rows or answer.unreadable):
            warn(f"how jobs ended may not be known: `sacct` names none of them, but says {short(answer.foreign)}")
        found = {key: _account(row, missing[row.name]) for key, row in answer.rows.items()}
        _unread("sacct", answer, missing, found)
        return found

    def _answer(self, command: str, made: Mapping[str, Submission], *options: str) -> Answer:
        """What squeue or sacct says about these submissions, by name. Raises `SlurmError`."""
        lengths = {name: len(each.elements) for name, each in made.items()}
        answer = Answer()
        for names in _chunks(list(made), 500):
            text = self.ask(command, "--noheader", *options, "--name=" + ",".join(names))
            answer.add(command, text, lengths)
        return answer

    def largest_array(self) -> int | None:
        """How many elements an array may have; None where SLURM does not say."""
        with suppress(SlurmError):
            if found := re.search(r"MaxArraySize\s*=\s*(\d{1,9})\b", self.ask("scontrol", "show", "config")):
                return max(1, int(found[1]) - 1)  # 0 is a site without arrays
        return None

    def cancel(self, targets: Iterable[str]) -> None:
        """End elements; that some have ended already is no error."""
        for some in _chunks(list(targets), 200):
            self.ask("scancel", "--quiet", *some)

    def cancel_name(self, name: str) -> None:
        """End every job of that name."""
        self.ask("scancel", "--quiet", f"--name={name}")


def latest(
    folder: Path, queue: Queue, wanted: Iterable[str], tell: Callable[[str], object] | None = None
) -> dict[str, Job]:
    """By id, the last element that each of the `wanted` runs was part of; SLURM is not asked about other arrays.

    Raises `SlurmError`, and what `submissions` raises.
    """
    wanted, last = set(wanted), {}
    for made in submissions(folder, tell):
        for index, element in enumerate(made.elements):
            last |= {id: (made, index) for id in element if id in wanted}
    known = queue.jobs(list({made.name: made for made, _ in last.values()}.values()))
    return {id: known.get((made.name, index), Job("", "", made)) for id, (made, index) in last.items()}


def _unread(command: str, answer: Answer, made: Mapping[str, Submission], found: dict[tuple[str, int], Job]) -> None:
    """Add the elements about which a line may be that cannot be read, with a warning; that line may say they live."""
    for name, line in sorted(answer.unreadable.items()):
        warn(f"`{command}` says of {name} what cannot be read: {short(line)}")
        for key in made[name].keys():
            if key not in found or (command == "squeue" and not found[key].live):
                found[key] = Job("", UNREAD, made[name], f"`{command}` says {short(line)}")


def _account(row: Row, made: Submission) -> Job:
    """An element by its row of sacct. One that has not ended there, but is not in the queue, was never closed."""
    if row.state not in ENDED:
        return Job(row.id, "", made, f"sacct still calls job {row.id} {row.state}, but squeue does not know it")
    status, _, signal = row.more.partition(":")
    return Job(row.id, row.state, made, exit_code=int(status or 0), signal=int(signal or 0))


def warn(text: str) -> None:
    """Say on stderr what may be wrong."""
    print(shown(f"warning: {text}"), file=sys.stderr)


def _chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
